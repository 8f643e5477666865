"""Mixer's filters as Qdrant's, and Qdrant's points as columns. Pure."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from backends import filters
from backends.base import Filter, Range

if TYPE_CHECKING:
    from qdrant_client import models

_MOST = sys.float_info.max
_MOST_POINT = 2**64 - 1


def to_filter(asked: Sequence[Filter], keys: dict[str, str], numbers: set[str]) -> models.Filter | None:
    """All of them as one; None where no point can pass. `keys` has payload keys by field, none for a point's own id.

    A condition without values, which a server might read as none at all, is never sent.
    """
    from qdrant_client import models

    conditions = [_condition(item, keys[item.field], item.field in numbers) for item in asked]
    known = [condition for condition in conditions if condition is not None]
    return models.Filter(must=known) if len(known) == len(conditions) else None


def _condition(item: Filter, key: str, is_number: bool) -> models.Condition | None:
    if isinstance(item.condition, Range):
        low, high = item.condition.min, item.condition.max
        return _between(key, -math.inf if low is None else low, math.inf if high is None else high)
    values = filters.values_of(item.condition)
    if is_number:
        return _equal(key, [float(value) for value in values if math.isfinite(float(value))])
    texts = [value for value in values if isinstance(value, str) and value]
    return _among(key, texts) if key else _points(texts)


def _between(key: str, low: float, high: float) -> models.Condition | None:
    """JSON knows no infinity."""
    from qdrant_client import models

    if low > _MOST or high < -_MOST:
        return None
    return models.FieldCondition(key=key, range=models.Range(gte=max(low, -_MOST), lte=min(high, _MOST)))


def _equal(key: str, values: list[float]) -> models.Condition | None:
    """By ranges: Qdrant matches whole numbers only."""
    from qdrant_client import models

    ranges: list[models.Condition] = [
        models.FieldCondition(key=key, range=models.Range(gte=value, lte=value)) for value in values
    ]
    return models.Filter(should=ranges) if ranges else None


def _among(key: str, texts: list[str]) -> models.Condition | None:
    """Whole numbers of the payload are shown as texts, so they are found as texts."""
    from qdrant_client import models

    whole = [int(text) for text in texts if _is_whole(text) and abs(int(text)) < 2**63]
    held: list[models.Condition] = [
        models.FieldCondition(key=key, match=models.MatchAny(any=values))
        for values in (texts, whole)
        if values
    ]
    return models.Filter(should=held) if held else None


def _points(texts: list[str]) -> models.Condition | None:
    from qdrant_client import models

    ids: list[int | str | UUID] = [found for text in texts if (found := _point(text)) is not None]
    return models.HasIdCondition(has_id=ids) if ids else None


def _point(text: str) -> int | str | None:
    """The id of a point as Qdrant shows it; None where there can be no such."""
    if _is_whole(text):
        return int(text) if 0 <= int(text) <= _MOST_POINT else None
    try:
        return text if str(UUID(text)) == text else None
    except ValueError:
        return None


def _is_whole(text: str) -> bool:
    return len(text) <= 20 and text.removeprefix("-").isdecimal() and str(int(text)) == text


def value_of(payload: Any, key: str) -> Any:
    """What lies at a dotted key; None where nothing does."""
    for part in key.split("."):
        payload = payload.get(part) if isinstance(payload, dict) else None
    return payload


def text_of(value: Any) -> str:
    """A text, a whole number, or a list of them joined by ", "; anything else is missing."""
    return ", ".join(_texts(value if isinstance(value, list) else [value]))


def _texts(values: Iterable[Any]) -> list[str]:
    shown = [value if isinstance(value, str) else str(value) for value in values if _is_text(value)]
    return [text for text in shown if text]


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def number_of(value: Any) -> float:
    """A finite number; anything else is missing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan


def time_of(value: Any) -> float:
    """A number of seconds since 1970, or a time by RFC 3339 (UTC where it names no zone); 0 for anything else."""
    if isinstance(value, str):
        try:
            told = datetime.fromisoformat(value)
        except ValueError:
            return 0.0
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    return 0.0 if math.isnan(seconds := number_of(value)) else seconds
