"""What Mixer may rely on, whatever the engine."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.base import (
    Backend,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    Equals,
    Filter,
    Hits,
    Query,
    Range,
    Terms,
)

EVERYTHING = "read write csv json file"
HUGE = 2**40
HOSTILE = [
    '"',
    "'; DROP TABLE documents; --",
    'title:"x" AND (NOT OR *',
    "NEAR(a b) ^ title : {a b}",
    "file*",
    "read\0file",
    "\0",
    "[1 TO 2] ~3 \\ /regex.*/",
    "((((((((((",
    "%s {0} ${x} `id`",
    "\u202eelif daer\u202c \u200b\ufeff",
    "👩‍👩‍👧 🏳️‍🌈 e\u0301 ﬁle",
    "_ __ ___",
    "-1 +read -file",
    "AND OR NOT",
    "a" * 1_000_000,
    "read " * 200_000,
    '"' * 1_000_000,
]


async def ask(backend: Backend, text: str = EVERYTHING, limit: int = 100, **more: Any) -> Hits:
    return await backend.retrieve(Query(text, limit, **more), timeout_s=10.0)


def assert_sound(hits: Hits, limit: int) -> None:
    assert hits.fault() is None
    assert len(hits) <= limit
    assert len(set(hits.ids)) == len(hits)
    assert np.isfinite(hits.scores).all()
    assert (np.diff(hits.scores) <= 0).all()


async def test_answer_is_sound(backend: Backend) -> None:
    """Ids are unique, scores finite and descending, columns as long as the ids."""
    hits = await ask(backend, fields=("title", "kind", "year"))
    assert_sound(hits, 100)
    assert len(hits) > 3
    assert hits.scores.dtype == np.float64


async def test_relevant_document_is_found(backend: Backend) -> None:
    """Words of one document find it."""
    assert "csv.reader" in (await ask(backend, "csv rows", limit=2)).ids


@pytest.mark.parametrize("limit", [-1, 0, 1, 2, HUGE])
async def test_limit_is_kept(backend: Backend, limit: int) -> None:
    """At most `limit` hits come back, the best ones; none at all for zero or less."""
    hits, everything = await ask(backend, limit=limit), await ask(backend, limit=1000)
    assert_sound(hits, max(limit, 0))
    assert hits.ids == everything.ids[: max(limit, 0)]


async def test_only_fields_asked_for(backend: Backend) -> None:
    """An answer has the fields that were asked for and are held, and no others."""
    none, some = await ask(backend), await ask(backend, fields=("year", "title", "no_such_field"))
    assert (none.numbers, none.texts) == ({}, {})
    assert (set(some.numbers), set(some.texts)) == ({"year"}, {"title"})


async def test_field_values(backend: Backend, documents: list[dict[str, Any]]) -> None:
    """Values are the document's own: lists joined, missing texts empty, missing numbers NaN."""
    hits = await ask(backend, fields=("title", "aliases", "tags", "year"))
    by_id = {document["id"]: document for document in documents}
    for row, document in enumerate(by_id[name] for name in hits.ids):
        tags = document.get("tags", "")
        assert hits.texts["title"][row] == document["title"]
        assert hits.texts["aliases"][row] == ", ".join(document.get("aliases", []))
        assert hits.texts["tags"][row] == (tags if isinstance(tags, str) else ", ".join(tags))
        year = document.get("year")
        held = hits.numbers["year"][row]
        assert math.isnan(held) if year is None else held == year


CONDITIONS: list[tuple[Filter, Callable[[dict[str, Any]], bool]]] = [
    (Filter("id", Equals("json")), lambda d: d["id"] == "json"),
    (Filter("id", Terms(("csv", "open", "absent"))), lambda d: d["id"] in {"csv", "open"}),
    (Filter("kind", Equals("function")), lambda d: d.get("kind") == "function"),
    (Filter("kind", Equals("FUNCTION")), lambda d: False),
    (Filter("kind", Equals("func")), lambda d: False),
    (Filter("kind", Terms(("module", "function"))), lambda d: d.get("kind") in {"module", "function"}),
    (Filter("tags", Equals("io")), lambda d: "io" in d.get("tags", ())),
    (Filter("tags", Terms(("text", "io"))), lambda d: bool(d.get("tags"))),
    (Filter("tags", Terms(())), lambda d: False),
    (Filter("kind", Equals("")), lambda d: False),
    (Filter("kind", Equals("a\0b' OR 1=1")), lambda d: False),
    (Filter("year", Equals(2001.0)), lambda d: d.get("year") == 2001),
    (Filter("year", Equals(2001)), lambda d: d.get("year") == 2001),
    (Filter("year", Equals(math.inf)), lambda d: False),
    (Filter("year", Terms((1991.0, 2008.0))), lambda d: d.get("year") in {1991, 2008}),
    (Filter("year", Range(2001.0, 2008.0)), lambda d: d.get("year") in {2001, 2008}),
    (Filter("year", Range(min=2002.0)), lambda d: d.get("year") == 2008),
    (Filter("year", Range(max=1991.0)), lambda d: d.get("year") in {1991, -5.5}),
    (Filter("year", Range()), lambda d: d.get("year") is not None),
    (Filter("year", Range(-math.inf, math.inf)), lambda d: d.get("year") is not None),
    (Filter("year", Range(2008.0, 2001.0)), lambda d: False),
]


