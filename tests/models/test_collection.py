from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from backends.base import Filter, Terms
from mixer.client import AsyncMixerClient, BackendReport, Hit, MixerError, SearchResult, Source
from models.collection import Asking, Listing, Pool, collect, listing_of
from models.judgements import Judged


def hit(id_: str, rank: int, fused_rank: int, **sources: int) -> Hit:
    came = tuple(Source(name, place, 1.0) for name, place in sources.items())
    return Hit(id_, rank, 1.0, 1.0, fused_rank, {}, came, False)


RESULT = SearchResult(
    hits=(hit("x", 1, 2, a=1), hit("y", 2, 1, a=2, b=1), hit("z", 3, 3, b=2)),
    query_id="q",
    trace_id="",
    mix="default",
    candidates=3,
    next_cursor="",
    elapsed_ms=1.0,
    ranker="fused",
    model=None,
    degraded=True,
    degraded_reasons=("b: timeout",),
    backends=(BackendReport("a", "ok", 1, 2, "", ""), BackendReport("b", "ok", 1, 2, "", "")),
    drops={},
    feature_names=("one", "two"),
    features=np.array([[1.0, np.nan], [2.0, 5.0], [3.0, 6.0]]),
)
JUDGED = Judged(query="csv", need="n", grades={"y": 3, "x": 1, "elsewhere": 2})


def test_a_listing_is_what_was_served() -> None:
    """Ids in served order; each backend's ranks, 0 for absent; fused ranks; the served features themselves."""
    made = listing_of(JUDGED, "open", [RESULT])
    assert made.ids == ("x", "y", "z")
    assert made.backends == ("a", "b")
    assert made.ranks.tolist() == [[1, 2, 0], [0, 1, 2]]
    assert made.fused_ranks.tolist() == [2, 1, 3]
    np.testing.assert_equal(made.features, RESULT.features)
    assert (len(made), made.pool, made.degraded) == (3, "open", True)


def test_the_unjudged_grade_zero() -> None:
    """Documents that nobody judged grade 0; judged ones that were not served are in the judgements only."""
    assert listing_of(JUDGED, "open", [RESULT]).grades.tolist() == [1, 3, 0]


class Answering(AsyncMixerClient):
    """A client that answers by itself, and notes what it was asked and how many at once."""

    def __init__(self, failing: str = "") -> None:
        super().__init__("127.0.0.1:1")
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.now = self.most = 0
        self._failing = failing

    async def search(self, query: str, **options: Any) -> SearchResult:
        self.asked.append((query, options))
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(3):
            await asyncio.sleep(0)
        self.now -= 1
        if query == self._failing:
            raise MixerError(grpc.StatusCode.UNAVAILABLE, "down")
        return replace(RESULT, query_id=query, next_cursor="")


QUERIES = [Judged(query=f"q{n}", need=f"n{n}", grades={f"d{n}": 1, "x": 2}) for n in range(9)]


async def collected(
    client: AsyncMixerClient, pool: Pool = "open", asking: Asking | None = None
) -> list[Listing]:
    steps: list[None] = []
    async with client:
        made = await collect(client, QUERIES, pool, asking or Asking(), lambda: steps.append(None))
    assert len(steps) == len(QUERIES)
    return list(made)


async def test_listings_stand_in_the_order_of_the_queries() -> None:
    """One listing a query, in order, a few asked at once and not all."""
    client = Answering()
    made = await collected(client)
    assert [listing.judged for listing in made] == QUERIES
    assert 1 < client.most < len(QUERIES)


async def test_the_judged_pool_holds_the_judged_documents_only() -> None:
    """Ordering the judged documents asks with a filter on their ids; searching everything asks with none."""
    client = Answering()
    await collected(client, "judged")
    await collected(judging := Answering(), "open")
    assert client.asked[0][1]["filters"] == (Filter("id", Terms(("d0", "x"))),)
    assert judging.asked[0][1]["filters"] == ()


async def test_how_to_ask_is_passed_on() -> None:
    """Mix, size, deadline and whether features are wanted."""
    client = Answering()
    await collected(client, asking=Asking("m", 7, 3.0, features=False))
    options = client.asked[0][1]
    assert (options["mix"], options["page_size"], options["timeout_s"], options["features"]) == (
        "m",
        7,
        3.0,
        False,
    )


async def test_a_failed_query_ends_the_collecting() -> None:
    """The search's own error comes out, so that whoever asked can say what failed; the rest is given up."""
    client = Answering(failing="q2")
    with pytest.raises(MixerError, match="down"):
        await collected(client)
    assert len(client.asked) < len(QUERIES)


class Paging(Answering):
    """A client whose lists are two pages long."""

    async def search(self, query: str, **options: Any) -> SearchResult:
        page = await super().search(query, **options)
        hits = page.hits[2:] if options["cursor"] else page.hits[:2]
        features = page.features[2:] if options["cursor"] else page.features[:2]
        cursor = "" if options["cursor"] else f"rest of {query}"
        return replace(page, hits=hits, features=features, next_cursor=cursor)


async def test_a_list_longer_than_a_page_is_asked_for_page_by_page() -> None:
    """Where the server serves shorter pages, the listing still is the whole list, in order."""
    client = Paging()
    made, whole = await collected(client), await collected(Answering())
    assert [listing.ids for listing in made] == [listing.ids for listing in whole]
    np.testing.assert_equal(made[0].features, whole[0].features)
    assert {options["cursor"] for _, options in client.asked} == {"", *(f"rest of q{n}" for n in range(9))}
