from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from rich.console import Console

from backends.index import open_manifest
from mixer import settings
from mixer.demo import corpus, show
from mixer.demo.processes import NotReady, free_port
from mixer.demo.show import BACKENDS, MODEL, Stage
from mixer.manifest import MODEL as MODEL_FILE
from mixer.manifest import sha256_of
from mixer.model import read_manifest
from mixer.model_settings import FolderModelSettings
from mixer.schema import schema_hash

HERE = Path(show.__file__).parent


def said(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def ports(folder: Path) -> dict[str, int]:
    """The ports that the settings in a folder name."""
    raw = yaml.safe_load((folder / "mixer.yaml").read_text(encoding="utf-8"))
    addresses = {
        "mixer": raw["server"]["listen"],
        "admin": raw["server"]["admin_listen"],
        **{name: backend["target"] for name, backend in raw["backends"].items()},
    }
    return {name: int(address.removeprefix("127.0.0.1:")) for name, address in addresses.items()}


def test_the_shipped_model_fits_the_demo() -> None:
    """The model was trained on exactly the features that mixer.yaml declares, and is the file that it was."""
    manifest = read_manifest(MODEL)
    declared = settings.load(HERE / "mixer.yaml").mixes["default"].features
    assert [feature.name for feature in manifest.features] == [feature.name for feature in declared]
    assert manifest.schema_sha256 == schema_hash(declared)
    assert manifest.model_sha256 == sha256_of(MODEL / MODEL_FILE)


def test_three_indexes_and_settings(stage: Stage) -> None:
    """From nothing come the corpus, an index of each kind with every document, and sound settings."""
    assert stage.documents.read_text(encoding="utf-8").count("\n") == 50
    for name, kind in BACKENDS.items():
        assert open_manifest(stage.index(name), kind).count == 50
    loaded = settings.load(stage.settings)
    assert loaded.models["stdlib"] == FolderModelSettings(path=MODEL)
    assert set(loaded.mixes["default"].backends) == set(loaded.backends) == set(BACKENDS)


def test_ports(stage: Stage) -> None:
    """The settings name the ports that the processes take, each its own."""
    assert ports(stage.folder) == stage.ports
    assert len(set(stage.ports.values())) == 2 + len(BACKENDS)


@pytest.fixture
def again(stage: Stage, tmp_path: Path) -> Path:
    """A folder in which all is prepared already."""
    folder = tmp_path / "again"
    folder.mkdir()
    for path in (stage.documents, *map(stage.index, BACKENDS)):
        (folder / path.name).symlink_to(path)
    return folder


def test_what_is_there_is_kept(stage: Stage, again: Path, console: Console, corpus_files: list[Path]) -> None:
    """A second time neither the corpus is read nor an index built, and only the settings are written anew."""
    built = {name: open_manifest(stage.index(name), kind) for name, kind in BACKENDS.items()}
    port = free_port()
    show.prepare(again, port, console)
    assert (corpus_files, said(console)) == ([], "")
    assert {name: open_manifest(stage.index(name), kind) for name, kind in BACKENDS.items()} == built
    assert ports(again)["mixer"] == port


def test_what_is_missing_is_made(
    stage: Stage, again: Path, console: Console, corpus_files: list[Path]
) -> None:
    """Of what is prepared only the missing index is built, from the corpus that is there."""
    (again / stage.index("symbols").name).unlink()
    show.prepare(again, free_port(), console)
    assert corpus_files == []
    assert said(console) == "symbols: 50 documents in a sqlite index\n"


def test_another_interpreter_s_files_are_not_used(
    stage: Stage, again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corpus and indexes bear the versions of the Python and the Mixer that made them."""
    monkeypatch.setattr(show, "_MADE_BY", "4.0.0-0.1.0")
    other = Stage(again, {})
    assert not any(path.exists() for path in (other.documents, *map(other.index, BACKENDS)))


@pytest.mark.parametrize("port", [9464, 50061, 50062, 50063, 50051])
def test_any_port_can_be_served_on(again: Path, console: Console, port: int) -> None:
    """Also a port that the shipped file gives to another process: every process keeps one of its own."""
    made = show.prepare(again, port, console)
    assert ports(again) == made.ports
    assert made.ports["mixer"] == port


@pytest.mark.parametrize("name", ["plain", "a, b", "{x}: y # z", "quote'\"d"])
def test_any_model_folder(again: Path, console: Console, tmp_path: Path, name: str) -> None:
    """The model's path stands in the settings as it is, whatever characters it has."""
    show.prepare(again, free_port(), console, tmp_path / name)
    assert settings.load(again / "mixer.yaml").models["stdlib"] == FolderModelSettings(path=tmp_path / name)


def test_documents_that_cannot_be_indexed(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus with a bad line stops the demo, names the first and leaves no index."""

    def write(path: Path) -> int:
        path.write_text('{"id": "a", "uses": "many"}\n{"id": "a"}\n', encoding="utf-8")
        return 2

    monkeypatch.setattr(corpus, "write", write)
    with pytest.raises(NotReady, match=r"1 documents cannot be indexed; the first: .*`uses` is not a number"):
        show.prepare(tmp_path, free_port(), console)
    assert not list(tmp_path.glob("lexical*"))


def test_a_corpus_half_written_is_not_used(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the writing of the corpus breaks off, there is no corpus."""

    def write(path: Path) -> int:
        path.write_text('{"id": "a"}\n', encoding="utf-8")
        raise OSError("disk full")

    monkeypatch.setattr(corpus, "write", write)
    with pytest.raises(OSError, match="disk full"):
        show.prepare(tmp_path, free_port(), console)
    assert not list(tmp_path.glob("*.jsonl"))


def test_the_demo_from_start_to_end(stage: Stage, console: Console, corpus_files: list[Path]) -> None:
    """Real processes answer: the shipped model ranks what three backends found, and the trace holds them all.

    At the end no process is left.
    """
    before = {child.pid for child in psutil.Process().children()}
    port = free_port()
    show.run(stage.folder, ["read a [csv] file", "zzzzzz"], once=True, port=port, console=console)
    text = said(console)
    ranking = text.partition("zzzzzz")[0]
    assert "read a [csv] file" in ranking
    assert "csv.read" in ranking
    assert f"ranked by model (stdlib {read_manifest(MODEL).version})" in ranking
    assert "degraded:" not in text
    for name in BACKENDS:
        assert f"{name} ok" in ranking
    assert "what moved it" in ranking
    told = re.findall(r"ms  (\S+( \S+)?)  \+\d+\.\d\d ms  (\w+)", ranking)
    spans = Counter((name, service) for name, _, service in told)
    assert spans["mixer.v1.MixerService/Search", "mixer"] == 1
    for name in BACKENDS:
        assert spans[f"retrieve {name}", "mixer"] == spans["backends.v1.BackendService/Retrieve", name] == 1
    assert len(told) == show._SPANS
    assert {child.pid for child in psutil.Process().children()} <= before
    for taken in ports(stage.folder).values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", taken)) != 0


@pytest.fixture
def stages(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the demo does, without its processes; a SIGTERM that it does not heed fails the test."""
    done: list[str] = []

    def unheeded(*_: object) -> None:
        pytest.fail("SIGTERM was not heeded")

    @contextmanager
    def served(made: Stage) -> Iterator[None]:
        done.append("served")
        try:
            yield
        finally:
            done.append("stopped")

    monkeypatch.setattr(
        show, "prepare", lambda folder, port, console: replace(stage, ports={**stage.ports, "mixer": port})
    )
    monkeypatch.setattr(show, "served", served)
    monkeypatch.setattr(show, "ask", lambda query, *rest: done.append(query))
    before = signal.signal(signal.SIGTERM, unheeded)
    yield done
    signal.signal(signal.SIGTERM, before)


def run(console: Console, once: bool, *queries: str) -> None:
    show.run(Path("nowhere"), queries, once, 50052, console)


def test_questions(stages: list[str], console: Console) -> None:
    """Without questions the demo asks its own, and with `once` it then stops."""
    run(console, True)
    assert stages == ["served", *show.QUESTIONS, "stopped"]
    run(console, True, "mine")
    assert stages[-3:] == ["served", "mine", "stopped"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_everything(
    stages: list[str], console: Console, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """The demo goes on serving, with hints how to ask it, until SIGINT or SIGTERM; its processes then end."""
    handler = signal.getsignal(number)

    def pause() -> None:
        os.kill(os.getpid(), number)
        time.sleep(30)

    monkeypatch.setattr(signal, "pause", pause)
    run(console, False, "mine")
    assert stages == ["served", "mine", "stopped"]
    text = said(console)
    assert "serves on 127.0.0.1:50052" in text
    assert "--target localhost:50052" in text
    assert text.endswith("stopping\n")
    assert signal.getsignal(number) is handler


def test_sigterm_while_asking(stages: list[str], console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM before the demo serves ends its processes too."""

    def ask(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    monkeypatch.setattr(show, "ask", ask)
    with pytest.raises(KeyboardInterrupt):
        run(console, True, "mine")
    assert stages == ["served", "stopped"]
