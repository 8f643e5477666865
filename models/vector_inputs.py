"""Made-up requests and replies that bring out what the code of another language may do otherwise.

They follow from a mix's declared features alone, the same each time: queries of many scripts, with marks, digits and
quotes, too long, or repeating themselves; documents whose fields say the query's words wholly, in part, in another
order or not at all; numbers that are missing, zero, below zero, huge, or written in the query; backends that tie,
repeat a document, send a score that is no number, contradict each other, or do not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np

from backends.base import FloatColumn
from mixer.manifest import GOLDEN, MODEL, Golden
from mixer.model import LightGbmModel
from mixer.schema import (
    BackendFeature,
    ContextFeature,
    Feature,
    NumberFeature,
    NumberInQueryFeature,
    StoreFeature,
    fields_read,
    schema_hash,
)
from mixer.settings import MixBackendSettings, MixSettings
from mixer.trees import Unsupported, read
from models.golden_vectors import GoldenVectors, Input, Numbers, VectorReply, VectorStore, make, with_rows

_SEED = 20
_DOCUMENTS = 12
_ODD = (np.nan, 0.0, -0.0, 1e-36, -1.0, 2.5, 1e300)
_ODD_A_FEATURE = 2
_LENGTHS = (6, 4, 7)
_GOLDEN_QUERIES, _GOLDEN_ROWS = 3, 3

_QUERIES = {
    "plain words": "read a csv file",
    "marks, capitals and accents": "Élan--vital? STRASSE straße, naïve/CAFÉ!",
    "other scripts": "日本語 テスト поиск ελληνικά",
    "digits and quotes": "\"exact phrase\" 42 3.5 007 'x' 1999",
    "a repeated word": "the the cat the",
    "one letter": "c",
    "no word at all": "?! ...",
    "more words than are read": " ".join(f"w{number}" for number in range(70)),
    "code": "os.path.join(a_b, camelCase)",
}
_SHAPES: Sequence[Callable[[str, Random], str]] = (
    lambda query, random: query,
    lambda query, random: query.upper() + " and more",
    lambda query, random: "before " + query,
    lambda query, random: " ".join(reversed(query.split())),
    lambda query, random: (query.split() or ["-"])[0],
    lambda query, random: query[:-1] or "x",
    lambda query, random: "nothing alike here",
    lambda query, random: "",
    lambda query, random: " ".join(random.sample([*query.split(), "odd", "even"], 2)),
)
_VALUES: Sequence[Callable[[Random], float | None]] = (
    lambda random: round(random.uniform(0, 1), 6),
    lambda random: float(random.randint(1, 2000)),
    lambda random: None,
    lambda random: 0.0,
    lambda random: -1.0,
    lambda random: 1e12,
    lambda random: 42.0,
)


def mix_of(features: Sequence[Feature]) -> MixSettings:
    """A mix over the backends that the features name, with weights of no account."""
    named = dict.fromkeys(feature.backend for feature in features if isinstance(feature, BackendFeature))
    return MixSettings(
        backends={name: MixBackendSettings() for name in named or ["only"]}, features=tuple(features)
    )


def inputs(mix: MixSettings, queries: Sequence[str] = ()) -> list[Input]:
    """One for each kind of query, and for each of these."""
    asked = {**_QUERIES, **{f"as asked: {query}": query for query in queries}}
    return [_input(place, why, query, mix) for place, (why, query) in enumerate(asked.items())]


def _input(place: int, why: str, query: str, mix: MixSettings) -> Input:
    random = Random(_SEED + place)  # noqa: S311
    return Input(
        why=why,
        query=query,
        context=dict(_context(place, mix.features)),
        replies=tuple(
            _reply(name, (place + number) % (5 if number else 4), query, mix.features, random)
            for number, name in enumerate(mix.backends)
        ),
        stores=tuple(_stores(mix.features, random)),
    )


def _reply(backend: str, mood: int, query: str, features: Sequence[Feature], random: Random) -> VectorReply:
    """Mood 1 ties, 2 repeats a document, 3 sends a score that is no number, 4 is silent."""
    if mood == 4:
        return VectorReply(backend=backend, answered=False)
    length = _LENGTHS[mood % len(_LENGTHS)]
    ids = [f"d{number:02}" for number in random.sample(range(_DOCUMENTS), length)]
    scores: list[float | None] = sorted((round(random.uniform(0, 20), 4) for _ in ids), reverse=True)  # type: ignore[assignment]
    if mood == 1:
        scores = [scores[0]] * length
    elif mood == 2:
        ids[-1] = ids[0]
    elif mood == 3:
        scores[1] = None
    numeric = {f.field for f in features if isinstance(f, NumberFeature | NumberInQueryFeature)}
    return VectorReply(
        backend=backend,
        ids=tuple(ids),
        scores=tuple(scores),
        numbers={name: _numbers(length, random) for name in sorted(numeric)},
        texts={
            name: tuple(random.choice(_SHAPES)(query, random) for _ in ids)
            for name in sorted(fields_read(features) - numeric)
        },
    )


def _stores(features: Sequence[Feature], random: Random) -> Iterator[VectorStore]:
    """Rows of most documents, for each store that the features name."""
    fields: dict[str, set[str]] = {}
    for feature in features:
        if isinstance(feature, StoreFeature):
            fields.setdefault(feature.store, set()).add(feature.field)
    for store, named in sorted(fields.items()):
        ids = [f"d{number:02}" for number in range(_DOCUMENTS) if number % 5]
        rows = {id_: _numbers(len(named), random) for id_ in ids}
        yield VectorStore(store=store, fields=tuple(sorted(named)), rows=rows)


def _numbers(length: int, random: Random) -> Numbers:
    return tuple(random.choice(_VALUES)(random) for _ in range(length))


def _context(place: int, features: Sequence[Feature]) -> Iterator[tuple[str, str | float]]:
    """A level or a number for each key; a level that is not declared, and nothing, in turns."""
    for feature in features:
        if isinstance(feature, ContextFeature) and place % 4:
            level = feature.levels[place % len(feature.levels)] if feature.levels else float(place)
            yield feature.key, "never declared" if feature.levels and place % 4 == 3 else level


def rows(folder: Path, like: Sequence[Numbers]) -> FloatColumn:
    """Rows (n, f) at a forest's edges: one of `like` with one feature on a threshold, beside it, missing, or odd."""
    random = Random(_SEED)  # noqa: S311
    thresholds, made = _thresholds(folder), []
    for place in range(len(like[0])):
        cut = random.choice(thresholds.get(place) or [0.5])
        odd = random.sample(_ODD, _ODD_A_FEATURE)
        for value in (cut, float(np.nextafter(cut, np.inf)), *odd):
            row = np.array(random.choice(like), np.float64)
            row[place] = value
            made.append(row)
    return np.array(made)


