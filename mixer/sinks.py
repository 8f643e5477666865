"""Where the rows of the feature log go: one class a kind of sink, and a literal table of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import pyarrow as pa

from mixer import catalogue
from mixer.json_rows import json_rows
from mixer.log_settings import KafkaSinkSettings, OtlpSinkSettings, ParquetSinkSettings
from mixer.metrics import Metrics
from mixer.parquet import Rotating
from mixer.settings import Secrets
from mixer.ship import Shipper

_LEAST_SHIP_S = 0.5
"""For the last files, where making them took all the time."""

log = logging.getLogger(__name__)

SinkSettings = ParquetSinkSettings | OtlpSinkSettings | KafkaSinkSettings
Lost = Callable[[str, int], None]
"""Hears of rows that did not arrive: why, by a word listed in code, and how many."""


class Sink(Protocol):
    """Takes rows on the log's own thread, and gets rid of them without waiting for anybody far away."""

    kind: str

    def write(self, rows: pa.RecordBatch) -> None:
        """Take these rows. Raises: OSError where all of them are lost."""
        ...

    def turn(self) -> None:
        """Called a few times a second, whether rows come or not. Raises: OSError."""
        ...

    def close(self, within_s: float) -> None:
        """Get rid of what is held, at the end. Raises: OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Around:
    """What a sink is opened with."""

    schema: pa.Schema
    service_name: str
    metrics: Metrics
    secrets: Secrets

    def lost(self, reason: str, rows: int = 1) -> None:
        """Count rows that did not arrive."""
        self.metrics.counter(catalogue.FEATURE_LOG_DROPPED, reason=reason).inc(rows)


def open_sink(settings: SinkSettings, around: Around) -> Sink:
    """The sink that the settings declare. Raises: OSError; ValueError where it can never work."""
    return _SINKS[settings.kind](settings, around)


class ParquetSink:
    """Files of a folder."""

    kind = "parquet"

    def __init__(self, settings: ParquetSinkSettings, around: Around) -> None:
        """Makes the folder. Raises: OSError, also where nothing can open the URL to ship to."""
        self._written = around.metrics.counter(catalogue.FEATURE_LOG_FILES)
        self._shipper = _shipper(settings, around)
        self._files_on = ThreadPoolExecutor(1, "feature-log-files")
        self._files = Rotating(
            settings.folder,
            around.schema,
            settings.file_rows,
            settings.file_s,
            settings.file_bytes,
            self._published,
            self._files_on,
        )
        self._folder = settings.folder
        self._files_on.submit(self._recover)

    def write(self, rows: pa.RecordBatch) -> None:
        """On disk when this returns, though not yet to be read."""
        self._files.append(rows)

    def turn(self) -> None:
        """End files that are due."""
        self._files.turn()

    def close(self, within_s: float) -> None:
        """End all files, and what was left behind; ship them if there is time."""
        until_s = monotonic() + within_s
        try:
            self._files.close()
        finally:
            self._files_on.shutdown()
            if self._shipper:
                self._shipper.close(max(until_s - monotonic(), _LEAST_SHIP_S))

    def _published(self, path: Path) -> None:
        self._written.inc()
        if self._shipper:
            self._shipper.published(path)

    def _recover(self) -> None:
        """Make files of what processes that were killed left behind."""
        try:
            files = self._files.recover()
        except Exception:
            log.exception("feature log not recovered", extra={"folder": str(self._folder)})
            return
        if files:
            log.warning("feature log recovered", extra={"folder": str(self._folder), "files": files})


def _shipper(settings: ParquetSinkSettings, around: Around) -> Shipper | None:
    if settings.ship is None:
        return None
    lost = partial(around.lost, "not_shipped")
    return Shipper(settings.folder, settings.ship, around.metrics, "searches", lost)


class OtlpSink:
    """Log records over OTLP, in the trace of their request."""

    kind = "otlp"

    def __init__(self, settings: OtlpSinkSettings, around: Around) -> None:
        """Sends to where the environment says."""
        from mixer.otlp_logs import LogRecords

        self._records = LogRecords(around.service_name, around.lost)

    def write(self, rows: pa.RecordBatch) -> None:
        """Queue a record a row: its identity as attributes, all of it as a JSON body."""
        told = rows.select(list(_TOLD.values())).to_pylist()
        times_ns = (rows.column("time").cast(pa.int64()).to_numpy() * 1000).tolist()
        traces = rows.column("trace_id").to_pylist()
        for body, row, time_ns, trace_id in zip(json_rows(rows), told, times_ns, traces, strict=True):
            attributes = {key: row[column] for key, column in _TOLD.items()}
            self._records.emit(body.decode(), attributes, time_ns, trace_id)

    def turn(self) -> None:
        """Records leave by themselves."""

    def close(self, within_s: float) -> None:
        """Send what is queued."""
        self._records.shutdown(within_s)


_TOLD = {
    "mixer.mix": "mix",
    "mixer.query_id": "query_id",
    "mixer.arm": "arm",
    "mixer.ranker": "ranker",
    "mixer.model.name": "model_name",
    "mixer.model.version": "model_version",
    "mixer.degraded": "degraded",
}
"""Attributes of a record, and the columns that they come from."""


class KafkaSink:
    """Messages to a topic, by librdkafka, which sends them from threads of its own."""

    kind = "kafka"

    def __init__(self, settings: KafkaSinkSettings, around: Around) -> None:
        """Connects by and by. Raises: ValueError where the extra is not installed, or an option makes no sense."""
        try:
            from confluent_kafka import KafkaException, Producer
        except ImportError as error:
            raise ValueError(
                "feature_log: the kafka sink needs the extra: pip install '.[kafka]' in Mixer's checkout"
            ) from error
        password = around.secrets.kafka_password
        options: dict[str, Any] = {
            "client.id": around.service_name,
            "compression.type": "zstd",
            "linger.ms": 50,
            "message.max.bytes": 8 << 20,
            "message.timeout.ms": 10_000,
            "queue.buffering.max.kbytes": 64 << 10,
            **settings.options,
            "bootstrap.servers": settings.servers,
            **({"sasl.password": password.get_secret_value()} if password else {}),
        }
        try:
            self._producer = Producer(options, logger=log)
        except KafkaException as error:
            raise ValueError(f"feature_log: kafka: {error.args[0].str()}") from error
        self._refused = KafkaException
        self._topic, self._lost = settings.topic, around.lost

    def write(self, rows: pa.RecordBatch) -> None:
        """Queue a message a row; those that cannot be queued are counted."""
        for key, value in zip(rows.column("query_id").to_pylist(), json_rows(rows), strict=True):
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
            except BufferError:
                self._lost("kafka_queue_full", 1)
            except self._refused:
                self._lost("kafka_failed", 1)

    def turn(self) -> None:
        """Hear what became of the messages."""
        self._producer.poll(0)

    def close(self, within_s: float) -> None:
        """Send what is queued."""
        if left := self._producer.flush(within_s):
            self._lost("kafka_failed", left)

    def _delivered(self, error: object, _: object) -> None:
        if error is not None:
            self._lost("kafka_failed", 1)


_SINKS: Mapping[str, Callable[[Any, Around], Sink]] = {
    "parquet": ParquetSink,
    "otlp": OtlpSink,
    "kafka": KafkaSink,
}
