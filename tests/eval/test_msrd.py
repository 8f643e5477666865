"""The evaluation on the movie set: what it reads, and what it declares."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import yaml

from backends import build
from mixer.schema import fields_read
from mixer.settings import parse
from tests.eval import msrd

there = pytest.mark.skipif(
    not (msrd.SOURCE / "docs.jsonl.gz").is_file(),
    reason=f"the movie set is not at {msrd.SOURCE}; name its folder in MSRD",
)


def test_every_field_that_features_read_is_indexed() -> None:
    """The mix reads only fields that each backend's definition declares, or that an engine computes."""
    settings = parse((msrd.HERE / "msrd.yaml").read_text(encoding="utf-8"))
    mix = settings.mixes["default"]
    assert set(msrd.SERVE) == set(mix.backends)
    for name in msrd.SERVE:
        declared = build.Definition.load(msrd.HERE / f"msrd-{name}.yaml").declared.fields
        computed = {f"{field}_bm25" for field in declared}
        assert fields_read(mix.features) <= set(declared) | computed


def test_no_feature_is_made_from_labels() -> None:
    """What the set derives from its labels is neither indexed nor a feature."""
    told = (msrd.HERE / "msrd.yaml").read_text() + (msrd.HERE / "msrd-lexical.yaml").read_text()
    assert "seed" not in told
    assert "relevant" not in told


@there
def test_the_splits_are_those_of_the_set() -> None:
    """Every judged query is kept, in its own split, and no movie that queries aim at stands in two splits."""
    queries = list(msrd._judged())
    assert Counter(judged.split for judged in queries) == {"train": 11565, "valid": 1685, "test": 3029}
    homes = {(judged.need, judged.split) for judged in queries}
    assert len(homes) == len({need for need, _ in homes})


@there
def test_unknown_numbers_are_missing() -> None:
    """A year, a vote count, a rating or a budget of 0 means unknown: it is left out, not indexed as 0."""
    movies = [
        msrd._document(yaml.safe_load(line)) for line in itertools.islice(msrd._lines("docs.jsonl.gz"), 200)
    ]
    assert all(movie.get(name) != 0 for movie in movies for name in ("year", "votes", "rating", "budget"))
    assert all(
        movie["people"] and movie["released"] == str(movie["year"]) for movie in movies if "year" in movie
    )
