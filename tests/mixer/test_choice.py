"""Explanations where models change and several are at work, over real sockets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mixer import experiment, model
from mixer.client import ExplainResult, MixerError, SearchResult
from mixer.manifest import MODEL, Manifest
from mixer.schema import Feature
from tests import forest
from tests.doubles import engines, mixers
from tests.doubles.mixers import Mixer
from tests.doubles.registries import Shelf

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
FEATURES = [feature.model_dump() for feature in forest.FEATURES]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models load without their test-load, and arms are looked at all the time."""
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)
    monkeypatch.setattr(experiment, "LOOK_S", 0.02)


def write(folder: Path, rounds: int) -> Manifest:
    """A model of so many trees."""
    return forest.written(folder, forest.trained(recipe=forest.RECIPE.model_copy(update={"rounds": rounds})))


def adds_up(told: ExplainResult) -> bool:
    sums = told.contributions.sum(axis=1) + told.bias
    scores = [hit.score for hit in told.answer.hits]
    return not told.lacking and len(sums) > 0 and bool(np.allclose(sums, scores, rtol=1e-9))


def settings(models: dict[str, Any], **rules: Any) -> Any:
    mix = {"features": FEATURES, "model": "a", **rules}
    return mixers.settings({"a": MEMORY}, mix, models=models, explain={"recent": 50})


def version(result: SearchResult) -> str:
    return result.model.version if result.model else ""


async def test_an_answer_of_a_model_that_was_replaced(tmp_path: Path) -> None:
    """It is explained by the model that made it, though another two came to work since; a new search by the new one."""
    shelf = Shelf(tmp_path)
    first, second, third = (shelf.publish(rounds) for rounds in (5, 7, 9))
    shelf.promote(first)
    async with mixers.running(settings({"a": shelf.settings})) as mixer:
        served = await mixer.search("csv file")
        for manifest in (second, third):
            shelf.promote(manifest)
            await mixers.until(partial(at_work, mixer, manifest.version))
        told = await mixer.client.explain(served.query_id)
        assert told.answer.hits == served.hits
        assert version(told.answer) == first.version
        assert adds_up(told)
        anew = await mixer.client.explain(search="csv file")
        assert (version(anew.answer), adds_up(anew)) == (third.version, True)
        named = await mixer.client.explain(served.query_id, model="a")
        assert (version(named.answer), adds_up(named)) == (third.version, True)


def at_work(mixer: Mixer, wanted: str) -> bool:
    found = [sample for sample in mixer.samples if sample.name == "mixer_model_info"]
    return any(sample.labels["version"] == wanted and sample.value for sample in found)


async def test_every_arm_by_its_own_model(tmp_path: Path) -> None:
    """What an arm answered, or would answer, is explained by the arm's model; nothing is counted of the arm."""
    models = {name: {"path": tmp_path / name} for name in "ab"}
    versions = {
        arm: write(tmp_path / name, rounds).version
        for arm, name, rounds in (("control", "a", 5), ("canary", "b", 8))
    }
    arms = [{"name": "control", "share": 0.5}, {"name": "canary", "share": 0.5, "model": "b"}]
    declared = settings(models, experiment={"salt": "s", "key": "user", "arms": arms})
    seen = set()
    async with mixers.running(declared) as mixer:
        for n in range(12):
            who = {"user": f"u{n}"}
            served = await mixer.search("csv file", context=who)
            told = await mixer.client.explain(served.query_id)
            anew = await mixer.client.explain(search="csv file", context=who)
            for each in (told, anew):
                assert (each.answer.arm, version(each.answer)) == (served.arm, versions[served.arm])
                assert each.answer.hits == served.hits
                assert adds_up(each)
            seen.add(served.arm)
        outside = await mixer.client.explain(search="csv file")
        assert (outside.answer.arm, version(outside.answer)) == ("", versions["control"])
        counted = [
            mixer.value("mixer_arm_requests_total", mix="default", arm=arm, outcome="ok") for arm in versions
        ]
        assert sum(filter(None, counted)) == 12
        assert mixer.value("mixer_outside_experiment_total", mix="default") == 0
        keys = [mixer.value("mixer_arm_keys", mix="default", arm=arm) for arm in versions]
        assert sum(filter(None, keys)) == 12
    assert seen == set(versions)


