"""The Solr engine against a real node: the contract of all engines, and what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import Backend, BackendError, Equals, Filter, Range, Terms
from backends.embedding import Embedding
from backends.schema import parse
from tests.backends.conftest import DOCUMENTS, SCHEMA, shelved
from tests.backends.test_contract import *  # noqa: F403  # the rules themselves, over the fixtures below
from tests.doubles import mixers
from tests.doubles.asking import asked, index_when, opening
from tests.integration.solr_node import VERSION, Node, running

LEAST = (1 + 0.05) / 2
"""A cosine of 0.05, as Solr scores it."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("solr")) as node:
        yield node


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of vectors over the library, for what embeds its documents and queries."""
    return shelved("vectors", tmp_path_factory.mktemp("vectors") / "index")


@pytest.fixture(scope="module")
def library(node: Node, embedder: Path) -> dict[str, Any]:
    """Settings by words, over the library with a vector for each document."""
    embedding = Embedding.of(embedder)
    vectors = [embedding.document(parse(raw, embedding.schema)) for raw in DOCUMENTS]
    held = [
        {**raw, "embedding": vector.tolist()} if vector.any() else raw
        for raw, vector in zip(DOCUMENTS, vectors, strict=True)
    ]
    node.create("library")
    node.add("library", [{key: v for key, v in raw.items() if v is not None} for raw in held])
    return settings(node, "library")


def settings(node: Node, core: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "solr",
        "url": node.url,
        "collection": core,
        "fields": SCHEMA["fields"],
        "search": {"mode": "words"},
        "version_every_s": 0.05,
        **more,
    }


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    return DOCUMENTS


@pytest.fixture(params=["words", "vectors"])
async def backend(
    request: pytest.FixtureRequest, library: dict[str, Any], embedder: Path
) -> AsyncIterator[Backend]:
    raw = dict(library)
    if request.param == "vectors":
        raw |= {
            "search": {"mode": "vectors", "field": "embedding", "embedder": embedder},
            "least": LEAST,
        }
    async with opening(raw) as made:
        yield made


async def test_server_is_named(library: dict[str, Any]) -> None:
    """An answer names the server's software and version, the schema, and when it was committed last."""
    async with opening(library) as made:
        index = (await asked(made, "csv")).index
    assert index.server_version == f"solr/{VERSION}"
    assert len(index.schema) == 16
    assert index.fresh_at_s > 1_700_000_000


async def test_score_is_the_sum_of_boosted_fields(library: dict[str, Any]) -> None:
    """By words, a score is the sum over fields of boost * BM25; a field's own BM25 can be asked for."""
    raw = {
        **library,
        "search": {"mode": "words", "boosts": {"title": 3, "aliases": 0.5}},
        "scores": {f"{name}_bm25": f"{{!edismax qf={name} mm=1 v=$text}}" for name in ("title", "aliases")},
    }
    async with opening(raw) as made:
        plain = await asked(made, "save json file")
        hits = await asked(made, "save json file", fields=("title_bm25", "aliases_bm25", "year"))
    assert set(hits.numbers) == {"title_bm25", "aliases_bm25", "year"}
    assert (hits.ids, hits.scores.tolist()) == (plain.ids, pytest.approx(plain.scores.tolist()))
    parts = 3 * hits.numbers["title_bm25"] + 0.5 * hits.numbers["aliases_bm25"]
    np.testing.assert_allclose(parts, hits.scores, rtol=1e-5)
    found = dict(zip(hits.ids, hits.numbers["aliases_bm25"].tolist(), strict=True))
    assert found["json.dump"] > 0
    assert found["json"] == 0


async def test_every_word_is_demanded(library: dict[str, Any]) -> None:
    """With `all`, a document has every word, in whichever field."""
    async with opening({**library, "search": {"mode": "words", "match": "all"}}) as made:
        assert (await asked(made, "json save file")).ids == ["json.dump"]
        assert (await asked(made, "json rows")).ids == []


async def test_no_sign_is_an_operator(library: dict[str, Any]) -> None:
    """What edismax would take for operators, fields, other parsers or other queries are words and signs."""
    async with opening(library) as made:
        plain = await asked(made, "read csv")
        for text in (
            "read -csv",
            "+read +csv",
            "read NOT csv",
            "read* csv~",
            "read && csv^9",
            '"read" (csv)',
        ):
            assert set((await asked(made, text)).ids) == set(plain.ids), text
        for text in ("{!func}1", "*:*", "kind:module", '_query_:"*:*"', "_val_:1", "[* TO *]"):
            assert (await asked(made, text)).ids == (await asked(made, text.replace(":", " "))).ids, text
        assert (await asked(made, "*:*")).ids == []


async def test_more_parameters(library: dict[str, Any]) -> None:
    """Parameters of edismax can be given, such as a boost."""
    boosted = {"mode": "words", "parameters": {"boost": "if(exists(uses),uses,1)"}}
    async with opening({**library, "search": boosted}) as made:
        assert (await asked(made, "read write json csv file", limit=1)).ids == ["open"]


