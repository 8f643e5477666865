"""A query as parameters of Solr's search handler, and the hits that come back. Nothing a user types is an operator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from backends import bounds
from backends.base import Equals, FloatColumn, Hits, Query, Range, Terms
from backends.filters import values_of
from backends.served import column, shortened
from backends.solr_settings import SolrSettings, Vectors, Words

Parameters = list[tuple[str, str]]

_NOTHING = "-*:*"
_OPERATORS = re.compile(r'[+\-&|!(){}\[\]^"~*?:\\/;]|\b(?:AND|OR|NOT)\b')


class Held(NamedTuple):
    """A field as the collection has it: the server's name of it, its type, and whether an answer can show it."""

    name: str
    type: str
    is_shown: bool


def parameters(
    settings: SolrSettings,
    held: Mapping[str, Held],
    query: Query,
    vector: list[float] | None,
    timeout_s: float,
) -> Parameters:
    """`vector` is the query's, in mode vectors; `timeout_s` is the server's own."""
    size = min(query.limit, settings.max_hits)
    asked = [
        ("wt", "json"),
        ("rows", str(size)),
        ("timeAllowed", str(max(1, int(timeout_s * 1000)))),
        *_main(settings, query.text, vector, size),
        *_filters(query, held, settings.id),
    ]
    shown = [settings.id, "score"]
    shown += [held[name].name for name in query.fields if name in held and held[name].is_shown]
    for place, (name, scored) in enumerate(settings.scores.items()):
        if name in query.fields:
            shown.append(f"{name}:query($score{place},0)")
            asked.append((f"score{place}", scored))
    return [*asked, ("fl", ",".join(shown)), ("text", escaped(shortened(query.text, 1)))]


def read(answer: Any, settings: SolrSettings, held: Mapping[str, Held], query: Query) -> Hits:
    """The columns of an answer. Raises: KeyError, TypeError, ValueError, AttributeError where it makes no sense."""
    rows = answer["response"]["docs"]
    if settings.least is not None:
        # Best first: what is left out is the end.
        rows = [row for row in rows if row["score"] >= settings.least]
    numbers: dict[str, FloatColumn] = {}
    texts: dict[str, list[str]] = {}
    for name in query.fields:
        if name in settings.scores:
            numbers[name] = column([row.get(name) for row in rows])
        elif name in held and held[name].is_shown:
            values = [_values(row.get(held[name].name)) for row in rows]
            if settings.fields[name].type == "number":
                numbers[name] = column([value[0] if value else None for value in values])
            else:
                texts[name] = [", ".join(value) for value in values]
    ids = [_values(row[settings.id])[0] for row in rows]
    return Hits(ids, column([row["score"] for row in rows]), numbers, texts)


def escaped(text: str) -> str:
    """The text with each operator of the query parser as a plain sign or word."""
    return _OPERATORS.sub(r"\\\g<0>", text)


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _main(settings: SolrSettings, text: str, vector: list[float] | None, size: int) -> Parameters:
    """What matches and scores; filters go before the neighbors, not after."""
    match settings.search:
        case Vectors() as vectors:
            most = max(size, vectors.candidates)
            query = f"{{!knn f={vectors.field} topK={most} v=$vector}}"
            return [("q", query), ("vector", str(vector))]
        case Words() as words:
            texts = settings.named("text")
            searched = words.boosts or dict.fromkeys(texts, 1.0)
            fields = " ".join(f"{texts[name]}^{boost:g}" for name, boost in searched.items())
            chosen = {"tie": "1.0", **words.parameters, "defType": "edismax", "qf": fields}
            chosen["mm"] = "100%" if words.match == "all" else "1"
            return [("q", escaped(shortened(text, len(searched)))), *chosen.items()]


def _filters(query: Query, held: Mapping[str, Held], id_field: str) -> Parameters:
    asked: Parameters = []
    for place, item in enumerate(query.filters):
        name, kind, _ = held[item.field] if item.field != "id" else Held(id_field, "keyword", True)
        if isinstance(item.condition, Range):
            asked.append(("fq", _range(name, kind, item.condition)))
        else:
            asked += _among(name, kind, item.condition, place)
    return asked


def _among(name: str, kind: str, condition: Equals | Terms, place: int) -> Parameters:
    """The values in a row in a parameter of their own, where nothing is parsed, between signs that none of them has."""
    if kind in bounds.WHOLE or kind in bounds.FRACTIONAL:
        values = list(map(repr, bounds.held(values_of(condition), kind)))
    else:
        values = [value for value in map(str, values_of(condition)) if value]
    if not values:
        return [("fq", _NOTHING)]
    used = set().union(*values)
    between = next(sign for sign in map(chr, range(1, 0x300)) if sign not in used and not sign.isspace())
    filtered = f"{{!terms f={name} separator=$between{place} v=$among{place}}}"
    return [("fq", filtered), (f"between{place}", between), (f"among{place}", between.join(values))]


def _range(name: str, kind: str, condition: Range) -> str:
    ends = bounds.ends(condition, kind)
    if ends is None:
        return _NOTHING
    low, high = ("*" if end is None else f'"{end!r}"' for end in ends)
    return f"{name}:[{low} TO {high}]"
