from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mixer import cli, cli_words
from mixer.events import Event, EventKind
from mixer.sequential import Tally
from models.feedback import Joined
from models.interleaved import Pair, tallies
from tests.doubles import logs

IMPRESSION, CLICK, CONVERSION = EventKind.IMPRESSION, EventKind.CLICK, EventKind.CONVERSION
Told = Iterable[tuple[float, Event]]


def drafted(query_id: str, **columns: Any) -> dict[str, Any]:
    """A list a, b, c: picked by the arm, the control and nobody."""
    rules = {"arm": "duel", "teams": ["duel", "control", ""], "model_version": "v2"}
    return logs.search(query_id, **{**rules, **columns})


def write(folder: Path, searches: Iterable[Mapping[str, Any]], events: Told) -> tuple[Path, Path]:
    logs.write_searches(folder / "log", searches)
    logs.write_events(folder / "events", events)
    return folder / "log", folder / "events"


def found(folder: Path, searches: Iterable[Mapping[str, Any]], events: Told) -> Mapping[Pair, Tally]:
    with Joined(*write(folder, searches, events)) as joined:
        return tallies(joined)


def did(query_id: str, kind: EventKind, *ids: str) -> list[tuple[float, Event]]:
    return [(1, Event(query_id, kind, id_)) for id_ in ids]


def test_votes_by_hand(tmp_path: Path) -> None:
    """Clicks and conversions are for who picked the hit, each hit once; what was seen and prefers nobody is a tie,
    what nobody saw or nobody drafted is nothing."""
    searches = [*(drafted(f"q{n}") for n in range(7)), drafted("plain", teams=[])]
    events = [
        *did("q0", CLICK, "a"),
        *did("q1", CONVERSION, "b"),
        *did("q1", CLICK, "b"),
        *did("q2", CLICK, "a", "b"),
        *did("q3", IMPRESSION, "a"),
        *did("q4", CLICK, "c"),
        *did("q5", CLICK, "a", "c"),
        *did("plain", CLICK, "a"),
    ]
    assert found(tmp_path, searches, events) == {Pair("default", "duel", "v2"): Tally(2, 1, 3)}


def test_arms_and_versions_stand_apart(tmp_path: Path) -> None:
    """What readers prefer of one model says nothing of another."""
    searches = [
        drafted("q0"),
        drafted("q1", model_version="v3"),
        drafted("q2", arm="b", teams=["control", "b", ""]),
    ]
    events = [event for n in range(3) for event in did(f"q{n}", CLICK, "a")]
    assert found(tmp_path, searches, events) == {
        Pair("default", "duel", "v2"): Tally(1, 0, 0),
        Pair("default", "duel", "v3"): Tally(1, 0, 0),
        Pair("default", "b", "v2"): Tally(0, 1, 0),
    }


@pytest.mark.parametrize(
    ("clicked", "verdict"), [("a", "readers prefer duel"), ("b", "readers prefer the control")]
)
def test_the_command_says_who_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clicked: str, verdict: str
) -> None:
    """With the figures behind it; a log without drafted lists says so."""
    monkeypatch.setattr(cli_words.console, "_width", 200)
    searches = [drafted(f"q{n}") for n in range(30)]
    log, events = write(
        tmp_path, searches, [event for n in range(30) for event in did(f"q{n}", CLICK, clicked)]
    )
    result = CliRunner().invoke(cli.app, ["experiment", "interleaved", str(log), str(events)])
    assert result.exit_code == 0, result.output
    assert f"default v2 in duel: {verdict}: in 30 drafted lists" in result.output
    log, events = write(tmp_path / "none", [logs.search("q0")], did("q0", CLICK, "a"))
    result = CliRunner().invoke(cli.app, ["experiment", "interleaved", str(log), str(events)])
    assert (result.exit_code, "no drafted list" in result.output) == (1, True)
