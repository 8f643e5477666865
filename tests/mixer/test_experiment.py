"""Experiments and canaries as callers and operators see them, over real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.base import BackendUnreachable
from mixer import experiment, model
from mixer.arms import Split, draw
from mixer.client import Event, EventKind, MixerError
from mixer.manifest import Manifest
from mixer.model import LightGbmModel
from mixer.rank import ScoringFailed
from mixer.results import SearchResult
from tests import forest
from tests.doubles import engines, mixers
from tests.doubles.mixers import ROOT, Mixer
from tests.doubles.registries import Shelf

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
FEATURES = [feature.model_dump() for feature in forest.FEATURES]
BOUNDS = {"min_requests": 40, "latency_ratio": None, "score_shift": None}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models load without their test-load, and arms are looked at all the time."""
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)
    monkeypatch.setattr(experiment, "LOOK_S", 0.02)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """Two folders, and what they hold."""
    root = tmp_path_factory.mktemp("models")
    return {
        str(root / str(rounds)): forest.written(
            root / str(rounds), forest.trained(recipe=forest.RECIPE.model_copy(update={"rounds": rounds}))
        )
        for rounds in (6, 9)
    }


def settings(
    models: dict[str, Manifest],
    *,
    share: float = 0.5,
    key: str = "user",
    canary: Any = None,
    explore_hits: int | None = None,
    events: Path | None = None,
    **other: Any,
) -> Any:
    a, b = models
    arms = [
        {"name": "control", "share": 1 - share, "model": "a"},
        {"name": "canary", "share": share, "model": "b", "canary": canary, "explore_hits": explore_hits},
    ]
    declared = {"salt": "s", "key": key, "arms": arms, **other}
    rules = {"features": FEATURES, "experiment": declared, "model": "a"}
    feedback = {"feedback": {"folder": str(events)}} if events else {}
    return mixers.settings({"a": MEMORY}, rules, models={"a": {"path": a}, "b": {"path": b}}, **feedback)


def arm_of(user: str, share: float = 0.5) -> str:
    return ("control", "canary")[Split([1 - share, share]).arm(draw("s", user)[0])]


async def ask(mixer: Mixer, user: str, **options: Any) -> SearchResult:
    return await mixer.search("csv file", context={"user": user}, **options)


async def test_a_key_stays_in_its_arm(models: dict[str, Manifest]) -> None:
    """Whatever it asks, on every server and after a restart; the arm's model answers, and the answer says so."""
    versions = dict(zip(("control", "canary"), (m.version for m in models.values()), strict=True))
    seen = Counter[str]()
    for _ in range(2):
        async with mixers.running(settings(models)) as mixer:
            for n in range(40):
                result = await ask(mixer, f"u{n}")
                assert result.arm == arm_of(f"u{n}")
                assert result.model
                assert result.model.version == versions[result.arm]
                seen[result.arm] += 1
    assert min(seen.values()) > 10


async def test_a_request_without_the_key_is_outside(models: dict[str, Manifest]) -> None:
    """The control's model answers it; it is in no arm's counts, nor is its next page."""
    async with mixers.running(settings(models)) as mixer:
        first = await mixer.search("csv file", page_size=2)
        second = await mixer.search("csv file", page_size=2, cursor=first.next_cursor)
        assert (first.arm, second.arm) == ("", "")
        assert first.model
        assert first.model.version == next(iter(models.values())).version
        assert mixer.value("mixer_outside_experiment_total", mix="default") == 2
        assert mixer.value("mixer_arm_requests_total", mix="default", arm="control", outcome="ok") == 0


async def test_span_log_and_metrics_name_the_arm(
    models: dict[str, Manifest], caplog: pytest.LogCaptureFixture
) -> None:
    """The root span, the log line and the counters say the same arm; also of a request that fails."""
    caplog.set_level("INFO", "mixer.call")
    broken = engines.memory()
    with mixers.tracing() as traced:
        async with mixers.running(settings(models), {"a": broken}) as mixer:
            await ask(mixer, "u1")
            broken.failure = BackendUnreachable("down")
            with pytest.raises(MixerError):
                await ask(mixer, "u1")
            counted = [
                mixer.value("mixer_arm_requests_total", mix="default", arm=arm_of("u1"), outcome=outcome)
                for outcome in ("ok", "error", "refused")
            ]
            seconds = mixer.value("mixer_arm_duration_seconds_count", mix="default", arm=arm_of("u1"))
    lines = [vars(record)["mixer.arm"] for record in caplog.records if record.message == "call"]
    said = [dict(span.attributes or {})["mixer.arm"] for span in traced.named(ROOT)]
    assert said == lines == [arm_of("u1")] * 2
    assert (counted, seconds) == ([1, 1, 0], 1)


