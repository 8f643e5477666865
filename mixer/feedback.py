"""Takes events: each once, none lost after its call returned, with a word on what is known of its search.

What is known is what this process keeps in mind: the last events and searches, up to a number. The join with the
feature log knows the rest.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time

from mixer import catalogue
from mixer.errors import EventsNotWritten
from mixer.event_log import EventLog, Taken
from mixer.events import Event, EventKind, EventOutcome
from mixer.log_settings import FeedbackSettings
from mixer.metrics import Metrics
from mixer.recent import Recent


@dataclass(frozen=True, slots=True)
class Search:
    """A search that was answered, and when (Unix time)."""

    mix: str
    arm: str
    time_s: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """An event that was taken: when, and whether it is on disk, once that is known."""

    time_s: float
    written: Future[bool]


Hear = Callable[[Search, Event], None]


def _unheard(search: Search, event: Event) -> None:
    """Nobody listens."""


class Feedback:
    """The events of one server; for one event loop."""

    def __init__(
        self, settings: FeedbackSettings, log: EventLog, metrics: Metrics, hear: Hear = _unheard
    ) -> None:
        """`hear` is told of every event that is new, in time, on disk, and of a search that is kept in mind."""
        self._window_s, self._log, self._hear = settings.window_s, log, hear
        self._seen: Recent[_Seen] = Recent(settings.remembered)
        self._searches: Recent[Search] = Recent(settings.remembered)
        self._counts = {
            (kind, outcome): metrics.counter(catalogue.FEEDBACK_EVENTS, kind=kind, outcome=outcome)
            for kind in EventKind
            for outcome in EventOutcome
        }

    def served(self, query_id: str, mix: str, arm: str = "") -> None:
        """A search was answered: events of it may come."""
        self._searches.put(query_id, Search(mix, arm, time()))

    async def take(self, events: Sequence[Event]) -> tuple[EventOutcome, ...]:
        """What became of each, once all of them are on disk.

        Raises: Overloaded, EventsNotWritten; none of those that are new is taken then.
        """
        now_s = time()
        fresh: dict[str, Taken] = {}
        outcomes = tuple(self._sort(event, fresh, now_s) for event in events)
        before = [seen.written for event in events if (seen := self._known(event.event_id, now_s))]
        written = [*before, *([self._write(fresh, now_s)] if fresh else [])]
        # Shielded: a caller who gives up takes nothing from the others who wait for the same write.
        if not all(await asyncio.gather(*map(asyncio.shield, written))):
            raise EventsNotWritten("the events could not be written; send them again")
        for event, outcome in zip(events, outcomes, strict=True):
            self._counts[event.kind, outcome].inc()
        return outcomes

    async def close(self) -> None:
        """Write what waits."""
        await self._log.close()

    def _sort(self, event: Event, fresh: dict[str, Taken], now_s: float) -> EventOutcome:
        if event.event_id in fresh or self._known(event.event_id, now_s):
            return EventOutcome.DUPLICATE
        search = self._searches.get(event.query_id)
        outcome = EventOutcome.UNKNOWN
        if search:
            late = now_s - search.time_s > self._window_s
            outcome = EventOutcome.LATE if late else EventOutcome.ACCEPTED
        fresh[event.event_id] = Taken(event, now_s, outcome)
        return outcome

    def _known(self, event_id: str, now_s: float) -> _Seen | None:
        seen = self._seen.get(event_id)
        return seen if seen and now_s - seen.time_s <= self._window_s else None

    def _write(self, fresh: dict[str, Taken], now_s: float) -> Future[bool]:
        written = self._log.write(list(fresh.values()))
        for event_id in fresh:
            self._seen.put(event_id, _Seen(now_s, written))
        written.add_done_callback(lambda done: self._told(fresh, done.result()))
        return written

    def _told(self, fresh: dict[str, Taken], written: bool) -> None:
        for event_id, taken in fresh.items():
            search = self._searches.get(taken.event.query_id)
            if not written:
                self._seen.drop(event_id)
            elif search and taken.outcome is EventOutcome.ACCEPTED:
                self._hear(search, taken.event)
