"""What people type for filters and context on the command line, read into values."""

from __future__ import annotations

import math

from backends.base import Equals, Filter, Range, Terms


class Unreadable(ValueError):
    """What was typed does not have the form that it needs."""


def filter_from(text: str) -> Filter:
    """`field=value`, `field=a|b`, `field=low..high`. Raises: Unreadable."""
    field, value = _split(text)
    if ".." in value:
        low, _, high = value.partition("..")
        return Filter(field, Range(*(_number(end) if end else None for end in (low, high))))
    if "|" in value:
        return Filter(field, Terms(tuple(map(_scalar, value.split("|")))))
    return Filter(field, Equals(_scalar(value)))


def pair_from(text: str) -> tuple[str, str | float]:
    """`key=value`, a number where it reads as one. Raises: Unreadable."""
    key, value = _split(text)
    return key, _scalar(value)


def _split(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key and sign and value):
        raise Unreadable(f"{text!r}: write name=value")
    return key, value


def _scalar(text: str) -> str | float:
    """A finite number where it reads as one; `nan` and `inf` are words, and so is what stands in quotes."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _number(text: str) -> float:
    value = _scalar(text)
    if isinstance(value, str):
        raise Unreadable(f"{text!r} is not a number; write low..high")
    return value