async def test_pages_stay_in_the_arm(models: dict[str, Manifest]) -> None:
    """Where every search is drawn by itself, the pages of one list are not: the cursor keeps the arm."""
    arms = set()
    async with mixers.running(settings(models, key="query_id")) as mixer:
        for n in range(12):
            page = await mixer.search("csv file", page_size=1, request_id=f"first-{n}")
            arm, ids = page.arm, [hit.id for hit in page.hits]
            arms.add(arm)
            while page.next_cursor:
                page = await mixer.search("csv file", page_size=1, cursor=page.next_cursor)
                assert page.arm == arm
                ids += [hit.id for hit in page.hits]
            assert sorted(ids) == ["1", "2", "3", "4"]
    assert arms == {"control", "canary"}


async def test_an_exploring_arm_draws_the_head_of_its_lists(models: dict[str, Manifest]) -> None:
    """Its first hits are the model's first ones, in an order of their own every time; the others' stay."""
    async with mixers.running(settings(models, explore_hits=3)) as mixer:
        found: dict[str, set[tuple[str, ...]]] = {"control": set(), "canary": set()}
        for n in range(60):
            result = await ask(mixer, f"u{n}", request_id=f"q{n}")
            found[result.arm].add(tuple(hit.id for hit in result.hits))
    assert len(found["control"]) == 1
    assert len(found["canary"]) == 6
    assert len({(frozenset(order[:3]), order[3:]) for order in found["canary"]}) == 1


async def test_the_split_is_measured(models: dict[str, Manifest]) -> None:
    """Distinct keys by arm and the probability of such a split; a key that asks often counts once."""
    async with mixers.running(settings(models, share=0.25)) as mixer:
        for n in range(60):
            for _ in range(1 + 3 * (n == 7)):
                await ask(mixer, f"u{n}")
        arms = Counter(arm_of(f"u{n}", 0.25) for n in range(60))
        assert {arm: mixer.value("mixer_arm_keys", mix="default", arm=arm) for arm in arms} == arms
        assert mixer.value("mixer_arm_share_ratio", mix="default", arm="canary") == 0.25
        p = mixer.value("mixer_sample_ratio_p_value", mix="default")
        assert p is not None
        assert p > 0.001


def spoil(monkeypatch: pytest.MonkeyPatch, version: str, how: Any) -> None:
    """One version scores as `how` says."""
    score = LightGbmModel.score

    def spoiled(self: LightGbmModel, matrix: Any) -> Any:
        return how(score, self, matrix) if self.ref.version == version else score(self, matrix)

    monkeypatch.setattr(LightGbmModel, "score", spoiled)


def fails(*_: Any) -> Any:
    raise ScoringFailed


def crashes(*_: Any) -> Any:
    raise KeyError("a bug")


def slowly(score: Any, *scored: Any) -> Any:
    time.sleep(0.01)
    return score(*scored)


def elsewhere(score: Any, *scored: Any) -> Any:
    return score(*scored) + 10.0


async def tell(mixer: Mixer, result: SearchResult) -> None:
    """Somebody saw the answer, and clicked if it was the control's."""
    kinds = [EventKind.IMPRESSION, *([EventKind.CLICK] if result.arm == "control" else [])]
    await mixer.client.feedback([Event(result.query_id, kind, result.hits[0].id) for kind in kinds])


