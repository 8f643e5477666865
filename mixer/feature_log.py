"""Logs what was served, beside the request path: a search leaves a reference, a thread makes and writes the row.

What cannot be kept up with, converted or written is lost, counted by reason; the answer never waits and never fails.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from time import monotonic, sleep, time_ns

import pyarrow as pa

from mixer import catalogue
from mixer.describe import Redactor
from mixer.log_settings import FeatureLogSettings
from mixer.logged import Conversion, Declared, Entry
from mixer.metrics import Metrics
from mixer.record import current
from mixer.settings import Secrets, Settings
from mixer.sinks import Around, Sink, open_sink
from mixer.slices import Slices
from mixer.values import Answer, Request

_BEAT_S = 0.1
_AT_ONCE = 4
"""Answers made rows in one go: the thread holds the interpreter that long, and the event loop waits."""
_LAST_FILE_S = 2.0
"""What a sink's end may take beyond the drain time: it looks at no clock while it writes a file."""
_WHOLE = 2**64

log = logging.getLogger(__name__)

Search = Callable[[Request], Awaitable[Answer]]


def open_log(
    rules: FeatureLogSettings, settings: Settings, secrets: Secrets, metrics: Metrics, key: bytes
) -> FeatureLog:
    """The log of all mixes; `key` is that of the hash that stands for a query.

    Raises: OSError or ValueError where a sink cannot be opened.
    """
    mixes = {
        name: Declared.of(mix.features, Slices(mix.slices, list(mix.backends)))
        for name, mix in settings.mixes.items()
    }
    convert = Conversion(mixes, Redactor(rules.query, key).shown, rules.inputs)
    around = Around(convert.schema, settings.telemetry.service_name, metrics, secrets)
    return FeatureLog(rules, convert, [open_sink(sink, around) for sink in rules.sinks], metrics)


class FeatureLog:
    """A bounded queue and the thread that empties it."""

    def __init__(
        self,
        rules: FeatureLogSettings,
        convert: Callable[[Sequence[Entry]], pa.RecordBatch],
        sinks: Sequence[Sink],
        metrics: Metrics,
    ) -> None:
        """Starts to write."""
        self._size, self._drain_s, self._threshold = rules.queue, rules.drain_s, int(rules.share * _WHOLE)
        self._convert, self._sinks = convert, [_Watched(sink, metrics) for sink in sinks]
        self._waiting: deque[Entry] = deque()
        self._hurry, self._closing = threading.Event(), False
        self._dropped = {
            reason: metrics.counter(catalogue.FEATURE_LOG_DROPPED, reason=reason)
            for reason in ("queue_full", "conversion_failed", "shutdown")
        }
        self._queue = metrics.gauge(catalogue.FEATURE_LOG_QUEUE)
        self._thread = threading.Thread(target=self._run, name="feature-log", daemon=True)
        self._thread.start()

    def search(self, verb: Search) -> Search:
        """The search, logged."""

        async def logged(request: Request) -> Answer:
            answer = await verb(request)
            self.offer(answer)
            return answer

        return logged

    def offer(self, answer: Answer) -> None:
        """Log this answer, if it is of the share; at once, whatever the sinks do."""
        if not self._is_of_share(answer.plan.request.query_id):
            return
        waiting = len(self._waiting)
        if waiting >= self._size:
            self._dropped["queue_full"].inc()
            return
        self._waiting.append(Entry(answer, current().trace_id, time_ns() // 1000))
        if waiting * 2 > self._size:
            self._hurry.set()

    def close(self) -> None:
        """Write what waits, but not for longer than the drain time. Blocks: call it off the event loop."""
        self._closing = True
        self._hurry.set()
        self._thread.join(self._drain_s + _LAST_FILE_S)
        if self._thread.is_alive():
            log.error("feature log left behind", extra={"waiting": len(self._waiting)})

    def _is_of_share(self, query_id: str) -> bool:
        if self._threshold >= _WHOLE:
            return True
        digest = blake2b(query_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"feature log")
        return int.from_bytes(digest.digest(), "big") < self._threshold

    def _run(self) -> None:
        while not self._closing:
            self._hurry.wait(_BEAT_S)
            self._hurry.clear()
            self._write_waiting(until_s=float("inf"))
        latest_s = monotonic() + self._drain_s
        self._write_waiting(latest_s - self._drain_s / 2)
        self._dropped["shutdown"].inc(len(self._waiting))
        self._waiting.clear()
        for sink in self._sinks:
            sink.close(max(latest_s - monotonic(), 0.0))

    def _write_waiting(self, until_s: float) -> None:
        while self._waiting and monotonic() < until_s:
            some = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            for rows in self._rows(some):
                for sink in self._sinks:
                    sink.write(rows)
            self._turn()
            sleep(0)  # lets the event loop have the interpreter
        self._turn()

    def _turn(self) -> None:
        for sink in self._sinks:
            sink.turn()
        self._queue.set(len(self._waiting))

    def _rows(self, entries: Sequence[Entry]) -> list[pa.RecordBatch]:
        """Rows of all entries that can be converted; one that cannot does not take others with it."""
        try:
            return [self._convert(entries)]
        except Exception:
            if len(entries) > 1:
                return [rows for entry in entries for rows in self._rows([entry])]
            log.exception("feature log cannot convert an answer")
            self._dropped["conversion_failed"].inc()
            return []


class _Watched:
    """A sink, its rows and failures counted; the first failure of a row of them is logged."""

    def __init__(self, sink: Sink, metrics: Metrics) -> None:
        self._sink, self._failing = sink, False
        self._taken = metrics.counter(catalogue.FEATURE_LOG_ROWS, sink=sink.kind)
        self._failed = metrics.counter(catalogue.FEATURE_LOG_DROPPED, reason=f"{sink.kind}_failed")

    def write(self, rows: pa.RecordBatch) -> None:
        if self._done(lambda: self._sink.write(rows)):
            self._taken.inc(rows.num_rows)
            self._failing = False
        else:
            self._failed.inc(rows.num_rows)

    def turn(self) -> None:
        self._done(self._sink.turn)

    def close(self, within_s: float) -> None:
        self._done(lambda: self._sink.close(within_s))

    def _done(self, verb: Callable[[], None]) -> bool:
        """Whether it went well; whatever goes wrong, the log goes on."""
        try:
            verb()
        except Exception:
            if not self._failing:
                log.exception("feature log sink failed", extra={"sink": self._sink.kind})
            self._failing = True
            return False
        return True
