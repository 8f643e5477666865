from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixer import feature_log
from mixer.feature_log import FeatureLog
from mixer.log_settings import FeatureLogSettings
from mixer.logged import Conversion, Declared, Entry
from mixer.metrics import Metrics
from mixer.values import Answer, Request
from tests.doubles import engines, mixers
from tests.samples import answer, request

CONVERT = Conversion({"default": Declared("s", frozenset())}, str)
MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}


class Kept:
    """A sink that keeps ids, waits for leave where it is told to, and may fail."""

    kind = "parquet"

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.leave, self.failing, self.closed = threading.Event(), False, False
        self.asked = threading.Event()
        self.leave.set()

    def write(self, rows: pa.RecordBatch) -> None:
        self.asked.set()
        assert self.leave.wait(10)
        if self.failing:
            raise OSError(28, "No space left on device")
        self.ids += rows.column("query_id").to_pylist()

    def turn(self) -> None:
        pass

    def close(self, within_s: float) -> None:
        self.closed = True


class Log:
    """A feature log over such a sink."""

    def __init__(self, convert: Any = CONVERT, **rules: Any) -> None:
        self.sink, self.metrics = Kept(), Metrics()
        settings = FeatureLogSettings.model_validate({"sinks": [{"kind": "otlp"}], "drain_s": 10.0, **rules})
        self.log = FeatureLog(settings, convert, [self.sink], self.metrics)

    def offer(self, *ids: str) -> None:
        for id_ in ids:
            self.log.offer(answer(request(query_id=id_)))

    def dropped(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value("mixer_feature_log_dropped_total", {"reason": reason})

    @property
    def rows(self) -> float | None:
        return self.metrics.registry.get_sample_value("mixer_feature_log_rows_total", {"sink": "parquet"})


async def test_a_search_is_logged_and_its_answer_untouched() -> None:
    """The caller gets the very answer; the row is there at the latest when the log is closed."""
    kept, served = Log(), answer(request(query_id="q1"))

    async def verb(_: Request) -> Answer:
        return served

    assert await kept.log.search(verb)(served.plan.request) is served
    kept.log.close()
    assert (kept.sink.ids, kept.rows, kept.sink.closed) == (["q1"], 1, True)


async def test_a_failed_search_is_not_logged() -> None:
    """There is no answer to log; the error goes its way."""
    kept = Log()

    async def verb(_: Request) -> Answer:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await kept.log.search(verb)(request())
    kept.log.close()
    assert kept.sink.ids == []


def test_a_full_queue_drops_and_counts() -> None:
    """A sink that hangs costs rows, never a wait: beyond the queue every row is counted as dropped."""
    kept = Log(queue=5)
    kept.sink.leave.clear()
    kept.offer("first")
    assert kept.sink.asked.wait(10)
    kept.offer(*map(str, range(12)))
    assert kept.dropped("queue_full") == 7
    kept.sink.leave.set()
    kept.log.close()
    assert kept.sink.ids == ["first", "0", "1", "2", "3", "4"]


def test_one_answer_that_cannot_be_converted_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted and logged; those before and after it arrive."""
    release = threading.Event()

    def convert(entries: Sequence[Entry]) -> pa.RecordBatch:
        release.wait(10)
        return CONVERT(entries)

    kept = Log(convert)
    kept.offer("a", "\ud800", "b", "c")
    release.set()
    kept.log.close()
    assert (kept.sink.ids, kept.dropped("conversion_failed")) == (["a", "b", "c"], 1)
    assert "cannot convert" in caplog.text


def test_a_failing_sink_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Every lost row is counted, the log says it once, and rows go on when the sink is well again."""
    kept = Log()
    kept.sink.failing = True
    kept.offer(*map(str, range(20)))
    kept.log.close()
    assert (kept.sink.ids, kept.rows, kept.dropped("parquet_failed")) == ([], 0, 20)
    assert caplog.text.count("feature log sink failed") == 1


def test_the_end_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink that hangs at the end is left behind after the drain time."""
    monkeypatch.setattr(feature_log, "_LAST_FILE_S", 0.0)
    kept = Log(drain_s=0.05)
    kept.sink.leave.clear()
    kept.offer("a")
    kept.log.close()
    assert not kept.sink.closed
    kept.sink.leave.set()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_is_by_query_id(share: float) -> None:
    """The same id is always in or always out, whatever the process; about the share of ids is in."""
    first, second = Log(share=share, queue=5000), Log(share=share, queue=5000)
    ids = [f"query {number}" for number in range(2000)]
    first.offer(*ids)
    second.offer(*reversed(ids))
    first.log.close()
    second.log.close()
    assert sorted(first.sink.ids) == sorted(second.sink.ids)
    assert abs(len(first.sink.ids) / len(ids) - share) < 0.04


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in folder.rglob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]


async def test_a_served_search_is_in_the_folder(tmp_path: Path) -> None:
    """From settings to file: the row's hits are the answer's, its trace is the call's, its query is hashed."""
    rules = {"sinks": [{"kind": "parquet", "folder": str(tmp_path)}]}
    made = {"features": [_SCORE], "slices": [{"name": "length", "by": "query_length", "bounds": [1]}]}
    settings = mixers.settings({"a": MEMORY}, made, feature_log=rules)
    with mixers.tracing():
        async with mixers.running(settings) as mixer:
            result = await mixer.search("csv file", page_size=2, features=True)
    assert mixer.value("mixer_feature_log_files_total") == 1
    [row] = _rows(tmp_path)
    assert row["ids"][:2] == [hit.id for hit in result.hits]
    assert row["scores"][:2] == [hit.score for hit in result.hits]
    assert row["features"][:2] == result.features.tolist()
    assert (row["query_id"], row["trace_id"]) == (result.query_id, result.trace_id)
    assert (len(row["trace_id"]), len(row["query"])) == (32, 16)
    assert "csv" not in row["query"]
    assert row["slices"] == [("length", "2+")]


async def test_without_the_setting_nothing_is_wrapped() -> None:
    """No log, no thread, no cost."""
    async with mixers.running(mixers.settings({"a": MEMORY})) as mixer:
        assert mixer.app.feature_log is None
        assert not [thread for thread in threading.enumerate() if thread.name == "feature-log"]


_SCORE = {"name": "score", "source": "backend", "backend": "a", "value": "score"}
