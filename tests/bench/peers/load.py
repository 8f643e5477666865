"""The services beside each other under the same load: one caller, rounds that go around all of them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.bench import servers
from tests.bench.peers.callers import Answer
from tests.bench.peers.services import Service
from tests.bench.processes import cpu_s

ROUNDS, REQUESTS, WARM_UP = 7, 100, 100
_EXPORTED_S = 6.0
"""By then every span has left: OpenTelemetry's batches wait for 5 s."""
_HEADINGS = ("service", "CPU ms", "CPU to Mixer", "p50 ms", "p50 to Mixer", "p99 ms", "spans a search")


@dataclass(slots=True)
class Measured:
    """CPU seconds at the start of each round and after the last, every request's time, spans a search.

    What a service still does between two of its rounds, such as sending spans, counts as the round's before.
    """

    service: Service
    cpu_marks_s: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    spans: float = 0.0

    def load(self, requests: int) -> None:
        """One round. Raises: AssertionError where an answer is not whole."""
        self.mark()
        for _ in range(requests):
            began_s = time.perf_counter()
            answer = self.service.caller.ask(5.0)
            self.latency_s.append(time.perf_counter() - began_s)
            if answer.missing or len(answer.ids) != 10:
                raise AssertionError(str(answer))

    def mark(self) -> None:
        """Note the CPU spent so far."""
        self.cpu_marks_s.append(cpu_s(self.service.process))

    @property
    def cpu_ms(self) -> NDArray[np.float64]:
        """Of one request, by round."""
        return np.diff(self.cpu_marks_s) / REQUESTS * 1000

    def latency_ms(self, quantile: float) -> float:
        """Over all rounds."""
        return float(np.quantile(self.latency_s, quantile)) * 1000

    def row(self, first: Measured) -> list[str]:
        """Cells of the table; ratios of CPU are the median of the rounds' own."""
        ratio, to_first = np.median(self.cpu_ms / first.cpu_ms), self.latency_ms(0.5) / first.latency_ms(0.5)
        costs = [f"{np.median(self.cpu_ms):.2f}", f"{ratio:.2f}x"]
        times = [f"{self.latency_ms(0.5):.2f}", f"{to_first:.2f}x", f"{self.latency_ms(0.99):.2f}"]
        return [*costs, *times, f"{self.spans:.2f}"]


def check_same(services: Mapping[str, Service]) -> None:
    """Every service puts the same ten documents in the same order, or the comparison means nothing."""
    answers: dict[str, Answer] = {name: service.caller.ask(5.0) for name, service in services.items()}
    first = next(iter(answers.values()))
    for name, answer in answers.items():
        if answer.ids != first.ids or len(answer.ids) != 10:
            raise AssertionError(f"{name} answers {answer}, not {first}")


def measure(services: Mapping[str, Service], collector: int) -> dict[str, Measured]:
    """Warm all up, then go around them."""
    for service in services.values():
        Measured(service).load(WARM_UP)
    before = _spans_so_far(collector)
    measured = {name: Measured(service) for name, service in services.items()}
    for _ in track(range(ROUNDS), "rounds", console=Console(stderr=True)):
        for one in measured.values():
            one.load(REQUESTS)
    after = _spans_so_far(collector)
    for name, one in measured.items():
        one.mark()
        one.spans = (after.get(name, 0) - before.get(name, 0)) / (ROUNDS * REQUESTS)
    return measured


def _spans_so_far(collector: int) -> dict[str, int]:
    """Spans that the collector has, by service, once all are sent."""
    time.sleep(_EXPORTED_S)
    with grpc.insecure_channel(f"127.0.0.1:{collector}") as channel:
        answer: bytes = channel.unary_unary(servers.SPANS_COUNT)(b"", timeout=30.0)
    counts: dict[str, int] = json.loads(answer)
    return counts


def table(title: str, measured: Mapping[str, Measured]) -> Table:
    """What each costs, and what that is to the first one's."""
    first = next(iter(measured.values()))
    drawn = Table(title=title)
    for heading in _HEADINGS:
        drawn.add_column(heading, justify="left" if heading == "service" else "right")
    for name, one in measured.items():
        drawn.add_row(name, *one.row(first))
    return drawn
