from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from backends.base import BackendError, FloatColumn
from mixer.client import MixerClient, MixerError, Range
from mixer.errors import Overloaded, UnknownAnswer
from mixer.explain import Answered, Explain
from mixer.explainer import Explainer
from mixer.settings import ExplainSettings
from mixer.values import Answer, Request
from mixer.wire_explain import Which
from tests import forest
from tests.doubles import engines, mixers
from tests.samples import MODEL, answer, mix, request

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}


class Slow:
    """A model whose explanation waits until it is let go."""

    ref = MODEL

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.threads: list[str] = []

    def score(self, matrix: FloatColumn) -> FloatColumn:
        return np.zeros(len(matrix))

    def contributions(self, matrix: FloatColumn) -> FloatColumn:
        self.threads.append(threading.current_thread().name)
        self.began.set()
        assert self.go.wait(10)
        return np.zeros((len(matrix), matrix.shape[1] + 1))


def explainer(**settings: Any) -> Explainer:
    return Explainer(ExplainSettings(**settings))


async def explain(made: Explainer, model: Any = None, left_s: float = 10.0) -> Any:
    """The sample's two hits, by this model."""

    async def find() -> Answered:
        return Answered(answer(model=model), "", 0.0)

    through = Explain(mix("a"), lambda name: pytest.fail(name))
    return (await made.explain(find, Which(2), lambda _: through, lambda: left_s))[1]


async def test_one_at_a_time_and_off_the_loop() -> None:
    """While one is explained the loop goes on, another is turned away at once, and after it there is a turn again."""
    made, slow = explainer(), Slow()
    first = asyncio.create_task(explain(made, slow))
    await asyncio.to_thread(slow.began.wait, 10)
    with pytest.raises(Overloaded):
        await explain(made)
    slow.go.set()
    await first
    assert slow.threads[0].startswith("explain")
    assert (await explain(made)).contributions.lacking == "model_gone"
    made.close()


