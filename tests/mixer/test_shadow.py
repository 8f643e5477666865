from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from math import isnan
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import FloatColumn
from mixer import fanout, model, server
from mixer.arrange import total_order
from mixer.budget import WINDOW_S, Budget
from mixer.compare import Ranking, kendall_tau_b, rank_biased_overlap, score_shift
from mixer.metrics import Metrics
from mixer.rank import Scorer, ScoringFailed
from mixer.shadow import Shadow, Shadows, distance, drawn
from mixer.shadow_counts import ShadowCounts
from mixer.values import Answer, ModelRef, Ranker, Scores
from protos.mixer.v1 import mixer_pb2 as pb
from tests import forest
from tests.doubles import engines, mixers
from tests.doubles.mixers import until
from tests.doubles.registries import Shelf
from tests.samples import MODEL, answer, candidates, features, request, scores

WHOLE = {"slice": "all", "value": "all"}
NAN = float("nan")
MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}


class Scripted:
    """A scorer that does what the test says."""

    ref: ModelRef = MODEL
    scorer: str = "scripted"

    def __init__(self, verb: Callable[[FloatColumn], FloatColumn]) -> None:
        self.score = verb


class Gate:
    """A scorer that waits until it is let through."""

    ref: ModelRef = MODEL
    scorer: str = "gate"

    def __init__(self) -> None:
        self.asked, self.open = threading.Semaphore(0), threading.Event()

    def score(self, matrix: FloatColumn) -> FloatColumn:
        self.asked.release()
        assert self.open.wait(30)
        return matrix[:, 0]


def first_column(matrix: FloatColumn) -> FloatColumn:
    return matrix[:, 0]


class Stage:
    """Shadows of a mix, and what is counted of them."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._made: list[Shadows] = []

    def shadow(self, scorer: Scorer, name: str = "b", share: float = 1.0, **more: Any) -> Shadow:
        budget = more.pop("budget", Budget(1.0))
        made = Shadow(share, lambda: budget, ShadowCounts(self.metrics, "m", name), **more)
        made.put(scorer)
        return made

    def shadows(self, *shadows: Shadow, queue: int = 8) -> Shadows:
        self._made.append(Shadows(shadows, queue))
        return self._made[-1]

    def value(self, name: str, shadow: str = "b", **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(name, {"mix": "m", "shadow": shadow, **labels})
        return 0.0 if found is None else found

    def compared(self, shadow: str = "b", **place: str) -> float:
        return self.value("mixer_shadow_overlap_ratio_count", shadow, **{**WHOLE, **place})

    def dropped(self, reason: str, shadow: str = "b") -> float:
        return self.value("mixer_shadow_dropped_total", shadow, reason=reason)

    def close(self) -> None:
        for shadows in self._made:
            shadows.close(5.0)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


COLUMNS = st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=20)


@given(COLUMNS)
def test_the_distance_is_between_the_two_orders(pairs: list[tuple[float, float]]) -> None:
    """It compares the total orders that the two scores make, and the scores themselves."""
    served, values = np.array(pairs).T
    found = candidates(np.linspace(1, 0, len(pairs)).tolist())
    made = answer(candidates=found, scores=scores(served.tolist()))
    before, after = total_order(found, scores(served.tolist())), total_order(found, scores(values.tolist()))
    told = distance(made, values)
    assert told.overlap == rank_biased_overlap(Ranking.of(before), Ranking.of(after))
    assert told.tau == pytest.approx(kendall_tau_b(served, values), nan_ok=True)
    new = len(set(after[:10].tolist()) - set(before[:10].tolist()))
    assert told.churn == pytest.approx(new / min(len(pairs), 10))
    assert told.shift == pytest.approx(score_shift(served, values), nan_ok=True)


def test_the_same_scores_are_no_distance_apart() -> None:
    """Overlap and correlation are 1, churn and shift 0."""
    told = distance(answer(), answer().scores.values)
    assert (told.overlap, told.tau, told.churn, told.shift) == (1.0, 1.0, 0.0, 0.0)


def test_there_is_no_shift_from_a_fused_order() -> None:
    """Fused scores and a model's have no scale in common; the orders still can be compared."""
    told = distance(answer(scores=Scores(answer().candidates.fused, Ranker.FUSED)), np.array([1.0, 0.0]))
    assert isnan(told.shift)
    assert told.overlap == 1.0