async def test_by_another_model_of_the_settings(tmp_path: Path) -> None:
    """The same candidates stand as that model would have them: its order, scores, version and parts; rules and all."""
    for name, rounds in (("a", 5), ("b", 8)):
        write(tmp_path / name, rounds)
    models = {name: {"path": tmp_path / name} for name in "ab"}
    pins = [{"query": "csv pinned", "ids": ["4"]}]
    async with mixers.running(settings(models, pins=pins)) as mixer:
        served = await mixer.search("csv pinned")
        told = await mixer.client.explain(served.query_id, model="b")
        other = model.load(tmp_path / "b", forest.FEATURES)
        assert (version(told.answer), adds_up(told)) == (other.ref.version, True)
        assert (told.answer.hits[0].id, told.answer.hits[0].pinned) == ("4", True)
        assert {hit.id for hit in told.answer.hits} == {hit.id for hit in served.hits}
        assert [hit.rank for hit in told.answer.hits] == [*range(1, len(served.hits) + 1)]
        scores = other.score(told.answer.features)
        assert scores.tolist() == [hit.score for hit in told.answer.hits]
        assert sorted(scores[1:], reverse=True) == scores[1:].tolist()
        assert told.served_by == served.model
        stood = {hit.id: hit.rank for hit in served.hits}
        assert [place.served_rank for place in told.placements] == [stood[hit.id] for hit in told.answer.hits]
        again = await mixer.client.explain(served.query_id)
        assert again.answer.hits == served.hits
        assert all(place.served_rank == place.rank for place in again.placements)


async def test_by_a_model_where_the_fused_order_was_served(tmp_path: Path) -> None:
    """A mix without a model can be asked what one would change."""
    write(tmp_path / "b", 8)
    async with mixers.running(settings({"b": {"path": tmp_path / "b"}}, model="")) as mixer:
        served = await mixer.search("csv file")
        assert (await mixer.client.explain(served.query_id)).lacking == "no_model"
        told = await mixer.client.explain(served.query_id, model="b")
        assert (told.answer.ranker, told.served_by, adds_up(told)) == ("model", None, True)


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("bb", "NOT_FOUND", "model: no model has that name; did you mean 'b'?"),
        ("/etc/passwd", "NOT_FOUND", "no model has that name; there are: a, b, torn, other"),
        ("torn", "FAILED_PRECONDITION", "'torn' does not pass its checksum check here"),
        ("other", "FAILED_PRECONDITION", "the mix declares other features"),
    ],
)
async def test_a_model_that_cannot_tell(tmp_path: Path, name: str, code: str, said: str) -> None:
    """It is refused by its name and check, without a path of the server's; the next has its turn."""
    for made in ("a", "b", "torn"):
        write(tmp_path / made, 5)
    (tmp_path / "torn" / MODEL).write_text("tree\n")
    other = Path(__file__).parents[2] / "models/demo/ranker"
    models = {"a": tmp_path / "a", "b": tmp_path / "b", "torn": tmp_path / "torn", "other": other}
    async with mixers.running(settings({key: {"path": path} for key, path in models.items()})) as mixer:
        for wish in ({"search": "csv file"}, {"query_id": (await mixer.search("csv file")).query_id}):
            with pytest.raises(MixerError) as raised:
                await mixer.client.explain(**wish, model=name)  # type: ignore[arg-type]
            assert raised.value.code is grpc.StatusCode[code]
            assert said in raised.value.message
            assert str(tmp_path) not in raised.value.message
        assert adds_up(await mixer.client.explain(search="csv file", model="b"))


