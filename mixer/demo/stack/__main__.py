"""python -m mixer.demo.stack: three backends and Mixer, watched by a Collector, Jaeger and Prometheus."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixer.client import MixerClient, MixerError
from mixer.demo import show
from mixer.demo.collector import SpanSeen, tree
from mixer.demo.processes import NotReady, mixer
from mixer.demo.show import QUESTIONS, Stage
from mixer.demo.stack import programs, traces, watching

FOLDER = Path(".build/stack")
_DECISION_S = 30.0
"""Within which a trace that is kept is in Jaeger."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything listens."""

    mixer: str
    metrics: str
    otlp: str
    spans: str
    jaeger: str
    prometheus: str

    def written(self, folder: Path) -> None:
        """For programs that look for them."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        (folder / "addresses.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def main(
    folder: Annotated[Path, typer.Option(help="Where indexes, settings, rules, data and logs go.")] = FOLDER,
    port: Annotated[int, typer.Option(help="Port of Mixer.")] = 50051,
    questions: Annotated[int, typer.Option(help="Searches at the start.")] = 30,
    rate: Annotated[float, typer.Option(help="Searches a second from then on; 0 for none.")] = 2.0,
    alert_after_s: Annotated[float, typer.Option(help="Alerts fire after it at the latest.")] = 15.0,
) -> None:
    """Start all, search, say what to look at, and go on until Ctrl-C."""
    console = Console()
    try:
        with show.interruptible(), running(folder, port, alert_after_s, console) as at:
            _ask(at, questions, console)
            _say(at, folder, console)
            at.written(folder)
            _serve(at, rate)
    except KeyboardInterrupt:
        console.print("everything is stopped")
    except (NotReady, MixerError, OSError) as error:
        console.print(str(error), style="bold red", markup=False)
        raise typer.Exit(1) from error


@contextmanager
def running(folder: Path, port: int, alert_after_s: float, console: Console) -> Iterator[Addresses]:
    """The whole stack, in the order in which one needs the other; all stopped at the end."""
    (folder / "addresses.json").unlink(missing_ok=True)
    stage, taken = show.prepare(folder, port, console), programs.ports()
    with ExitStack() as stack:
        for name, process in _processes(stage, taken, alert_after_s):
            with console.status(f"starting {name}"):
                stack.enter_context(process)
            console.print(f"{name} is up", highlight=False)
        yield _addresses(stage, taken)


def _processes(
    stage: Stage, taken: dict[str, int], alert_after_s: float
) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    folder = stage.folder
    yield "Jaeger", programs.jaeger(taken, folder)
    yield "the Collector", programs.collector(taken, folder)
    told = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{taken['otlp']}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
    }
    for name, process in zip(show.BACKENDS, show.backends(stage, told), strict=True):
        yield f"backend {name}", process
    yield "Mixer", mixer(stage.settings, stage.ports["mixer"], folder, told)
    ports = {"mixer": stage.ports["admin"], "spans": taken["spans"], "collector": taken["collector"]}
    targets = {job: f"127.0.0.1:{port}" for job, port in ports.items()}
    config = watching.write(folder, targets, stage.settings, alert_after_s)
    yield "Prometheus", programs.prometheus(taken, folder, config)


def _addresses(stage: Stage, taken: dict[str, int]) -> Addresses:
    return Addresses(
        mixer=f"127.0.0.1:{stage.ports['mixer']}",
        metrics=f"http://127.0.0.1:{stage.ports['admin']}/metrics",
        otlp=f"http://127.0.0.1:{taken['otlp']}",
        spans=f"http://127.0.0.1:{taken['spans']}/metrics",
        jaeger=f"http://127.0.0.1:{taken['jaeger']}",
        prometheus=f"http://127.0.0.1:{taken['prometheus']}",
    )


def _ask(at: Addresses, questions: int, console: Console) -> None:
    """Search, then show a trace that was kept, as Jaeger tells it."""
    with MixerClient(at.mixer, timeout_s=5.0) as client:
        asked = {
            client.search(query).trace_id for query in itertools.islice(itertools.cycle(QUESTIONS), questions)
        }
    kept: list[list[SpanSeen]] = []
    until_s = time.monotonic() + _DECISION_S
    with console.status(f"{len(asked)} searches; the Collector decides which traces to keep"):
        while asked and not kept and time.monotonic() < until_s:
            time.sleep(0.5)
            kept = traces.find(at.jaeger, {"rpc.system.name": "grpc"})
    console.print(f"{len(asked)} searches; Jaeger has {len(kept)} of their traces", highlight=False)
    if kept:
        console.print(tree(kept[0]))


def _serve(at: Addresses, rate: float) -> None:
    """Search now and then, as alerts and rates need traffic; until interrupted."""
    with MixerClient(at.mixer, timeout_s=5.0) as client:
        for query in itertools.cycle(QUESTIONS):
            time.sleep(1 / rate if rate else 3600.0)
            if rate:
                _try(client, query)


def _try(client: MixerClient, query: str) -> None:
    try:
        client.search(query)
    except MixerError:
        """Somebody tries out what happens; the metrics tell of it."""


def _say(at: Addresses, folder: Path, console: Console) -> None:
    degraded = f"{at.jaeger}/api/traces?service=mixer&tags=%7B%22mixer.degraded%22%3A%22true%22%7D"
    lines = (
        ("search", f".venv/bin/mixer search 'parse an iso date' --target {at.mixer}"),
        ("Mixer's metrics", at.metrics),
        ("metrics of all spans", at.spans),
        ("degraded traces", f"curl -s '{degraded}'"),
        ("alerts", f"{at.prometheus}/alerts"),
        ("hang a backend", f"kill -STOP $(cat {folder}/semantic.pid)"),
        ("mend it", f"kill -CONT $(cat {folder}/semantic.pid)"),
        ("logs", f"{folder}/*.log"),
    )
    for what, where in lines:
        console.print(f"{what:22}{where}", highlight=False, markup=False, soft_wrap=True)
    console.print(_LIMITS, highlight=False)


_LIMITS = (
    "Alerts fire after seconds here; `mixer rules` gives them minutes. Built from Go's module proxy, Jaeger has its "
    "API but no pages: those come with `docker compose up --build`, and Grafana too. Ctrl-C stops everything."
)


if __name__ == "__main__":
    typer.run(main)
