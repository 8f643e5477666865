"""Values that make no sense, from a backend that otherwise answers: counted by name, and nobody else's place moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from mixer.client import SearchResult
from protos.backends.v1 import backend_pb2 as pb
from tests import forest
from tests.doubles import engines, mixers
from tests.doubles.engines import columns
from tests.doubles.mixers import Mixer

BAD = ["w", "x", "y", "z"]
GOOD = [document["id"] for document in engines.DOCUMENTS]
NAN, INF = float("nan"), float("inf")
COUNTED = ("mixer_feature_missing_total", "mixer_feature_out_of_range_total")
FEATURES = [feature.model_dump() for feature in forest.FEATURES]


def message(
    scores: Sequence[float] = (4, 3, 2, 1),
    years: Sequence[float] | None = (2000, 2001, 2002, 2003),
    texts: Sequence[pb.TextColumn] = (),
) -> pb.RetrieveResponse:
    """Four documents; what is not said of them makes sense."""
    made = columns(BAD, scores, titles=["csv file", "file", "csv", "rows"])
    made.numbers.extend([] if years is None else [pb.NumberColumn(name="year", values=years)])
    made.texts.extend(texts)
    return made


@dataclass(frozen=True, slots=True)
class Garbage:
    """An answer, and by feature how much of it is missing or out of range."""

    message: pb.RetrieveResponse
    missing: Mapping[str, int] = field(default_factory=dict)
    outside: Mapping[str, int] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)


WORDS = pb.TextColumn(name="year", values=["2000", "MCMXC", "", "soon"])
GARBAGE = {
    "numbers that are none": Garbage(message(years=[NAN] * 4), missing={"year": 4}),
    "infinite numbers": Garbage(message(years=[INF, -INF, 2002, INF]), missing={"year": 3}),
    "numbers out of range": Garbage(message(years=[1899.9, 2100.1, 0, 2003]), outside={"year": 3}),
    "the ends of a float": Garbage(message(years=[1.7e308, -1.7e308, 5e-324, -0.0]), outside={"year": 4}),
    "a column that is not there": Garbage(message(years=None), missing={"year": 4}),
    "words for numbers": Garbage(message(years=None, texts=[WORDS]), missing={"year": 4}),
    "scores that are no numbers": Garbage(
        message([NAN] * 4), missing={"a_score": 4}, drops={"a: score_not_finite": 4}
    ),
    "infinite scores": Garbage(
        message([INF, 3, -INF, INF]), missing={"a_score": 3}, drops={"a: score_not_finite": 3}
    ),
    "all of it": Garbage(
        message([NAN, INF, -INF, 1], [NAN, INF, 3000, 1000]),
        missing={"a_score": 3, "year": 2},
        outside={"year": 2},
        drops={"a: score_not_finite": 3},
    ),
}


class Speaking:
    """A backend that says what it is told to."""

    def __init__(self) -> None:
        self.message = message()

    async def answer(self, request: pb.RetrieveRequest, context: object) -> bytes:
        return self.message.SerializeToString()


@pytest.fixture
def backend() -> Speaking:
    return Speaking()


@pytest.fixture
async def mixer(backend: Speaking, model_folder: Path) -> AsyncIterator[Mixer]:
    """A model ranks what this backend and a healthy one return."""
    async with engines.healthy() as good, engines.engine(backend.answer) as spoken:
        mix = {"model": "forest", "features": FEATURES}
        models = {"forest": {"path": model_folder}}
        settings = mixers.settings({"a": spoken.target, "good": good}, mix, models=models)
        async with mixers.running(settings) as made:
            yield made


async def search(mixer: Mixer) -> SearchResult:
    return await mixer.search("csv file", context={"plan": "free"}, features=True)


def counts(mixer: Mixer) -> dict[tuple[str, str], float]:
    """What is counted of the features' values, by metric and feature."""
    return {(s.name, s.labels["feature"]): s.value for s in mixer.samples if s.name in COUNTED}


async def counted(mixer: Mixer) -> tuple[SearchResult, dict[tuple[str, str], float]]:
    """One search, and what it added to the counts."""
    before = counts(mixer)
    result = await search(mixer)
    return result, {key: value - before.get(key, 0.0) for key, value in counts(mixer).items()}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_what_makes_no_sense_is_counted_by_feature(
    mixer: Mixer, backend: Speaking, garbage: Garbage
) -> None:
    """Each value that is missing, no number or out of range adds one to its feature's count, and to no other."""
    _, sound = await counted(mixer)
    backend.message = garbage.message
    result, odd = await counted(mixer)
    more = {key: odd[key] - sound.get(key, 0.0) for key in odd if odd[key] != sound.get(key, 0.0)}
    told = zip(COUNTED, (garbage.missing, garbage.outside), strict=True)
    assert more == {(name, feature): n for name, by in told for feature, n in by.items()}
    assert result.drops == garbage.drops
    for drop, lost in garbage.drops.items():
        labels = dict(zip(("backend", "reason"), drop.split(": "), strict=True))
        assert mixer.value("mixer_dropped_total", mix="default", **labels) == lost


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_what_makes_no_sense_moves_nobody_else(
    mixer: Mixer, backend: Speaking, garbage: Garbage
) -> None:
    """The model ranks all documents, once each; those of the other backend keep their scores to the bit."""
    sound = await search(mixer)
    backend.message = garbage.message
    result = await search(mixer)
    assert (result.ranker, result.degraded) == ("model", False)
    assert sorted(hit.id for hit in result.hits) == [*GOOD, *BAD]
    scores = [hit.score for hit in result.hits]
    assert np.isfinite(scores).all()
    assert scores == sorted(scores, reverse=True)
    assert of_good(result) == of_good(sound)


def of_good(result: SearchResult) -> list[tuple[str, float]]:
    """The other backend's documents in their order."""
    return [(hit.id, hit.score) for hit in result.hits if hit.id in GOOD]


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_a_model_never_sees_what_makes_no_sense(
    mixer: Mixer, backend: Speaking, garbage: Garbage
) -> None:
    """It sees a missing value in its place: no infinite one, and none beyond the range of its feature."""
    backend.message = garbage.message
    result = await search(mixer)
    rows = [place for place, hit in enumerate(result.hits) if hit.id in BAD]
    assert not np.isinf(result.features).any()
    for place, feature in enumerate(forest.FEATURES):
        blank = garbage.missing.get(feature.name, 0) + garbage.outside.get(feature.name, 0)
        assert np.isnan(result.features[rows, place]).sum() == blank
        low, high = feature.bounds
        known = result.features[:, place][~np.isnan(result.features[:, place])]
        assert ((low <= known) & (known <= high)).all()


async def test_a_context_that_makes_no_sense_is_counted(mixer: Mixer) -> None:
    """A level that is not declared, and a number where a level should be, are missing for every candidate."""
    _, sound = await counted(mixer)
    key = ("mixer_feature_missing_total", "plan")
    assert not sound[key]
    for number, plan in enumerate(("gratis", 3.0), 1):
        result = await mixer.search("csv file", context={"plan": plan})
        assert result.ranker == "model"
        assert counts(mixer)[key] == number * len([*GOOD, *BAD])
