"""Models replaced while they serve, over real sockets."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mixer import model
from mixer.client import AsyncMixerClient, MixerError
from mixer.manifest import MANIFEST, MODEL, Manifest
from mixer.model import LightGbmModel
from mixer.results import SearchResult
from mixer.settings import TelemetrySettings
from tests import forest
from tests.doubles import engines, mixers
from tests.doubles.mixers import Mixer
from tests.doubles.registries import NAME, Shelf

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
FEATURES = [feature.model_dump() for feature in forest.FEATURES]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.fixture
def quick_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no test of the test-load does without it."""
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)


def settings(shelf: Shelf, **rules: Any) -> Any:
    rules = {"model": "m", "features": FEATURES, **rules}
    return mixers.settings(
        {"a": MEMORY}, rules, models={"m": shelf.settings}, telemetry={"log_level": "info"}
    )


def version(result: SearchResult) -> str:
    return result.model.version if result.model else ""


class Load:
    """Callers that ask again as soon as they are answered, each with a connection of its own."""

    def __init__(self) -> None:
        self.results: list[SearchResult] = []
        self.failures: list[Exception] = []

    async def ask(self, target: str) -> None:
        async with AsyncMixerClient(target, timeout_s=20.0, attempts=1) as client:
            while True:
                try:
                    self.results.append(await client.search("csv file", features=True, page_size=2))
                except MixerError as error:
                    self.failures.append(error)

    @property
    def last(self) -> str:
        """The version of the newest answer."""
        return version(self.results[-1]) if self.results else ""

    @asynccontextmanager
    async def on(self, mixer: Mixer, callers: int = 4) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.ask(mixer.target)) for _ in range(callers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def cut(folder: Path) -> None:
    data = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(data[: len(data) // 2])


def flip(folder: Path) -> None:
    data = bytearray((folder / MODEL).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / MODEL).write_bytes(bytes(data))


def half_write(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def info(mixer: Mixer) -> set[str]:
    """The versions that the metrics say rank."""
    return {s.labels["version"] for s in mixer.samples if s.name == "mixer_model_info"}


def swaps(mixer: Mixer, outcome: str) -> float:
    return mixer.value("mixer_model_swaps_total", mix="default", outcome=outcome) or 0.0


async def more_swaps(mixer: Mixer, outcome: str, than: float = 0.0) -> None:
    await mixers.until(lambda: swaps(mixer, outcome) > than, 30)


async def test_swaps_under_load(shelf: Shelf) -> None:
    """While callers ask without a pause, versions are promoted, broken ones forced to be current, and one is rolled
    back: no call fails, every answer is one version's from its first score to its name, no broken version ever
    answers, and the rollback is done within ten seconds."""
    a, b = shelf.publish(6), shelf.publish(9)
    shelf.promote(a)
    load = Load()
    async with mixers.running(settings(shelf)) as mixer, load.on(mixer):
        await mixers.until(lambda: load.last == a.version)
        shelf.promote(b)
        await mixers.until(lambda: load.last == b.version, 30)
        for name, spoil in {"cut": cut, "flipped": flip, "half": half_write}.items():
            spoil(shelf.broken(b, name))
            refused = swaps(mixer, "refused")
            shelf.point_at(name, b.model_sha256)
            await more_swaps(mixer, "refused", refused)
            assert load.last == b.version
        began_s = time.monotonic()
        shelf.point_at(a.version, a.model_sha256)
        await mixers.until(lambda: at_work(mixer) == a.version, 10)
        assert info(mixer) == {a.version}
        count = len(load.results)
        await mixers.until(lambda: len(load.results) > count + 20)
        assert time.monotonic() - began_s < 10
        assert {version(result) for result in load.results[count + 10 :]} == {a.version}
    assert load.failures == []
    assert {version(result) for result in load.results} == {a.version, b.version}
    for result in load.results:
        scores = shelf.scores(version(result), result.features)
        assert [hit.score for hit in result.hits] == scores.tolist()
        assert result.model == model.ref_of(a if version(result) == a.version else b)
        assert not result.degraded


def at_work(mixer: Mixer) -> str:
    """The version that answers now."""
    loaded = mixer.app.mixes["default"].lane.stands.loaded
    return loaded.ref.version if loaded and loaded.ref else ""


async def swapped(shelf: Shelf, mixer: Mixer, to: Manifest) -> None:
    shelf.promote(to)
    await mixers.until(lambda: at_work(mixer) == to.version)


async def test_what_is_told_of_the_model_follows(shelf: Shelf, quick_load: None) -> None:
    """After a swap the metrics name the new version only, with its age; the rank span shows its weightiest
    features, and the answers are counted by its own bins."""
    a, b = shelf.publish(6), shelf.publish(9)
    shelf.promote(a)
    made = settings(shelf).model_copy(update={"telemetry": TelemetrySettings(top_features=1)})
    with mixers.tracing() as traced:
        async with mixers.running(made) as mixer:
            await mixer.search("csv")
            await swapped(shelf, mixer, b)
            await mixer.search("csv")
            age_s = mixer.value("mixer_model_age_seconds", mix="default")
            named = info(mixer)
            counted = {
                s.labels["version"] for s in mixer.samples if s.name == "mixer_score_bin_total" and s.value
            }
    assert named == {b.version}
    before, after = traced.named("rank")
    assert (before.attributes or {})["mixer.model.version"] == a.version
    assert (after.attributes or {})["mixer.model.version"] == b.version
    for span, manifest in ((before, a), (after, b)):
        weightiest = max(manifest.importance, key=manifest.importance.__getitem__)
        shown = [key for key in span.attributes or {} if key.startswith("mixer.top.feature.")]
        assert shown == [f"mixer.top.feature.{weightiest}"]
    assert age_s == pytest.approx(time.time() - b.created_at_s, abs=5)
    assert counted == {a.version, b.version}


async def test_a_swap_ends_the_cursors_before_it(shelf: Shelf, quick_load: None) -> None:
    """The next page of a list that another model ranked is refused, with the reason."""
    a, b = shelf.publish(6), shelf.publish(9)
    shelf.promote(a)
    async with mixers.running(settings(shelf)) as mixer:
        page = await mixer.search("csv", page_size=2)
        await mixer.search("csv", page_size=2, cursor=page.next_cursor)
        await swapped(shelf, mixer, b)
        with pytest.raises(MixerError, match="model changed"):
            await mixer.search("csv", page_size=2, cursor=page.next_cursor)


async def health(mixer: Mixer) -> int:
    async with grpc.aio.insecure_channel(mixer.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service="mixer.v1.MixerService"))
        return int(answer.status)


async def test_a_server_becomes_ready_with_its_first_sound_model(shelf: Shelf, quick_load: None) -> None:
    """Nothing is current at the start: not ready, and the mix says so; ready as soon as something is."""
    a = shelf.publish(6)
    async with mixers.running(settings(shelf)) as mixer:
        assert "no current version" in mixer.app.faults["default"]
        assert await health(mixer) == health_pb2.HealthCheckResponse.NOT_SERVING
        await swapped(shelf, mixer, a)
        await mixers.until(lambda: mixer.value("mixer_workers") == 1)
        assert await health(mixer) == health_pb2.HealthCheckResponse.SERVING
        assert version(await mixer.search("csv")) == a.version


@pytest.mark.parametrize(
    ("harm", "outcome"),
    [
        (lambda shelf: (shelf.root / NAME / "current.json").write_text("{"), "unreadable"),
        (lambda shelf: (shelf.root / NAME / "current.json").unlink(), "unreadable"),
        (lambda shelf: shelf.point_at("nothing", "0" * 64), "refused"),
    ],
)
async def test_a_pointer_that_makes_no_sense_changes_nothing(
    shelf: Shelf, quick_load: None, harm: Callable[[Shelf], object], outcome: str
) -> None:
    """The model at work stays, the fault is counted, and what comes after it is followed."""
    a, b = shelf.publish(6), shelf.publish(9)
    shelf.promote(a)
    async with mixers.running(settings(shelf)) as mixer:
        harm(shelf)
        await more_swaps(mixer, outcome)
        assert version(await mixer.search("csv")) == a.version
        shelf.point_at(b.version, b.model_sha256)
        await mixers.until(lambda: at_work(mixer) == b.version)
        assert version(await mixer.search("csv")) == b.version


async def test_every_fault_of_the_pointer_is_counted_once(shelf: Shelf, quick_load: None) -> None:
    """Not at every look; but anew after it was mended."""
    shelf.promote(shelf.publish(6))
    path = shelf.root / NAME / "current.json"
    sound = path.read_bytes()
    async with mixers.running(settings(shelf)) as mixer:
        for times in (1, 2):
            path.write_bytes(b"{")
            await more_swaps(mixer, "unreadable", times - 1)
            await asyncio.sleep(0.2)
            path.write_bytes(sound)
            await asyncio.sleep(0.2)
            assert swaps(mixer, "unreadable") == times


async def test_a_version_that_becomes_whole_later_is_taken(shelf: Shelf, quick_load: None) -> None:
    """A refused version is tried again, with growing pauses: its files may have been on their way."""
    a, b = shelf.publish(6), shelf.publish(9)
    shelf.promote(a)
    manifest = shelf.root / NAME / "versions" / b.version / MANIFEST
    data = manifest.read_bytes()
    async with mixers.running(settings(shelf)) as mixer:
        manifest.unlink()
        shelf.point_at(b.version, b.model_sha256)
        await more_swaps(mixer, "refused")
        manifest.write_bytes(data)
        await mixers.until(lambda: at_work(mixer) == b.version)


async def test_the_model_before_comes_back_from_memory(
    shelf: Shelf, quick_load: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback loads nothing, so it is done at once."""
    a, b = shelf.publish(6), shelf.publish(9)
    shelf.promote(a)
    async with mixers.running(settings(shelf)) as mixer:
        await swapped(shelf, mixer, b)
        monkeypatch.setattr(model, "load", None)
        shelf.point_at(a.version, a.model_sha256)
        await mixers.until(lambda: at_work(mixer) == a.version)


async def test_who_goes_back_waits_for_nobody_s_load(
    shelf: Shelf, quick_load: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models are loaded one at a time; one that was at work before is there while another arm's still loads."""
    a, b = shelf.publish(6), shelf.publish(9)
    shelf.promote(a)
    load, begun, go_on = model.load, Counter[str](), threading.Event()

    def slow_the_second_time(*given: Any) -> LightGbmModel:
        loaded = load(*given)
        begun[loaded.ref.version] += 1
        if loaded.ref.version == b.version and begun[b.version] == 2:
            go_on.wait(20)
        return loaded

    arms = [{"name": "control", "share": 0.5}, {"name": "other", "share": 0.5}]
    async with mixers.running(settings(shelf, experiment={"salt": "s", "arms": arms})) as mixer:
        monkeypatch.setattr(model, "load", slow_the_second_time)
        shelf.promote(b)
        await mixers.until(lambda: begun[b.version] == 2)
        assert versions_at_work(mixer) == {a.version, b.version}
        shelf.point_at(a.version, a.model_sha256)
        try:
            await mixers.until(lambda: versions_at_work(mixer) == {a.version})
        finally:
            go_on.set()


def versions_at_work(mixer: Mixer) -> set[str]:
    """Of all arms."""
    split = mixer.app.mixes["default"].experiment
    assert split
    return {arm.ref.version for arm in split.arms if arm.ref}


async def test_other_features_are_refused(shelf: Shelf, quick_load: None) -> None:
    """A version trained for other features than the mix declares never serves there."""
    a = shelf.publish(6)
    shelf.promote(a)
    async with mixers.running(settings(shelf, features=FEATURES[:2], without_model="serve_fused")) as mixer:
        result = await mixer.search("csv")
        assert result.degraded_reasons == ("ranker: schema_failed",)