async def rollback(mixer: Mixer, reason: str, users: int = 400) -> None:
    """Ask until the canary is taken back."""
    for n in range(users):
        try:
            result = await ask(mixer, f"u{n}", request_id=f"q{n}")
        except MixerError:
            continue
        if mixer.app.feedback:
            await tell(mixer, result)
        if mixer.value("mixer_canary_rollbacks_total", mix="default", arm="canary", reason=reason):
            return
    raise AssertionError("the canary was not taken back")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (fails, "fallbacks"),
        (crashes, "errors"),
        (slowly, "latency"),
        (elsewhere, "scores"),
        (None, "clicks"),
    ],
)
async def test_a_canary_past_a_bound_is_taken_back(
    models: dict[str, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    how: Any,
    reason: str,
) -> None:
    """By what it does beside the control: its traffic goes to the control, and log, metrics and a file say why."""
    version = list(models.values())[1].version
    if how:
        spoil(monkeypatch, version, how)
    shift = 0.25 if reason == "scores" else None
    bounds = {
        **BOUNDS,
        "score_shift": shift,
        "latency_ratio": 1.5,
        "min_requests": 300 if reason == "latency" else 40,
    }
    folder = tmp_path / "verdicts"
    events = tmp_path / "events" if reason == "clicks" else None
    declared = settings(models, canary=bounds, verdicts=str(folder), events=events)
    async with mixers.running(declared) as mixer:
        await rollback(mixer, reason, 900)
        judged = mixer.app.mixes["default"].experiment
        assert judged
        await mixers.until(lambda: judged.shares == [1.0, 0.0])
        after = [await ask(mixer, f"u{n}") for n in range(20)]
        assert mixer.value("mixer_arm_taken_back", mix="default", arm="canary") == 1
        assert mixer.value("mixer_arm_share_ratio", mix="default", arm="canary") == 0
        assert mixer.value("mixer_sample_ratio_p_value", mix="default") == 1
    assert {(result.arm, result.degraded) for result in after} == {("control", False)}
    [path] = folder.iterdir()
    told = json.loads(path.read_text())
    assert (told["arm"], told["version"], told["reason"]) == ("canary", version, reason)
    assert told["why"].startswith(f"{reason}: ")
    [record] = [record for record in caplog.records if record.message == "arm taken back"]
    assert record.why == told["why"]  # type: ignore[attr-defined]


async def test_a_sound_canary_stays(models: dict[str, Manifest]) -> None:
    """Nothing that it does differs: it keeps its share."""
    async with mixers.running(settings(models, canary=BOUNDS)) as mixer:
        for n in range(150):
            await ask(mixer, f"u{n}")
        await asyncio.sleep(0.1)
        assert mixer.value("mixer_arm_share_ratio", mix="default", arm="canary") == 0.5
        assert mixer.value("mixer_arm_taken_back", mix="default", arm="canary") == 0


def forget(folder: Path) -> None:
    for path in folder.glob("*.json"):
        path.unlink()


async def test_a_verdict_outlives_the_server(
    models: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a restart the arm stays out; who deletes the verdict gives it another chance, without a restart."""
    declared = settings(models, canary=BOUNDS, verdicts=str(tmp_path))
    with monkeypatch.context() as patch:
        spoil(patch, list(models.values())[1].version, fails)
        async with mixers.running(declared) as mixer:
            await rollback(mixer, "fallbacks")
    user = next(f"u{n}" for n in range(99) if arm_of(f"u{n}") == "canary")
    async with mixers.running(declared) as mixer:
        assert (await ask(mixer, user)).arm == "control"
        forget(tmp_path)
        await mixers.until(lambda: mixer.value("mixer_arm_share_ratio", mix="default", arm="canary") == 0.5)
        assert (await ask(mixer, user)).arm == "canary"


@asynccontextmanager
async def on_registry(shelf: Shelf, models: dict[str, Manifest]) -> AsyncIterator[Mixer]:
    """A mixer whose canary's model is what the registry says."""
    made = settings(models, canary=BOUNDS).model_dump(mode="json", exclude_none=True)
    made["models"]["b"] = shelf.settings
    async with mixers.running(type(settings(models)).model_validate(made)) as mixer:
        yield mixer


async def test_another_version_is_tried_anew(
    models: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A verdict is on a version: the next one that is promoted into the arm gets its share, and is judged by what
    it does itself."""
    shelf = Shelf(tmp_path)
    bad, good, worse = shelf.publish(7), shelf.publish(8), shelf.publish(10)
    shelf.promote(bad)
    spoil(monkeypatch, bad.version, fails)
    spoil(monkeypatch, worse.version, crashes)
    user = next(f"u{n}" for n in range(99) if arm_of(f"u{n}") == "canary")
    async with on_registry(shelf, models) as mixer:
        await rollback(mixer, "fallbacks")
        await mixers.until(lambda: mixer.value("mixer_arm_share_ratio", mix="default", arm="canary") == 0)
        shelf.promote(good)
        await mixers.until(lambda: mixer.value("mixer_arm_share_ratio", mix="default", arm="canary") == 0.5)
        result = await ask(mixer, user)
        assert result.model
        assert (result.arm, result.model.version) == ("canary", good.version)
        shelf.promote(worse)
        await rollback(mixer, "errors")


async def test_an_arm_without_a_sound_model_is_the_control_s(
    models: dict[str, Manifest], tmp_path: Path
) -> None:
    """A canary whose model is refused keeps nobody from being answered, nor the mix from being ready; it gets its
    share once there is a sound one."""
    shelf = Shelf(tmp_path)
    async with on_registry(shelf, models) as mixer:
        assert mixer.app.faults == {}
        assert {(await ask(mixer, f"u{n}")).arm for n in range(20)} == {"control"}
        shelf.promote(shelf.publish(7))
        await mixers.until(lambda: mixer.value("mixer_arm_share_ratio", mix="default", arm="canary") == 0.5)
        assert {(await ask(mixer, f"u{n}")).arm for n in range(20)} == {"control", "canary"}


async def test_a_list_of_an_arm_taken_back_is_no_more(
    models: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next page would come from another model: start again."""
    user = next(f"u{n}" for n in range(99) if arm_of(f"u{n}") == "canary")
    async with mixers.running(settings(models, canary=BOUNDS)) as mixer:
        page = await ask(mixer, user, page_size=2)
        spoil(monkeypatch, list(models.values())[1].version, fails)
        await rollback(mixer, "fallbacks")
        await mixers.until(lambda: mixer.value("mixer_arm_share_ratio", mix="default", arm="canary") == 0)
        with pytest.raises(MixerError, match="model changed"):
            await ask(mixer, user, page_size=2, cursor=page.next_cursor)
