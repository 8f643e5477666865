"""Vectors, their embedder, and filters in front of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import Equals, Filter, Hits, Query, Range
from backends.index import IndexFault
from backends.lsa import Lsa, LsaOptions
from backends.projection import RandomProjection
from backends.vectors import Vectors, VectorsSettings

SCHEMA = {"fields": {"title": {"type": "text"}, "odd": {"type": "keyword"}, "n": {"type": "number"}}}
WORDS = ["apple", "bridge", "cloud", "dragon", "engine", "forest", "garden", "harbor", "island", "jungle"]
DOCUMENTS = [
    {
        "id": f"{i}",
        "title": f"{WORDS[i % 10]} {WORDS[i // 10 % 10]} {WORDS[i * 7 % 10]}",
        "odd": "yes" if i % 2 else "no",
        "n": i,
    }
    for i in range(300)
]
OPTIONS = {"kind": "vectors", "parts": [{"embedder": {"kind": "lsa", "dimensions": 16}}]}
Indexing = Callable[..., Path]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [str(document["title"]) for document in DOCUMENTS]


async def ask(
    folder: Path, text: str, limit: int = 20, filters: tuple[Filter, ...] = (), **settings: Any
) -> Hits:
    backend = Vectors(VectorsSettings(kind="vectors", index=folder, **settings))
    hits = await backend.retrieve(Query(text, limit, filters), timeout_s=10.0)
    await backend.close()
    return hits


@pytest.mark.parametrize("exact_up_to", [0, 1000])
async def test_scores_are_exact_cosines(index: Indexing, exact_up_to: int) -> None:
    """The nearest are found, by the graph or by comparing all, and scores are cosines."""
    hits = await ask(index(OPTIONS, DOCUMENTS, SCHEMA), "dragon forest", exact_up_to=exact_up_to)
    embedder, vectors = Lsa.fit([f"{d['title']}\n{d['odd']}" for d in DOCUMENTS], LsaOptions(dimensions=16))
    cosines = np.sort(vectors @ embedder.embed("dragon forest"))[::-1][:20]
    assert hits.scores == pytest.approx(cosines, abs=1e-4)


async def test_least(index: Indexing) -> None:
    """Documents no nearer than `least` are not found, however many were asked for."""
    folder = index(OPTIONS, DOCUMENTS, SCHEMA)
    near, everything = (
        await ask(folder, "dragon", 300, least=0.5),
        await ask(folder, "dragon", 300, least=0.0),
    )
    assert 0 < len(near) < len(everything)
    assert near.scores.min() > 0.5
    assert near.ids == everything.ids[: len(near)]


async def test_filter_loses_nobody(index: Indexing) -> None:
    """With a filter, every document that passes is compared: the best come back, with the scores they had."""
    folder = index(OPTIONS, DOCUMENTS, SCHEMA)
    everything = await ask(folder, "dragon forest", limit=300)
    filters = (Filter("odd", Equals("yes")), Filter("n", Range(min=100.0)))
    passing = [name for name in everything.ids if int(name) % 2 and int(name) >= 100]
    hits = await ask(folder, "dragon forest", limit=5, filters=filters)
    scores = dict(zip(everything.ids, everything.scores.tolist(), strict=True))
    assert hits.scores.tolist() == pytest.approx([scores[name] for name in passing[:5]], abs=1e-5)


async def test_part_of_a_word_is_near(index: Indexing) -> None:
    """A misspelled word still finds its document: pieces of words count."""
    documents = [{"id": word, "title": word} for word in WORDS]
    hits = await ask(index(OPTIONS, documents, SCHEMA), "dragn", limit=1)
    assert hits.ids == ["dragon"]


def test_query_is_embedded_as_documents_are(texts: list[str]) -> None:
    """Embedding a text by numpy gives what fitting by scikit-learn gave for it."""
    embedder, vectors = Lsa.fit(texts, LsaOptions(dimensions=16))
    assert np.array([embedder.embed(text) for text in texts]) == pytest.approx(vectors, abs=1e-5)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_fit_is_deterministic_and_survives_disk(tmp_path: Path, texts: list[str]) -> None:
    """The same texts make the same embedder; opened from disk it is the same again, and nothing is a pickle."""
    (first, vectors), (second, again) = (Lsa.fit(texts, LsaOptions(dimensions=16)) for _ in range(2))
    first.save(tmp_path)
    opened = Lsa.load(tmp_path)
    assert vectors.tobytes() == again.tobytes()
    for text in ("dragon forest", "", "zzz"):
        assert first.embed(text).tobytes() == second.embed(text).tobytes() == opened.embed(text).tobytes()
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}
    for path in tmp_path.glob("*.npy"):
        np.load(path, allow_pickle=False)


def test_unknown_text_is_the_zero_vector(texts: list[str]) -> None:
    """Text with nothing known in it has no direction."""
    embedder, _ = Lsa.fit(texts, LsaOptions(dimensions=16))
    assert not embedder.embed("東京 ???").any()


def test_common_grams_do_not_count() -> None:
    """Among many texts a word that very many have is left out."""
    embedder, _ = Lsa.fit([f"common rare{i}" for i in range(1000)], LsaOptions(dimensions=4))
    assert not embedder.embed("common").any()
    assert embedder.embed("rare77").any()


def test_nothing_to_embed(index: Indexing) -> None:
    """Documents without a word make no index, and the fault says so."""
    with pytest.raises(IndexFault, match="no words"):
        index(OPTIONS, [{"id": "1", "title": "???"}], SCHEMA)


async def test_a_score_is_the_weighted_mean_of_its_parts(index: Indexing) -> None:
    """With several parts a document scores the mean of their cosines with the query, by the parts' weights."""
    embedders = [{"kind": "lsa", "dimensions": 16}, {"kind": "projection", "dimensions": 32}]
    parts = [{"fields": ["title"], "embedder": embedder} for embedder in embedders]
    together = index(
        {"kind": "vectors", "parts": [{**parts[0], "weight": 3}, {**parts[1], "weight": 1}]},
        DOCUMENTS,
        SCHEMA,
    )
    alone = [index({"kind": "vectors", "parts": [part]}, DOCUMENTS, SCHEMA) for part in parts]
    hits = await ask(together, "dragon forest", 20, least=0.0)
    scores = [await ask(folder, "dragon forest", 300, least=0.0) for folder in alone]
    by_id = [dict(zip(found.ids, found.scores.tolist(), strict=True)) for found in scores]
    for name, score in zip(hits.ids, hits.scores.tolist(), strict=True):
        if all(name in found for found in by_id):
            assert score == pytest.approx(0.75 * by_id[0][name] + 0.25 * by_id[1][name], abs=1e-4)


def test_a_projection_keeps_the_cosines(texts: list[str]) -> None:
    """Random directions keep what is near near: cosines are those of the features, but for a small error."""
    options = LsaOptions(kind="projection", dimensions=2048)
    embedder, vectors = RandomProjection.fit(texts, options)
    assert np.array([embedder.embed(text) for text in texts[:20]]) == pytest.approx(vectors[:20], abs=1e-5)
    same, other = (
        texts.index(texts[3]),
        next(i for i, t in enumerate(texts) if not set(t.split()) & set(texts[3].split())),
    )
    assert vectors[3] @ vectors[same] == pytest.approx(1.0, abs=1e-5)
    assert abs(float(vectors[3] @ vectors[other])) < 0.2
