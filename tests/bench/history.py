"""What a run measured, whole, as JSON: one file a run, kept beside the others."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
from pydantic import Field, ValidationError

from backends.base import FloatColumn
from mixer.manifest import Record

FOLDER = Path(".build/bench")
_PACKAGES = (
    "grpcio",
    "lightgbm",
    "numba",
    "numpy",
    "opentelemetry-sdk",
    "prometheus-client",
    "protobuf",
    "pydantic",
    "uvloop",
)


class Unreadable(Exception):
    """A file that is no record of a run."""


class Round(Record):
    """One caller's requests in a row."""

    requests: int
    cpu_s: float
    """User and system time of the process, all of them together."""
    added_s: float
    """By Mixer's own metric, the mean of the requests."""
    latency_us: tuple[int, ...]
    """Of each request, as the caller sees it."""


class Crowd(Record):
    """Many callers at once for a while."""

    callers: int
    answers: int
    elapsed_s: float
    mixer_cpu_s: float
    """Of its processes together, for the answers and the first one of each caller."""
    generator_cpu_s: float


class Course(Record):
    """A scene's rounds, and what the telemetry said at the end of them all."""

    rounds: tuple[Round, ...]
    asked: int
    """Requests, those that warmed it up too."""
    candidates: int
    """Distinct documents that every answer was made from."""
    spans: int = 0
    """Received by the collector."""
    dropped: int = 0
    """Spans that Mixer says never reached it."""

    @property
    def cpu_s(self) -> FloatColumn:
        """CPU a request, by round (rounds,)."""
        return np.array([taken.cpu_s / taken.requests for taken in self.rounds])

    @property
    def added_s(self) -> FloatColumn:
        """Added latency, by round (rounds,)."""
        return np.array([taken.added_s for taken in self.rounds])

    @property
    def latency_s(self) -> FloatColumn:
        """Of all requests of all rounds."""
        return np.concatenate([np.array(taken.latency_us) / 1e6 for taken in self.rounds])

    def quantile_s(self, share: float) -> FloatColumn:
        """A quantile of the latency, by round (rounds,)."""
        return np.array([np.quantile(np.array(taken.latency_us) / 1e6, share) for taken in self.rounds])


class Machine(Record):
    """Where it ran."""

    cores: int
    cpu: str
    system: str
    python: str
    packages: dict[str, str]
    load_1m: float
    """Others' work: the load average before the first request."""

    @classmethod
    def this(cls) -> Machine:
        """This one, now."""
        return cls(
            cores=len(psutil.Process().cpu_affinity() or ()) or os.cpu_count() or 1,
            cpu=_cpu(),
            system=platform.platform(),
            python=platform.python_version(),
            packages={name: version(name) for name in _PACKAGES},
            load_1m=os.getloadavg()[0],
        )

    def is_like(self, other: Machine) -> bool:
        """Whether they differ in their load only."""
        return self == other.model_copy(update={"load_1m": self.load_1m})


class Run(Record):
    """One run of one tree."""

    format: Literal[1] = 1
    started_at: datetime
    commit: str
    dirty: bool
    short: bool
    """Too short to stand for its commit later."""
    machine: Machine
    courses: dict[str, Course]
    """By scene."""
    crowds: dict[int, tuple[Crowd, ...]]
    """By number of workers."""
    skipped: tuple[str, ...] = ()
    """What could not be measured, and why."""
    values: dict[str, float] = Field(default_factory=dict)
    """The report's lines, for readers of the file; `tests.bench.lines` makes them from the rounds."""

    @property
    def name(self) -> str:
        """The short commit; a plus says that files were changed since."""
        return f"{self.commit[:7]}{'+' if self.dirty else ''}"

    def is_beside(self, other: Run) -> bool:
        """Whether their rounds took turns, so that they can be compared one by one."""
        return self.started_at == other.started_at


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def keep(run: Run, folder: Path) -> Path:
    """Write a record of its own for this run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.started_at:%Y%m%dT%H%M%S}-{run.name}.json"
    path.write_text(run.model_dump_json(), encoding="utf-8")
    return path


def read(path: Path) -> Run:
    """A record. Raises: Unreadable."""
    try:
        return Run.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise Unreadable(f"{path} is not a record of a run: {error}") from error


def latest(commit: str, folder: Path) -> Run | None:
    """The newest whole run of exactly this commit; None where there is none. Raises: Unreadable."""
    paths = sorted(folder.glob(f"*-{commit[:7]}.json"), reverse=True)
    runs = (read(path) for path in paths)
    return next((run for run in runs if run.commit == commit and not run.short), None)
