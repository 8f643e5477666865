"""The event log: what is waiting is written together, on a thread of its own, and who waits hears how it went."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from mixer.errors import Overloaded
from mixer.events import Event, EventOutcome
from mixer.log_settings import FeedbackSettings
from mixer.metrics import Metrics
from mixer.parquet import Rotating, unheard
from mixer.ship import Shipper

log = logging.getLogger(__name__)

_TURN_S = 1.0
_SHIP_S = 5.0
"""What shipping the last files may take."""


SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("query_id", pa.string()),
        ("kind", pa.string()),
        ("id", pa.string()),
        ("position", pa.int32()),
        # When the server took it: windows and partitions go by this clock, which no caller can set.
        ("time", pa.timestamp("us", "UTC")),
        ("happened", pa.timestamp("us", "UTC")),
        ("value", pa.float64()),
        ("outcome", pa.string()),
    ]
)
"""The event log's rows, one an event; an event that several servers took is there more than once."""


@dataclass(frozen=True, slots=True)
class Taken:
    """An event that a server took, when it did, and what it knew of its search."""

    event: Event
    time_s: float
    outcome: EventOutcome


def batch_of(taken: Sequence[Taken]) -> pa.RecordBatch:
    """The rows of these events, in order."""
    events = [one.event for one in taken]
    columns = [
        [event.event_id for event in events],
        [event.query_id for event in events],
        [event.kind.value for event in events],
        [event.id for event in events],
        [event.position for event in events],
        [round(one.time_s * 1e6) for one in taken],
        [round(event.happened_s * 1e6) for event in events],
        [event.value for event in events],
        [one.outcome.value for one in taken],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=SCHEMA)


class EventLog:
    """Appends events to rotating Parquet files; for one event loop."""

    def __init__(
        self, files: Rotating, most: int, turn_s: float = _TURN_S, shipper: Shipper | None = None
    ) -> None:
        """`most` events may wait; files are looked after every `turn_s`, whether or not events come."""
        self._shipper = shipper
        self._files, self._most = files, most
        self._thread = ThreadPoolExecutor(1, "event-log")
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Taken] = []
        self._next: Future[bool] = self._loop.create_future()
        self._writing: asyncio.Task[None] | None = None
        self._turning = asyncio.create_task(self._turn(turn_s))

    @classmethod
    async def open(cls, settings: FeedbackSettings, metrics: Metrics) -> EventLog:
        """Ready to be written to, what earlier processes left behind being in files. Raises: OSError."""
        ship = settings.ship
        shipper = Shipper(settings.folder, ship, metrics, "events") if ship else None
        published = shipper.published if shipper else unheard
        files = Rotating(settings.folder, SCHEMA, settings.rows, settings.seconds, published=published)
        await asyncio.to_thread(files.recover)
        return cls(files, settings.queue, min(settings.seconds, _TURN_S), shipper)

    def write(self, taken: Sequence[Taken]) -> Future[bool]:
        """Whether they were written, once that is known. Raises: Overloaded, and then none is taken."""
        if len(self._waiting) + len(taken) > self._most:
            raise Overloaded(f"{len(self._waiting)} events wait for the disk; try again with a pause")
        self._waiting.extend(taken)
        written = self._next
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._drain())
        return written

    async def close(self) -> None:
        """Write what waits, end the file, and ship it if that goes fast."""
        self._turning.cancel()
        with suppress(asyncio.CancelledError):
            await self._turning
        if self._writing:
            await self._writing
        await self._on_thread(self._files.close)
        if self._shipper:
            await self._on_thread(partial(self._shipper.close, _SHIP_S))
        self._thread.shutdown()

    async def _drain(self) -> None:
        while self._waiting:
            taken, written = self._waiting, self._next
            self._waiting, self._next = [], self._loop.create_future()
            written.set_result(await self._on_thread(partial(self._append, taken)))

    def _append(self, taken: Sequence[Taken]) -> None:
        self._files.write(batch_of(taken))

    async def _turn(self, turn_s: float) -> None:
        while True:
            await asyncio.sleep(turn_s)
            await self._on_thread(self._files.turn)

    async def _on_thread(self, verb: Callable[[], object]) -> bool:
        """Whether it went well; what did not is in the log."""
        try:
            await self._loop.run_in_executor(self._thread, verb)
        except Exception:
            log.exception("the event log cannot be written")
            return False
        return True
