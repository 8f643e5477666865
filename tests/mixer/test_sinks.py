from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer, Producer
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from mixer.log_settings import FeatureLogSettings
from mixer.logged import SCHEMA, Conversion, Declared, Entry
from mixer.metrics import Metrics
from mixer.parquet import Rotating
from mixer.settings import Secrets
from mixer.sinks import Around, Sink, open_sink
from tests.doubles import collectors
from tests.samples import answer, request

TRACE = "0123456789abcdef0123456789abcdef"
CONVERT = Conversion({"default": Declared("s", frozenset())}, str)


class Opened:
    """A sink of these settings, and what was counted."""

    def __init__(self, secrets: Secrets | None = None, **settings: Any) -> None:
        self.metrics = Metrics()
        [declared] = FeatureLogSettings.model_validate({"sinks": [settings]}).sinks
        around = Around(SCHEMA, "mixer-test", self.metrics, secrets or Secrets())
        self.sink: Sink = open_sink(declared, around)

    def dropped(self, reason: str) -> float:
        value = self.metrics.registry.get_sample_value("mixer_feature_log_dropped_total", {"reason": reason})
        return value or 0.0


def rows(*ids: str, trace_id: str = TRACE) -> pa.RecordBatch:
    return CONVERT([Entry(answer(request(query_id=id_)), trace_id, 1_700_000_000_000_001) for id_ in ids])


def test_parquet_ends_files_at_the_end(tmp_path: Path) -> None:
    """Rows are read when the sink is closed; every file is counted."""
    opened = Opened(kind="parquet", folder=str(tmp_path / "log"))
    opened.sink.turn()
    opened.sink.write(rows("a", "b"))
    opened.sink.close(1.0)
    [path] = tmp_path.rglob("*.parquet")
    assert pq.ParquetFile(path).read()["query_id"].to_pylist() == ["a", "b"]
    assert opened.metrics.registry.get_sample_value("mixer_feature_log_files_total") == 1


def test_parquet_finds_what_was_left_behind(tmp_path: Path) -> None:
    """A new sink makes files of the spools of processes that were killed."""
    killed = Rotating(tmp_path, SCHEMA)
    killed.append(rows("a"))
    [spool] = tmp_path.rglob(".*.arrows")
    killed._open.popitem()[1].close()
    Opened(kind="parquet", folder=str(tmp_path)).sink.close(1.0)
    [path] = tmp_path.rglob("*.parquet")
    assert pq.ParquetFile(path).read()["query_id"].to_pylist() == ["a"]
    assert not spool.exists()


def test_a_folder_that_cannot_be_made_is_a_failure_at_start(tmp_path: Path) -> None:
    """Not one that is found hours later."""
    (tmp_path / "log").write_text("a file")
    with pytest.raises(OSError, match="log"):
        Opened(kind="parquet", folder=str(tmp_path / "log"))


