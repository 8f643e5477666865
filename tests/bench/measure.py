"""Runs the scenes: rounds that go around all of them, so that a busy machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import track

from tests.bench import load, processes, scenes
from tests.bench.forest import Shelf
from tests.bench.history import FOLDER, Course, Crowd, Machine, Round, Run
from tests.bench.processes import Service
from tests.bench.scenes import SCENES, Scene, Stage
from tests.bench.trees import Tree

CALLERS = 16
_ARRIVE_S = 5.0
"""For the last spans to reach the collector."""

console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure; no `crowd_rounds` leaves the workers out."""

    rounds: int
    requests: int
    warm_up: int
    crowd_rounds: int
    crowd_s: float
    short: bool = False


WHOLE = Effort(rounds=12, requests=250, warm_up=100, crowd_rounds=5, crowd_s=3.0)
SHORT = Effort(rounds=3, requests=60, warm_up=20, crowd_rounds=0, crowd_s=0.0, short=True)


@dataclass(slots=True)
class Act:
    """A scene being played by one service, which several trees share where it is the floor."""

    scene: Scene
    service: Service
    asked: int = 0
    rounds: list[Round] = field(default_factory=list)

    def play(self, requests: int) -> Round:
        """One round. Raises: WrongAnswer, naming the scene."""
        requests = max(1, round(requests * self.scene.load))
        self.asked += requests
        try:
            return load.sequential(self.service, requests, self.scene.candidates)
        except load.WrongAnswer as error:
            raise load.WrongAnswer(f"{self.scene.title}, {self.scene.group}: {error}") from error


def measure(trees: Sequence[Tree], effort: Effort) -> list[Run]:
    """Measure these trees, their rounds taking turns; a run each. Raises: WrongAnswer, NotReady."""
    started_at, machine = datetime.now(UTC), Machine.this()
    with TemporaryDirectory() as folder, ExitStack() as stack:
        with console.status("backends and models"):
            stage = stack.enter_context(scenes.stage(Path(folder), Shelf(FOLDER / "models")))
        courses = _courses(stage, trees, effort)
        crowds = {tree: _crowds(stage, tree, effort) for tree in trees}
    return [
        Run(
            started_at=started_at,
            commit=tree.commit,
            dirty=tree.dirty,
            short=effort.short,
            machine=machine,
            courses=courses[tree],
            crowds=crowds[tree][0],
            skipped=crowds[tree][1],
        )
        for tree in trees
    ]


def _courses(stage: Stage, trees: Sequence[Tree], effort: Effort) -> dict[Tree, dict[str, Course]]:
    with _acts(stage, trees) as acts:
        every = in_turns(list(acts.values()))
        for act in track(every, "warming up", console=console):
            act.play(effort.warm_up)
        for number in track(range(effort.rounds), "rounds", console=console):
            for act in every if number % 2 == 0 else reversed(every):
                act.rounds.append(act.play(effort.requests))
        return {tree: _told(stage, tree, own) for tree, own in acts.items()}


def in_turns(own: Sequence[Sequence[Act]]) -> list[Act]:
    """Every act once, those of one scene after each other, so that two trees are measured in the same minute."""
    return list({id(act): act for acts in zip(*own, strict=True) for act in acts}.values())


@contextmanager
def _acts(stage: Stage, trees: Sequence[Tree]) -> Iterator[Mapping[Tree, list[Act]]]:
    """The scenes of every tree, the floor being one for all."""
    floor, *others = SCENES
    with ExitStack() as stack:
        bare = Act(floor, stack.enter_context(processes.floor(stage.backends[floor.group].targets)))
        started: dict[Tree, list[Service]] = {}
        for tree in trees:
            with console.status(f"starting {len(others)} Mixers of {tree}"):
                launches = [stage.launch(tree, scene) for scene in others]
                started[tree] = stack.enter_context(scenes.ready(launches))
        yield {tree: [bare, *map(Act, others, services)] for tree, services in started.items()}


def _told(stage: Stage, tree: Tree, acts: Sequence[Act]) -> dict[str, Course]:
    spans = _arrived(stage, tree, acts)
    return {
        act.scene.key: Course(
            rounds=tuple(act.rounds),
            asked=act.asked,
            candidates=act.scene.candidates,
            spans=spans.get(scenes.service_name(tree, act.scene), 0),
            dropped=int(act.service.metric("mixer_spans_dropped_total")),
        )
        for act in acts
    }


def _arrived(stage: Stage, tree: Tree, acts: Sequence[Act]) -> dict[str, int]:
    """Spans by service, once those of every traced call are there, or late beyond hope."""
    traced = {scenes.service_name(tree, act.scene): act.asked for act in acts if act.scene.sampled == 1.0}
    deadline_s = time.monotonic() + _ARRIVE_S
    spans = stage.spans()
    while time.monotonic() < deadline_s and any(
        spans.get(name, 0) < asked * scenes.SPANS for name, asked in traced.items()
    ):
        time.sleep(0.2)
        spans = stage.spans()
    return spans


def _crowds(stage: Stage, tree: Tree, effort: Effort) -> tuple[dict[int, tuple[Crowd, ...]], tuple[str, ...]]:
    """Rounds by number of workers, and why some are missing."""
    if not effort.crowd_rounds:
        return {}, ()
    scene = next(scene for scene in SCENES if scene.key == "model")
    if why := processes.refusal(stage.launch(tree, replace(scene, model=False), workers=2)):
        return {}, (f"2 workers against 1: skipped, the settings of {tree} refuse them ({why})",)
    # Backends in Mixer's own processes: others would take from the workers the cores that they are to share.
    launches = [replace(stage.launch(tree, scene, workers), targets=[]) for workers in (1, 2)]
    with scenes.ready(launches) as services:
        rounds: dict[int, list[Crowd]] = {1: [], 2: []}
        for _ in track(range(effort.crowd_rounds), f"crowds of {CALLERS}", console=console):
            for workers, service in zip(rounds, services, strict=True):
                rounds[workers].append(load.crowded(service, CALLERS, effort.crowd_s, scene.candidates))
    return {workers: tuple(taken) for workers, taken in rounds.items()}, ()
