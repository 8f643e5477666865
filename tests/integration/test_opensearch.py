"""The OpenSearch engine against a real node: the contract of all engines, and what is its own."""

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
from tests.integration.opensearch_node import VERSION, Node, running

TYPES = {"text": {"type": "text"}, "keyword": {"type": "keyword"}, "number": {"type": "double"}}
PROPERTIES = {name: TYPES[field["type"]] for name, field in SCHEMA["fields"].items()}
LUCENE = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
LEAST = (1 + 0.05) / 2
"""A cosine of 0.05, as the plugin scores it."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("opensearch")) as node:
        yield node


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of vectors over the library, for what embeds its documents and queries."""
    return shelved("vectors", tmp_path_factory.mktemp("vectors") / "index")


@pytest.fixture(scope="module")
def library(node: Node, embedder: Path) -> dict[str, Any]:
    """Settings by words, over the library with a vector for each document."""
    embedding = Embedding.of(embedder)
    vector = {"type": "knn_vector", "dimension": embedding.dimensions, "method": LUCENE}
    node.create("library", {**PROPERTIES, "embedding": vector})
    embedded = [embedding.document(parse(raw, embedding.schema)) for raw in DOCUMENTS]
    node.add(
        "library",
        [
            {**raw, **({"embedding": v.tolist()} if v.any() else {})}
            for raw, v in zip(DOCUMENTS, embedded, strict=True)
        ],
    )
    return settings(node, "library")


def settings(node: Node, index: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "opensearch",
        "urls": [node.url],
        "index": index,
        "fields": SCHEMA["fields"],
        "version_every_s": 0.05,
        **more,
    }


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    return DOCUMENTS


@pytest.fixture(params=["words", "graph", "exact"])
async def backend(
    request: pytest.FixtureRequest, library: dict[str, Any], embedder: Path
) -> AsyncIterator[Backend]:
    raw = dict(library)
    if request.param != "words":
        near = {"mode": "vectors", "field": "embedding", "embedder": embedder}
        raw |= {"search": {**near, "exact": request.param == "exact"}, "least": LEAST}
    async with opening(raw) as made:
        yield made


async def test_server_is_named(library: dict[str, Any]) -> None:
    """An answer names the server's software and version, and the schema."""
    async with opening(library) as made:
        index = (await asked(made, "csv")).index
    assert index.server_version == f"opensearch/{VERSION}"
    assert len(index.schema) == 16


