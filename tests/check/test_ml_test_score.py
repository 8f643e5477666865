from __future__ import annotations

import pytest

from tests.check import ml_test_score
from tests.check.ml_test_score import LEVELS, faults, has_command, has_test, level
from tests.check.rubric import SECTIONS, Row

HERE = "check/test_ml_test_score.py::test_what_is_named_must_exist"


def test_the_page_is_true_and_fresh() -> None:
    """Everything that the rubric names exists, and the page says what the rubric says."""
    assert ml_test_score.all_faults() == []
    assert ml_test_score.PATH.read_text(encoding="utf-8") == ml_test_score.page(), "stale; run `make docs`"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (Row("x", tests=("check/test_ml_test_score.py::test_nothing",)), "no test"),
        (Row("x", tests=("check/test_nowhere.py::test_nothing",)), "no test"),
        (Row("x", tests=("check/rubric.py::Row",)), "no test"),
        (Row("x", tests=(HERE,), commands=("mixer models undo",)), "no command"),
        (Row("x", tests=(HERE,), watched=("mixer_nothing_total",)), "no metric or alert"),
        (Row("x", commands=("mixer rules",)), "claims the whole without a test"),
        (Row("x"), "does not say what is lacking"),
    ],
)
def test_what_is_named_must_exist(row: Row, fault: str) -> None:
    """A test, command, metric or alert that is not there is a fault, and so is a claim without any."""
    (found,) = faults(row)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("mixer models promote --bounds", True),
        ("mixer search --json", True),
        ("mixer models", False),
        ("mixer models promote --bound", False),
        ("mixer promote", False),
        ("mixer rules extra", False),
        ("make bench-check", True),
        ("make no-such-target", False),
        ("rm -r", False),
    ],
)
def test_a_command_is_one_that_can_be_given(line: str, there: bool) -> None:
    """Groups alone do nothing; options are those that the command takes."""
    assert has_command(line) == there


def test_only_what_pytest_collects_is_a_test() -> None:
    """Functions of test files whose names say so, coroutines among them."""
    assert has_test("mixer/test_faults_over_sockets.py::test_backend_that_answers_garbage")
    assert not has_test("mixer/test_faults_over_sockets.py::beside")
    assert not has_test("mixer/test_faults_over_sockets.py")


def test_half_is_what_lacks_something() -> None:
    """Nothing named counts nothing, something lacking counts half, the whole counts one; there are 28 rows."""
    scores = [Row("x"), Row("x", tests=(HERE,), lacking="more"), Row("x", tests=(HERE,))]
    assert [row.score for row in scores] == [0, 0.5, 1]
    assert [len(rows) for rows in SECTIONS.values()] == [7] * 4


@pytest.mark.parametrize(
    ("score", "place"), [(0, 0), (0.5, 1), (1, 1), (1.5, 2), (3, 3), (5, 4), (5.5, 5), (7, 5)]
)
def test_bands_end_at_their_bound(score: float, place: int) -> None:
    """A score on a bound is of the band below it."""
    assert level(score) == LEVELS[place][2]
