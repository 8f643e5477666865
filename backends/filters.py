"""Which queries an index can answer: the one place that refuses a filter, the same for every engine."""

from __future__ import annotations

import math

from backends.base import BackendRefused, Equals, Filter, Query, Range, Terms
from backends.schema import FieldType, Schema

_NAME_SHOWN = 64


class FilterRefused(BackendRefused):
    """One filter can never be answered; `position` is its place in the query."""

    def __init__(self, position: int, field: str, reason: str) -> None:
        """The message names the field, cut short, and why."""
        super().__init__(f"filter {position} on {field[:_NAME_SHOWN]!r}: {reason}")
        self.position = position


def check(query: Query, schema: Schema) -> None:
    """Pass a query that the engines can answer; a text field takes no filter.

    Raises: FilterRefused on an unknown field, a wrong kind of condition or value, or NaN; BackendRefused on
    text that is not Unicode.
    """
    if not is_unicode(query.text):
        raise BackendRefused("the query is not valid Unicode")
    for position, item in enumerate(query.filters):
        reason = _fault(item, schema)
        if reason is not None:
            raise FilterRefused(position, item.field, reason)


def is_unicode(text: str) -> bool:
    """False for text with half a surrogate pair, which no engine can store or be asked."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def values_of(condition: Equals | Terms) -> tuple[str | float, ...]:
    """What the field may be equal to."""
    return (condition.value,) if isinstance(condition, Equals) else condition.values


def _fault(item: Filter, schema: Schema) -> str | None:
    declared = schema.type_of(item.field)
    if declared is None:
        return "the index has no such field"
    if declared == "text":
        return "a text field takes no filter"
    if isinstance(item.condition, Range):
        return _range_fault(item.condition, declared)
    wanted: type | tuple[type, ...] = (int, float) if declared == "number" else str
    if not all(isinstance(value, wanted) for value in values_of(item.condition)):
        return f"its values must be {'numbers' if declared == 'number' else 'texts'}"
    sound = all(map(_is_sound, values_of(item.condition)))
    return None if sound else "a value is not a number or not valid Unicode"


def _range_fault(condition: Range, declared: FieldType) -> str | None:
    if declared != "number":
        return "only a number field has ranges"
    ends = [end for end in (condition.min, condition.max) if end is not None]
    return "an end is not a number" if any(map(math.isnan, ends)) else None


def _is_sound(value: str | float) -> bool:
    return is_unicode(value) if isinstance(value, str) else not math.isnan(value)
