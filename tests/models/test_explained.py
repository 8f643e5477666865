from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixer.model import LightGbmModel, load
from models import logs
from models.explained import explained
from models.logs import Served
from tests import forest, served
from tests.doubles import engines, mixers


@pytest.fixture(scope="module")
def model(model_folder: Path) -> LightGbmModel:
    return load(model_folder, forest.FEATURES)


def one(tmp_path: Path, row: dict[str, Any]) -> Served:
    (found,) = logs.searches(logs.read(logs.files(served.write(tmp_path, [row])).sound))
    return found


def test_the_page_is_explained(model: LightGbmModel, tmp_path: Path) -> None:
    """The hits of the page that was served, with true ranks; fewer where fewer are wanted."""
    found = one(tmp_path, served.row(1, model, page_offset=10, page_size=5))
    told = explained(found, model, hits=0)
    assert [hit.rank for hit in told.answer.hits] == [11, 12]
    assert [hit.id for hit in explained(found, model, hits=1).answer.hits] == [found.ids[10]]


def test_documents_by_id(model: LightGbmModel, tmp_path: Path) -> None:
    """These documents, best first, each once, wherever they stand; an unknown one is a fault."""
    found = one(tmp_path, served.row(1, model))
    wanted = [found.ids[9], found.ids[2], found.ids[9]]
    assert [hit.id for hit in explained(found, model, 0, wanted).answer.hits] == [found.ids[2], found.ids[9]]
    with pytest.raises(ValueError, match="'nowhere': not among the 12"):
        explained(found, model, 0, ["nowhere"])


def test_without_a_model(model: LightGbmModel, tmp_path: Path) -> None:
    """What fusion ranked has no parts, and what a model ranked has none without it."""
    fused = explained(one(tmp_path / "f", served.row(1, None)), None, 0)
    assert (fused.lacking, len(fused.contributions)) == ("no_model", 0)
    lost = explained(one(tmp_path / "m", served.row(1, model)), None, 0)
    assert (lost.lacking, len(lost.contributions)) == ("model_gone", 0)


def test_by_another_model(model: LightGbmModel, other_folder: Path, tmp_path: Path) -> None:
    """Hits stand as that model would have them, each with the place at which it was served; the fused order's too."""
    other = load(other_folder, forest.FEATURES)
    for name, ranked_by in (("m", model), ("f", None)):
        found = one(tmp_path / name, served.row(1, ranked_by, page_size=12))
        told = explained(found, other, 0)
        scores = [hit.score for hit in told.answer.hits]
        assert scores == sorted(other.score(found.features).tolist(), reverse=True)
        assert [found.ids[place.served_rank - 1] for place in told.placements] == [
            h.id for h in told.answer.hits
        ]
        assert (told.answer.model, told.served_by) == (other.ref, model.ref if ranked_by else None)
        assert told.contributions.sum(axis=1) + told.bias == pytest.approx(scores)
        for hit in told.answer.hits:
            (source,) = hit.sources
            assert source.rank == found.ranks[0][found.ids.index(hit.id)]


def test_a_model_of_other_features(model: LightGbmModel, tmp_path: Path) -> None:
    """What it cannot score it cannot explain."""
    found = one(tmp_path, served.row(1, model, schema_sha256="0" * 64, model_version="2"))
    with pytest.raises(ValueError, match="other features"):
        explained(found, model, 0)


def test_backends_that_did_not_answer(model: LightGbmModel, tmp_path: Path) -> None:
    """Their outcome is told as the answer told it."""
    row = served.row(1, None, backend_outcomes=["timeout"], fallback_reason="scoring_failed", degraded=True)
    told = explained(one(tmp_path, row), None, 0).answer
    assert told.degraded_reasons == ("a: timeout", "ranker: scoring_failed")
    assert told.backends[0].outcome == "timeout"


async def test_the_log_says_what_the_server_says(
    model: LightGbmModel, model_folder: Path, tmp_path: Path
) -> None:
    """An answer explained by the server that gave it, and from its log: the same but for what no log holds."""
    memory = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
    settings = mixers.settings(
        {"a": memory},
        {
            "model": "m",
            "features": [feature.model_dump() for feature in forest.FEATURES],
            "pins": [{"query": "csv file", "ids": ["4"]}],
        },
        models={"m": {"path": model_folder}},
        explain={"recent": 1},
        feature_log={"sinks": [{"kind": "parquet", "folder": tmp_path}]},
    )
    async with mixers.running(settings) as mixer:
        answer = await mixer.search("csv file")
        ours = await mixer.client.explain(answer.query_id)
    (found,) = logs.searches(logs.read(logs.files(tmp_path).sound))
    theirs = explained(found, model, 0)
    assert np.array_equal(ours.contributions, theirs.contributions)
    assert (ours.bias, ours.lacking, ours.served_by) == (theirs.bias, theirs.lacking, theirs.served_by)
    assert np.array_equal(ours.answer.features, theirs.answer.features, equal_nan=True)
    for mine, logged in zip(ours.placements, theirs.placements, strict=True):
        places = (logged.fused_rank, logged.scored_rank, logged.rank, logged.served_rank)
        assert places == (mine.fused_rank, mine.scored_rank, mine.rank, mine.served_rank)
    for hit, other in zip(ours.answer.hits, theirs.answer.hits, strict=True):
        assert (hit.id, hit.score, hit.fused_score, hit.sources) == (
            other.id,
            other.score,
            other.fused_score,
            other.sources,
        )
