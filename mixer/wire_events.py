"""Messages of Feedback to events and back, pure. What is wrong is collected, every field by its path."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mixer.errors import InvalidRequest, Violation
from mixer.events import Event, EventKind, EventOutcome
from mixer.settings import LimitSettings
from mixer.wire import YEAR_10000_S
from protos.mixer.v1 import mixer_pb2 as pb

_KINDS = {pb.EventKind.Value(f"EVENT_KIND_{kind.name}"): kind for kind in EventKind}
_OUTCOMES = {outcome: f"EVENT_OUTCOME_{outcome.name}" for outcome in EventOutcome}


def events_from(message: pb.FeedbackRequest, limits: LimitSettings, now_s: float) -> tuple[Event, ...]:
    """Checked events; those that do not say when happened now. Raises: InvalidRequest naming every wrong field."""
    if not 0 < len(message.events) <= limits.events:
        raise InvalidRequest([Violation("events", f"has {len(message.events)}; send 1 to {limits.events}")])
    wrong = [
        w for place, event in enumerate(message.events) for w in _wrong(event, f"events[{place}]", limits)
    ]
    if wrong:
        raise InvalidRequest(wrong)
    return tuple(_event(event, now_s) for event in message.events)


def response_from(outcomes: Sequence[EventOutcome]) -> pb.FeedbackResponse:
    """What became of each event, in order."""
    return pb.FeedbackResponse(outcomes=[_OUTCOMES[outcome] for outcome in outcomes])


def _wrong(event: pb.Event, path: str, limits: LimitSettings) -> Iterator[Violation]:
    for name in ("event_id", "query_id", "id"):
        text = getattr(event, name)
        if not text:
            yield Violation(f"{path}.{name}", "is empty")
        elif len(text) > limits.text_chars:
            yield Violation(f"{path}.{name}", f"is longer than {limits.text_chars} characters")
    if event.kind not in _KINDS:
        yield Violation(f"{path}.kind", "is none; send impression, click or conversion")
    if not 0 <= event.position <= limits.candidates:
        yield Violation(f"{path}.position", f"is {event.position}; send 0 to {limits.candidates}")
    if not math.isfinite(event.value):
        yield Violation(f"{path}.value", "is not a finite number")
    if event.HasField("time") and not _is_time(event):
        yield Violation(f"{path}.time", "is no time after 1970 that a calendar holds")


def _is_time(event: pb.Event) -> bool:
    return 0 < event.time.seconds < YEAR_10000_S and 0 <= event.time.nanos < 1_000_000_000


def _event(event: pb.Event, now_s: float) -> Event:
    happened_s = event.time.seconds + event.time.nanos / 1e9 if event.HasField("time") else now_s
    return Event(
        query_id=event.query_id,
        kind=_KINDS[event.kind],
        id=event.id,
        position=event.position,
        value=event.value,
        happened_s=happened_s,
        event_id=event.event_id,
    )
