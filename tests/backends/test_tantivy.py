"""BM25 by Tantivy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.base import Hits, Query
from backends.tantivy import Tantivy, TantivySettings

SCHEMA = {"fields": {"title": {"type": "text"}, "body": {"type": "text"}, "body_bm25": {"type": "number"}}}
DOCUMENTS = [
    {"id": "1", "title": "running dogs", "body": "cats sleep"},
    {"id": "2", "title": "cats sleep", "body": "running dogs", "body_bm25": 42},
    {"id": "3", "title": "Crème brûlée", "body": "dogs dogs dogs"},
]
Indexing = Callable[..., Path]


async def ask(folder: Path, text: str, fields: tuple[str, ...] = (), **settings: Any) -> Hits:
    backend = Tantivy(TantivySettings(kind="tantivy", index=folder, **settings))
    hits = await backend.retrieve(Query(text, 10, fields=fields), timeout_s=10.0)
    await backend.close()
    return hits


@pytest.fixture
def folder(index: Indexing) -> Path:
    return index({"kind": "tantivy"}, DOCUMENTS, SCHEMA)


async def test_boosts(folder: Path) -> None:
    """A boost weighs its field; a field without one is not searched where others have one."""
    assert (await ask(folder, "cats", boosts={"title": 9.0, "body": 1.0})).ids == ["2", "1"]
    assert (await ask(folder, "cats", boosts={"title": 1.0, "body": 9.0})).ids == ["1", "2"]
    assert (await ask(folder, "cats", boosts={"title": 2.0})).ids == ["2"]


async def test_score_is_the_boosted_sum(folder: Path) -> None:
    """The score is the sum over fields of boost times the BM25 that can be asked for by itself."""
    hits = await ask(folder, "running cats dogs", ("title_bm25",), boosts={"title": 3.0})
    assert hits.scores == pytest.approx(3 * hits.numbers["title_bm25"], rel=1e-5)


async def test_field_without_a_match(folder: Path) -> None:
    """A field none of whose words match scores 0."""
    hits = await ask(folder, "cats", ("title_bm25",))
    scores = dict(zip(hits.ids, hits.numbers["title_bm25"].tolist(), strict=True))
    assert scores["1"] == 0.0
    assert scores["2"] > 0.0


async def test_declared_field_comes_first(folder: Path) -> None:
    """A declared number field keeps its name, whatever is computed."""
    hits = await ask(folder, "running", ("body_bm25",), boosts={"body": 1.0})
    assert hits.numbers["body_bm25"].tolist() == [42.0]


async def test_every_word(folder: Path) -> None:
    """`match: all` wants every word, each in whichever field."""
    assert (await ask(folder, "cats dogs", match="all")).ids == ["1", "2"]
    assert (await ask(folder, "cats brulee", match="all")).ids == []
    assert len(await ask(folder, "cats brulee")) == 3


async def test_accents(folder: Path) -> None:
    """Accents do not count."""
    assert (await ask(folder, "creme BRULEE")).ids == ["3"]


async def test_english_stems(index: Indexing, folder: Path) -> None:
    """`stemming: english` finds other forms of a word."""
    stemmed = index({"kind": "tantivy", "stemming": "english"}, DOCUMENTS, SCHEMA, name="stemmed")
    assert (await ask(folder, "run dog")).ids == []
    assert set((await ask(stemmed, "run")).ids) == {"1", "2"}


async def test_ties_by_order_of_documents(index: Indexing) -> None:
    """Equal scores keep the order in which the documents were indexed."""
    twins = [{"id": f"{i}", "title": "same words"} for i in (3, 1, 2)]
    assert (await ask(index({"kind": "tantivy"}, twins, SCHEMA, name="twins"), "words")).ids == [
        "3",
        "1",
        "2",
    ]