def records(collector: collectors.Collector) -> list[tuple[str, LogRecord]]:
    """Every log record with the name of the service that sent it."""
    requests = map(ExportLogsServiceRequest.FromString, collector.messages)
    return [
        (resource.resource.attributes[0].value.string_value, record)
        for request in requests
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def test_otlp_sends_a_record_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its body is the whole row, its attributes tell who answered, and it belongs to the trace of its request."""
    with collectors.over_http() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        opened = Opened(kind="otlp")
        opened.sink.write(rows("a"))
        opened.sink.write(rows("b", trace_id=""))
        opened.sink.close(10.0)
    sent = {json.loads(record.body.string_value)["query_id"]: record for _, record in records(collector)}
    assert collector.headers[0]["path"] == "/v1/logs"
    assert (sent["a"].trace_id.hex(), sent["b"].trace_id.hex()) == (TRACE, "")
    assert (sent["a"].time_unix_nano, sent["a"].event_name) == (1_700_000_000_000_001_000, "mixer.search")
    attributes = {pair.key: pair.value for pair in sent["a"].attributes}
    assert attributes["mixer.query_id"].string_value == "a"
    assert attributes["mixer.degraded"].bool_value is False
    assert json.loads(sent["a"].body.string_value)["features"] == [[2.0, 4.0], [1.0, None]]
    assert opened.dropped("otlp_failed") == opened.dropped("otlp_queue_full") == 0


async def test_otlp_speaks_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the environment says, or where it says nothing of the protocol."""
    import asyncio

    async with collectors.over_grpc(collectors.LOGS) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        opened = await asyncio.to_thread(Opened, kind="otlp")
        await asyncio.to_thread(opened.sink.write, rows("a"))
        await asyncio.to_thread(opened.sink.close, 10.0)
    assert [record.event_name for _, record in records(collector)] == ["mixer.search"]


def test_otlp_counts_what_does_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that is down costs counted rows, whether they waited, found no place, or were refused."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BLRP_MAX_QUEUE_SIZE", "10")
    opened = Opened(kind="otlp")
    opened.sink.write(rows(*map(str, range(30))))
    opened.sink.close(10.0)
    assert opened.dropped("otlp_queue_full") >= 10
    assert opened.dropped("otlp_queue_full") + opened.dropped("otlp_failed") == 30


@pytest.fixture
def brokers() -> Any:
    """librdkafka's own cluster of protocol doubles, which lives as long as its client."""
    client = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused"})
    metadata = client.list_topics(timeout=10)
    [broker] = metadata.brokers.values()
    yield f"{broker.host}:{broker.port}"
    client.flush(0)


def consumed(servers: str, topic: str, count: int) -> list[tuple[str, dict[str, Any]]]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    try:
        return [read(consumer.poll) for _ in range(count)]
    finally:
        consumer.close()


def read(poll: Callable[[float], Any]) -> tuple[str, dict[str, Any]]:
    for _ in range(30):
        message = poll(1.0)
        if message is not None and message.error() is None:
            return message.key().decode(), json.loads(message.value())
    raise AssertionError("no message came")


def test_kafka_sends_a_message_a_row(brokers: str) -> None:
    """Its key is the query id, so that one query's rows stay in order; its value the whole row."""
    opened = Opened(kind="kafka", servers=brokers, topic="searches", options={"linger.ms": 1})
    opened.sink.write(rows("a", "b"))
    opened.sink.turn()
    opened.sink.close(20.0)
    sent = dict(consumed(brokers, "searches", 2))
    assert sent.keys() == {"a", "b"}
    assert sent["a"]["features"] == [[2.0, 4.0], [1.0, None]]
    assert opened.dropped("kafka_failed") == 0


def test_kafka_counts_what_does_not_arrive() -> None:
    """Brokers that are down: what finds no place in the queue, and what is left at the end, is counted."""
    opened = Opened(
        kind="kafka",
        servers="127.0.0.1:9",
        topic="t",
        options={"queue.buffering.max.messages": 5},
    )
    opened.sink.write(rows(*map(str, range(12))))
    opened.sink.close(0.1)
    assert (opened.dropped("kafka_queue_full"), opened.dropped("kafka_failed")) == (7, 5)


def test_an_unknown_option_of_kafka_is_a_failure_at_start() -> None:
    """It says which; the password comes from the environment alone."""
    with pytest.raises(ValueError, match=r"no\.such\.option"):
        Opened(kind="kafka", servers="127.0.0.1:9", topic="t", options={"no.such.option": 1})
    secrets = Secrets.from_environment({"MIXER_KAFKA_PASSWORD": "s3cret"})
    options = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "u"}
    Opened(secrets, kind="kafka", servers="127.0.0.1:9", topic="t", options=options).sink.close(0.0)


def test_kafka_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """At start, and only where the sink is asked for."""
    monkeypatch.setitem(__import__("sys").modules, "confluent_kafka", None)
    with pytest.raises(ValueError, match=r"\.\[kafka\]"):
        Opened(kind="kafka", servers="127.0.0.1:9", topic="t")
