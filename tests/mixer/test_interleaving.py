"""Drafted lists as callers and operators see them, over real sockets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mixer import experiment, model
from mixer.client import Event, EventKind
from mixer.model import LightGbmModel
from mixer.rank import ScoringFailed
from mixer.results import Hit, SearchResult
from models import logs
from models.feedback import Joined
from models.interleaved import tallies
from tests import forest
from tests.doubles import engines, mixers
from tests.doubles.mixers import Mixer

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
FEATURES = [feature.model_dump() for feature in forest.FEATURES]
ARM = {"mix": "default", "arm": "duel"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models load without their test-load, and arms are looked at all the time."""
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)
    monkeypatch.setattr(experiment, "LOOK_S", 0.01)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two models; the folder of each by its version."""
    root = tmp_path_factory.mktemp("models")
    return {
        forest.written(
            root / str(rounds), forest.trained(recipe=forest.RECIPE.model_copy(update={"rounds": rounds}))
        ).version: str(root / str(rounds))
        for rounds in (6, 9)
    }


def settings(folders: dict[str, str], kept: Path, duel: str = "b") -> Any:
    a, b = folders.values()
    arms = [
        {"name": "control", "share": 0, "model": "a"},
        {"name": "duel", "share": 1, "model": duel, "interleave": {"settle_s": 2.0}},
    ]
    return mixers.settings(
        {"a": MEMORY},
        {"features": FEATURES, "experiment": {"salt": "s", "arms": arms}},
        models={"a": {"path": a}, "b": {"path": b}},
        feedback={"folder": str(kept / "events")},
        feature_log={"sinks": [{"kind": "parquet", "folder": str(kept / "log")}]},
    )


def turned(monkeypatch: pytest.MonkeyPatch, folders: dict[str, str]) -> None:
    """The first model ranks as the second one does, from the worst to the best."""
    score, first = LightGbmModel.score, next(iter(folders))

    def spoiled(self: LightGbmModel, matrix: Any) -> Any:
        return -score(self, matrix) if self.ref.version == first else score(self, matrix)

    monkeypatch.setattr(LightGbmModel, "score", spoiled)


async def ask(mixer: Mixer, n: int, **options: Any) -> SearchResult:
    return await mixer.search("csv file", request_id=f"q{n}", features=True, **options)


async def click(mixer: Mixer, result: SearchResult, hit: Hit) -> None:
    kinds = (EventKind.IMPRESSION, EventKind.CLICK)
    await mixer.client.feedback([Event(result.query_id, kind, hit.id) for kind in kinds])


def counts(mixer: Mixer) -> dict[str, float]:
    name = "mixer_interleaved_lists"
    return {whose: mixer.value(name, **ARM, preferred=whose) or 0 for whose in ("arm", "control", "neither")}


def evidence(mixer: Mixer) -> float:
    return mixer.value("mixer_interleaved_log_e_value", **ARM) or 0.0


async def test_of_two_alike_nobody_wins(folders: dict[str, str], tmp_path: Path) -> None:
    """Readers who always click the first hit prefer neither: its teams come out even, and there is no verdict."""
    async with mixers.running(settings(folders, tmp_path, duel="a")) as mixer:
        alone = [hit.id for hit in (await ask(mixer, 0)).hits]
        for n in range(1, 301):
            result = await ask(mixer, n)
            assert [hit.id for hit in result.hits] == alone
            await click(mixer, result, result.hits[0])
        await mixers.until(lambda: sum(counts(mixer).values()) == 300)
        found = counts(mixer)
        assert found["neither"] == 0
        assert 110 < found["arm"] < 190
        assert evidence(mixer) < 0
        judged = mixer.app.mixes["default"].experiment
        assert judged
        assert judged.arms[1].duel
        assert judged.arms[1].duel.test.verdict == "undecided"


async def test_the_better_ranking_wins(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers who click what they look for prefer the ranking that has it first; the verdict says so, and the logs
    say the same."""
    turned(monkeypatch, folders)
    async with mixers.running(settings(folders, tmp_path)) as mixer:
        for n in range(60):
            result = await ask(mixer, n, page_size=2)
            best = max(result.hits, key=lambda hit: hit.score)
            await click(mixer, result, best)
        await mixers.until(lambda: sum(counts(mixer).values()) == 60)
        online = counts(mixer)
        assert online["arm"] > 45
        assert evidence(mixer) > 3
        judged = mixer.app.mixes["default"].experiment
        assert judged
        assert judged.arms[1].duel
        assert judged.arms[1].duel.test.verdict == "treatment"
    with Joined(tmp_path / "log", tmp_path / "events") as joined:
        [tally] = tallies(joined).values()
    assert (tally.wins, tally.losses, tally.ties) == tuple(online.values())


