"""What the story is told on: the demo's backends, a Mixer that follows a registry, and Mixer's own command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.samples import Sample
from rich.console import Console
from rich.text import Text

from mixer import metrics_page
from mixer.demo.experiment import RECIPE
from mixer.demo.processes import free_port
from mixer.demo.processes import mixer as mixer_process
from mixer.demo.show import Stage, backends, prepare
from mixer.registry import Registry
from models.judgements import Judged, Judgements
from models.judgements import read as read_judgements

SERVING, CANDIDATE, RIVAL, SHADOW = "stdlib", "candidate", "rival", "shadow"
"""Models of the registry: who serves, who is tried on some, who drafts lists with who serves, who scores beside."""
EXPLORE_HITS = 10
FROM_CLICKS = RECIPE.model_copy(update={"rounds": 200, "patience": 50, "open_depth": 30})
_LABELLED = 25
"""Queries that the first model learns from: a team begins with few judgements."""


class StoryBroken(Exception):
    """Something that the story tells did not come true."""


def expect(held: bool, words: str) -> None:
    """Raises: StoryBroken where it did not."""
    if not held:
        raise StoryBroken(words)


@dataclass(frozen=True, slots=True)
class Scene:
    """The story's folder, its processes' addresses, and its judged queries."""

    folder: Path
    demo: Stage
    judgements: Judgements
    console: Console

    @property
    def settings(self) -> Path:
        """The settings file of the story's Mixer."""
        return self.folder / "mixer.yaml"

    @property
    def target(self) -> str:
        """Where Mixer answers."""
        return f"127.0.0.1:{self.demo.ports['mixer']}"

    @property
    def page(self) -> str:
        """Where its metrics are."""
        return f"http://127.0.0.1:{self.demo.ports['admin']}/metrics"

    @property
    def registry(self) -> Registry:
        """The folder of all versions."""
        return Registry(str(self.folder / "registry"))

    @property
    def people_ask(self) -> tuple[Judged, ...]:
        """Queries that people ask; those of the test split are kept to measure by."""
        return self.judgements.of("train")

    def say(self, words: str) -> None:
        """A sentence of the story."""
        self.console.print(Text(words))

    def title(self, words: str) -> None:
        """A new chapter."""
        self.console.print()
        self.console.rule(f"[bold]{words}", align="left")

    def run(self, *words: str, fails: bool = False, last: int = 0) -> str:
        """One command of Mixer's, as anybody would type it; shown with what it printed, or its `last` lines.

        Raises: StoryBroken where it ends otherwise than it should.
        """
        self.console.print(Text(f"$ mixer {' '.join(words)}", "bold cyan"))
        environment = {**os.environ, "MIXER_REGISTRY": "registry", "COLUMNS": str(self.console.width - 2)}
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "mixer", *words],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        for line in done.stdout.rstrip().splitlines()[-last:]:
            self.console.print(Text(f"  {line}", "dim"))
        expect((done.returncode != 0) is fails, f"`mixer {' '.join(words)}` ended with {done.returncode}")
        return done.stdout

    def metric(self, name: str, **labels: str) -> float:
        """The sum over a metric's samples with these labels, from the server's own page."""
        return sum(sample.value for sample in self._samples(name, labels))

    def median(self, name: str, **labels: str) -> float:
        """The least bound of a histogram's buckets that half of its values are within."""
        held: dict[float, float] = defaultdict(float)
        for sample in self._samples(f"{name}_bucket", labels):
            held[float(sample.labels["le"])] += sample.value
        return min(bound for bound, count in held.items() if count >= held[inf] / 2)

    def _samples(self, name: str, labels: Mapping[str, str]) -> list[Sample]:
        page = metrics_page.read(self.page)
        return [s for s in page if s.name == name and labels.items() <= s.labels.items()]

    def until(self, held: Callable[[], bool], words: str, timeout_s: float = 60.0) -> float:
        """Wait for it; how long it took, in seconds. Raises: StoryBroken where it does not come."""
        began_s = time.monotonic()
        while not held():
            expect(time.monotonic() - began_s < timeout_s, f"{words}: not within {timeout_s:g} s")
            time.sleep(0.1)
        return time.monotonic() - began_s


@contextmanager
def opened(folder: Path, console: Console, judgements: Path) -> Iterator[Scene]:
    """The backends run, nothing is trained or served yet."""
    demo = prepare(folder / "demo", free_port(), console)
    home = folder / "story"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    scene = Scene(home, demo, read_judgements(judgements), console)
    scene.settings.write_text(yaml.safe_dump(_settings(demo), sort_keys=False), encoding="utf-8")
    _write(home / "judged.jsonl", _labelled(scene.judgements))
    (home / "recipe.yaml").write_text(yaml.safe_dump(FROM_CLICKS.model_dump()), encoding="utf-8")
    with ExitStack() as stack:
        for process in backends(demo, {}):
            stack.enter_context(process)
        yield scene


@contextmanager
def serving(scene: Scene) -> Iterator[None]:
    """Mixer serves, as a process of its own."""
    with mixer_process(scene.settings, scene.demo.ports["mixer"], scene.folder, {}):
        yield


def _settings(demo: Stage) -> dict[str, Any]:
    """The demo's settings, with models of a registry, both logs, an experiment and a shadow."""
    made: dict[str, Any] = yaml.safe_load(demo.settings.read_text(encoding="utf-8"))
    made["models"] = {
        name: {"registry": "registry", "name": name, "poll_s": 0.5, "cache": "cache"}
        for name in (SERVING, CANDIDATE, RIVAL, SHADOW)
    }
    made["feature_log"] = {"query": "raw", "sinks": [{"kind": "parquet", "folder": "served", "file_s": 5}]}
    made["feedback"] = {"folder": "events", "window_s": 3600, "seconds": 5}
    mix = made["mixes"]["default"]
    # One process answers for all here, next to everything else: no backend is left behind for want of a core.
    for backend in mix["backends"].values():
        backend["timeout_s"] = 5.0
    mix["model"] = SERVING
    mix["shadows"] = [{"model": SHADOW, "share": 0.5, "cpu_share": 0.2}]
    mix["experiment"] = {
        "salt": "story",
        "key": "user",
        "verdicts": "verdicts",
        "arms": [
            {"name": "control", "share": 0.3},
            {"name": "explore", "share": 0.2, "explore_hits": EXPLORE_HITS},
            {"name": "canary", "share": 0.3, "model": CANDIDATE, "canary": {"latency_ratio": 3.0}},
            {"name": "duel", "share": 0.2, "model": RIVAL, "interleave": {"settle_s": 5}},
        ],
    }
    return made


def _labelled(judgements: Judgements) -> list[Judged]:
    """Few queries to learn from, all of those to stop and to measure by."""
    train = sorted(judgements.of("train"), key=lambda judged: judged.digest)[:_LABELLED]
    return [*train, *judgements.of("valid"), *judgements.of("test")]


def _write(path: Path, judged: list[Judged]) -> None:
    lines = (json.dumps(one.model_dump(exclude_none=True)) for one in judged)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
