"""One caller's rounds, and which answers stop a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import psutil
import pytest

from protos.mixer.v1 import mixer_pb2, mixer_pb2_grpc
from tests.bench import load
from tests.bench.load import WrongAnswer
from tests.bench.processes import Service

WHOLE = mixer_pb2.SearchResponse(hits=[mixer_pb2.Hit(id=str(place)) for place in range(10)], candidates=176)


class Canned(mixer_pb2_grpc.MixerServiceServicer):
    def __init__(self, answer: mixer_pb2.SearchResponse) -> None:
        self.answer, self.asked = answer, 0
        self.peers: set[str] = set()

    def Search(self, request: Any, context: Any) -> mixer_pb2.SearchResponse:  # noqa: N802
        self.asked += 1
        self.peers.add(context.peer())
        return self.answer


@contextmanager
def serving(canned: Canned) -> Iterator[Service]:
    server = grpc.server(ThreadPoolExecutor(1))
    mixer_pb2_grpc.add_MixerServiceServicer_to_server(canned, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Service(psutil.Process(), port, mixer_pb2_grpc.MixerServiceStub(channel))
    finally:
        server.stop(None).wait()


def test_a_round_asks_and_times_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many times as requests, and the process's CPU for all of them."""
    monkeypatch.setattr(load, "_SETTLE_S", 0.0)
    canned = Canned(WHOLE)
    with serving(canned) as service:
        taken = load.sequential(service, 20, 176)
    assert canned.asked == taken.requests == len(taken.latency_us) == 20
    assert min(taken.latency_us) > 0
    assert taken.cpu_s >= 0


def test_an_answer_that_is_not_whole_stops_the_round() -> None:
    """Its figures would mean nothing."""
    short = mixer_pb2.SearchResponse(hits=WHOLE.hits[:9])
    with serving(Canned(short)) as service, pytest.raises(WrongAnswer, match="9 hits"):
        load.sequential(service, 1, 176)


def test_a_crowd_says_what_it_got() -> None:
    """Every caller asks on a connection of its own, and what all of them cost is told."""
    canned = Canned(WHOLE)
    with serving(canned) as service:
        crowd = load.crowded(service, callers=3, seconds=0.2, candidates=176)
    assert canned.asked == crowd.answers + crowd.callers
    assert crowd.callers == len(canned.peers) == 3
    assert crowd.elapsed_s >= 0.2
    assert crowd.generator_cpu_s > 0


def test_a_crowd_that_gets_a_wrong_answer_says_so() -> None:
    """As one caller does."""
    with serving(Canned(WHOLE)) as service, pytest.raises(WrongAnswer, match="176 candidates, not 300"):
        load.crowded(service, callers=1, seconds=0.1, candidates=300)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"candidates": 3}, "3 candidates, not 176"),
        ({"execution": {"degraded": True, "degraded_reasons": ["b0: timeout"]}}, "degraded: b0: timeout"),
    ],
)
def test_what_is_lacking_is_named(change: dict[str, Any], why: str) -> None:
    """A backend that was late, or documents that went missing."""
    answer = mixer_pb2.SearchResponse()
    answer.CopyFrom(WHOLE)
    answer.ClearField("candidates")
    answer.MergeFrom(mixer_pb2.SearchResponse(**{"candidates": 176, **change}))
    assert load.fault(WHOLE, 176) == ""
    assert load.fault(answer, 176) == why
