"""The chapters: each does something to a Mixer that people search with, and holds what comes of it to a rule."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from mixer import settings
from mixer.demo.story.broken import Workshop, cut_short, truncated
from mixer.demo.story.crowd import Crowd
from mixer.demo.story.stage import CANDIDATE, RIVAL, SERVING, SHADOW, Scene, StoryBroken, expect
from mixer.manifest import MODEL, Manifest
from mixer.model import read_manifest
from models import work
from models.collection import Listing

SEARCHES_TO_LEARN_FROM = 2500
SEARCHES_TO_COMPARE = 400
SEARCHES_TO_CHECK = 1500
SEARCHES_TO_JUDGE = 6000
"""At most, until the canary's bounds have decided."""
_MIX = "default"
_ROLLBACK_S = 10.0
_SETTINGS = ("--config", "mixer.yaml")
_DISTANCES = {
    "rank-biased overlap": "mixer_shadow_overlap_ratio",
    "Kendall's tau": "mixer_shadow_kendall_tau",
    "share of the first page that is new": "mixer_shadow_churn_ratio",
    "shift of the mean score, in standard deviations": "mixer_shadow_score_shift",
}


def first_model(scene: Scene) -> None:
    """A is trained on the few judgements that there are, passes the gate, and becomes current."""
    scene.title("A: a model of few judgements")
    scene.run("train", *_SETTINGS, "--judgements", "judged.jsonl", "--out", "A")
    scene.run("models", "publish", "A", "--name", SERVING)
    scene.run("models", "promote", _version(scene, "A"), "--name", SERVING, *_SETTINGS)


def log_and_learn(scene: Scene, crowd: Crowd) -> None:
    """What A serves is logged, and what people click; B learns from that alone."""
    scene.title("B: learned from what people clicked")
    crowd.wait(SEARCHES_TO_LEARN_FROM, scene.console)
    time.sleep(6)  # the logs' files end every five seconds
    scene.run("online", "served", "events", "--by", "arm")
    words = ("--from-log", "served", "events", "--explore", "explore", "--recipe", "recipe.yaml")
    scene.run("train", *_SETTINGS, *words, "--out", "B")


def shadow(scene: Scene, crowd: Crowd) -> None:
    """B scores beside A what people ask, and nobody sees it."""
    scene.title("B in the shadow: scores beside A, off the response path")
    _publish(scene, "B", SHADOW)
    mark, b = crowd.visits, _version(scene, "B")
    crowd.wait(SEARCHES_TO_COMPARE, scene.console)
    compared = "mixer_shadow_overlap_ratio_count"
    scene.until(lambda: scene.metric(compared, shadow=SHADOW, slice="all") >= 50, "50 answers are compared")
    for words, name in _DISTANCES.items():
        scene.say(
            f"  {words}: at most {scene.median(name, shadow=SHADOW, slice='all'):g} in half of the answers"
        )
    seen = crowd.figures(mark)
    expect(b not in seen.versions, "a shadow answered")
    scene.say(f"  {seen.searches} answers meanwhile, none of them by {b}; {seen.failed} failed")


def canary(scene: Scene, crowd: Crowd) -> None:
    """B answers a part of the people and is held against A; another part sees lists drafted by both in turns."""
    scene.title("B as a canary: three in ten people; two in ten see both")
    _publish(scene, "B", CANDIDATE)
    _publish(scene, "B", RIVAL)
    scene.until(lambda: scene.metric("mixer_arm_share_ratio", arm="canary") > 0, "the canary gets its share")
    mark = crowd.visits
    crowd.wait(SEARCHES_TO_CHECK, scene.console)
    _arms(scene, crowd, mark)
    expect(scene.metric("mixer_arm_taken_back", arm="canary") == 0, "the canary was taken back")
    time.sleep(6)  # a drafted list's clicks are counted after five seconds
    scene.run("experiment", "check", *_SETTINGS, "--metrics", scene.page)


def promote(scene: Scene, crowd: Crowd) -> None:
    """B becomes current, is taken back in one command, and is made current again; no call fails."""
    scene.title("B promoted, rolled back, promoted again, under load")
    a, b = _version(scene, "A"), _version(scene, "B")
    mark = crowd.visits
    scene.run("models", "publish", "B", "--name", SERVING)
    scene.run("models", "promote", b, "--name", SERVING, *_SETTINGS)
    scene.say(f"  B answers everybody {_takes_over(scene, crowd, b):.1f} s after that")
    began_s = time.monotonic()
    scene.run("models", "rollback", "--name", SERVING)
    _takes_over(scene, crowd, a)
    took_s = time.monotonic() - began_s
    expect(took_s < _ROLLBACK_S, f"the rollback took {took_s:.1f} s")
    scene.say(f"  A answers everybody {took_s:.1f} s after the rollback was typed")
    scene.run("models", "promote", b, "--name", SERVING, *_SETTINGS, last=1)
    _takes_over(scene, crowd, b)
    seen = crowd.figures(mark)
    expect(seen.failed == 0, f"{seen.failed} calls failed")
    scene.say(f"  {seen.searches} searches through three swaps, {seen.failed} failed")


