"""What people did with answers, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from time import time
from uuid import uuid4


class EventKind(StrEnum):
    """What somebody did with a document of an answer."""

    IMPRESSION = "impression"
    CLICK = "click"
    CONVERSION = "conversion"


class EventOutcome(StrEnum):
    """What became of an event, as far as the server that was sent it knows."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    LATE = "late"
    UNKNOWN = "unknown"


def _new_id() -> str:
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `position` counts from 1, 0 stands for the answer's own place. It may be sent more than once."""

    query_id: str
    kind: EventKind
    id: str
    """Of the document."""
    position: int = 0
    value: float = 0.0
    """What it was worth, in the caller's unit."""
    happened_s: float = field(default_factory=time)
    """Unix time."""
    event_id: str = field(default_factory=_new_id)