async def test_who_goes_away_does_not_free_the_thread() -> None:
    """After a cancelled call the turn is taken until the work is done: nobody can queue up work by going away."""
    made, slow = explainer(), Slow()
    first = asyncio.create_task(explain(made, slow))
    await asyncio.to_thread(slow.began.wait, 10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(Overloaded):
        await explain(made)
    slow.go.set()
    made.close()
    made = explainer()
    assert len((await explain(made)).rows) == 2
    made.close()


@pytest.mark.parametrize(("timeout_s", "left_s"), [(1e-9, 10.0), (10.0, 0.0)])
async def test_the_time_is_the_shorter_of_both(timeout_s: float, left_s: float) -> None:
    """Neither the settings' time nor the caller's is overrun by a row."""
    made, model = explainer(timeout_s=timeout_s), Slow()
    told = await explain(made, model, left_s)
    assert (told.contributions.lacking, model.threads) == ("time", [])
    made.close()


async def test_a_search_that_fails_gives_the_turn_back() -> None:
    """The failure is the caller's to see, and the next has its turn."""
    made = explainer()

    async def fails() -> Answered:
        raise UnknownAnswer("no")

    for _ in range(2):
        with pytest.raises(UnknownAnswer):
            await made.explain(fails, Which(2), lambda _: Explain(mix("a"), pytest.fail), lambda: 1.0)
    made.close()


async def test_the_latest_answers_are_remembered() -> None:
    """So many and no more; a query id that comes again is its latest answer."""
    made = explainer(recent=2)

    async def found(asked: Request) -> Answer:
        return answer(asked)

    search = made.remembering(found)
    for query_id in ("one", "two", "one", "three"):
        await search(request(f"query {query_id}", query_id=query_id))
    with pytest.raises(UnknownAnswer, match="of the last 2 answers"):
        made.answered("two")
    assert {made.answered(q).answer.plan.request.query for q in ("one", "three")} == {
        "query one",
        "query three",
    }
    made.close()


async def test_nothing_is_remembered_unless_asked_for() -> None:
    """Then a search is the very same function: it costs nothing."""
    made = explainer()

    async def found(asked: Request) -> Answer:
        return answer(asked)

    assert made.remembering(found) is found
    with pytest.raises(UnknownAnswer, match=r"explain\.recent is 0"):
        made.answered("any")
    made.close()


@pytest.fixture
async def mixer(model_folder: Path, tmp_path: Path) -> AsyncIterator[mixers.Mixer]:
    """Over a socket: a mix with a model, pins, and a feature log; one of fusion alone."""
    made = mixers.settings(
        {"a": MEMORY},
        {
            "model": "m",
            "features": [feature.model_dump() for feature in forest.FEATURES],
            "pins": [{"query": "csv pinned", "ids": ["4"]}],
        },
        models={"m": {"path": model_folder}},
        explain={"recent": 5, "hits": 3},
        feature_log={"sinks": [{"kind": "parquet", "folder": tmp_path / "log"}]},
    )
    raw = made.model_dump(mode="json", exclude_none=True)
    raw["mixes"]["fused"] = {"backends": {"a": {"timeout_s": 15.0}}}
    async with mixers.running(type(made).model_validate(raw)) as running:
        yield running


async def test_a_remembered_answer(mixer: mixers.Mixer) -> None:
    """By its query id an answer is explained as it was served: hits, scores, trace; its parts add up to the scores."""
    with mixers.tracing():
        served = await mixer.search("read csv file", features=True)
        told = await mixer.client.explain(served.query_id)
    assert told.answer.hits == served.hits[:3]
    assert (told.answer.query_id, told.answer.trace_id) == (served.query_id, served.trace_id)
    assert served.trace_id
    assert np.array_equal(told.answer.features, served.features[:3], equal_nan=True)
    assert told.lacking == ""
    sums = told.contributions.sum(axis=1) + told.bias
    assert sums == pytest.approx([hit.score for hit in told.answer.hits], rel=1e-9)
    for hit, placement in zip(told.answer.hits, told.placements, strict=True):
        assert (placement.fused_rank, placement.rank) == (hit.fused_rank, hit.rank)
        assert list(placement.votes) == pytest.approx([hit.fused_score])


async def test_a_search_asked_anew(mixer: mixers.Mixer, tmp_path: Path) -> None:
    """It gives what the search gives, and is neither remembered nor logged as served."""
    served = await mixer.search("csv pinned", filters=[])
    told = await mixer.client.explain(search="csv pinned", request_id="anew")
    assert [hit.id for hit in told.answer.hits] == [hit.id for hit in served.hits[:3]]
    first, second = told.placements[:2]
    assert (first.rank, told.answer.hits[0].pinned) == (1, True)
    assert first.spread_rank == first.scored_rank > 1
    assert (second.rank, second.spread_rank) == (2, 1)
    with pytest.raises(MixerError, match="none of the last 5 answers"):
        await mixer.client.explain("anew")
    log = mixer.app.feature_log
    assert log
    await asyncio.to_thread(log.close)
    from models import logs

    batches = logs.read(logs.files(tmp_path / "log").sound)
    assert [row.query_id for row in logs.searches(batches)] == [served.query_id]


async def test_documents_wherever_they_stand(mixer: mixers.Mixer) -> None:
    """A document off the page is explained with its true rank; they come best first, each once."""
    served = await mixer.search("csv file", page_size=1)
    whole = await mixer.search("csv file")
    assert len(served.hits) == 1
    last, first = whole.hits[-1], whole.hits[0]
    told = await mixer.client.explain(served.query_id, ids=[last.id, first.id, last.id])
    assert [(hit.id, hit.rank, hit.score) for hit in told.answer.hits] == [
        (first.id, 1, first.score),
        (last.id, len(whole.hits), last.score),
    ]
    assert len(told.contributions) == 2


async def test_the_fused_order(mixer: mixers.Mixer) -> None:
    """Where no model ranked, places and votes are told, and why there are no parts."""
    told = await mixer.client.explain(search="csv file", mix="fused")
    assert (told.lacking, told.contributions.shape[0]) == ("no_model", 0)
    assert [placement.rank for placement in told.placements] == [1, 2, 3]


@pytest.mark.parametrize(
    ("wish", "code", "said"),
    [
        ({}, "INVALID_ARGUMENT", "answer: is not named; set query_id or search"),
        ({"query_id": "nobody"}, "NOT_FOUND", "none of the last 5 answers"),
        ({"search": "csv", "mix": "defualt"}, "NOT_FOUND", "did you mean 'default'"),
        ({"search": "csv", "hits": 4}, "INVALID_ARGUMENT", "hits: is 4; send 0 to 3"),
        ({"search": "csv", "hits": -1}, "INVALID_ARGUMENT", "hits: is -1"),
        ({"search": "csv", "ids": ["4"], "hits": 1}, "INVALID_ARGUMENT", "hits: goes without ids"),
        ({"search": "csv", "ids": list("abcd")}, "INVALID_ARGUMENT", "ids: has 4; send 3 at most"),
        ({"search": "csv", "ids": ["4", "x"]}, "INVALID_ARGUMENT", "ids[1]: is not among the 4 candidates"),
        ({"search": "csv", "offset": -1}, "INVALID_ARGUMENT", "search.offset: is -1"),
        ({"search": "x" * 3000}, "INVALID_ARGUMENT", "search.query: has 3000 characters"),
        ({"search": "csv", "cursor": "forged"}, "INVALID_ARGUMENT", "cursor"),
    ],
)
async def test_what_cannot_be_explained(mixer: mixers.Mixer, wish: Any, code: str, said: str) -> None:
    """Every wrong field is named by its path, with the mend; the turn is given back."""
    with pytest.raises(MixerError) as raised:
        await mixer.client.explain(**wish)
    assert raised.value.code is grpc.StatusCode[code]
    assert said in raised.value.message
    assert (await mixer.client.explain(search="csv", hits=1)).placements


async def test_a_backend_that_fails() -> None:
    """A search that cannot be answered anew has the status of the search, and the next has its turn."""
    odd = engines.memory()
    async with mixers.running(mixers.settings({"odd": MEMORY}), {"odd": odd}) as running:
        with pytest.MonkeyPatch.context() as patch:

            async def fails(*_: object) -> None:
                raise BackendError("down")

            patch.setattr(odd, "retrieve", fails)
            with pytest.raises(MixerError) as raised:
                await running.client.explain(search="csv")
        assert raised.value.code is grpc.StatusCode.UNAVAILABLE
        assert (await running.client.explain(search="csv")).lacking == "no_model"


async def test_the_client_for_threads(mixer: mixers.Mixer) -> None:
    """It asks the same and gets the same."""
    wish: dict[str, Any] = {"search": "csv file", "filters": [], "request_id": "same"}
    ours = await mixer.client.explain(**wish)

    def theirs() -> Any:
        with MixerClient(mixer.target, timeout_s=20) as client:
            return client.explain(**wish)

    told = await asyncio.to_thread(theirs)
    assert (told.placements, told.answer.hits) == (ours.placements, ours.answer.hits)
    assert np.array_equal(told.contributions, ours.contributions)
    narrow = await mixer.client.explain(search="csv", filters=[_years(1995, 2005)])
    assert {hit.id for hit in narrow.answer.hits} == {"1", "2"}


def _years(low: int, high: int) -> Any:
    from mixer.client import Filter

    return Filter("year", Range(low, high))