def broken(scene: Scene, crowd: Crowd) -> None:
    """C, broken in three ways, is stopped at every door."""
    scene.title("C: three broken models, each stopped")
    mark, b = crowd.visits, _version(scene, "B")
    shop = _workshop(scene)
    scene.say("C1 was trained on columns that stand one place further than the schema has them.")
    shop.permuted(scene.folder / "C1")
    _refused(scene, "C1", "ndcg_drop")
    scene.say("C2 was trained where `uses` came in thousandths.")
    shop.wrong_units("uses", scene.folder / "C2")
    _refused(scene, "C2", "units")
    scene.say("C3 is a copy of B that was cut off half-way.")
    truncated(scene.folder / "B", scene.folder / "C3")
    scene.run("models", "publish", "C3", "--name", SERVING, fails=True)
    scene.say("Somebody cuts off C1's file in the registry, and writes by hand that it is current.")
    _by_hand(scene)
    seen = crowd.figures(mark)
    expect(set(seen.versions) == {b}, f"answers came from {', '.join(seen.versions)}")
    expect(seen.failed == 0, f"{seen.failed} calls failed")
    scene.say(f"  {seen.searches} searches meanwhile, all answered by B; {seen.failed} failed")


def subtly_worse(scene: Scene, crowd: Crowd) -> None:
    """D knows the gate's queries by heart and is worse for people: the canary's bounds take it back."""
    scene.title("D: learned the judged queries by heart, and is worse for everybody else")
    _workshop(scene).by_heart(scene.folder / "D")
    mark, d = crowd.visits, _version(scene, "D")
    _publish(scene, "D", CANDIDATE)
    crowd.wait(SEARCHES_TO_JUDGE, scene.console, lambda: scene.metric(_TAKEN_BACK, arm="canary") == 1)
    _arms(scene, crowd, mark)
    expect(scene.metric(_TAKEN_BACK, arm="canary") == 1, "the canary was not taken back")
    scene.run("experiment", "check", *_SETTINGS, "--metrics", scene.page)
    scene.until(lambda: d not in crowd.figures(crowd.visits - 50).versions, "D is gone")
    scene.say("  the control answers the canary's people; none of the last 50 answers was D's")


_TAKEN_BACK = "mixer_arm_taken_back"


def _takes_over(scene: Scene, crowd: Crowd, version: str) -> float:
    """Until the last answers of the control are all by this version; how long that took, in seconds."""
    return scene.until(
        lambda: crowd.figures(crowd.visits - 20, "control").versions == (version,), f"{version} answers"
    )


def _publish(scene: Scene, folder: str, name: str) -> None:
    """Through the gate, by the judged queries that A was measured by."""
    scene.run("models", "publish", folder, "--name", name)
    words = ("--name", name, *_SETTINGS, "--judged", "A/judged.npz")
    scene.run("models", "promote", _version(scene, folder), *words, last=1)


def _refused(scene: Scene, folder: str, check: str) -> None:
    scene.run("models", "publish", folder, "--name", SERVING)
    words = ("--name", SERVING, *_SETTINGS, "--judged", "A/judged.npz")
    told = scene.run("models", "promote", _version(scene, folder), *words, fails=True)
    expect(f"refused by {check}" in told, f"{check} does not refuse {folder}")


def _by_hand(scene: Scene) -> None:
    """A version whose file is cut short, and a pointer that was written past the gate."""
    shelf, held = scene.folder / "registry" / SERVING, _manifest(scene, "C1")
    pointer, current = shelf / "current.json", scene.registry.current(SERVING)
    if current is None:
        raise StoryBroken("nothing is current")
    cut_short(shelf / "versions" / held.version / MODEL)
    before, sound = scene.metric(_SWAPS, outcome="refused"), pointer.read_bytes()
    forged = current.model_copy(update={"version": held.version, "sha256": held.model_sha256})
    pointer.write_text(forged.model_dump_json(), encoding="utf-8")
    scene.until(lambda: scene.metric(_SWAPS, outcome="refused") > before, "the server refuses it")
    scene.say(f"  the server says: {_last_refusal(scene.folder / 'mixer.log')}")
    pointer.write_bytes(sound)


_SWAPS = "mixer_model_swaps_total"


def _last_refusal(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if "model refused" in line]
    return str(json.loads(lines[-1])["why"])


def _workshop(scene: Scene) -> Workshop:
    job = work.Job(settings.load(scene.settings), _MIX, scene.judgements)
    return Workshop(job, asyncio.run(_listings(scene, job)))


async def _listings(scene: Scene, job: work.Job) -> tuple[Listing, ...]:
    async with work.answering(job, with_model=False) as target:
        return await work.listings(job, target, job.judgements.queries, "taking", scene.console)


def _arms(scene: Scene, crowd: Crowd, mark: int) -> None:
    for arm in ("control", "explore", "canary", "duel"):
        seen = crowd.figures(mark, arm)
        scene.say(
            f"  {arm:8} {seen.searches:5} searches, {seen.click_share:.1%} with a click, {seen.failed} failed, "
            f"{seen.median_ms:.1f} ms, {', '.join(seen.versions) or '-'}"
        )


def _manifest(scene: Scene, folder: str) -> Manifest:
    return read_manifest(scene.folder / folder)


def _version(scene: Scene, folder: str) -> str:
    return _manifest(scene, folder).version
