"""The demo, from nothing: index, three backends and Mixer as processes of their own, a few questions, the trace."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

import models
from backends import build
from mixer import terminal
from mixer.client import MixerClient
from mixer.demo import corpus
from mixer.demo.collector import Collector, tree
from mixer.demo.processes import NotReady, backend, free_port, mixer
from mixer.server import SERVICE

HERE = Path(__file__).parent
MODEL = Path(str(models.__file__)).parent / "demo" / "ranker"
BACKENDS = {"lexical": "tantivy", "semantic": "vectors", "symbols": "sqlite"}
QUESTIONS = ("read a csv file into dicts", "run a command with a timeout", "lru cache decorator")
_PORTS = {"50051": "mixer", "9464": "admin", "50061": "lexical", "50062": "semantic", "50063": "symbols"}
"""Whose are the ports that mixer.yaml names."""
_MADE_BY = f"{platform.python_version()}-{version('mixer')}"
"""What is on disk is used again only by the interpreter and the Mixer that made it."""
_ROOT = f"{SERVICE}/Search"
_STAGE_SPANS = 7
_SPANS = _STAGE_SPANS + 2 * len(BACKENDS)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo's files are, and which ports its processes take."""

    folder: Path
    ports: Mapping[str, int]

    @property
    def documents(self) -> Path:
        """The corpus of this interpreter."""
        return self.folder / f"docs-{_MADE_BY}.jsonl"

    def index(self, name: str) -> Path:
        """The folder of one backend's index; another definition makes another."""
        definition = hashlib.sha256((HERE / f"{name}.yaml").read_bytes()).hexdigest()[:8]
        return self.folder / f"{name}-{_MADE_BY}-{definition}"

    @property
    def settings(self) -> Path:
        """The settings file that Mixer is started with."""
        return self.folder / "mixer.yaml"


def run(folder: Path, queries: Sequence[str], once: bool, port: int, console: Console) -> None:
    """Show it all, then serve until interrupted. Raises: NotReady, MixerError, OSError."""
    stage = prepare(folder, port, console)
    with interruptible(), served(stage) as collector:
        for query in queries or QUESTIONS:
            ask(query, f"127.0.0.1:{port}", collector, console)
        if once:
            return
        console.print(_hints(stage), highlight=False)
        try:
            signal.pause()
        except KeyboardInterrupt:
            console.print("stopping")


def prepare(folder: Path, port: int, console: Console, model: Path = MODEL) -> Stage:
    """Write the corpus, the indexes and the settings; what is there from this interpreter is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = {"mixer": port, "admin": free_port(), **{name: free_port() for name in BACKENDS}}
    stage = Stage(folder, ports)
    if not stage.documents.exists():
        draft = stage.documents.with_suffix(".draft")
        count = corpus.write(draft)
        draft.rename(stage.documents)
        console.print(f"{count} documents of the standard library of Python {platform.python_version()}")
    for name in BACKENDS:
        _index(stage, name, console)
    stage.settings.write_text(_settings(ports, model), encoding="utf-8")
    return stage


def _settings(ports: Mapping[str, int], model: Path) -> str:
    """mixer.yaml with these ports and this model."""
    shipped = (HERE / "mixer.yaml").read_text(encoding="utf-8")
    # In one pass: a port that is given may be one of those that the file names.
    moved = re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{ports[_PORTS[found[1]]]}", shipped)
    return moved.replace("MODEL_FOLDER", json.dumps(str(model.resolve())))


def _index(stage: Stage, name: str, console: Console) -> None:
    folder = stage.index(name)
    if (folder / "index.json").exists():
        return
    with console.status(f"indexing {name} ({BACKENDS[name]})"):
        report = build.build(build.Definition.load(HERE / f"{name}.yaml"), stage.documents, folder)
    if not report.published:
        raise NotReady(
            f"{len(report.bad_lines)} documents cannot be indexed; the first: {report.bad_lines[0]}"
        )
    console.print(f"{name}: {report.indexed} documents in a {BACKENDS[name]} index", highlight=False)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGTERM is as good as Ctrl-C, and Ctrl-C works where a shell's background job would ignore it."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def served(stage: Stage) -> Iterator[Collector]:
    """Three backends, Mixer, and a collector of their spans; all stopped at the end."""
    with ExitStack() as stack:
        collector = Collector()
        stack.callback(collector.stop)
        for process in backends(stage, collector.environment):
            stack.enter_context(process)
        stack.enter_context(mixer(stage.settings, stage.ports["mixer"], stage.folder, collector.environment))
        yield collector


def backends(stage: Stage, environment: Mapping[str, str]) -> Iterator[AbstractContextManager[None]]:
    """The three engines, each a process that runs within its context."""
    for name in BACKENDS:
        yield backend(name, write_backend(stage, name), stage.ports[name], stage.folder, environment)


def write_backend(stage: Stage, name: str) -> Path:
    """Write what one engine is served by, beside its index."""
    config = stage.folder / f"{name}.yaml"
    config.write_text(f"kind: {BACKENDS[name]}\nindex: {stage.index(name).name}\n", encoding="utf-8")
    return config


def ask(query: str, target: str, collector: Collector, console: Console) -> None:
    """Ask one question; show the ranking, and the trace of the call."""
    with MixerClient(target, timeout_s=5.0) as client:
        result = client.search(query)
        moved = terminal.movers(client.explain(result.query_id))
    console.print()
    for part in terminal.ranking(query, result, moved):
        console.print(part)
    if result.trace_id:
        console.print(tree(collector.trace(result.trace_id, _ROOT, _SPANS)))


def _hints(stage: Stage) -> str:
    port = stage.ports["mixer"]
    target = "" if port == 50051 else f" --target localhost:{port}"
    return (
        f"\nMixer serves on 127.0.0.1:{port}, its metrics on http://127.0.0.1:{stage.ports['admin']}/metrics.\n"
        f"In another shell:\n"
        f'  .venv/bin/mixer search "parse an iso date"{target}\n'
        f'  .venv/bin/mixer explain --search "parse an iso date"{target}\n'
        f'  grpcurl -plaintext -d \'{{"query": "parse an iso date"}}\' localhost:{port} {_ROOT}\n'
        f"Settings, indexes and logs are in {stage.folder}. Ctrl-C stops everything."
    )
