from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from pydantic import TypeAdapter

from backends.base import FloatColumn
from mixer.manifest import Golden
from mixer.model import LightGbmModel, load, raw_scores, read_manifest
from mixer.schema import Feature, schema_hash
from models import golden_vectors, vector_inputs
from models.golden_vectors import GoldenVectors
from tests import forest

DEMO = Path(__file__).parents[2] / "models/demo"


@pytest.fixture(scope="module")
def model(model_folder: Path) -> LightGbmModel:
    return load(model_folder, forest.FEATURES)


@pytest.fixture(scope="module")
def vectors(model: LightGbmModel, model_folder: Path) -> GoldenVectors:
    return vector_inputs.vectors(model_folder, model)


def told(
    vectors: GoldenVectors, model: LightGbmModel, tmp_path: Path, change: Callable[[Any], None]
) -> list[str]:
    """The faults of a file in which something was changed."""
    tree = json.loads(vectors.model_dump_json())
    change(tree)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return list(golden_vectors.faults(golden_vectors.read(path), model))


def test_what_is_written_is_read_and_found_right(
    vectors: GoldenVectors, model: LightGbmModel, tmp_path: Path
) -> None:
    """A file read back is the same to the last bit, and this code makes of it what it says."""
    golden_vectors.write(vectors, tmp_path / "v.json")
    read = golden_vectors.read(tmp_path / "v.json")
    assert read == vectors
    assert list(golden_vectors.faults(read, model)) == []


def test_what_stores_held_goes_in() -> None:
    """A feature of a store is made from the vector's own rows: what a document has none of is missing."""
    feature: dict[str, Any] = {"source": "store", "store": "clicks"}
    features = TypeAdapter[tuple[Feature, ...]](tuple[Feature, ...]).validate_python(
        [{"name": "sales", "field": "sales", **feature}, {"name": "ctr", "field": "ctr", **feature}]
    )
    made = vector_inputs.inputs(vector_inputs.mix_of(features))
    assert {len(given.stores) for given in made} == {1}
    seen = []
    for given in made:
        candidates, matrix, _ = golden_vectors._ranked(given, vector_inputs.mix_of(features), Zero())
        [held] = given.stores
        assert held.fields == ("ctr", "sales")
        for id_, row in zip(candidates.ids, matrix, strict=True):
            expected = held.rows.get(id_, (None, None))
            np.testing.assert_array_equal(row[::-1], np.array(expected, np.float64))
            seen.append(id_ in held.rows)
    assert 0.5 < np.mean(seen) < 1


class Zero(LightGbmModel):
    """Scores all the same."""

    def __init__(self) -> None:
        pass

    def score(self, matrix: FloatColumn) -> FloatColumn:
        return np.zeros(len(matrix))


def test_the_same_each_time(vectors: GoldenVectors, model: LightGbmModel, model_folder: Path) -> None:
    """The inputs are made up the same way each time: a file changes only where the model or the code does."""
    assert vector_inputs.vectors(model_folder, model) == vectors


def test_scores_are_lightgbm_s(vectors: GoldenVectors, model_folder: Path) -> None:
    """The expected scores are those of LightGBM itself, to the last bit."""
    booster = lightgbm.Booster(model_file=str(model_folder / "model.txt"))
    for vector in vectors.vectors:
        matrix = np.array(vector.expected.features, np.float64)
        assert raw_scores(booster, matrix).tolist() == list(vector.expected.scores)
    matrix = np.array([row.features for row in vectors.rows], np.float64)
    assert raw_scores(booster, matrix).tolist() == [row.score for row in vectors.rows]


def test_the_edges_are_there(vectors: GoldenVectors) -> None:
    """Inputs have a silent backend, ties, repeats and missing scores; rows lack most features in turns."""
    replies = [reply for vector in vectors.vectors for reply in vector.replies]
    assert any(len(set(reply.ids)) < len(reply.ids) for reply in replies)
    assert any(None in reply.scores for reply in replies)
    assert any(len(reply.scores) > 1 and len(set(reply.scores)) == 1 for reply in replies)
    demo = golden_vectors.read(DEMO / "golden-vectors.json")
    assert any(not reply.answered for vector in demo.vectors for reply in vector.replies)
    missing = np.isnan(np.array([row.features for row in demo.rows], np.float64))
    assert missing.any(axis=0).mean() > 0.5


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda tree: tree["rows"][3].update(score=np.nextafter(tree["rows"][3]["score"], 9)),
            "row 3: the score",
        ),
        (
            lambda tree: tree["vectors"][0].update(query="other words"),
            "plain words: feature coverage differs",
        ),
        (lambda tree: tree["vectors"][0]["expected"]["order"].reverse(), "plain words: the order differs"),
        (lambda tree: tree["vectors"][0]["expected"]["ids"].reverse(), "plain words: other ids"),
        (lambda tree: tree["fusion"].update(k=61), "the fused scores differ"),
        (lambda tree: tree["model"].update(sha256="0" * 64), "the vectors are of model"),
        (lambda tree: tree["features"].reverse(), "features are not those"),
        (
            lambda tree: tree["vectors"][0]["expected"]["scores"].__setitem__(0, 9.0),
            "the scores of the expected",
        ),
    ],
)
def test_a_difference_is_found(
    vectors: GoldenVectors, model: LightGbmModel, tmp_path: Path, change: Callable[[Any], None], fault: str
) -> None:
    """Whatever comes out otherwise is named; of a score the last bit counts."""
    assert any(fault in line for line in told(vectors, model, tmp_path, change))


@pytest.mark.parametrize("content", ["", "{}", '{"format": 2}'])
def test_what_is_no_file_of_vectors(content: str, tmp_path: Path) -> None:
    """It is refused with its name."""
    path = tmp_path / "no.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"no\.json"):
        golden_vectors.read(path)


def test_another_mix_is_refused(model: LightGbmModel, model_folder: Path) -> None:
    """A mix that declares other features has no vectors for this model."""
    mix = vector_inputs.mix_of(forest.FEATURES[:2])
    with pytest.raises(ValueError, match="other features"):
        vector_inputs.vectors(model_folder, model, mix)


def test_the_demo_s_file_is_of_its_model() -> None:
    """The committed file is of the committed model and its schema, with some of its own golden queries."""
    manifest = read_manifest(DEMO / "ranker")
    vectors = golden_vectors.read(DEMO / "golden-vectors.json")
    assert vectors.model.sha256 == manifest.model_sha256
    assert schema_hash(vectors.features) == vectors.schema_sha256 == manifest.schema_sha256
    golden = Golden.model_validate_json((DEMO / "ranker/golden.json").read_bytes())
    assert {vector.query for vector in vectors.vectors} & {query.query for query in golden.queries}
