"""Watches a mix's feature stores: a span and a duration each time one is asked, and counts of rows."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from opentelemetry.context import detach

from mixer import catalogue, describe
from mixer.hydrate import Hydrator, LookUp, Wanted
from mixer.metrics import Metrics
from mixer.record import Record, Step, current
from mixer.values import Outcome, Stored


class StoreObserver:
    """Watches the stores of one mix; every label is bound once."""

    def __init__(self, mix: str, stores: Sequence[str], metrics: Metrics) -> None:
        """Takes the mix's name and its stores."""
        self._seconds = {
            (name, outcome): metrics.histogram(catalogue.STORE_SECONDS, mix=mix, store=name, outcome=outcome)
            for name in stores
            for outcome in Outcome
        }
        self._rows = {
            (name, source): metrics.counter(catalogue.STORE_ROWS, mix=mix, store=name, source=source)
            for name in stores
            for source in ("cache", "store", "lost")
        }
        self._missing = {
            name: metrics.counter(catalogue.STORE_MISSING, mix=mix, store=name) for name in stores
        }
        self._unreadable = {
            name: metrics.counter(catalogue.STORE_UNREADABLE, mix=mix, store=name) for name in stores
        }

    def look_up(self, verb: LookUp) -> LookUp:
        """One look-up, watched; the store's own spans hang below its step."""

        async def watched(hydrator: Hydrator, wanted: Wanted) -> Stored:
            record = current()
            step = record.begin(f"look_up {hydrator.name}")
            if step is None:
                return self._told(record, None, await verb(hydrator, wanted))
            step.attributes.update(describe.of_look_up(hydrator.name, wanted.timeout_s))
            token = record.enter(step)
            try:
                return await self._ended(record, step, verb(hydrator, wanted))
            finally:
                detach(token)

        return watched

    async def _ended(self, record: Record, step: Step, asked: Awaitable[Stored]) -> Stored:
        try:
            stored = await asked
        except BaseException as error:
            record.end(step, type(error).__name__)
            raise
        return self._told(record, step, stored)

    def _told(self, record: Record, step: Step | None, stored: Stored) -> Stored:
        if record.heard:
            record.facts.update(describe.of_store(stored))
        if step is not None:
            step.attributes.update(describe.of_stored(stored))
            record.end(step, "" if stored.outcome is Outcome.OK else stored.outcome.value)
        self._count(record, stored)
        return stored

    def _count(self, record: Record, stored: Stored) -> None:
        name, asked = stored.store, stored.asked - stored.cached
        if asked:
            self._seconds[name, stored.outcome].observe(stored.elapsed_s, record.exemplar)
        self._rows[name, "cache"].inc(stored.cached)
        self._rows[name, "store"].inc(asked - stored.lost)
        self._rows[name, "lost"].inc(stored.lost)
        self._missing[name].inc(stored.asked - stored.lost - stored.found)
        self._unreadable[name].inc(stored.unreadable)
