"""What Mixer adds to the bare fan-out: CPU and latency a request, as ratios in one run.

    make bench

Every variant is a process of its own before the same three backends; the load comes from this process, one request
at a time, in rounds that go around the variants, so that a noisy machine disturbs all of them alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mixer.demo.processes import free_port
from mixer.settings import parse
from models import training
from models.collection import Listing
from models.judgements import Judged, Judgements
from protos.mixer.v1 import mixer_pb2, mixer_pb2_grpc
from tests.bench import servers

ROUNDS, REQUESTS, WARM_UP = 7, 150, 100
TREES, LEAVES = 300, 63

console = Console()


@dataclass(slots=True)
class Variant:
    """One process under load: CPU seconds a request by round, and every request's time."""

    process: psutil.Process
    stub: mixer_pb2_grpc.MixerServiceStub
    cpu_s: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)

    def load(self, requests: int) -> None:
        """One round."""
        message = mixer_pb2.SearchRequest(query="the quick brown fox", page_size=10)
        before = self.process.cpu_times()
        for _ in range(requests):
            began_s = time.perf_counter()
            answer = self.stub.Search(message, timeout=5.0)
            self.latency_s.append(time.perf_counter() - began_s)
            if len(answer.hits) != 10:
                raise AssertionError(f"{len(answer.hits)} hits, not 10")
        after = self.process.cpu_times()
        self.cpu_s.append((after.user + after.system - before.user - before.system) / requests)


def main() -> None:
    """Measure and print."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        variants = started(folder, stack)
        for variant in variants.values():
            variant.load(WARM_UP)
            variant.cpu_s.clear()
            variant.latency_s.clear()
        for _ in track(range(ROUNDS), "rounds", console=Console(stderr=True)):
            for variant in variants.values():
                variant.load(REQUESTS)
    console.print(table(variants))


def started(folder: Path, stack: ExitStack) -> dict[str, Variant]:
    """All variants, ready to answer."""
    ports = stack.enter_context(process("backends", ports=servers.BACKENDS))[1]
    collector = stack.enter_context(process("collector"))[1][0]
    targets = [f"127.0.0.1:{port}" for port in ports]
    with console.status(f"training a forest of {TREES} trees x {LEAVES} leaves"):
        model = forest(folder, targets)
    export = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
    }
    sampled = {**export, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
    floor, (port,) = stack.enter_context(process("floor", json.dumps(targets)))
    variants = {"bare fan-out": Variant(floor, stub(port))}
    plans: dict[str, tuple[str, Mapping[str, str]]] = {
        "mixer, no model, no tracing": ("", {}),
        "mixer, model, no tracing": (str(model), {}),
        "mixer, model, tracing 1 %": (str(model), {**sampled, "OTEL_TRACES_SAMPLER_ARG": "0.01"}),
        "mixer, model, tracing 100 %": (str(model), {**sampled, "OTEL_TRACES_SAMPLER_ARG": "1.0"}),
    }
    for number, (name, (path, environment)) in enumerate(plans.items()):
        variants[name] = stack.enter_context(mixer(folder / f"{number}.yaml", targets, path, environment))
    return variants


@contextmanager
def process(
    kind: str, *arguments: str, ports: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[psutil.Process, list[int]]]:
    """A server process and the ports that it says it took."""
    command = [sys.executable, "-m", "tests.bench.servers", kind, *arguments]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    assert started.stdout is not None
    try:
        taken = [int(started.stdout.readline()) for _ in range(ports)]
        yield psutil.Process(started.pid), taken
    finally:
        started.terminate()
        started.wait()


@contextmanager
def mixer(config: Path, targets: list[str], model: str, environment: Mapping[str, str]) -> Iterator[Variant]:
    """The real server on a free port, ready."""
    port = free_port()
    config.write_text(servers.settings(targets, port, model), encoding="utf-8")
    with process("mixer", str(config), ports=0, environment=environment) as (started, _):
        ready = stub(port)
        ready.Search(mixer_pb2.SearchRequest(query="ready"), timeout=60.0, wait_for_ready=True)
        yield Variant(started, ready)


def stub(port: int) -> mixer_pb2_grpc.MixerServiceStub:
    """A stub for a port of the loopback."""
    return mixer_pb2_grpc.MixerServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}"))


def forest(folder: Path, targets: list[str]) -> Path:
    """A model of the full size, trained on noise with a signal in it: what it knows does not matter here."""
    features = parse(servers.settings(targets, 0, "")).mixes["default"].features
    random = np.random.default_rng(0)
    listings = [noise(random, len(features), number) for number in range(300)]
    recipe = training.Recipe(
        parameters={"num_leaves": LEAVES, "min_data_in_leaf": 5, "learning_rate": 0.05},
        rounds=TREES,
        patience=0,
    )
    trained = training.fit(listings[:290], listings[290:], features, recipe)
    written = folder / "model"
    manifest = training.write(trained, "bench", features, Judgements("noise", "0" * 64, ()), written)
    assert manifest.trees == TREES, "the forest is not of the size that the table tells"
    return written


def noise(random: np.random.Generator, width: int, number: int) -> Listing:
    """One made-up query of 100 candidates."""
    matrix = random.random((100, width))
    grades = np.clip((matrix[:, :3].sum(axis=1) + random.normal(0, 0.5, 100)).astype(np.intp), 0, 3)
    judged = Judged(query=str(number), need=str(number), grades={"a": 1})
    return Listing(
        judged=judged,
        pool="open",
        ids=tuple(map(str, range(100))),
        backends=(),
        features=matrix,
        ranks=np.zeros((0, 100), np.intp),
        fused_ranks=np.arange(1, 101),
        grades=grades,
        degraded=False,
    )


def table(variants: Mapping[str, Variant]) -> Table:
    """CPU and latency a request, and what they are to the floor's: the median of the rounds' own ratios."""
    floor = next(iter(variants.values()))
    drawn = Table(
        title=f"{servers.BACKENDS} backends x {servers.HITS} hits x {servers.COLUMNS} columns, one caller"
    )
    for heading in ("variant", "CPU ms", "CPU to floor", "p50 ms", "p99 ms"):
        drawn.add_column(heading, justify="left" if heading == "variant" else "right")
    for name, variant in variants.items():
        ratio = float(np.median(np.array(variant.cpu_s) / np.array(floor.cpu_s)))
        p50, p99 = np.quantile(np.array(variant.latency_s) * 1000, [0.5, 0.99])
        cpu_ms = np.median(variant.cpu_s) * 1000
        drawn.add_row(name, f"{cpu_ms:.2f}", f"{ratio:.2f}x", f"{p50:.2f}", f"{p99:.2f}")
    return drawn


if __name__ == "__main__":
    main()
