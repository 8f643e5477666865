"""What each service does while one of three backends hangs, and once it is gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from tests.bench.peers.callers import Answer, Caller
from tests.bench.peers.services import Service

ASKED = 20


@dataclass(frozen=True, slots=True)
class Call:
    """One answer and how long it took."""

    answer: Answer
    elapsed_s: float


def ask_all(services: Mapping[str, Service], timeout_s: float) -> dict[str, list[Call]]:
    """Ask every service, all at once, each one call after another, by a caller who waits so long."""
    with ThreadPoolExecutor(len(services)) as pool:
        asked = pool.map(lambda service: _ask(service.caller, timeout_s), services.values())
        return dict(zip(services, asked, strict=True))


def _ask(caller: Caller, timeout_s: float) -> list[Call]:
    calls = []
    for _ in range(ASKED):
        began_s = time.perf_counter()
        answer = caller.ask(timeout_s)
        calls.append(Call(answer, time.perf_counter() - began_s))
    return calls


def table(title: str, asked: Mapping[str, Sequence[Call]]) -> Table:
    """How the calls ended, how many hits came, how long it took, and what the answers say."""
    drawn = Table(title=f"{title}; {ASKED} calls")
    for heading in ("service", "ended", "hits", "p50 ms", "slowest ms", "the answer names"):
        drawn.add_column(heading, justify="right" if "ms" in heading or heading == "hits" else "left")
    for name, calls in asked.items():
        times_ms = np.array([call.elapsed_s for call in calls]) * 1000
        drawn.add_row(
            name,
            _told(Counter(call.answer.status for call in calls)),
            _told(Counter(str(len(call.answer.ids)) for call in calls)),
            f"{np.median(times_ms):.0f}",
            f"{times_ms.max():.0f}",
            _told(Counter(_missing(call.answer) for call in calls)),
        )
    return drawn


def _missing(answer: Answer) -> str:
    return (answer.missing or "nobody") if answer.status == "OK" else "no answer"


def _told(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} x {what}" for what, count in counts.most_common())
