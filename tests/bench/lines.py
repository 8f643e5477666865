"""The lines of the report: what each compares, its target, and the wide bound that a short run must keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from backends.base import FloatColumn
from tests.bench.history import Course, Crowd, Run
from tests.bench.scenes import FLOOR, SCENES, SPANS, Scene

_FREE_CORES = 1.7
"""One worker keeps a core busy: so many times its answers need at least so many cores."""
"""That two workers must find beside the generator and the backends for their throughput to be judged."""
_LUCK = 0.2
"""By how much the share of calls that happen to be sampled may be off, in a short run."""


@dataclass(frozen=True, slots=True)
class Line:
    """A ratio by round; the median of the rounds stands for all, or `whole` does where one round says too little."""

    key: str
    title: str
    rounds: Callable[[Run], FloatColumn]
    whole: Callable[[Run], float] | None = None
    target: float | None = None
    at_least: bool = False
    """The target is a floor, not a ceiling."""
    wide: float | None = None
    """What a short run on any machine must keep."""

    def value(self, run: Run) -> float:
        """The line's number."""
        return self.whole(run) if self.whole else float(np.median(self.rounds(run)))

    def spread(self, run: Run) -> tuple[float, float]:
        """The middle half of the rounds."""
        low, high = np.quantile(self.rounds(run), [0.25, 0.75])
        return float(low), float(high)

    def holds(self, value: float, bound: float) -> bool:
        """Whether the value is on the right side."""
        return value >= bound if self.at_least else value <= bound


def cpu(scene: str, base: str, share: float = 1.0) -> Callable[[Run], FloatColumn]:
    """CPU a request of one scene to another's, times a share."""
    return lambda run: run.courses[scene].cpu_s / run.courses[base].cpu_s * share


def slowest(scene: str, base: str) -> tuple[Callable[[Run], FloatColumn], Callable[[Run], float]]:
    """The 99th percentile of one scene to another's: by round, and over all requests."""

    def by_round(run: Run) -> FloatColumn:
        return run.courses[scene].quantile_s(0.99) / run.courses[base].quantile_s(0.99)

    def over_all(run: Run) -> float:
        theirs, ours = (np.quantile(run.courses[key].latency_s, 0.99) for key in (base, scene))
        return float(ours / theirs)

    return by_round, over_all


def rate(crowds: tuple[Crowd, ...]) -> FloatColumn:
    """Answers a second, by round."""
    return np.array([crowd.answers / crowd.elapsed_s for crowd in crowds])


def cost_s(crowds: tuple[Crowd, ...]) -> FloatColumn:
    """CPU of Mixer's processes an answer, by round."""
    return np.array([crowd.mixer_cpu_s / (crowd.answers + crowd.callers) for crowd in crowds])


PATH = (
    Line("cpu_fused", "CPU to the floor, no model, no tracing", cpu("fused", FLOOR)),
    Line("cpu_model", "CPU to the floor, model, no tracing", cpu("model", FLOOR)),
    Line("cpu_sampled", "CPU to the floor, model, tracing 1 %", cpu("sampled", FLOOR), target=2.5, wide=4.0),
    Line("cpu_traced", "CPU to the floor, model, tracing 100 %", cpu("traced", FLOOR), target=3.0, wide=5.0),
    Line("p99_sampled", "p99, tracing 1 % to none", *slowest("sampled", "model")),
    Line("p99_traced", "p99, tracing 100 % to none", *slowest("traced", "model"), target=1.3),
    Line("many", "CPU, 3,000 candidates to 300", cpu("many", "few"), target=8.0, wide=12.0),
    Line("wide", "CPU a backend, 16 backends to 3", cpu("wide", "few", 3 / 16), target=1.3, wide=2.0),
)
"""Wide bounds leave a half to two thirds beyond the target, for three short rounds beside other work: they find a
pipeline that does its work twice or row by row, not one that is a tenth slower. p99 has none: the slowest two of
some hundred requests are the machine's."""
WORKERS = (
    Line(
        "rate",
        "answers a second, 2 workers to 1",
        lambda run: rate(run.crowds[2]) / rate(run.crowds[1]),
        target=1.7,
        at_least=True,
    ),
    Line(
        "rate_cpu",
        "CPU an answer, 2 workers to 1",
        lambda run: cost_s(run.crowds[2]) / cost_s(run.crowds[1]),
    ),
)


def of(run: Run) -> tuple[Line, ...]:
    """The lines that a run has."""
    return PATH + (WORKERS if run.crowds else ())


def free_cores(run: Run) -> float:
    """What the generator left to two workers."""
    taken = [crowd.generator_cpu_s / crowd.elapsed_s for crowd in run.crowds[2]]
    return run.machine.cores - float(np.median(taken))


def verdict(line: Line, run: Run) -> str:
    """Whether the target holds, or why that is not asked here."""
    if line.target is None:
        return ""
    if line.at_least and free_cores(run) < _FREE_CORES:
        return f"not judged: {free_cores(run):.1f} cores free, not {_FREE_CORES:.1f}"
    return "yes" if line.holds(line.value(run), line.target) else "NO"


@dataclass(frozen=True, slots=True)
class Check:
    """Something that a short run tells for certain."""

    title: str
    found: float
    bound: str
    holds: bool


def checks(run: Run) -> list[Check]:
    """What a short run must keep. That every answer was whole was looked at while asking."""
    ratios = [
        Check(line.title, line.value(run), f"<= {line.wide:g}", line.holds(line.value(run), line.wide))
        for line in of(run)
        if line.wide is not None
    ]
    return [*counts(run), *ratios]


def counts(run: Run) -> list[Check]:
    """What must be exact, or else nothing else counts: a trace that lacks spans is cheap."""
    return [
        check for scene in SCENES if scene.key != FLOOR for check in _counts(scene, run.courses[scene.key])
    ]


def _counts(scene: Scene, course: Course) -> Iterator[Check]:
    most = course.asked * SPANS
    title, spans = f"spans, {scene.title}", course.spans
    match scene.sampled:
        case None:
            yield Check(title, spans, "= 0", spans == 0)
        case 1.0:
            yield Check(title, spans, f"= {most}", spans == most)
        case share:
            bound = most * (share + _LUCK)
            yield Check(title, spans, f"<= {bound:g}", spans <= bound)
    yield Check(f"spans dropped, {scene.title}", course.dropped, "= 0", course.dropped == 0)
