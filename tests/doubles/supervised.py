"""Workers and their supervisor as processes: `python -m tests.doubles.supervised CONFIG` has little patience."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil
from prometheus_client.parser import text_string_to_metric_families

from mixer import settings, supervise, telemetry
from mixer.client import search_request
from mixer.serving import run_loop
from mixer.worker_process import Patience
from protos.mixer.v1 import mixer_pb2 as pb
from protos.mixer.v1 import mixer_pb2_grpc as rpc
from tests.doubles.mixers import get

PATIENCE = Patience(beat_s=0.25, beats=16, last_beats=4, pause_s=0.05)
_LONG_S = 60.0

T = TypeVar("T")


class Supervised:
    """A supervisor's process, what it and its workers say, and who answers."""

    def __init__(self, config: Path) -> None:
        command = [sys.executable, "-m", "tests.doubles.supervised", str(config)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        (line,) = until(lambda: [line for line in self.lines if "workers" in line])
        self.target, self._admin = f"127.0.0.1:{line['port']}", f"http://127.0.0.1:{line['admin_port']}"

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    @property
    def workers(self) -> dict[int, psutil.Process]:
        """The processes of the workers, by number."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):
                words = child.cmdline()
                if "mixer.workers" in words:
                    found[int(words[4])] = child
        return found

    @property
    def folder(self) -> Path:
        """Where the workers' metrics are."""
        return Path(self.workers[1].cmdline()[5]).parent

    def ask(self, query_id: str, **options: Any) -> tuple[pb.SearchResponse, int]:
        """An answer over a connection of its own, and the number of the worker that gave it."""
        with channel(self.target) as connection:
            message = search_request("csv file", request_id=query_id, **options)
            answer = rpc.MixerServiceStub(connection).Search(message, timeout=20)
        (line,) = until(lambda: [line for line in self.lines if line.get("mixer.query_id") == query_id])
        return answer, line["worker"]

    def get(self, path: str) -> tuple[int, str]:
        """Status and text from the admin port."""
        status, _, text = get(self._admin + path)
        return status, text

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def end(self) -> str:
        """Wait for the end of a process that was told to; what it and its workers wrote to standard error."""
        assert self.process.stderr
        errors = self.process.stderr.read()
        self.process.wait(_LONG_S)
        self._reader.join(_LONG_S)
        return errors


def until(found: Callable[[], T]) -> T:
    """What is found, once something is; fails where that takes far too long."""
    latest_s = time.monotonic() + _LONG_S
    while not (value := found()):
        assert time.monotonic() < latest_s, "never came about"
        time.sleep(0.02)
    return value


def channel(target: str) -> grpc.Channel:
    """A connection of its own: others of the process are not used for it."""
    return grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])


@contextmanager
def supervised(config: Path) -> Iterator[Supervised]:
    """Workers that answer; killed at the end, where they still run."""
    made = Supervised(config)
    try:
        yield made
    finally:
        workers = list(made.workers.values()) if made.process.poll() is None else []
        made.process.kill()
        made.process.communicate()
        for left in psutil.wait_procs(workers, _LONG_S)[1]:
            left.kill()


if __name__ == "__main__":
    loaded = settings.load(Path(sys.argv[1]))
    telemetry.start_logging("info")
    run_loop(supervise.serve(loaded, PATIENCE))