async def test_numbers_of_any_type(node: Node) -> None:
    """A number is found by what it is, and no value or end of a range is an error, however far beyond its type."""
    numbers = {"whole": 2**31 - 1, "big": -(2**53), "single": 0.1, "year": 1e300}
    node.create("numbers")
    node.add("numbers", [{"id": "a", "title": "csv", **numbers}, {"id": "b", "title": "csv"}])
    fields = {"title": {"type": "text"}, **{kind: {"type": "number"} for kind in numbers}}
    async with opening(settings(node, "numbers", fields=fields)) as made:
        for kind, value in numbers.items():

            async def found(condition: Equals | Range | Terms, kind: str = kind) -> list[str]:
                return (await asked(made, "csv", filters=(Filter(kind, condition),))).ids

            assert await found(Equals(value)) == ["a"]
            assert await found(Terms((value, 1.5e308, -1e308, 0.25))) == ["a"]
            assert await found(Equals(1.5e308)) == []
            assert await found(Range(-1.5e308, 1.5e308)) == ["a"]
            assert await found(Range(value, value)) == ["a"]
            assert await found(Range(min=1.5e308)) == []
            assert await found(Range(max=-1.5e308)) == []
        hits = await asked(made, "csv", fields=tuple(numbers))
        row = hits.ids.index("a")
        assert {kind: float(hits.numbers[kind][row]) for kind in numbers} == pytest.approx(numbers)


async def test_keyword_with_any_sign(node: Node) -> None:
    """A keyword is found whatever signs it has, those that stand between values among them."""
    node.create("signs")
    odd = ["a,b", "\x01\x02", 'x" OR y', "{!func}1", "$text", " a ", "*"]
    node.add("signs", [{"id": str(i), "title": "csv", "kind": value} for i, value in enumerate(odd)])
    async with opening(settings(node, "signs")) as made:
        for i, value in enumerate(odd):
            conditions = (Filter("kind", Terms((value, "\x03"))),)
            assert (await asked(made, "csv", filters=conditions)).ids == [str(i)]


async def test_collection_is_held_against_the_settings(node: Node, library: dict[str, Any]) -> None:
    """A field that is not there, of another type, or not indexed, is named when the collection is first asked."""
    fields = {
        name: {"type": kind}
        for name, kind in (
            ("title", "keyword"),
            ("gone", "keyword"),
            ("hidden", "keyword"),
            ("aliases", "text"),
        )
    }
    async with opening({**library, "fields": fields}) as made:
        with pytest.raises(BackendError) as caught:
            await asked(made, "csv")
    for fault in ("`title`: field title is text", "`gone`: there is no field gone", "hidden is not indexed"):
        assert fault in str(caught.value)
    async with opening(settings(node, "absent")) as made:
        with pytest.raises(BackendError, match="the server has no collection absent"):
            await asked(made, "csv")


@pytest.mark.parametrize("kept", ["luke", "documents"])
async def test_version_changes_with_what_a_search_sees(node: Node, kept: str) -> None:
    """A document that comes, changes or goes makes another version; a commit of nothing does not."""
    node.create(kept)
    node.add(kept, [{"id": "1", "title": "csv"}, {"id": "2", "title": "csv"}])
    async with opening(settings(node, kept, version=kept)) as made:
        first = (await asked(made, "csv")).index.version
        node.add(kept, [])
        await asyncio.sleep(0.5)
        await asked(made, "csv")
        await asyncio.sleep(0.1)
        assert (await asked(made, "csv")).index.version == first
        node.add(kept, [{"id": "2", "title": "csv again"}])
        second = (await index_when(made, lambda index: index.version != first)).version
        node.call(f"{kept}/update", {"delete": {"id": "1"}}, commit="true")
        third = (await index_when(made, lambda index: index.version != second)).version
        assert len({first, second, third}) == 3
        assert (await asked(made, "csv")).ids == ["2"]


async def test_freshness(node: Node) -> None:
    """Where a date field is named, its latest value is how fresh the collection is; 0 where there is none."""
    node.create("dated")
    async with opening(settings(node, "dated", updated_at="at")) as made:
        assert (await asked(made, "csv")).index.fresh_at_s == 0.0
        node.add("dated", [{"id": str(i), "title": "csv", "at": f"2023-11-14T22:13:2{i}Z"} for i in range(3)])
        index = await index_when(made, lambda index: index.fresh_at_s > 0)
    assert index.fresh_at_s == 1_700_000_002.0


async def test_through_mixer(library: dict[str, Any]) -> None:
    """Mixer serves from it: hits with provenance, a feature of the server's own, and a span of its own below."""
    raw = {**library, "scores": {"title_bm25": "{!edismax qf=title mm=1 v=$text}"}}
    feature = {"name": "bm25", "source": "number", "field": "title_bm25"}
    chosen = mixers.settings({"words": raw}, {"features": [feature], "fields": ["title"]})
    with mixers.tracing() as traced:
        async with mixers.running(chosen) as mixer:
            result = await mixer.search("csv rows", features=True, timeout_s=30.0)
    assert {hit.id for hit in result.hits} >= {"csv.reader", "csv.writer", "csv"}
    own, step = traced.one("search library"), traced.one("retrieve words")
    assert own.parent is not None
    assert step.context is not None
    assert own.parent.span_id == step.context.span_id
    assert (own.attributes or {})["db.system.name"] == "solr"
