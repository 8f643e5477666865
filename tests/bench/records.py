"""Made-up runs for tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from tests.bench.history import Course, Crowd, Machine, Round, Run
from tests.bench.scenes import SCENES, SPANS

MACHINE = Machine(cores=8, cpu="a", system="b", python="3.11", packages={}, load_1m=0.0)
COST_MS = {"floor": 1.0, "sampled": 2.0, "traced": 2.5, "few": 3.0, "many": 18.0, "wide": 12.0}


def course(scene: str, cost_ms: tuple[float, ...], latency_us: tuple[int, ...] = (1000, 2000)) -> Course:
    """Rounds of 100 requests that cost so much each, told by two of them."""
    rounds = tuple(Round(requests=100, cpu_s=ms / 10, added_s=0.001, latency_us=latency_us) for ms in cost_ms)
    spans = {"traced": 200 * SPANS, "sampled": 2 * SPANS}.get(scene, 0)
    return Course(rounds=rounds, asked=200, candidates=1, spans=spans)


def crowd(answers: int, generator_cpu_s: float = 1.0) -> Crowd:
    """Two seconds of many callers."""
    return Crowd(
        callers=10,
        answers=answers,
        elapsed_s=2.0,
        mixer_cpu_s=2.0,
        generator_cpu_s=generator_cpu_s,
    )


def run(
    courses: Mapping[str, Course] | None = None,
    crowds: Mapping[int, tuple[Crowd, ...]] | None = None,
    commit: str = "a" * 40,
    hour: int = 1,
    dirty: bool = False,
    short: bool = False,
) -> Run:
    """A run in which every target holds."""
    sound = {scene.key: course(scene.key, (COST_MS.get(scene.key, 2.0),) * 2) for scene in SCENES}
    return Run(
        started_at=datetime(2030, 1, 1, hour, tzinfo=UTC),
        commit=commit,
        dirty=dirty,
        short=short,
        machine=MACHINE,
        courses={**sound, **(courses or {})},
        crowds=dict(crowds or {}),
    )
