"""A stranger's load, the real ghz over a real Mixer, while one of three backends hangs, dies and comes back."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixer import metrics_page
from mixer.demo.processes import mixer
from tests.doubles import engines
from tests.integration.chart import tool
from tests.integration.programs import answers, free_port, program

CALLS, RATE, CALLERS = 2000, 150, 8
STEADY = ("lexical", "semantic")
FLAPPING = "symbols"
QUERY_ID, REASONS = re.compile(r'query_id:"(\w+)"'), re.compile(r'degraded_reasons:"([^"]*)"')
METHOD = "mixer.v1.MixerService/Search"
MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}


class Flapping:
    """A backend that serves, hangs, serves, dies, and is started again at its port, over and over."""

    def __init__(self, start: Callable[[], AbstractContextManager[subprocess.Popen[bytes]]]) -> None:
        self._start, self._up, self._ended = start, threading.Event(), threading.Event()
        self.turns = Counter[str]()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                self._turn()
        except BaseException as failure:
            self.failure = failure
        finally:
            self._up.set()

    def _turn(self) -> None:
        with self._start() as process:
            self._up.set()
            self._ended.wait(1.0)
            process.send_signal(signal.SIGSTOP)
            self._ended.wait(1.0)
            process.send_signal(signal.SIGCONT)
            self.turns["hung"] += 1
            self._ended.wait(1.0)
            process.kill()
            process.wait()
            self.turns["killed"] += 1
            self._ended.wait(0.5)

    def __enter__(self) -> Flapping:
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def backend(name: str, port: int, folder: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """An engine as a process of its own, as the README starts one."""
    config = folder / "memory.yaml"
    config.write_text(yaml.safe_dump(MEMORY), encoding="utf-8")
    serve = [
        "serve",
        "--config",
        str(config),
        "--listen",
        f"127.0.0.1:{port}",
        "--name",
        name,
        "--drain-s",
        "0",
    ]
    return program([sys.executable, "-m", "backends", *serve], folder / f"{name}.log", lambda: answers(port))


@dataclass(frozen=True)
class Load:
    """What ghz reports and saw, and what Mixer says of the same calls."""

    report: Mapping[str, Any]
    seen: list[str]
    """Answers as text: ghz writes down a part of them."""
    lines: list[dict[str, Any]]
    """Mixer's log lines of the calls."""
    turns: Counter[str]
    sample: Callable[..., float]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folder = tmp_path_factory.mktemp("ghz")
    ports = {name: free_port() for name in (*STEADY, FLAPPING)}
    port, admin = free_port(), free_port()
    config = folder / "mixer.yaml"
    config.write_text(yaml.safe_dump(settings(ports, port, admin)), encoding="utf-8")
    flapping = Flapping(lambda: backend(FLAPPING, ports[FLAPPING], folder))
    with ExitStack() as running:
        for name in STEADY:
            running.enter_context(backend(name, ports[name], folder))
        running.enter_context(mixer(config, port, folder, {}))
        with flapping:
            report, seen = ghz(f"127.0.0.1:{port}", folder)
        page = list(metrics_page.read(f"http://127.0.0.1:{admin}/metrics"))
    if flapping.failure:
        raise flapping.failure
    lines = [json.loads(line) for line in (folder / "mixer.log").read_text(encoding="utf-8").splitlines()]

    def sample(name: str, **labels: str) -> float:
        return sum(one.value for one in page if one.name == name and labels.items() <= one.labels.items())

    return Load(report, seen, [line for line in lines if line["event"] == "call"], flapping.turns, sample)


def settings(ports: Mapping[str, int], port: int, admin: int) -> dict[str, Any]:
    """The flapping one is waited for briefly; the others long, so that a busy machine changes nothing."""
    members = {name: {"timeout_s": 10.0} for name in STEADY} | {FLAPPING: {"timeout_s": 0.15}}
    return {
        "server": {"listen": f"127.0.0.1:{port}", "admin_listen": f"127.0.0.1:{admin}", "drain_s": 1},
        "backends": {name: {"kind": "remote", "target": f"127.0.0.1:{at}"} for name, at in ports.items()},
        "mixes": {"default": {"backends": members, "fields": ["title"]}},
    }


def ghz(target: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Its report, and answers that it got; of the method it knows nothing but what reflection tells."""
    debug = folder / "ghz.log"
    asked = ["--call", METHOD, "--data", '{"query": "csv file", "page_size": 3}', "--insecure"]
    pace = ["--total", CALLS, "--rps", RATE, "--concurrency", CALLERS, "--connections", 2]
    command = [tool("ghz"), *asked, *pace, "--format", "json", "--debug", debug, target]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    told = [json.loads(line) for line in debug.read_text(encoding="utf-8").splitlines() if line]
    return json.loads(done.stdout), [line["response"] for line in told if line.get("response")]


def test_every_answer_is_ok(load: Load) -> None:
    """Whatever one backend does, no call fails, and Mixer counts as many as ghz does."""
    assert load.turns["hung"] >= 1
    assert load.turns["killed"] >= 1
    assert load.report["statusCodeDistribution"] == {"OK": CALLS}
    assert load.report["errorDistribution"] == {}
    assert load.sample("grpc_server_handled_total", grpc_method="Search", grpc_code="OK") == CALLS
    assert load.sample("grpc_server_handled_total", grpc_method="Search") == CALLS


def test_every_degraded_answer_is_named(load: Load) -> None:
    """A log line a call says whether it was degraded and by whom; the metrics count the same, by outcome."""
    degraded = [line for line in load.lines if line["mixer.degraded"]]
    assert len(load.lines) == CALLS
    assert 0 < len(degraded) < CALLS
    assert load.sample("mixer_degraded_total", mix="default") == len(degraded)
    reasons = Counter(reason for line in degraded for reason in line["mixer.degraded_reasons"])
    assert {reason.partition(":")[0] for reason in reasons} == {FLAPPING}
    assert reasons.keys() >= {f"{FLAPPING}: timeout", f"{FLAPPING}: error"}
    assert reasons.total() == len(degraded)
    counted = Counter({reason: outcomes(load, FLAPPING, reason.partition(": ")[2]) for reason in reasons})
    assert counted == reasons
    assert outcomes(load, FLAPPING, "ok") == CALLS - len(degraded)
    for name in STEADY:
        assert outcomes(load, name, "ok") == CALLS


def outcomes(load: Load, name: str, outcome: str) -> int:
    """How often asking a backend ended so."""
    return int(load.sample("mixer_backend_duration_seconds_count", backend=name, outcome=outcome))


def test_an_answer_says_itself_what_it_lacks(load: Load) -> None:
    """What ghz received (it writes a part of it down) names the backend where and only where it was missing."""
    logged = {line["mixer.query_id"]: line.get("mixer.degraded_reasons", []) for line in load.lines}
    assert {bool(REASONS.findall(text)) for text in load.seen} == {True, False}
    for text in load.seen:
        (query_id,) = QUERY_ID.findall(text)
        assert REASONS.findall(text) == list(logged[query_id])
        assert ("degraded:true" in text) == bool(logged[query_id])