@pytest.mark.parametrize(("condition", "holds"), CONDITIONS, ids=[str(item) for item, _ in CONDITIONS])
async def test_filter_is_kept(
    backend: Backend,
    documents: list[dict[str, Any]],
    condition: Filter,
    holds: Callable[[dict[str, Any]], bool],
) -> None:
    """A filter takes away exactly the documents for which it does not hold, and leaves the scores alone."""
    everything, hits = await ask(backend), await ask(backend, filters=(condition,))
    passing = {document["id"] for document in documents if holds(document)}
    scores = dict(zip(everything.ids, everything.scores.tolist(), strict=True))
    assert set(hits.ids) == set(everything.ids) & passing
    assert hits.scores.tolist() == pytest.approx([scores[name] for name in hits.ids], rel=1e-5)


async def test_filters_all_hold(backend: Backend) -> None:
    """Several filters hold together, in whatever order."""
    filters = (
        Filter("kind", Equals("function")),
        Filter("id", Terms(("csv", "csv.reader", "json.loads"))),
        Filter("year", Equals(2001)),
    )
    assert (await ask(backend, filters=filters)).ids == ["csv.reader"]
    assert (await ask(backend, filters=filters[::-1])).ids == ["csv.reader"]


async def test_many_terms(backend: Backend) -> None:
    """A filter takes thousands of terms."""
    terms = Terms((*(f"absent-{i}" for i in range(5000)), "open"))
    assert (await ask(backend, filters=(Filter("id", terms),))).ids == ["open"]


@pytest.mark.parametrize(
    "refused",
    [
        Filter("no_such_field", Equals("x")),
        Filter("_row", Equals(1)),
        Filter("title", Equals("read and write json")),
        Filter("kind", Range(min=1)),
        Filter("id", Range(max=1)),
        Filter("kind", Equals(1.0)),
        Filter("year", Equals("2001")),
        Filter("year", Terms((2001.0, "2008"))),
    ],
    ids=str,
)
async def test_impossible_filter_is_refused(backend: Backend, refused: Filter) -> None:
    """A filter that can never be answered is refused, naming its field, whatever else is asked."""
    fine = Filter("year", Equals(2001))
    with pytest.raises(BackendRefused, match=f"filter 1 on '{refused.field}'"):
        await ask(backend, filters=(fine, refused))
    with pytest.raises(BackendRefused):
        await ask(backend, "", filters=(refused,))


@pytest.mark.parametrize(
    "value", [Equals(math.nan), Terms((1.0, math.nan)), Range(min=math.nan), Range(max=math.nan)]
)
async def test_nan_is_refused(backend: Backend, value: Equals | Terms | Range) -> None:
    """NaN is no value to filter by."""
    with pytest.raises(BackendRefused):
        await ask(backend, filters=(Filter("year", value),))


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "!!! ???", "zzqqxxyy"])
async def test_nothing_to_find(backend: Backend, text: str) -> None:
    """A query without words, or with unknown words only, finds nothing and is no error."""
    hits = await ask(backend, text, fields=("title", "year"))
    assert_sound(hits, 0)
    assert hits.index.version


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
async def test_hostile_query(backend: Backend, text: str) -> None:
    """No text is a syntax error."""
    assert_sound(await ask(backend, text), 100)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
async def test_any_query(backend: Backend, text: str) -> None:
    """Any text can be asked, alone or with words around it."""
    assert_sound(await ask(backend, text), 100)
    assert_sound(await ask(backend, f"read {text} csv{text}"), 100)


async def test_half_a_surrogate_is_refused(backend: Backend) -> None:
    """Text that is not Unicode is refused, in the query and in a filter."""
    with pytest.raises(BackendRefused):
        await ask(backend, "read \ud800")
    with pytest.raises(BackendRefused):
        await ask(backend, filters=(Filter("kind", Equals("\udfff")),))


@pytest.mark.parametrize("word", ["café", "CAFÉ", "東京", "Ελλάς", "ελλάς", "straße"])
async def test_words_of_any_script(backend: Backend, word: str) -> None:
    """Words are words in any script, as they are written and in the other case."""
    assert (await ask(backend, word, limit=1)).ids == ["naïve"]


async def test_many_at_once(backend: Backend) -> None:
    """Answers do not depend on what else is asked at the same time."""
    texts = ["csv", "json", "open file", EVERYTHING, "", "write"] * 8
    alone = {text: await ask(backend, text, fields=("title",)) for text in set(texts)}
    together = await asyncio.gather(*(ask(backend, text, fields=("title",)) for text in texts))
    for text, hits in zip(texts, together, strict=True):
        assert (hits.ids, hits.texts) == (alone[text].ids, alone[text].texts)
        assert hits.scores.tolist() == alone[text].scores.tolist()


async def test_index_is_named(backend: Backend) -> None:
    """Every answer says which index and server it came from."""
    first, second = await ask(backend, "csv"), await ask(backend, "json")
    assert first.index == second.index
    assert first.index.version
    assert "/" in first.index.server_version


async def test_no_time_left(backend: Backend) -> None:
    """Without time there is no answer but a timeout."""
    with pytest.raises(BackendTimeout):
        await backend.retrieve(Query(EVERYTHING, 10), timeout_s=0.0)


async def test_closed(backend: Backend) -> None:
    """A closed backend is unreachable."""
    await ask(backend, "csv")
    await backend.close()
    with pytest.raises(BackendUnreachable):
        await ask(backend, "csv")
