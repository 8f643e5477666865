from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mixer import duel
from mixer.duel import Duel
from mixer.experiment_settings import InterleaveSettings
from mixer.metrics import Metrics
from mixer.values import Answer, Draft, ModelRef, Page
from tests.samples import MODEL, answer, candidates, request, scores

OTHER = ModelRef("other", "2", "f" * 64)
SETTLE_S = 60.0


class Clock:
    """Stands still unless told."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Ring:
    """A duel, and what is counted of it."""

    def __init__(self) -> None:
        self.metrics, self.clock = Metrics(), Clock()
        self.duel = Duel("m", "b", InterleaveSettings(settle_s=SETTLE_S), self.metrics, self.clock)

    def serve(self, query_id: str, seed: str = "", **changes: Any) -> None:
        self.duel.served(drafted(query_id, seed or query_id, **changes))

    def settle(self) -> tuple[int, int, int]:
        """After a while: wins, losses and ties, as the metrics say."""
        self.clock.now_s += SETTLE_S
        self.duel.settle()
        return self.counts

    @property
    def counts(self) -> tuple[int, int, int]:
        names = ("arm", "control", "neither")
        wins, losses, ties = (int(self.value("mixer_interleaved_lists", preferred=name)) for name in names)
        return wins, losses, ties

    def value(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(name, {"mix": "m", "arm": "b", **labels})
        assert found is not None
        return found


def drafted(query_id: str, seed: str, offset: int = 0, against: ModelRef = OTHER) -> Answer:
    """Hits d00 to d03 two a page, picked by the control, the arm, the arm and nobody."""
    found = candidates([4.0, 3.0, 2.0, 1.0])
    draft = Draft(("a", "b"), np.array([0, 1, 1, -1], np.int8), seed)
    ranked = scores([4, 3, 2, 1])
    return answer(
        request(query_id=query_id),
        candidates=found,
        scores=replace(ranked, against=scores([1, 2, 3, 4], against)),
        page=Page(np.arange(4), offset, 2, draft=draft),
    )


@pytest.fixture
def ring() -> Ring:
    return Ring()


@pytest.mark.parametrize(
    ("clicked", "told"),
    [
        (["d01"], (1, 0, 0)),
        (["d00"], (0, 1, 0)),
        (["d00", "d01"], (0, 0, 1)),
        (["d00", "d00"], (0, 1, 0)),
        ([], (0, 0, 1)),
        (["d02"], (0, 0, 1)),
        (["nowhere"], (0, 0, 1)),
    ],
)
def test_a_click_is_for_who_picked_the_hit(ring: Ring, clicked: list[str], told: Any) -> None:
    """Of hits that were served; a list that was seen and prefers nobody is a tie."""
    ring.serve("q")
    assert ring.duel.saw("q", "d00", clicked=False)
    for id_ in clicked:
        assert ring.duel.saw("q", id_, clicked=True)
    assert ring.counts == (0, 0, 0)
    assert ring.settle() == told


def test_a_list_that_nobody_saw_says_nothing(ring: Ring) -> None:
    """Without an event it is no tie."""
    ring.serve("q")
    assert ring.settle() == (0, 0, 0)


def test_pages_of_one_list_are_one_vote(ring: Ring) -> None:
    """Whatever their query ids: the coins were tossed for the list."""
    ring.serve("one", "seed")
    ring.serve("two", "seed", offset=2)
    for query_id, id_ in (("one", "d00"), ("two", "d02"), ("one", "d01"), ("two", "d03")):
        assert ring.duel.saw(query_id, id_, clicked=True)
    assert ring.settle() == (1, 0, 0)


def test_a_list_is_counted_once(ring: Ring) -> None:
    """A while after it was served, in the order of serving; what comes later changes nothing."""
    ring.serve("first")
    ring.clock.now_s = SETTLE_S / 2
    ring.serve("second")
    for query_id in ("first", "second"):
        ring.duel.saw(query_id, "d01", clicked=True)
    ring.clock.now_s = SETTLE_S
    ring.duel.settle()
    assert ring.counts == (1, 0, 0)
    assert not ring.duel.saw("first", "d00", clicked=True)
    assert ring.settle() == (2, 0, 0)


def test_too_many_lists_are_counted_early(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: the oldest list is counted as it is."""
    monkeypatch.setattr(duel, "LISTS", 2)
    for n in range(5):
        ring.serve(str(n))
        ring.duel.saw(str(n), "d01", clicked=True)
    assert ring.counts == (3, 0, 0)
    assert not ring.duel.saw("0", "d01", clicked=True)


@pytest.mark.parametrize("changes", [{"against": MODEL}])
def test_another_model_begins_anew(ring: Ring, changes: Any) -> None:
    """What readers preferred of two models says nothing of others."""
    ring.serve("q")
    ring.duel.saw("q", "d01", clicked=True)
    assert ring.settle() == (1, 0, 0)
    ring.serve("r", **changes)
    assert ring.counts == (0, 0, 0)
    assert ring.value("mixer_interleaved_log_e_value") == 0


def test_a_list_of_one_ranking_is_no_part_of_it(ring: Ring) -> None:
    """Where nothing was drafted nothing is remembered."""
    ring.duel.served(answer(request(query_id="q")))
    assert not ring.duel.saw("q", "d01", clicked=True)


def test_a_verdict_is_said_once(ring: Ring, caplog: pytest.LogCaptureFixture) -> None:
    """As soon as the evidence suffices, in the log, with the figures; the evidence goes on in the metrics."""
    for n in range(60):
        ring.serve(str(n))
        ring.duel.saw(str(n), "d01", clicked=True)
    assert ring.settle() == (60, 0, 0)
    [record] = caplog.records
    assert (vars(record)["preferred"], vars(record)["arm"]) == ("treatment", "b")
    assert vars(record)["p"] <= 0.05
    assert ring.value("mixer_interleaved_log_e_value") > np.log(20)
    assert ring.duel.test.verdict == "treatment"
