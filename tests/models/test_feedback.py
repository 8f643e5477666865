from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from mixer.events import Event, EventKind
from models.feedback import OUTCOMES, Joined, Served
from tests.doubles import logs

IMPRESSION, CLICK, CONVERSION = EventKind.IMPRESSION, EventKind.CLICK, EventKind.CONVERSION
COLUMNS = ("query_id", "page_offset")


def joined(
    folder: Path,
    searches: Iterable[Mapping[str, Any]],
    events: Iterable[tuple[float, Event]],
    window_s: float = 60.0,
    columns: tuple[str, ...] = COLUMNS,
) -> tuple[list[Served], dict[tuple[str, str], int]]:
    logs.write_searches(folder / "log", searches)
    logs.write_events(folder / "events", events)
    with Joined(folder / "log", folder / "events", window_s) as made:
        served = list(made.searches(columns))
        assert made.total == len(served)
        return served, made.counts


def test_events_find_their_documents(tmp_path: Path) -> None:
    """By query id and document: places from 0, shown at their own place or where the event says."""
    (first, second), counts = joined(
        tmp_path,
        [logs.search("q1"), logs.search("q2", at_s=1)],
        [
            (1, Event("q1", IMPRESSION, "a", 1)),
            (1, Event("q1", IMPRESSION, "b", 7)),
            (2, Event("q1", CLICK, "b", 7)),
            (3, Event("q1", CONVERSION, "b", 0, 9.5)),
            (3, Event("q1", CONVERSION, "c", 0, 0.5)),
            (2, Event("q1", CLICK, "c")),
        ],
    )
    assert (first.row["query_id"], first.seen.tolist(), first.seen_at.tolist()) == ("q1", [0, 1], [1, 7])
    assert (first.clicked.tolist(), first.clicked_at.tolist()) == ([1, 2], [7, 3])
    assert (first.converted.tolist(), first.value) == ([1, 2], 10.0)
    assert (second.seen.size, second.clicked.size, second.converted.size, second.value) == (0, 0, 0, 0.0)
    assert counts == {("impression", "joined"): 2, ("click", "joined"): 2, ("conversion", "joined"): 2}


def test_what_does_not_count_is_counted(tmp_path: Path) -> None:
    """Duplicates, late events, those of no logged search and of no listed document: none vanishes, none counts."""
    (first,), counts = joined(
        tmp_path,
        [logs.search("q1")],
        [
            (1, Event("q1", CLICK, "a", event_id="e1")),
            (2, Event("q1", CLICK, "b", event_id="e1")),
            (60, Event("q1", CLICK, "b")),
            (60.000001, Event("q1", CLICK, "c")),
            (1, Event("q9", CLICK, "a")),
            (1, Event("q1", CLICK, "z")),
        ],
    )
    assert first.clicked.tolist() == [0, 1]
    assert counts == {
        ("click", "joined"): 2,
        ("click", "duplicate"): 1,
        ("click", "late"): 1,
        ("click", "unknown"): 1,
        ("click", "not_listed"): 1,
    }


def test_an_event_taken_by_two_servers_counts_once(tmp_path: Path) -> None:
    """The first one taken counts, wherever it is written: the other would have been late."""
    twice = Event("q1", CLICK, "a", event_id="e1")
    (first,), counts = joined(tmp_path, [logs.search("q1")], [(61, twice), (4, twice)])
    assert (first.clicked.tolist(), counts) == ([0], {("click", "joined"): 1, ("click", "duplicate"): 1})


def test_clicks_on_one_document_are_one(tmp_path: Path) -> None:
    """Two events of one kind on one document count once, at the place nearest the top."""
    clicks = [(at, Event("q1", CLICK, "b", position)) for at, position in ((1, 5), (2, 3))]
    (first,), _ = joined(tmp_path, [logs.search("q1")], clicks)
    assert (first.clicked.tolist(), first.clicked_at.tolist()) == ([1], [3])


def test_an_event_before_its_search_is_of_none(tmp_path: Path) -> None:
    """But for clocks that are apart, nobody clicks what is not served yet."""
    _, counts = joined(
        tmp_path,
        [logs.search("q1", at_s=10)],
        [(5, Event("q1", CLICK, "a")), (4.9, Event("q1", CLICK, "b"))],
    )
    assert counts == {("click", "joined"): 1, ("click", "unknown"): 1}


