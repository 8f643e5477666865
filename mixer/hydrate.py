"""Candidates to candidates with columns from feature stores: all stores at once, and how each ended is a value."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic, perf_counter

import numpy as np

from backends.base import FloatColumn
from backends.stores.base import Rows, Store, StoreSettings
from mixer.failures import failure_of
from mixer.row_cache import RowCache
from mixer.settings import MixSettings
from mixer.values import Candidates, Outcome, Plan, Stored


@dataclass(frozen=True, slots=True)
class Wanted:
    """For whom rows are looked up, and for how long."""

    ids: Sequence[str]
    context: Mapping[str, str | float]
    timeout_s: float


class Hydrator:
    """One feature store with its keys and its cache; all mixes share it."""

    def __init__(self, name: str, settings: StoreSettings, store: Store) -> None:
        """Takes the store's name in the settings."""
        self.name, self._store, self._fields = name, store, settings.fields
        self._key = settings.template
        self._cache = RowCache(settings.cache.rows, len(settings.fields), settings.cache.ttl_s)

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    async def look_up(self, wanted: Wanted) -> Stored:
        """A row a document, or one for all: from the cache, the rest from the store in one round trip."""
        began_s = perf_counter()
        if lacking := self._key.lacking(wanted.context):
            nothing = np.full((len(wanted.ids), len(self._fields)), np.nan)
            return self._stored(began_s, nothing, detail=f"the request's context has no {lacking}")
        keys = self._key.keys(wanted.ids, wanted.context)
        values, found, known = self._cache.get(keys)
        new = np.flatnonzero(~known)
        fetched = await self._fetch([keys[row] for row in new.tolist()], wanted.timeout_s)
        if fetched.rows:
            values[new], found[new] = fetched.rows.values, fetched.rows.found
        if not self._key.per_document:
            values = np.broadcast_to(values, (len(wanted.ids), len(self._fields)))
        return self._stored(
            began_s,
            values,
            fetched,
            asked=len(keys),
            cached=len(keys) - len(new),
            found=int(found.sum()),
            lost=0 if fetched.rows else len(new),
        )

    async def _fetch(self, keys: Sequence[str], timeout_s: float) -> _Fetched:
        """Rows of keys that the cache does not know; it keeps them. A failure is never kept."""
        if not keys:
            return _Fetched(Rows(np.empty((0, len(self._fields))), np.empty(0, np.bool_)))
        if timeout_s <= 0:
            return _Fetched(None, Outcome.SKIPPED, "no time was left to ask")
        fetched = await self._asked(keys, timeout_s)
        if fetched.rows and (fault := fetched.rows.fault(len(keys), len(self._fields))):
            return _Fetched(None, Outcome.ERROR, f"garbage: {fault}")
        if fetched.rows:
            self._cache.put(keys, fetched.rows)
        return fetched

    async def _asked(self, keys: Sequence[str], timeout_s: float) -> _Fetched:
        try:
            async with asyncio.timeout(timeout_s):
                return _Fetched(await self._store.fetch(keys, timeout_s))
        except BaseException as error:
            failure = failure_of(error, timeout_s, "store", self.name)
            return _Fetched(None, failure.outcome, failure.detail)

    def _stored(
        self,
        began_s: float,
        values: FloatColumn,
        fetched: _Fetched | None = None,
        detail: str = "",
        **counts: int,
    ) -> Stored:
        fetched = fetched or _Fetched(None, Outcome.OK, detail)
        return Stored(
            store=self.name,
            outcome=fetched.outcome,
            elapsed_s=perf_counter() - began_s,
            columns=dict(zip(self._fields, values.T, strict=True)),
            unreadable=fetched.rows.unreadable if fetched.rows else 0,
            detail=fetched.detail,
            **counts,
        )


@dataclass(frozen=True, slots=True)
class _Fetched:
    """What the store itself answered, or why it did not."""

    rows: Rows | None
    outcome: Outcome = Outcome.OK
    detail: str = ""


LookUp = Callable[[Hydrator, Wanted], Awaitable[Stored]]


class Hydrate:
    """The stage: adds what the mix's stores know of the candidates and of who asks."""

    def __init__(self, mix: MixSettings, hydrators: Mapping[str, Hydrator], look_up: LookUp) -> None:
        """`look_up` asks one store; it never raises but for cancellation."""
        self._reserve_s, self._look_up = mix.rank_reserve_s, look_up
        self._stores = [(hydrators[name], member.timeout_s) for name, member in mix.stores.items()]

    async def __call__(self, plan: Plan, candidates: Candidates) -> Candidates:
        """The same candidates; each store has its own time, or what the deadline leaves beside ranking."""
        request = plan.request
        left_s = request.deadline_s - monotonic() - self._reserve_s
        asked = [
            self._look_up(hydrator, Wanted(candidates.ids, request.context, min(timeout_s, left_s)))
            for hydrator, timeout_s in self._stores
        ]
        return replace(candidates, stores=tuple(await asyncio.gather(*asked)))


async def as_they_are(plan: Plan, candidates: Candidates) -> Candidates:
    """The stage of a mix without stores."""
    return candidates


async def look_up(hydrator: Hydrator, wanted: Wanted) -> Stored:
    """Ask one store."""
    return await hydrator.look_up(wanted)
