"""The Kafka sink against a real broker: Apache Kafka in KRaft mode, one process, from Maven's jars."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from tests.doubles import engines, mixers
from tests.integration.programs import free_port, jars, program

VERSION = "4.3.1"
MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
FEATURE = {"name": "score", "source": "backend", "backend": "a", "value": "score"}
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
log.dirs={folder}/data
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """A fresh broker that answers."""
    port, properties = free_port(), tmp_path / "server.properties"
    properties.write_text(PROPERTIES.format(broker=port, controller=free_port(), folder=tmp_path))
    java = [
        "java",
        "-Xmx256m",
        "-cp",
        f"{jars(f'kafka-{VERSION}', f'org.apache.kafka:kafka_2.13:{VERSION}')}/*",
    ]
    name = ["-t", "bWl4ZXItdGVzdC1jbHVzdA", "-c", str(properties)]
    subprocess.run([*java, "kafka.tools.StorageTool", "format", *name], check=True, capture_output=True)
    servers = f"127.0.0.1:{port}"
    with program([*java, "kafka.Kafka", properties], tmp_path / "broker.log", lambda: has_topics(servers)):
        yield servers


def has_topics(servers: str) -> bool:
    """Whether the broker tells what it holds."""
    try:
        return AdminClient({"bootstrap.servers": servers}).list_topics(timeout=2.0) is not None
    except KafkaException:
        return False


def messages(servers: str, topic: str, count: int) -> dict[str, dict[str, object]]:
    rules = {"bootstrap.servers": servers, "group.id": "test", "auto.offset.reset": "earliest"}
    consumer = Consumer({**rules, "allow.auto.create.topics": True})
    consumer.subscribe([topic])
    read: dict[str, dict[str, object]] = {}
    for _ in range(60):
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            read[(message.key() or b"").decode()] = json.loads(message.value() or b"{}")
        if len(read) == count:
            break
    consumer.close()
    return read


async def test_served_searches_arrive_at_a_broker(broker: str) -> None:
    """Every search served is a message of the topic, keyed by its query id, and nothing is dropped."""
    sink = {
        "kind": "kafka",
        "servers": broker,
        "topic": "searches",
        "options": {"message.timeout.ms": 60_000},
    }
    settings = mixers.settings(
        {"a": MEMORY}, {"features": [FEATURE]}, feature_log={"sinks": [sink], "drain_s": 50.0}
    )
    async with mixers.running(settings) as mixer:
        served = {result.query_id: result for result in [await mixer.search("csv file") for _ in range(50)]}
    read = messages(broker, "searches", len(served))
    assert read.keys() == served.keys()
    for id_, result in served.items():
        assert read[id_]["ids"] == [hit.id for hit in result.hits]
    assert mixer.value("mixer_feature_log_dropped_total", reason="kafka_failed") == 0