def _thresholds(folder: Path) -> dict[int, list[float]]:
    """Of each feature that is asked for, by its place; none where the text is not of a kind that is read here."""
    found: dict[int, set[float]] = {}
    try:
        _, trees = read((folder / MODEL).read_text(encoding="utf-8"))
    except Unsupported:
        return {}
    for tree in trees:
        for feature, threshold in zip(tree.features, tree.thresholds, strict=True):
            found.setdefault(feature, set()).add(threshold)
    return {feature: sorted(cuts) for feature, cuts in found.items()}


def vectors(folder: Path, model: LightGbmModel, mix: MixSettings | None = None) -> GoldenVectors:
    """All of the golden vectors of a model folder, in this mix. Raises: ValueError where the mix has other features."""
    mix = mix or mix_of(model.manifest.features)
    if schema_hash(mix.features) != model.manifest.schema_sha256:
        raise ValueError("the mix declares other features than the model was trained on")
    golden = Golden.model_validate_json((folder / GOLDEN).read_bytes())
    made = make(model, mix, inputs(mix, [query.query for query in golden.queries[:_GOLDEN_QUERIES]]))
    like = [row for vector in made.vectors for row in vector.expected.features]
    like.extend(row for query in golden.queries for row in query.features[:_GOLDEN_ROWS])
    return with_rows(made, model, rows(folder, like))