async def test_score_is_the_sum_of_boosted_fields(library: dict[str, Any]) -> None:
    """By words, a score is the sum over fields of boost * BM25; a field's own BM25 can be asked for."""
    texts = ("title", "aliases")
    raw = {
        **library,
        "search": {"mode": "words", "boosts": {"title": 3, "aliases": 0.5}},
        "scores": {f"{name}_bm25": {"match": {name: "{query}"}} for name in texts},
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


async def test_scores_beside_vectors(library: dict[str, Any], embedder: Path) -> None:
    """A search by vectors can tell what the words would have scored; its own order stands."""
    near = {"mode": "vectors", "field": "embedding", "embedder": embedder}
    raw = {**library, "search": near, "scores": {"title_bm25": {"match": {"title": "{query}"}}}}
    async with opening(raw) as made:
        plain, hits = (
            await asked(made, "csv rows"),
            await asked(made, "csv rows", fields=("title_bm25",)),
        )
    assert (hits.ids, hits.scores.tolist()) == (plain.ids, pytest.approx(plain.scores.tolist()))
    assert hits.numbers["title_bm25"][hits.ids.index("csv.reader")] > 0


async def test_every_word_is_demanded(library: dict[str, Any]) -> None:
    """With `all`, a document has every word, in whichever field."""
    async with opening({**library, "search": {"mode": "words", "match": "all"}}) as made:
        assert (await asked(made, "json save file")).ids == ["json.dump"]
        assert (await asked(made, "json rows")).ids == []


async def test_template(library: dict[str, Any]) -> None:
    """Any query of the server's can be asked; the user's words are a value in it and nothing else."""
    template = {"mode": "template", "query": {"match_phrase": {"title": "{query}"}}}
    async with opening({**library, "search": template}) as made:
        assert set((await asked(made, "write json")).ids) == {"json.dump", "json"}
        assert (await asked(made, "json write")).ids == []
        kept = await asked(made, "write json", filters=(Filter("kind", Equals("module")),))
        assert kept.ids == ["json"]


NUMBERS = {
    "integer": 2**31 - 1,
    "long": 2**53,
    "short": -(2**15),
    "float": 0.1,
    "half_float": 0.5,
    "scaled_float": 12.34,
    "unsigned_long": 2**63,
}


async def test_numbers_of_any_type(node: Node) -> None:
    """A number is found by what it is, and no value or end of a range is an error, however far beyond its type."""
    properties: dict[str, Any] = {kind: {"type": kind} for kind in NUMBERS}
    properties["scaled_float"]["scaling_factor"] = 100
    node.create("numbers", {"title": {"type": "text"}, **properties})
    node.add("numbers", [{"id": "a", "title": "csv", **NUMBERS}, {"id": "b", "title": "csv"}])
    fields = {"title": {"type": "text"}, **{kind: {"type": "number"} for kind in NUMBERS}}
    async with opening(settings(node, "numbers", fields=fields)) as made:
        for kind, value in NUMBERS.items():

            async def found(condition: Equals | Range | Terms, kind: str = kind) -> list[str]:
                return (await asked(made, "csv", filters=(Filter(kind, condition),))).ids

            assert await found(Equals(value)) == ["a"]
            assert await found(Terms((value, 1e300, -1e300, 0.25))) == ["a"]
            assert await found(Equals(1e300)) == []
            assert await found(Equals(-1e300)) == []
            assert await found(Range(-1e300, 1e300)) == ["a"]
            assert await found(Range(value, value)) == ["a"]
            assert await found(Range(min=1e300)) == []
            assert await found(Range(max=-1e300)) == []
            assert await found(Range(value - 1.5, value + 1.5)) == ["a"]
        hits = await asked(made, "csv", fields=tuple(NUMBERS))
        row = hits.ids.index("a")
        assert {kind: float(hits.numbers[kind][row]) for kind in NUMBERS} == pytest.approx(NUMBERS)


async def test_fields_by_the_servers_names(node: Node) -> None:
    """A field may be called otherwise on the server, a part of another field too, and the id may be a field."""
    title = {"type": "text", "fields": {"raw": {"type": "keyword"}}}
    node.create(
        "mapped", {"t": title, "code": {"type": "keyword"}, "meta": {"properties": {"n": {"type": "long"}}}}
    )
    node.add("mapped", [{"id": "1", "t": "Blue Jar", "code": "jar", "meta": {"n": 7}}])
    fields = {
        "title": {"type": "text", "field": "t"},
        "exact": {"type": "keyword", "field": "t.raw"},
        "size": {"type": "number", "field": "meta.n"},
    }
    async with opening(settings(node, "mapped", fields=fields, id="code")) as made:
        hits = await asked(made, "jar", fields=("title", "exact", "size"))
        assert (hits.ids, hits.texts) == (["jar"], {"title": ["Blue Jar"], "exact": ["Blue Jar"]})
        assert hits.numbers["size"].tolist() == [7.0]
        for condition in (Filter("id", Equals("jar")), Filter("exact", Equals("Blue Jar"))):
            assert (await asked(made, "jar", filters=(condition,))).ids == ["jar"]
        assert (await asked(made, "jar", filters=(Filter("id", Equals("1")),))).ids == []


async def test_index_is_held_against_the_settings(node: Node, library: dict[str, Any]) -> None:
    """A field that is not there, of another type, or not indexed, is named when the index is first asked."""
    node.create("odd", {"title": {"type": "keyword"}, "year": {"type": "double", "index": False}})
    fields = {
        name: {"type": kind} for name, kind in (("title", "text"), ("gone", "keyword"), ("year", "number"))
    }
    async with opening(settings(node, "odd", fields=fields)) as made:
        with pytest.raises(BackendError) as caught:
            await asked(made, "csv")
    for fault in ("`title`: field title is keyword", "`gone`: there is no field gone", "year is not indexed"):
        assert fault in str(caught.value)
    async with opening(settings(node, "absent")) as made:
        with pytest.raises(BackendError, match="the server has no index absent"):
            await asked(made, "csv")
    async with opening({**library, "flavor": "elasticsearch"}) as made:
        with pytest.raises(BackendError, match="the server is opensearch: set `flavor`"):
            await asked(made, "csv")


async def version(made: Backend, unlike: str = "") -> str:
    """The version that answers tell, once it is another than this."""
    return (await index_when(made, lambda index: index.version != unlike)).version


async def test_version_changes_with_what_a_search_sees(node: Node) -> None:
    """A document that comes or goes makes another version, a refresh that changes nothing does not."""
    node.create("changing", PROPERTIES)
    node.add("changing", [{"id": "1", "title": "csv"}, {"id": "2", "title": "csv"}])
    async with opening(settings(node, "changing")) as made:
        first = await version(made)
        node.call("POST", "/changing/_refresh")
        await asyncio.sleep(0.5)
        assert await version(made) == first
        node.add("changing", [{"id": "2", "title": "csv again"}])
        second = await version(made, unlike=first)
        node.call("DELETE", "/changing/_doc/1?refresh=true")
        third = await version(made, unlike=second)
        assert len({first, second, third}) == 3
        assert (await asked(made, "csv")).ids == ["2"]


async def test_alias_that_moves(node: Node) -> None:
    """Where an alias comes to mean another index, the version changes and the fields are read anew."""
    for name, kind in (("old", "double"), ("new", "integer"), ("broken", "keyword")):
        node.create(name, {"title": {"type": "text"}, "year": {"type": kind}})
        node.add(name, [{"id": name, "title": "csv", "year": 1}])
    fields = {"title": {"type": "text"}, "year": {"type": "number"}}
    node.call("POST", "/_aliases", moved("old"))
    async with opening(settings(node, "current", fields=fields)) as made:
        before = (await asked(made, "csv")).index
        node.call("POST", "/_aliases", moved("new", "old"))
        await version(made, unlike=before.version)
        after = await asked(made, "csv", filters=(Filter("year", Range(max=1e300)),))
        assert after.ids == ["new"]
        assert after.index.schema != before.schema
        node.call("POST", "/_aliases", moved("broken", "new"))
        with pytest.raises(BackendError, match="`year`"):
            await index_when(made, lambda index: False)


def moved(to: str, away: str = "") -> dict[str, Any]:
    actions = [{"add": {"index": to, "alias": "current"}}]
    return {"actions": [*actions, *([{"remove": {"index": away, "alias": "current"}}] if away else [])]}


async def test_freshness(node: Node) -> None:
    """Where a date field is named, its latest value is how fresh the index is; 0 where there is none."""
    node.create("dated", {"title": {"type": "text"}, "at": {"type": "date"}})
    fields = {"title": {"type": "text"}}
    async with opening(settings(node, "dated", fields=fields, updated_at="at")) as made:
        assert (await asked(made, "csv")).index.fresh_at_s == 0.0
        node.add("dated", [{"id": str(i), "title": "csv", "at": 1_700_000_000_000 + i} for i in range(3)])
        index = await index_when(made, lambda index: index.fresh_at_s > 0)
    assert index.fresh_at_s == pytest.approx(1_700_000_000.002)


async def test_through_mixer(library: dict[str, Any]) -> None:
    """Mixer serves from it: hits with provenance, a feature of the server's own, and a span of its own below."""
    raw = {**library, "scores": {"title_bm25": {"match": {"title": "{query}"}}}}
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
    assert (own.attributes or {})["db.system.name"] == "opensearch"
    assert (own.attributes or {})["server.address"] == "127.0.0.1"
