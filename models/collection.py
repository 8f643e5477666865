"""Asks a running Mixer the judged queries, and keeps what it served: the features are the served ones, to the bit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from backends.base import Filter, FloatColumn, Terms
from mixer.client import AsyncMixerClient, SearchResult
from mixer.values import IntColumn
from models.judgements import Judged

Pool = Literal["open", "judged"]
"""Search everything, or order only the judged documents."""

_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class Listing:
    """One judged query's candidates as they were served, best first.

    Of n candidates, f features and the named backends: `features` (n, f); `ranks` (backends, n) from 1, 0 for
    absent; `fused_ranks` and `grades` (n,), unjudged documents grading 0.
    """

    judged: Judged
    pool: Pool
    ids: tuple[str, ...]
    backends: tuple[str, ...]
    features: FloatColumn
    ranks: IntColumn
    fused_ranks: IntColumn
    grades: IntColumn
    degraded: bool
    weight: float = 1.0
    """How much it counts among others when learned from."""
    slices: Mapping[str, str] | None = None
    """Its value of each slice, where a server said so."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Asking:
    """How to ask: which mix, how many candidates a query, how long to wait."""

    mix: str = ""
    page_size: int = 1000
    timeout_s: float = 10.0
    features: bool = True


async def collect(
    client: AsyncMixerClient,
    queries: Sequence[Judged],
    pool: Pool,
    asking: Asking,
    progress: Callable[[], None],
) -> tuple[Listing, ...]:
    """A listing a query, in order; `progress` is called after each. Raises: MixerError at the first failure."""
    free = asyncio.Semaphore(_IN_FLIGHT)

    async def one(judged: Judged) -> Listing:
        async with free:
            pages = await _pages(client, judged, pool, asking)
        progress()
        return listing_of(judged, pool, pages)

    try:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(one(judged)) for judged in queries]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return tuple(task.result() for task in asked)


async def _pages(client: AsyncMixerClient, judged: Judged, pool: Pool, asking: Asking) -> list[SearchResult]:
    """The whole list, page by page where it is longer than one."""
    pages: list[SearchResult] = []
    while not pages or pages[-1].next_cursor:
        page = await client.search(
            judged.query,
            mix=asking.mix,
            page_size=asking.page_size,
            cursor=pages[-1].next_cursor if pages else "",
            filters=_only_judged(judged) if pool == "judged" else (),
            features=asking.features,
            timeout_s=asking.timeout_s,
        )
        pages.append(page)
    return pages


def _only_judged(judged: Judged) -> tuple[Filter, ...]:
    return (Filter("id", Terms(tuple(judged.grades))),)


def listing_of(judged: Judged, pool: Pool, pages: Sequence[SearchResult]) -> Listing:
    """What the pages of one list say of a judged query."""
    hits = [hit for page in pages for hit in page.hits]
    backends = tuple(report.backend for report in pages[0].backends)
    place = {name: row for row, name in enumerate(backends)}
    ranks = np.zeros((len(backends), len(hits)), np.intp)
    for column, hit in enumerate(hits):
        for source in hit.sources:
            ranks[place[source.backend], column] = source.rank
    return Listing(
        judged=judged,
        pool=pool,
        ids=tuple(hit.id for hit in hits),
        backends=backends,
        features=np.concatenate([page.features for page in pages]),
        ranks=ranks,
        fused_ranks=np.array([hit.fused_rank for hit in hits], np.intp),
        grades=np.array([judged.grades.get(hit.id, 0) for hit in hits], np.intp),
        degraded=any(page.degraded for page in pages),
    )
