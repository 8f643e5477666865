from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mixer import cli
from mixer.events import Event, EventKind
from models import evaluation, online
from models.feedback import Joined, Served
from models.online import Part, Seen, measure, shown_grades, slice_of
from tests.doubles import logs

IMPRESSION, CLICK, CONVERSION = EventKind.IMPRESSION, EventKind.CLICK, EventKind.CONVERSION
EMPTY = np.zeros(0, np.intp)


def write(
    folder: Path, searches: Iterable[Mapping[str, Any]], events: Iterable[tuple[float, Event]]
) -> tuple[Path, Path]:
    logs.write_searches(folder / "log", searches)
    logs.write_events(folder / "events", events)
    return folder / "log", folder / "events"


def parts(folders: tuple[Path, Path], by: Sequence[str] = (), seen: Seen = "impressions") -> Any:
    with Joined(*folders) as joined:
        return measure(joined, [slice_of(name) for name in by], seen)


def means(part: Part) -> dict[str, float]:
    return {name: value.mean for name, value in part.intervals().items()}


def seen(query_id: str, *ids: str) -> list[tuple[float, Event]]:
    return [(1, Event(query_id, IMPRESSION, id_)) for id_ in ids]


def test_measures_by_hand(tmp_path: Path) -> None:
    """Three searches seen: a click at the top, a click at 2 and a conversion at 3, nothing."""
    made = parts(
        write(
            tmp_path,
            [logs.search(f"q{number}") for number in range(4)],
            [
                *(event for number in range(3) for event in seen(f"q{number}", "a", "b", "c")),
                (2, Event("q0", CLICK, "a")),
                (2, Event("q1", CLICK, "b")),
                (3, Event("q1", CONVERSION, "c")),
            ],
        )
    )
    (part,) = made.values()
    ndcg = (1 / np.log2(3) + 3 / np.log2(4)) / (3 + 1 / np.log2(3))
    assert (part.seen, part.served) == (3, 4)
    assert means(part) == pytest.approx({"CTR": 2 / 3, "MRR": (1 + 1 / 2) / 3, "NDCG@10": (1 + ndcg) / 3})


def test_the_measures_are_those_of_the_offline_evaluation() -> None:
    """One code for both."""
    assert online.MEASURES["MRR"] is evaluation.MEASURES["MRR"]
    assert online.MEASURES["NDCG@10"] is evaluation.MEASURES["NDCG@10"]


def test_all_that_was_served_may_count(tmp_path: Path) -> None:
    """Where nobody sends impressions, searches without an event count as misses."""
    searches = [logs.search(f"q{number}") for number in range(4)]
    (part,) = parts(write(tmp_path, searches, [(1, Event("q0", CLICK, "a"))]), seen="served").values()
    assert (part.seen, means(part)["CTR"]) == (4, 0.25)


def test_places_are_those_of_the_page(tmp_path: Path) -> None:
    """On a second page the first hit is the first; a click on an earlier page's hit counts where it stands."""
    row = {"page_offset": 3, "page_size": 2}
    page = shown_grades(Served(row, EMPTY, EMPTY, np.array([4]), np.array([5]), EMPTY, 0.0))
    whole = shown_grades(Served(row, EMPTY, EMPTY, np.array([1]), np.array([2]), EMPTY, 0.0))
    assert (page.tolist(), whole.tolist()) == ([0, 1], [0, 1, 0, 0, 0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("arm", {("a",), ("(none)",)}),
        ("mix", {("default",)}),
        ("degraded", {("false",), ("true",)}),
        ("slice.length", {("2-3",), ("(not logged)",)}),
    ],
)
def test_slices(tmp_path: Path, name: str, expected: set[tuple[str]]) -> None:
    """Every search is in one part of a slice, those without a value too."""
    first: dict[str, Any] = {"arm": "a", "slices": [("length", "2-3")], "degraded": True}
    searches = [logs.search("q0", **first), logs.search("q1")]
    made = parts(write(tmp_path, searches, seen("q0", "a")), [name])
    assert set(made) == expected
    assert sum(part.served for part in made.values()) == 2


def test_slices_cross(tmp_path: Path) -> None:
    """Two slices make parts of parts."""
    searches = [logs.search(f"q{number}", arm="ab"[number % 2], mix="xy"[number // 2]) for number in range(4)]
    made = parts(write(tmp_path, searches, seen("q0", "a")), ["arm", "mix"])
    assert set(made) == {("a", "x"), ("b", "x"), ("a", "y"), ("b", "y")}


def test_an_unknown_slice_is_told_with_those_there_are() -> None:
    """A misspelled slice is a fault."""
    with pytest.raises(ValueError, match="no slice is called 'tier'; there are: arm, mix"):
        slice_of("tier")


def test_parts_are_bounded(tmp_path: Path) -> None:
    """Many versions are not a table of that many rows; none is lost."""
    searches = [logs.search(f"q{number}", model_version=str(number)) for number in range(30)]
    made = parts(write(tmp_path, searches, seen("q0", "a")), ["model_version"])
    assert len(made) == 21
    assert made[("(others)",)].served == 10
    assert sum(part.seen for part in made.values()) == 1


def test_the_command_prints_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mixer online` shows each arm with its figures, what was left out, and what became of the events."""
    monkeypatch.setattr(cli, "console", Console(width=200))
    searches = [logs.search(f"q{number}", arm="ab"[number % 2]) for number in range(6)]
    events = [event for number in range(4) for event in seen(f"q{number}", "a", "b")]
    clicks = [(2, Event(f"q{number}", CLICK, "b")) for number in (1, 3, 9)]
    folders = write(tmp_path, searches, [*events, *clicks])
    result = CliRunner().invoke(cli.app, ["online", *map(str, folders), "--by", "arm"])
    assert result.exit_code == 0, result.stderr
    assert [
        [cell.strip() for cell in line.split("│")[1:3]] for line in result.stdout.splitlines() if "│" in line
    ] == [
        ["a (2 of 3)", "0.0000 [0.000, 0.000]"],
        ["b (2 of 3)", "1.0000 [1.000, 1.000]"],
    ]
    assert "2 searches without an impression are left out" in result.stdout
    assert "clicks: 2 joined, 1 unknown" in result.stdout
    assert "impressions: 8 joined" in result.stdout


def test_a_slice_that_no_search_has_is_said(tmp_path: Path) -> None:
    """As where it is misspelled, or declared since."""
    folders = write(tmp_path, [logs.search("q0", slices=[("length", "1")])], seen("q0", "a"))
    run = CliRunner().invoke
    told = run(cli.app, ["online", *map(str, folders), "--by", "slice.lenght"])
    assert "no search was logged with slice.lenght" in told.stdout
    assert (
        "no search was logged"
        not in run(cli.app, ["online", *map(str, folders), "--by", "slice.length"]).stdout
    )


def test_the_command_tells_what_is_wrong(tmp_path: Path) -> None:
    """A folder that holds nothing is one line and status 1."""
    result = CliRunner().invoke(cli.app, ["online", str(tmp_path / "x"), str(tmp_path / "y")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "No files found" in result.stderr


def test_nothing_seen_is_said(tmp_path: Path) -> None:
    """No table of nothing."""
    folders = write(tmp_path, [logs.search("q0")], [(1, Event("q0", CLICK, "a"))])
    result = CliRunner().invoke(cli.app, ["online", *map(str, folders)])
    assert "no search counts: none has an impression" in result.stdout