def test_pages_of_one_list_share_a_query_id(tmp_path: Path) -> None:
    """An event goes to the search whose page shows its document, else to the latest that ranks it."""
    pages = [logs.search("q1", "abcdef", at_s=at, page_offset=at * 2, page_size=2) for at in (0, 1)]
    events = [(5, Event("q1", CLICK, id_)) for id_ in "adf"]
    (first, second), counts = joined(tmp_path, pages, events)
    assert (first.row["page_offset"], first.clicked.tolist()) == (0, [0])
    assert (second.row["page_offset"], second.clicked.tolist()) == (2, [3, 5])
    assert counts == {("click", "joined"): 3}


def test_a_query_id_that_is_used_again(tmp_path: Path) -> None:
    """The latest list that holds the document is meant, though a later one does not, or it is off the page."""
    searches = [logs.search("q1", "abc", page_size=1), logs.search("q1", "abd", at_s=1)]
    (first, second), counts = joined(tmp_path, searches, [(2, Event("q1", CLICK, id_)) for id_ in "bc"])
    assert (first.clicked.tolist(), second.clicked.tolist()) == ([2], [1])
    assert counts == {("click", "joined"): 2}


def test_columns_come_as_arrays(tmp_path: Path) -> None:
    """Numbers as they were logged, to the bit, missing ones included; texts and maps as Python has them."""
    features = [[0.1, float("nan")], [1 / 3, 2.0], [5e-324, -0.0]]
    row = logs.search("q1", features=features, context=[("tier", "gold")])
    columns = ("features", "ranks", "ids", "context", "propensities", "query")
    (first,), _ = joined(tmp_path, [row], [(1, Event("q1", CLICK, "a"))], columns=columns)
    np.testing.assert_array_equal(first.row["features"], np.array(features))
    assert first.row["ranks"].tolist() == [[1], [2], [3]]
    assert first.row["propensities"].tolist() == [1.0, 1.0, 1.0]
    assert (first.row["ids"], first.row["context"]) == (("a", "b", "c"), {"tier": "gold"})


def test_times_are_those_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the logs are read, a search has the day that it was served on in UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    (first,), _ = joined(tmp_path, [logs.search("q1")], [(1, Event("q1", CLICK, "a"))], columns=("time",))
    assert first.row["time"].isoformat() == "2023-11-14T22:13:20+00:00"


def test_a_search_without_candidates(tmp_path: Path) -> None:
    """Nothing found is a search too."""
    columns = ("ids", "features", "scores")
    (first,), _ = joined(tmp_path, [logs.search("q1", ())], [(1, Event("q1", CLICK, "a"))], columns=columns)
    assert (first.row["ids"], first.row["features"].size, first.row["scores"].size) == ((), 0, 0)


@pytest.mark.parametrize("lacking", ["log", "events"])
def test_a_folder_without_files_is_named(tmp_path: Path, lacking: str) -> None:
    """Neither log may be empty: the mistake is most likely in the path."""
    logs.write_searches(tmp_path / "log", [logs.search("q1")])
    logs.write_events(tmp_path / "events", [(1, Event("q1", CLICK, "a"))])
    folders = {name: tmp_path / ("nowhere" if name == lacking else name) for name in ("log", "events")}
    with pytest.raises(ValueError, match="nowhere"):
        Joined(folders["log"], folders["events"])


def test_folders_that_are_exchanged_are_told(tmp_path: Path) -> None:
    """A log that is not one is a fault, not an empty result."""
    logs.write_searches(tmp_path / "log", [logs.search("q1")])
    logs.write_events(tmp_path / "events", [(1, Event("q1", CLICK, "a"))])
    with pytest.raises(ValueError, match="cannot be joined"):
        Joined(tmp_path / "events", tmp_path / "log")


EVENTS = st.tuples(
    st.integers(-10, 100),
    st.builds(
        Event,
        query_id=st.sampled_from(["q0", "q1", "q2", "gone"]),
        kind=st.sampled_from(EventKind),
        id=st.sampled_from("abcz"),
        event_id=st.integers(0, 12).map(str),
    ),
)


@property_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=st.lists(EVENTS, min_size=1, max_size=30))
def test_no_event_vanishes(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[float, Event]]
) -> None:
    """Whatever comes, the counts add up, an id counts once, and what counts is in the searches."""
    searches = [logs.search(f"q{number}", at_s=number) for number in range(3)]
    served, counts = joined(tmp_path_factory.mktemp("join"), searches, events)
    assert {outcome for _, outcome in counts} <= set(OUTCOMES)
    assert sum(counts.values()) == len(events)
    ids = {event.event_id for _, event in events}
    assert sum(many for (_, outcome), many in counts.items() if outcome != "duplicate") == len(ids)
    found = sum(s.seen.size + s.clicked.size + s.converted.size for s in served)
    assert found <= sum(many for (_, outcome), many in counts.items() if outcome == "joined")
