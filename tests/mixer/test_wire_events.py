from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from mixer import wire_events
from mixer.client import feedback_request
from mixer.errors import InvalidRequest
from mixer.events import Event, EventKind, EventOutcome
from mixer.settings import LimitSettings
from protos.mixer.v1 import mixer_pb2 as pb

LIMITS = LimitSettings(candidates=100, text_chars=10, events=3)
NAN = float("nan")
IDS = st.text(min_size=1, max_size=10)


def message(**fields: Any) -> pb.FeedbackRequest:
    right = {"event_id": "e", "query_id": "q", "kind": pb.EVENT_KIND_CLICK, "id": "d", **fields}
    return pb.FeedbackRequest(events=[pb.Event(**right)])


@given(
    event_id=IDS,
    query_id=IDS,
    id=IDS,
    kind=st.sampled_from(EventKind),
    position=st.integers(0, 100),
    value=st.floats(allow_nan=False, allow_infinity=False),
    happened_s=st.integers(1, 10_000_000_000).map(float),
)
def test_an_event_arrives_as_it_was_sent(**sent: Any) -> None:
    """What the client is told becomes, by way of bytes, the event that is taken."""
    made = feedback_request([Event(**sent)])
    read = pb.FeedbackRequest.FromString(made.SerializeToString())
    assert wire_events.events_from(read, LIMITS, 5.0) == (Event(**sent),)


def test_an_event_that_does_not_say_when_happened_now() -> None:
    """The server's clock stands in."""
    (event,) = wire_events.events_from(message(), LIMITS, 1234.5)
    assert event.happened_s == 1234.5


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"event_id": ""}, "event_id", "is empty"),
        ({"event_id": "x" * 11}, "event_id", "longer than 10"),
        ({"query_id": ""}, "query_id", "is empty"),
        ({"query_id": "x" * 11}, "query_id", "longer than 10"),
        ({"id": ""}, "id", "is empty"),
        ({"id": "x" * 11}, "id", "longer than 10"),
        ({"kind": 0}, "kind", "impression, click or conversion"),
        ({"kind": 17}, "kind", "impression, click or conversion"),
        ({"position": -1}, "position", "send 0 to 100"),
        ({"position": 101}, "position", "send 0 to 100"),
        ({"value": NAN}, "value", "finite"),
        ({"value": float("inf")}, "value", "finite"),
        ({"time": Timestamp(seconds=0)}, "time", "calendar"),
        ({"time": Timestamp(seconds=253_402_300_800)}, "time", "calendar"),
        ({"time": Timestamp(seconds=5, nanos=-1)}, "time", "calendar"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], path: str, words: str) -> None:
    """Each fault has its path, and says what to send."""
    with pytest.raises(InvalidRequest) as refused:
        wire_events.events_from(message(**fields), LIMITS, 1.0)
    (violation,) = refused.value.violations
    assert violation.field == f"events[0].{path}"
    assert words in violation.description


def test_all_wrong_events_are_named_at_once() -> None:
    """Nobody mends a request one fault at a time."""
    wrong = pb.FeedbackRequest(events=[*message().events, pb.Event(), *message(id="").events])
    with pytest.raises(InvalidRequest) as refused:
        wire_events.events_from(wrong, LIMITS, 1.0)
    assert [v.field.partition("]")[0] for v in refused.value.violations] == ["events[1"] * 4 + ["events[2"]


@pytest.mark.parametrize("many", [0, 4])
def test_too_few_or_too_many(many: int) -> None:
    """A call holds at least one event, and no more than the limit."""
    with pytest.raises(InvalidRequest, match="send 1 to 3"):
        wire_events.events_from(pb.FeedbackRequest(events=[pb.Event()] * many), LIMITS, 1.0)


def test_every_outcome_has_its_word() -> None:
    """Outcomes travel by name, in order."""
    names = [pb.EventOutcome.Name(o) for o in wire_events.response_from(list(EventOutcome)).outcomes]
    assert names == [f"EVENT_OUTCOME_{outcome.name}" for outcome in EventOutcome]