def test_a_compared_answer_is_told_by_slice(stage: Stage) -> None:
    """Once for the whole, and once for every slice it is in."""
    shadow = stage.shadow(Scripted(first_column), slices=lambda made: {"length": "2-3", "tier": "paid"})
    shadow.compare(answer())
    shadow.compare(answer())
    assert stage.compared() == 2
    assert stage.compared(slice="length", value="2-3") == stage.compared(slice="tier", value="paid") == 2
    assert stage.value("mixer_shadow_cpu_seconds_total") > 0


@pytest.mark.parametrize(
    ("made", "verb", "reason"),
    [
        (answer(candidates=candidates([1.0])), first_column, "too_few"),
        (answer(), lambda matrix: np.full(2, NAN), "scores_not_finite"),
        (answer(), lambda matrix: (_ for _ in ()).throw(ScoringFailed()), "scoring_failed"),
    ],
)
def test_what_cannot_be_compared_is_counted(
    made: Answer, verb: Callable[[FloatColumn], FloatColumn], reason: str, stage: Stage
) -> None:
    """Nothing vanishes, and the shadow goes on with the next answer."""
    shadow = stage.shadow(Scripted(verb))
    shadow.compare(made)
    assert (stage.dropped(reason), stage.compared(), shadow.is_active) == (1, 0, True)