async def test_a_version_that_the_registry_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry's model that no mix follows is loaded when asked for, and anew where another became current."""
    shelf = Shelf(tmp_path)
    first, second = shelf.publish(5), shelf.publish(8)
    shelf.promote(first)
    write(tmp_path / "a", 6)
    loads: list[Path] = []
    load = model.load

    def counted(folder: Path, features: Sequence[Feature]) -> model.LightGbmModel:
        loads.append(folder)
        return load(folder, features)

    async with mixers.running(settings({"a": {"path": tmp_path / "a"}, "r": shelf.settings})) as mixer:
        monkeypatch.setattr(model, "load", counted)
        for manifest in (first, first, second):
            if manifest is second:
                shelf.promote(second)
            told = await mixer.client.explain(search="csv file", model="r")
            assert version(told.answer) == manifest.version
            assert adds_up(told)
        assert adds_up(await mixer.client.explain(search="csv file", model="a"))
    # The mix's own model is at work, and needs no load.
    assert len(loads) == 2


async def test_a_lane_without_its_model(tmp_path: Path) -> None:
    """Where a mix serves the fused order for want of its model, the model is tried again and says why not."""
    write(tmp_path / "a", 5)
    away = (tmp_path / "a" / MODEL).rename(tmp_path / MODEL)
    async with mixers.running(
        settings({"a": {"path": tmp_path / "a"}}, without_model="serve_fused")
    ) as mixer:
        assert (await mixer.client.explain(search="csv file")).lacking == "no_model"
        with pytest.raises(MixerError, match="checksum check"):
            await mixer.client.explain(search="csv file", model="a")
        away.rename(tmp_path / "a" / MODEL)
        assert adds_up(await mixer.client.explain(search="csv file", model="a"))


async def test_an_ensemble(tmp_path: Path) -> None:
    """It is explained as the weighted sum of its members' parts, at work or asked for by name."""
    for name, rounds in (("a", 5), ("b", 8)):
        write(tmp_path / name, rounds)
    members = [{"model": "a", "weight": 0.25}, {"model": "b", "weight": 2.0}]
    models = {**{name: {"path": tmp_path / name} for name in "ab"}, "both": {"members": members}}
    async with mixers.running(settings(models, model="both")) as mixer:
        served = await mixer.search("csv file")
        told = await mixer.client.explain(served.query_id)
        assert (told.answer.hits, adds_up(told)) == (served.hits, True)
        alone = [await mixer.client.explain(served.query_id, model=name, ids=_ids(told)) for name in "ab"]
        rows = [{hit.id: row for hit, row in zip(e.answer.hits, e.contributions, strict=True)} for e in alone]
        for hit, row in zip(told.answer.hits, told.contributions, strict=True):
            assert row == pytest.approx(0.25 * rows[0][hit.id] + 2.0 * rows[1][hit.id])
    async with mixers.running(settings(models)) as mixer:
        asked = await mixer.client.explain(search="csv file", model="both")
        assert [(hit.id, hit.score) for hit in asked.answer.hits] == [
            (h.id, h.score) for h in told.answer.hits
        ]
        assert adds_up(asked)


def _ids(told: ExplainResult) -> list[str]:
    return [hit.id for hit in told.answer.hits]


async def test_a_member_that_is_not_there(tmp_path: Path) -> None:
    """The refusal of an ensemble names the member's check."""
    write(tmp_path / "a", 5)
    models = {
        **{name: {"path": tmp_path / name} for name in "ab"},
        "both": {"members": [{"model": "a"}, {"model": "b"}]},
    }
    async with mixers.running(settings(models)) as mixer:
        with pytest.raises(MixerError, match="'both' does not pass its manifest check here"):
            await mixer.client.explain(search="csv file", model="both")


async def test_a_drafted_list(tmp_path: Path) -> None:
    """Hits stand as they were drafted, the arm's own scores are explained, steps that are not known are not told."""
    for name, rounds in (("a", 5), ("b", 8)):
        write(tmp_path / name, rounds)
    arms = [
        {"name": "control", "share": 0.0},
        {"name": "duel", "share": 1.0, "model": "b", "interleave": True},
    ]
    models = {name: {"path": tmp_path / name} for name in "ab"}
    async with mixers.running(settings(models, experiment={"salt": "s", "arms": arms})) as mixer:
        served = await mixer.search("csv file")
        told = await mixer.client.explain(served.query_id)
        assert ([hit.id for hit in told.answer.hits], adds_up(told)) == ([h.id for h in served.hits], True)
        assert {place.spread_rank for place in told.placements} == {0}
        assert [place.rank for place in told.placements] == [*range(1, len(served.hits) + 1)]
