"""The lines of the report: what they compare, and when they hold."""

from __future__ import annotations

import pytest

from tests.bench import lines
from tests.bench.history import Run
from tests.bench.lines import Line
from tests.bench.records import course, crowd, run
from tests.bench.scenes import SPANS


def line(key: str) -> Line:
    return next(line for line in (*lines.PATH, *lines.WORKERS) if line.key == key)


def broken(measured: Run) -> list[str]:
    return [check.title for check in lines.checks(measured) if not check.holds]


def test_ten_spans_make_a_traced_call() -> None:
    """The root, six stages, three backends."""
    assert SPANS == 10


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    """A round in which the machine was slow for both changes nothing."""
    measured = run({"floor": course("floor", (1.0, 1.0, 9.0)), "traced": course("traced", (2.0, 3.0, 27.0))})
    assert line("cpu_traced").value(measured) == pytest.approx(3.0)
    assert line("cpu_traced").spread(measured) == pytest.approx((2.5, 3.0))


def test_candidates_and_backends_are_compared_to_their_own_base() -> None:
    """Both to three backends of 100 documents each, the latter per backend."""
    assert line("many").value(run()) == pytest.approx(18 / 3)
    assert line("wide").value(run()) == pytest.approx((12 / 16) / (3 / 3))


def test_p99_is_over_all_requests() -> None:
    """One slow request in a round says little; all rounds together say more."""
    slow = course("traced", (2.0, 2.0), (2000,) * 100)
    assert line("p99_traced").value(
        run({"traced": slow, "model": course("model", (2.0, 2.0), (1000,) * 100)})
    ) == pytest.approx(2.0)


def test_every_target_is_judged() -> None:
    """A line with a target says yes or NO; one without says nothing."""
    told = {line.key: lines.verdict(line, run()) for line in lines.PATH}
    assert told == {line.key: "yes" if line.target else "" for line in lines.PATH}
    dear = run({"traced": course("traced", (3.1, 3.1))})
    assert lines.verdict(line("cpu_traced"), dear) == "NO"


def test_two_workers_are_judged_where_two_cores_are_free() -> None:
    """What the generator and the backends use is not free; fewer than two cores judge nothing."""
    crowds = {1: (crowd(100), crowd(100)), 2: (crowd(180), crowd(180))}
    assert line("rate").value(run(crowds=crowds)) == pytest.approx(1.8)
    assert lines.verdict(line("rate"), run(crowds=crowds)) == "yes"
    assert lines.verdict(line("rate"), run(crowds={**crowds, 2: (crowd(120), crowd(120))})) == "NO"
    busy = {**crowds, 2: (crowd(180, generator_cpu_s=13.0),) * 2}
    assert lines.free_cores(run(crowds=busy)) == pytest.approx(8 - 6.5)
    assert lines.verdict(line("rate"), run(crowds=busy)).startswith("not judged")


def test_without_crowds_there_are_no_lines_of_theirs() -> None:
    """Their absence is told by a sentence of its own."""
    assert lines.of(run()) == lines.PATH


def test_a_sound_run_passes_every_check() -> None:
    """Nothing is broken where nothing is wrong."""
    assert broken(run()) == []
    assert len(lines.checks(run())) > len(lines.counts(run()))


@pytest.mark.parametrize(
    ("scene", "spans"),
    [("traced", 200 * SPANS - 1), ("traced", 200 * SPANS + 1), ("model", 1), ("sampled", 999)],
)
def test_a_span_too_few_or_too_many_fails(scene: str, spans: int) -> None:
    """All of a traced call's, none of others, and of a sampled share not many more than it."""
    sound = run().courses[scene]
    measured = run({scene: sound.model_copy(update={"spans": spans})})
    assert [title.partition(",")[0] for title in broken(measured)] == ["spans"]


def test_a_dropped_span_fails() -> None:
    """Even where the others arrived."""
    sound = run().courses["traced"]
    assert broken(run({"traced": sound.model_copy(update={"dropped": 1})})) == [
        "spans dropped, model, tracing 100 %"
    ]


@pytest.mark.parametrize(
    ("scene", "cost_ms"), [("sampled", 4.1), ("traced", 5.1), ("many", 36.3), ("wide", 32.3)]
)
def test_a_ratio_beyond_its_wide_bound_fails(scene: str, cost_ms: float) -> None:
    """And one that only misses its target does not."""
    assert len(broken(run({scene: course(scene, (cost_ms, cost_ms))}))) == 1
    assert broken(run({scene: course(scene, (cost_ms * 0.9, cost_ms * 0.9))})) == []
