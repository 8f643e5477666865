"""Slices of the traffic that are watched apart, each with few values; declared for a mix:

slices:
  - {name: length, by: query_length, bounds: [1, 3]}                 # words: up to 1, 2 to 3, more
  - {name: tier, by: context, key: tier, values: [free, paid]}       # any other value is `other`, none is `none`
  - {name: script, by: script}                                       # of most of the query's letters
  - {name: answered, by: backends}                                   # all, or without which

A caller that knows its language sends it as context. Scripts are those of the Unicode names of letters.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mixer.values import Answer, Outcome

NONE, OTHER, ALL = "none", "other", "all"
_SCRIPTS = (
    *("latin", "cyrillic", "greek", "arabic", "hebrew", "cjk", "hiragana", "katakana", "hangul"),
    *("devanagari", "bengali", "tamil", "telugu", "thai", "georgian", "armenian"),
)
_LETTERS = 32
"""Looked at of a query."""


class SliceBase(BaseModel):
    """What every slice declares besides what it goes by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


def _rising(bounds: tuple[int, ...]) -> tuple[int, ...]:
    if list(bounds) != sorted(set(bounds)):
        raise ValueError("bounds must rise")
    return bounds


class LengthSlice(SliceBase):
    """Words of the query; a bound is the most words of its part."""

    by: Literal["query_length"]
    bounds: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=8), AfterValidator(_rising)
    ]


class ContextSlice(SliceBase):
    """A text that the caller sent."""

    by: Literal["context"]
    key: str
    values: Annotated[tuple[str, ...], Field(min_length=1, max_length=32)]


class ScriptSlice(SliceBase):
    """The script of most of the query's letters."""

    by: Literal["script"]


class BackendsSlice(SliceBase):
    """Which backends answered."""

    by: Literal["backends"]


Slice = Annotated[LengthSlice | ContextSlice | ScriptSlice | BackendsSlice, Field(discriminator="by")]


def distinct(slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
    """The same, where no two have one name. Raises: ValueError."""
    names = [each.name for each in slices]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{', '.join(map(repr, repeated))} is declared twice")
    return slices


class Slices:
    """The declared slices of one mix."""

    def __init__(self, declared: Sequence[Slice], backends: Sequence[str]) -> None:
        """Takes the mix's slices and backends."""
        self._verbs = {each.name: _VERBS[type(each)](each) for each in declared}
        self.values = {each.name: _values(each, backends) for each in declared}
        """All values that each slice can have."""

    def of(
        self, query: str, context: Mapping[str, str | float], missing: Sequence[str] = ()
    ) -> dict[str, str]:
        """The value of each slice for a query, its context, and the backends that did not answer it."""
        return {name: verb(query, context, missing) for name, verb in self._verbs.items()}

    def of_answer(self, answer: Answer) -> dict[str, str]:
        """The value of each slice for what was asked and who answered."""
        request = answer.plan.request
        missing = [reply.backend for reply in answer.replies if reply.outcome is not Outcome.OK]
        return self.of(request.query, request.context, missing)


NO_SLICES = Slices((), ())
"""Of a mix that declares none."""


Verb = Callable[[str, Mapping[str, str | float], Sequence[str]], str]


def _values(declared: Slice, backends: Sequence[str]) -> tuple[str, ...]:
    match declared:
        case LengthSlice(bounds=bounds):
            return _parts(bounds)
        case ContextSlice(values=values):
            return tuple(dict.fromkeys((*values, OTHER, NONE)))
        case ScriptSlice():
            return (*_SCRIPTS, OTHER, NONE)
        case BackendsSlice():
            return tuple(dict.fromkeys((ALL, *(_without([name]) for name in backends), _without(backends))))


def _parts(bounds: Sequence[int]) -> tuple[str, ...]:
    starts = [0, *(bound + 1 for bound in bounds)]
    closed = [f"{low}" if low == high else f"{low}-{high}" for low, high in zip(starts, bounds, strict=False)]
    return (*closed, f"{starts[-1]}+")


def _without(missing: Sequence[str]) -> str:
    return f"without_{missing[0]}" if len(missing) == 1 else "without_several"


def _by_length(declared: LengthSlice) -> Verb:
    parts = _parts(declared.bounds)
    return lambda query, context, missing: parts[bisect_left(declared.bounds, len(query.split()))]


def _by_context(declared: ContextSlice) -> Verb:
    known = frozenset(declared.values)

    def value(query: str, context: Mapping[str, str | float], missing: Sequence[str]) -> str:
        sent = context.get(declared.key)
        text = NONE if sent is None else sent if isinstance(sent, str) else f"{sent:g}"
        return text if text in known or sent is None else OTHER

    return value


def _by_script(_: ScriptSlice) -> Verb:
    return lambda query, context, missing: _script(query)


def _script(query: str) -> str:
    letters = list(islice(filter(str.isalpha, query), _LETTERS))
    if not letters:
        return NONE
    return Counter(map(_script_of, letters)).most_common(1)[0][0]


@cache
def _script_of(letter: str) -> str:
    first = unicodedata.name(letter, "").partition(" ")[0].lower()
    return first if first in _SCRIPTS else OTHER


def _by_backends(_: BackendsSlice) -> Verb:
    return lambda query, context, missing: _without(missing) if missing else ALL


_VERBS: Mapping[type, Callable[[Any], Verb]] = {
    LengthSlice: _by_length,
    ContextSlice: _by_context,
    ScriptSlice: _by_script,
    BackendsSlice: _by_backends,
}