async def test_pages_of_a_draft_are_one_list(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page after page, each with a query id of its own, shows every candidate once, in the order of the whole list;
    clicks on all of them are one vote."""
    turned(monkeypatch, folders)
    async with mixers.running(settings(folders, tmp_path)) as mixer:
        for n in range(6):
            whole = await ask(mixer, n)
            page = await ask(mixer, n, page_size=1)
            ids, teams = [page.hits[0].id], [page.hits[0].team]
            while page.next_cursor:
                page = await mixer.search("csv file", page_size=1, cursor=page.next_cursor, features=True)
                assert page.arm == "duel"
                await click(mixer, page, page.hits[0])
                ids.append(page.hits[0].id)
                teams.append(page.hits[0].team)
            assert (ids, teams) == (
                [hit.id for hit in whole.hits],
                [hit.team for hit in whole.hits],
            )
            assert sorted(ids) == ["1", "2", "3", "4"]
            assert Counter(teams) == {"control": 2, "duel": 2}
        await mixers.until(lambda: sum(counts(mixer).values()) == 6)


async def test_both_models_rank_what_was_retrieved_once(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fan-out, one merge, one set of features: the log has both scores, and who picked each hit."""
    turned(monkeypatch, folders)
    with mixers.tracing() as traced:
        async with mixers.running(settings(folders, tmp_path)) as mixer:
            result = await ask(mixer, 1)
    assert [len(traced.named(stage)) for stage in ("retrieve a", "make_features", "rank")] == [1, 1, 1]
    [row] = logs.searches(logs.read(logs.files(tmp_path / "log").sound))
    assert row.arm == result.arm == "duel"
    assert row.ids == tuple(hit.id for hit in result.hits)
    assert row.teams == tuple(hit.team for hit in result.hits)
    assert row.scores.tolist() == [hit.score for hit in result.hits]
    firsts = {team: row.ids[row.teams.index(team)] for team in ("control", "duel")}
    assert firsts["duel"] == row.ids[row.scores.argmax()]
    assert firsts["control"] == row.ids[row.members["control"].argmax()]
    span: dict[str, Any] = dict(traced.one("rank").attributes or {})
    assert sorted(span["mixer.top.member.control"]) == sorted(row.members["control"])


async def test_without_debug_teams_are_not_told(folders: dict[str, str], tmp_path: Path) -> None:
    """Who picked a hit is for those who look into it."""
    async with mixers.running(settings(folders, tmp_path)) as mixer:
        result = await mixer.search("csv file")
        assert (result.arm, {hit.team for hit in result.hits}) == ("duel", {""})


async def test_a_model_that_fails_drafts_nothing(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arm's answer is as of any arm whose model fails: in fused order, which it says, and no vote."""
    second, score = list(folders)[1], LightGbmModel.score

    def fails(self: LightGbmModel, matrix: Any) -> Any:
        if self.ref.version == second:
            raise ScoringFailed
        return score(self, matrix)

    monkeypatch.setattr(LightGbmModel, "score", fails)
    async with mixers.running(settings(folders, tmp_path)) as mixer:
        result = await ask(mixer, 1)
        assert (result.arm, result.degraded_reasons) == ("duel", ("ranker: scoring_failed",))
        assert {hit.team for hit in result.hits} == {""}
        await click(mixer, result, result.hits[0])
        assert sum(counts(mixer).values()) == 0
        assert mixer.value("mixer_arm_fallbacks_total", **ARM) == 1
