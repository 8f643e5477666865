"""The Kafka sink against a real broker: Apache Kafka in KRaft mode, one process, from Maven's jars."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from tests.doubles import engines, mixers

VERSION = "4.3.1"
ROOT = Path(__file__).parents[2]
MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
FEATURE = {"name": "score", "source": "backend", "backend": "a", "value": "score"}
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>mixer</groupId><artifactId>kafka</artifactId><version>1</version>
<packaging>pom</packaging><dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
</dependency></dependencies></project>
"""
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


@pytest.fixture(scope="module")
def jars() -> Path:
    """Kafka's own, kept in .tools. Whatever cannot be fetched is an error, never skipped."""
    folder = Path(os.environ.get("MIXER_TOOLS", ROOT / ".tools")) / f"kafka-{VERSION}"
    if not folder.exists():
        scratch = folder.with_name(f".{folder.name}")
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / "pom.xml").write_text(POM)
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={scratch}/jars"]
        subprocess.run(["mvn", "-q", "-B", "-f", str(scratch / "pom.xml"), *copy], check=True, timeout=300)
        (scratch / "jars").rename(folder)
        shutil.rmtree(scratch)
    return folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def broker(jars: Path, tmp_path: Path) -> Iterator[str]:
    """A fresh broker; librdkafka waits until it is up."""
    port, properties = free_port(), tmp_path / "server.properties"
    properties.write_text(PROPERTIES.format(broker=port, controller=free_port(), folder=tmp_path))
    java = ["java", "-Xmx256m", "-cp", f"{jars}/*"]
    name = ["-t", "bWl4ZXItdGVzdC1jbHVzdA", "-c", str(properties)]
    subprocess.run([*java, "kafka.tools.StorageTool", "format", *name], check=True, capture_output=True)
    with (tmp_path / "broker.log").open("wb") as said:
        process = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=said, stderr=said)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


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
