from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backends.base import Hits
from backends.memory import Memory, MemorySettings
from mixer import arrange, fanout, features, hydrate, merge, plan, rank
from mixer.errors import DeadlineTooShort
from mixer.pipeline import Pipeline
from mixer.values import Answer, Outcome
from tests.samples import SIGNER, hits, mix, request


def recorded(log: list[tuple[str, tuple[Any, ...]]], name: str, result: Any) -> Callable[..., Any]:
    def stage(*inputs: Any) -> Any:
        log.append((name, inputs))
        if isinstance(result, Exception):
            raise result
        return result

    return stage


def pipeline(log: list[tuple[str, tuple[Any, ...]]], **results: Any) -> Pipeline:
    names = ("plan", "merge", "make_features", "rank", "arrange")
    stages: dict[str, Any] = {name: recorded(log, name, results.get(name, name)) for name in names}

    async def fan_out(*inputs: Any) -> Any:
        return recorded(log, "fan_out", results.get("fan_out", "replies"))(*inputs)

    async def hydrate(*inputs: Any) -> Any:
        return recorded(log, "hydrate", results.get("hydrate", "hydrated"))(*inputs)

    return Pipeline(fan_out=fan_out, hydrate=hydrate, **stages)


async def test_a_search_is_a_sentence() -> None:
    """Each stage runs once, in its order, and sees what the sentence says it sees; the answer holds everything."""
    log: list[tuple[str, tuple[Any, ...]]] = []
    asked = request()
    answer = await pipeline(log).search(asked)
    assert log == [
        ("plan", (asked,)),
        ("fan_out", ("plan",)),
        ("merge", ("plan", "replies")),
        ("hydrate", ("plan", "merge")),
        ("make_features", ("plan", "hydrated")),
        ("rank", ("hydrated", "make_features")),
        ("arrange", ("plan", "replies", "hydrated", "rank")),
    ]
    assert answer == Answer("plan", "replies", "hydrated", "make_features", "rank", "arrange")  # type: ignore[arg-type]


async def test_a_failing_stage_ends_the_search() -> None:
    """No later stage runs, and the error goes through untouched."""
    log: list[tuple[str, tuple[Any, ...]]] = []
    with pytest.raises(DeadlineTooShort):
        await pipeline(log, plan=DeadlineTooShort("late")).search(request())
    assert [name for name, _ in log] == ["plan"]


def memory(**documents: str) -> Memory:
    raw = [{"id": id_, "title": title} for id_, title in documents.items()]
    fields = {"title": {"type": "text"}}
    return Memory(MemorySettings.model_validate({"kind": "memory", "fields": fields, "documents": raw}))


RULES = mix(
    "a",
    "b",
    fields=["title"],
    features=[{"name": "cover", "source": "text", "fields": ["title"], "measure": "query_coverage"}],
)


async def search(a: Memory, b: Memory, **asked: Any) -> Answer:
    stages = Pipeline(
        plan.MakePlan(RULES, SIGNER),
        fanout.FanOut({"a": a, "b": b}, fanout.ask),
        merge.Merge(RULES),
        hydrate.as_they_are,
        features.MakeFeatures(RULES.features),
        rank.RankByFusion(),
        arrange.Arrange(RULES, SIGNER),
    )
    return await stages.search(request("read csv", **asked))


def served(answer: Answer) -> list[str]:
    return [answer.candidates.ids[row] for row in answer.page.rows.tolist()]


async def test_two_engines_make_one_list() -> None:
    """Over real stages and real engines: what both return leads, and every document comes from one of them."""
    answer = await search(memory(x="read csv", y="csv"), memory(y="csv read", z="read"))
    assert served(answer)[0] == "y"
    assert set(served(answer)) == {"x", "y", "z"}
    assert answer.features.matrix[:, 0].tolist() == [1, 0.5, 0.5]
    assert answer.degraded_reasons == ()


async def test_a_slow_engine_changes_nothing_but_the_time() -> None:
    """Whichever engine is late, within its time, the answer is the same."""
    answers = []
    for late in ("", "a", "b"):
        engines = {"a": memory(x="read csv", y="csv"), "b": memory(y="csv read", z="read")}
        if late:
            engines[late].latency_s = 0.02
        answers.append(await search(**engines))
    assert served(answers[0]) == served(answers[1]) == served(answers[2])
    assert {tuple(answer.candidates.fused.tolist()) for answer in answers} == {
        tuple(answers[0].candidates.fused.tolist())
    }


async def test_a_failed_engine_leaves_the_others_standing() -> None:
    """What did answer is served, and who did not is said."""
    broken = memory()
    broken.hits = Hits(["x"], hits(["x", "y"]).scores)
    answer = await search(memory(x="read csv"), broken)
    assert served(answer) == ["x"]
    assert [reply.outcome for reply in answer.replies] == [Outcome.OK, Outcome.ERROR]
    assert answer.degraded_reasons == ("b: error",)


async def test_pages_of_a_search_are_its_list() -> None:
    """Asked page by page, by cursor, the same list comes out as in one piece."""
    engines = {
        "a": memory(**{f"d{n}": "read csv" for n in range(7)}),
        "b": memory(**{f"d{n}": "csv" for n in range(5, 12)}),
    }
    whole = served(await search(**engines, page_size=100))
    pages: list[str] = []
    cursor = ""
    while len(pages) < 12:
        answer = await search(**engines, page_size=5, cursor=cursor)
        pages += served(answer)
        cursor = answer.page.next_cursor
        if not cursor:
            break
    assert pages == whole
    assert len(whole) == 12