def test_a_crash_ends_that_shadow_only(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in the code is loud and stops the shadow; the others on the same thread go on."""

    def crashes(matrix: FloatColumn) -> FloatColumn:
        raise ZeroDivisionError

    shadows = stage.shadows(stage.shadow(Scripted(crashes), "x"), stage.shadow(Scripted(first_column)))
    for _ in range(3):
        shadows.offer(answer())
    shadows.close(5.0)
    assert stage.compared() == 3
    assert (stage.value("mixer_shadow_active", "x"), stage.value("mixer_shadow_active")) == (0, 1)
    assert stage.dropped("crashed", "x") == 1
    assert [record.message for record in caplog.records] == ["a shadow crashed", "a shadow stopped itself"]


def test_a_shadow_cannot_write_on_what_was_served(stage: Stage) -> None:
    """The features are read-only to it; an attempt ends the shadow and changes no value."""

    def scribbles(matrix: FloatColumn) -> FloatColumn:
        matrix[:] = 0.0
        return matrix[:, 0]

    made = answer()
    before = made.features.matrix.copy()
    logging.disable(logging.CRITICAL)
    stage.shadow(Scripted(scribbles)).compare(made)
    logging.disable(logging.NOTSET)
    assert np.array_equal(made.features.matrix, before, equal_nan=True)
    assert stage.dropped("crashed") == 1


class Spent:
    """A clock for a budget, at a window's start."""

    now_s = 7 * WINDOW_S

    def __call__(self) -> float:
        return self.now_s


def burns(matrix: FloatColumn) -> FloatColumn:
    """Takes some CPU time, more than nothing."""
    total = sum(range(200_000))
    return matrix[:, 0] + total * 0.0


def test_another_model_begins_anew(stage: Stage) -> None:
    """A shadow that stopped itself scores again with the next model that is put there, on a budget of its own."""

    def crashes(matrix: FloatColumn) -> FloatColumn:
        raise ZeroDivisionError

    shadow = stage.shadow(Scripted(crashes))
    logging.disable(logging.CRITICAL)
    shadow.compare(answer())
    logging.disable(logging.NOTSET)
    assert (shadow.is_active, stage.value("mixer_shadow_active")) == (False, 0)
    shadow.put(Scripted(first_column))
    shadow.compare(answer())
    assert (shadow.is_active, stage.value("mixer_shadow_active"), stage.compared()) == (True, 1, 1)


def test_a_spent_budget_rests_the_shadow(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond its share of a window answers are left out, counted and said; the next window it goes on."""
    clock = Spent()
    shadow = stage.shadow(Scripted(burns), budget=Budget(1e-6, clock))
    for _ in range(3):
        shadow.compare(answer())
    assert (stage.compared(), stage.dropped("over_budget"), shadow.is_active) == (1, 2, True)
    assert [record.message for record in caplog.records] == ["a shadow rests: its CPU budget is spent"]


def test_a_shadow_over_its_budget_stops_itself(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Where the budget runs out window after window the shadow ends, and says so in the log and the metrics."""
    clock = Spent()
    shadow = stage.shadow(Scripted(burns), budget=Budget(1e-6, clock))
    shadows = stage.shadows(shadow)
    while shadow.is_active:
        shadow.compare(answer())
        clock.now_s += WINDOW_S
    assert stage.value("mixer_shadow_active") == 0
    told = [(record.message, vars(record)["why"]) for record in caplog.records if record.levelname == "ERROR"]
    assert told == [("a shadow stopped itself", "cpu_budget")]
    compared, stopped = stage.compared(), stage.dropped("stopped")
    shadows.offer(answer())
    shadow.compare(answer())
    shadows.close(5.0)
    assert (stage.compared(), stage.dropped("stopped")) == (compared, stopped + 1)


def test_an_overload_is_dropped_and_counted(stage: Stage) -> None:
    """While the thread is busy the queue fills and the rest is left out; no offer waits, nothing is lost uncounted."""
    gate = Gate()
    shadows = stage.shadows(stage.shadow(gate), queue=4)
    shadows.offer(answer())
    gate.asked.acquire()
    for _ in range(50):
        shadows.offer(answer())
    assert stage.dropped("queue_full") == 46
    gate.open.set()
    shadows.close(10.0)
    assert stage.compared() == 5


def test_the_queue_is_drained_at_the_end(stage: Stage) -> None:
    """What was queued is compared before the end, what comes after it is counted as left out."""
    shadows = stage.shadows(stage.shadow(Scripted(first_column)))
    for _ in range(8):
        shadows.offer(answer())
    shadows.close(10.0)
    shadows.offer(answer())
    assert (stage.compared() + stage.dropped("queue_full"), stage.dropped("closing")) == (8, 1)


def test_the_end_does_not_wait_for_a_shadow_that_hangs(stage: Stage) -> None:
    """After its time the close gives up: what is left is counted, and the thread ends when it comes to itself."""
    gate = Gate()
    shadows = stage.shadows(stage.shadow(gate), queue=4)
    shadows.offer(answer())
    gate.asked.acquire()
    for _ in range(3):
        shadows.offer(answer())
    shadows.close(0.05)
    assert stage.dropped("closing") == 3
    gate.open.set()
    shadows._thread.join(10)
    assert not shadows._thread.is_alive()
    assert stage.compared() == 1


@given(st.text(max_size=40))
def test_a_query_id_draws_one_place(query_id: str) -> None:
    """The same id is always drawn alike, whatever it is made of."""
    assert drawn(query_id) == drawn(query_id)
    assert 0 <= drawn(query_id) < 1


def test_the_share_is_drawn_by_query_id(stage: Stage) -> None:
    """A share of the ids is compared; of two shadows the smaller share is part of the larger one."""
    seen: dict[str, set[int]] = {"few": set(), "many": set()}
    asked = [answer(request(query_id=f"q{n}"), features=features(n=[n, 1])) for n in range(600)]

    def sees(name: str) -> Scripted:
        def score(matrix: FloatColumn) -> FloatColumn:
            seen[name].add(int(matrix[0, 0]))
            return first_column(matrix)

        return Scripted(score)

    shadows = stage.shadows(
        stage.shadow(sees("few"), "few", 0.1), stage.shadow(sees("many"), "many", 0.5), queue=600
    )
    for made in asked:
        shadows.offer(made)
    shadows.close(10.0)
    assert seen["few"] == {n for n in range(600) if drawn(f"q{n}") < 0.1}
    assert 30 < len(seen["few"]) < 90
    assert 250 < len(seen["many"]) < 350
    assert seen["few"] <= seen["many"]


def served(folder: Path, *shadows: dict[str, Any], **models: Any) -> Any:
    """A mix of one backend with a model, and these shadows of it."""
    rules = {
        "model": "m",
        "features": [feature.model_dump() for feature in forest.FEATURES],
        "diversity": {"field": "title", "max": 1},
        "page_size": 2,
        "shadows": list(shadows),
    }
    return mixers.settings({"a": MEMORY}, rules, models={"m": {"path": folder}, **models})


QUERIES = ("csv file", "read", "path of a file", "nothing of that kind", "csv", "json")


async def answers(settings: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], Metrics]:
    """The bytes of every answer over a socket, page by page, on clocks that stand still."""
    for module in (fanout, server):
        monkeypatch.setattr(module, "perf_counter", lambda: 0.0)
    monkeypatch.setenv("MIXER_CURSOR_KEY", "the same for all")
    found: list[bytes] = []
    async with mixers.running(settings) as mixer:
        async with grpc.aio.insecure_channel(mixer.target) as channel:
            search = channel.unary_unary(f"/{mixers.ROOT}")
            for n, query in enumerate(QUERIES * 5):
                cursor = ""
                for page in range(2):
                    message = pb.SearchRequest(
                        query=query, request_id=f"{n}-{page}", cursor=cursor, debug=pb.DEBUG_LEVEL_FEATURES
                    )
                    found.append(await search(message.SerializeToString(), timeout=20))
                    cursor = pb.SearchResponse.FromString(found[-1]).next_cursor
        return found, mixer.app.metrics


async def test_answers_are_the_same_bytes_with_shadows_and_without(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    """Over the socket, with features and cursors, not a byte of an answer tells whether shadows look at it."""
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)
    alone, _ = await answers(served(model_folder), monkeypatch)
    other = {"members": [{"model": "m", "weight": 0.5}, {"model": "again", "weight": 2.0}]}
    shadows = [{"model": "again", "cpu_share": 1.0}, {"model": "both", "cpu_share": 1.0}]
    settings = served(model_folder, *shadows, again={"path": model_folder}, both=other)
    watched, metrics = await answers(settings, monkeypatch)
    assert watched == alone
    assert len(set(alone)) == len(alone)
    for name in ("again", "both"):
        told = {"mix": "default", "shadow": name}
        value = metrics.registry.get_sample_value
        compared = value("mixer_shadow_overlap_ratio_count", {**told, **WHOLE}) or 0
        few = value("mixer_shadow_dropped_total", {**told, "reason": "too_few"}) or 0
        assert compared + few == len(alone)
        assert compared > 0
        # The same forest, alone or with itself, ranks the same.
        assert value("mixer_shadow_kendall_tau_bucket", {**told, **WHOLE, "le": "0.99"}) == 0


async def test_a_shadow_that_hangs_or_crashes_costs_no_answer(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers come as before while the shadow's thread stands still, more of them than the queue holds."""
    gate = Gate()
    async with mixers.running(served(model_folder)) as mixer:
        made = Stage()
        shadows = made.shadows(made.shadow(gate), queue=2)
        service = mixer.app.mixes["default"]
        search = shadows.beside(service.search)
        results = [await search(request(query, query_id=str(n))) for n, query in enumerate(QUERIES * 5)]
        assert len(results) == 30
        await until(lambda: made.dropped("queue_full") >= 27)
        gate.open.set()
        await asyncio.to_thread(made.close)
        assert made.compared() + made.dropped("too_few") + made.dropped("queue_full") == 30


async def test_a_refused_shadow_is_left_out(model_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A shadow whose model fails a check is said and not waited for; the mix serves and is ready."""
    settings = served(model_folder, {"model": "gone"}, gone={"path": model_folder / "gone"})
    async with mixers.running(settings) as mixer:
        assert mixer.app.faults == {}
        assert len((await mixer.search("csv file")).hits) == 2
        assert mixer.value("mixer_shadow_active", mix="default", shadow="gone") == 0
    (told,) = [record for record in caplog.records if record.message == "shadow refused"]
    assert (vars(told)["shadow"], vars(told)["check"]) == ("gone", "manifest")


async def test_a_shadow_of_a_registry_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins with the first version that is current, and another one takes its place; distances are by slice."""
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)
    shelf = Shelf(tmp_path)
    a, b = shelf.publish(6), shelf.publish(9)
    settings = served(tmp_path / "drafts" / "6", {"model": "next", "cpu_share": 1.0}, next=shelf.settings)
    length = {"name": "length", "by": "query_length", "bounds": [1]}
    mix = settings.mixes["default"]
    raw = settings.model_dump(mode="json", exclude_none=True)
    raw["mixes"]["default"] = {**mix.model_dump(mode="json", exclude_none=True), "slices": [length]}
    told = {"mix": "default", "shadow": "next"}
    async with mixers.running(type(settings).model_validate(raw)) as mixer:

        async def unmoved(compared: int) -> float:
            for _ in range(3):
                await mixer.search("csv file")
            place = {"slice": "length", "value": "2+"}
            await until(lambda: mixer.value("mixer_shadow_overlap_ratio_count", **told, **place) == compared)
            return mixer.value("mixer_shadow_score_shift_bucket", **told, **place, le="0.0") or 0.0

        assert mixer.value("mixer_shadow_active", **told) == 0
        shelf.promote(a)
        await until(lambda: mixer.value("mixer_shadow_active", **told) == 1)
        assert await unmoved(3) == 3
        shelf.promote(b)
        await until(lambda: mixer.value("mixer_model_swaps_total", mix="default", outcome="swapped") == 2)
        assert await unmoved(6) == 3


async def test_without_shadows_nothing_is_added(model_folder: Path) -> None:
    """A mix that declares none starts no thread."""
    before = threading.active_count()
    async with mixers.running(served(model_folder)) as mixer:
        assert mixer.app.mixes["default"].shadows is None
        assert "shadows" not in {thread.name for thread in threading.enumerate()[before:]}
