"""What is measured: each scene is one process before one group of backends, asked by one caller."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from mixer import catalogue
from tests.bench import processes
from tests.bench.forest import Shelf
from tests.bench.processes import Backends, Launch, Service
from tests.bench.servers import BACKENDS, SHARED, SPANS_COUNT, Group
from tests.bench.trees import Tree

FLOOR = "floor"
SEARCH = "mixer.v1.MixerService/Search"
_STAGES = ("plan", "fan_out", "merge", "make_features", "rank", "arrange")
_MADE = {name: BACKENDS if name == "retrieve *" else 1 for name in (SEARCH, "retrieve *", *_STAGES)}
SPANS = sum(_MADE[name] for name in catalogue.SPANS if name in _MADE)
"""Of one traced request to that many backends: each stage, each call, the root."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One line of the table of rounds."""

    key: str
    title: str
    group: Group = SHARED
    model: bool = True
    sampled: float | None = None
    """Share of the calls traced; None for no tracing at all."""
    load: float = 1.0
    """Requests a round, to the others': a cheap one needs more, its CPU being told in steps of 10 ms."""

    @property
    def candidates(self) -> int:
        """That every answer must tell of; the floor, which merges nothing, tells of none."""
        return 0 if self.key == FLOOR else self.group.candidates

    @property
    def environment(self) -> dict[str, str]:
        """What makes Mixer trace so many of its calls."""
        if self.sampled is None:
            return {}
        return {
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": str(self.sampled),
        }


SCENES = (
    Scene(FLOOR, "bare fan-out", model=False, load=2.0),
    Scene("fused", "no model, no tracing", model=False),
    Scene("model", "model, no tracing"),
    Scene("sampled", "model, tracing 1 %", sampled=0.01),
    Scene("traced", "model, tracing 100 %", sampled=1.0),
    Scene("few", "300 candidates", Group(3, 100)),
    Scene("many", "3,000 candidates", Group(3, 1000), load=0.25),
    Scene("wide", "16 backends", Group(16, 100), load=0.5),
)
"""The last three have the model and no tracing; their backends have documents of their own, so that each hit is a
candidate. The wide one's model has the features of 16 backends, 42 to the others' 16."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What all scenes stand on: the models, the backends of every group, the collector."""

    folder: Path
    models: Mapping[int, Path]
    """By number of backends."""
    backends: Mapping[Group, Backends]
    collector: int

    def launch(self, tree: Tree, scene: Scene, workers: int = 1) -> Launch:
        """How to start Mixer for a scene."""
        model = str(self.models[scene.group.backends]) if scene.model else ""
        name = service_name(tree, scene)
        told = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.collector}",
            "OTEL_SERVICE_NAME": name,
        }
        return Launch(
            tree=tree,
            config=self.folder / f"{name}-{workers}.yaml",
            targets=self.backends[scene.group].targets,
            model=model,
            hits=scene.group.hits,
            workers=workers,
            environment={**scene.environment, **told} if scene.environment else {},
        )

    def spans(self) -> dict[str, int]:
        """Received so far, by service."""
        with grpc.insecure_channel(f"127.0.0.1:{self.collector}") as channel:
            answer: bytes = channel.unary_unary(SPANS_COUNT)(b"", timeout=30.0)
        counts: dict[str, int] = json.loads(answer)
        return counts


def service_name(tree: Tree, scene: Scene) -> str:
    """Of a Mixer in its spans."""
    return f"{tree.folder.parent.name}-{tree}-{scene.key}"


@contextmanager
def stage(folder: Path, shelf: Shelf) -> Iterator[Stage]:
    """Everything but the Mixers."""
    with ExitStack() as stack:
        _, (collector,) = stack.enter_context(processes.helper("collector"))
        groups = {scene.group for scene in SCENES}
        models = {backends: shelf.model(backends) for backends in {group.backends for group in groups}}
        backends = {group: stack.enter_context(processes.backends(group)) for group in groups}
        yield Stage(folder, models, backends, collector)


@contextmanager
def ready(launches: Sequence[Launch]) -> Iterator[list[Service]]:
    """Mixers that answer. The first is ready before the others start: what it compiles and caches, they load."""
    with ExitStack() as stack:
        started = [stack.enter_context(processes.mixer(launch)) for launch in launches[:1]]
        for service in started:
            service.wait_until_ready()
        started += [stack.enter_context(processes.mixer(launch)) for launch in launches[1:]]
        for service in started:
            service.wait_until_ready()
        yield started
