from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from mixer.describe import Redactor, describers
from mixer.manifest import Manifest
from mixer.metrics import Metrics
from mixer.observe import MixObserver
from mixer.record import Record, close_record, open_record
from mixer.slices import Slice
from mixer.values import Answer, ModelRef, Outcome, Ranker, Request, Scores
from tests.samples import answer, hits, reply, request

SLICES = TypeAdapter(tuple[Slice, ...]).validate_python(
    [
        {"name": "length", "by": "query_length", "bounds": [1]},
        {"name": "answered", "by": "backends"},
    ]
)
HALF = (reply("a", hits(["x", "y"])), reply("b", None, Outcome.TIMEOUT))


class Watched:
    def __init__(self) -> None:
        self.metrics = Metrics()
        told, redactor = describers(5, []), Redactor("drop", b"key")
        self.observer = MixObserver("m", self.metrics, ["a", "b"], [], told, redactor, SLICES)

    async def search(self, made: Answer) -> dict[str, Any]:
        async def verb(_: Request) -> Answer:
            return made

        record = Record(logged=True)
        token = open_record(record)
        await self.observer.search(verb)(made.plan.request)
        close_record(token)
        return record.facts

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"mix": "m", **labels})


async def test_answers_are_counted_by_slice() -> None:
    """Time, what was lacking and fallbacks, for each slice that an answer is in; the log line says which."""
    watched = Watched()
    fused = Scores(np.ones(2), Ranker.FUSED, None, "scoring_failed")
    facts = await watched.search(answer(request("csv"), replies=HALF, scores=fused))
    await watched.search(answer(request("read csv")))
    assert {key: value for key, value in facts.items() if "slice" in key} == {
        "mixer.slice.length": "0-1",
        "mixer.slice.answered": "without_b",
    }
    for labels, found in (
        ({"slice": "length", "value": "0-1"}, (1, 1, 1)),
        ({"slice": "length", "value": "2+"}, (1, 0, 0)),
        ({"slice": "answered", "value": "without_b"}, (1, 1, 1)),
        ({"slice": "answered", "value": "all"}, (1, 0, 0)),
        ({"slice": "answered", "value": "without_several"}, (0, 0, 0)),
    ):
        names = ("duration_seconds_count", "degraded_total", "fallbacks_total")
        assert tuple(watched.sample(f"mixer_slice_{name}", **labels) for name in names) == found


async def test_scores_are_counted_by_slice(model_folder: Path) -> None:
    """By the bins of the model that ranked; fused scores are in none."""
    watched = Watched()
    manifest = Manifest.model_validate_json((model_folder / "manifest.json").read_bytes())
    watched.observer.loaded(manifest)
    ref = ModelRef(manifest.name, manifest.version, manifest.model_sha256)
    ranked = Scores(np.full(2, manifest.score_profile.edges[0]), Ranker.MODEL, ref)
    await watched.search(answer(request("csv"), scores=ranked))
    await watched.search(answer(request("csv"), scores=replace(ranked, ranker=Ranker.FUSED)))
    labels = {"version": manifest.version, "slice": "length", "value": "0-1"}
    assert watched.sample("mixer_slice_score_bin_total", bin="0", **labels) == 2
    assert watched.sample("mixer_slice_score_bin_total", bin="1", **labels) == 0


async def test_a_mix_without_slices_pays_nothing() -> None:
    """No series, no attribute."""
    metrics = Metrics()
    observer = MixObserver("m", metrics, ["a"], [], describers(5, []), Redactor("drop", b"key"))
    assert observer._slices is None
    families = {family.name: family.samples for family in metrics.registry.collect()}
    assert families["mixer_slice_duration_seconds"] == []


@pytest.mark.parametrize("query", ["csv", "read csv"])
async def test_every_value_exists_from_the_start(query: str) -> None:
    """So that the first answer of a slice is seen as an increase."""
    assert Watched().sample("mixer_slice_duration_seconds_count", slice="length", value="2+") == 0
