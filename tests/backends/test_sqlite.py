"""Words, symbols and popularity in one score."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.base import Backend, BackendTimeout, Hits, Query
from backends.sqlite import Sqlite, SqliteSettings

OPTIONS = {"kind": "sqlite", "symbols": ["id", "name"], "popularity": "uses"}
SCHEMA = {
    "fields": {
        "name": {"type": "keyword"},
        "rank": {"type": "text"},
        "doc": {"type": "text"},
        "uses": {"type": "number"},
    }
}
DOCUMENTS = [
    {"id": "json.loads", "name": "loads", "doc": "parse a text", "uses": 90},
    {"id": "json.load", "name": "load", "doc": "parse a file", "uses": 10},
    {"id": "json", "name": "json", "doc": "encode and decode"},
    {"id": "collections.OrderedDict", "name": "OrderedDict", "doc": "remembers order", "uses": -5},
    {"id": "parser", "name": "parser", "doc": "parsing parses parse", "rank": "parse"},
]
FIELDS = ("text_bm25", "symbol_exact", "symbol_prefix", "uses")
Indexing = Callable[..., Path]


@pytest.fixture
def folder(index: Indexing) -> Path:
    return index(OPTIONS, DOCUMENTS, SCHEMA)


@asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[Backend]:
    backend = Sqlite(SqliteSettings(kind="sqlite", index=folder, **settings))
    yield backend
    await backend.close()


async def ask(folder: Path, text: str, **settings: Any) -> Hits:
    async with opened(folder, **settings) as backend:
        return await backend.retrieve(Query(text, 10, fields=FIELDS), timeout_s=10.0)


def part(hits: Hits, name: str) -> dict[str, float]:
    return dict(zip(hits.ids, hits.numbers[name].tolist(), strict=True))


async def test_score_is_the_documented_sum(folder: Path) -> None:
    """The score is the weighted sum of its four parts."""
    hits = await ask(folder, "parse json.load", bm25=2.0, exact=5.0, prefix=3.0, popularity=0.25)
    popularity = [0.0 if math.isnan(uses) else math.log1p(max(uses, 0.0)) for uses in hits.numbers["uses"]]
    parts = zip(*(hits.numbers[name] for name in FIELDS[:3]), popularity, strict=True)
    assert hits.scores.tolist() == pytest.approx([2 * b + 5 * e + 3 * p + u / 4 for b, e, p, u in parts])


@pytest.mark.parametrize(
    ("text", "name", "share"),
    [
        ("json.loads", "json.loads", 1.0),
        ("  JSON.Loads ", "json.loads", 1.0),
        ("json loads", "json.loads", 1.0),
        ("ordered dict", "collections.OrderedDict", 1.0),
        ("how does `loads()` work", "json.loads", 0.25),
        ("json", "json", 1.0),
    ],
)
async def test_exact_symbol(folder: Path, text: str, name: str, share: float) -> None:
    """A symbol is found by the whole query, by its words joined, or as one of n words at 1/n; in any case."""
    assert part(await ask(folder, text), "symbol_exact")[name] == share


async def test_prefix_symbol(folder: Path) -> None:
    """A symbol that begins with the query, or its last word, is found; itself is no prefix of itself."""
    assert part(await ask(folder, "json.lo"), "symbol_prefix") == {"json.loads": 1.0, "json.load": 1.0}
    assert part(await ask(folder, "the ordereddi"), "symbol_prefix") == {"collections.OrderedDict": 0.5}
    assert part(await ask(folder, "json.loads"), "symbol_prefix")["json.loads"] == 0.0
    assert (await ask(folder, "j")).ids == []


async def test_last_word_may_be_begun(folder: Path) -> None:
    """The last word matches as a prefix while it is being typed, and no other word does."""
    assert "collections.OrderedDict" in (await ask(folder, "rememb")).ids
    assert (await ask(folder, "rememb ")).ids == []
    assert (await ask(folder, "rememb zzz")).ids == []


async def test_every_word(folder: Path) -> None:
    """`match: all` wants every word, in whichever field."""
    assert (await ask(folder, "parse file", match="all")).ids == ["json.load"]
    assert len((await ask(folder, "parse file")).ids) == 3


async def test_popularity_breaks_even(folder: Path) -> None:
    """Of equal matches the more popular comes first; without its weight the order of the documents stands."""
    assert (await ask(folder, "parse a ", popularity=0.5)).ids[:2] == ["json.loads", "json.load"]
    assert part(await ask(folder, "order ", popularity=0.5), "uses") == {"collections.OrderedDict": -5.0}


async def test_weight_of_a_field(folder: Path) -> None:
    """BM25 weighs each text field, one that bears a name FTS5 claims too."""
    light = await ask(folder, "parse ", words={"rank": 0.0})
    heavy = await ask(folder, "parse ", words={"rank": 50.0})
    assert part(heavy, "text_bm25")["parser"] > part(light, "text_bm25")["parser"] > 0


async def test_english_stems(index: Indexing) -> None:
    """`stemming: english` finds other forms of a word."""
    stemmed = index({**OPTIONS, "stemming": "english"}, DOCUMENTS, SCHEMA)
    assert "json.loads" in (await ask(stemmed, "parsing ")).ids
    plain = index(OPTIONS, DOCUMENTS, SCHEMA, name="plain")
    assert "json.loads" not in (await ask(plain, "parsing ")).ids


async def test_common_words(index: Indexing) -> None:
    """In a large index a word that most documents hold finds them only when asked alone."""
    documents = [{"id": f"{i}", "doc": f"the word{i}"} for i in range(1200)]
    folder = index(OPTIONS, documents, SCHEMA)
    assert (await ask(folder, "the word7 ")).ids == ["7"]
    assert len(await ask(folder, "the ")) == 10
    assert (await ask(folder, "the word7 ", match="all")).ids == ["7"]


async def test_statement_is_interrupted(index: Indexing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread stops its statement when the time is up, so that it is free for others."""
    documents = [{"id": f"{i}", "doc": " ".join(f"word{i % n}" for n in range(1, 60))} for i in range(500)]
    folder = index(OPTIONS, documents, SCHEMA)
    async with opened(folder, threads=1) as backend:
        assert isinstance(backend, Sqlite)
        with pytest.raises(BackendTimeout, match="interrupted"):
            backend._answer(Query("word0 word1 word2 word3", 10), deadline=0.0)
        hits = await backend.retrieve(Query("word7", 10), timeout_s=10.0)
    assert len(hits) == 10


async def test_only_symbols(index: Indexing) -> None:
    """An index without text fields finds by symbols alone."""
    folder = index({"kind": "sqlite", "symbols": ["id"]}, [{"id": "a.b"}, {"id": "a.c"}], {"fields": {}})
    async with opened(folder) as backend:
        assert (await backend.retrieve(Query("a.b", 9), timeout_s=10.0)).ids == ["a.b"]


def test_read_only_folder(folder: Path) -> None:
    """An index on a read-only volume can be served, and serving writes nothing."""
    before = sorted(folder.rglob("*"))
    folder.chmod(0o555)
    try:
        assert asyncio.run(ask(folder, "json")).ids[0] == "json"
    finally:
        folder.chmod(0o755)
    assert sorted(folder.rglob("*")) == before
