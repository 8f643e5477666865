"""The load: one caller who waits for each answer, or a crowd; and what it cost, round by round."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from protos.mixer.v1 import mixer_pb2
from tests.bench.history import Crowd, Round
from tests.bench.processes import Service, cpu_s
from tests.bench.servers import QUERY

PAGE = 10
MESSAGE = mixer_pb2.SearchRequest(query=QUERY, page_size=PAGE)
_TIMEOUT_S = 5.0
_SETTLE_S = 0.3
"""For the spans of a round to leave: their cost is the round's, and they disturb none of the next."""


class WrongAnswer(Exception):
    """An answer that is not whole: its measurement would mean nothing."""


def sequential(service: Service, requests: int, candidates: int) -> Round:
    """One round of one caller. Raises: WrongAnswer."""
    added_s, began_s = service.added_s(), cpu_s(service.process)
    latency_us = tuple(_ask(service, candidates) for _ in range(requests))
    time.sleep(_SETTLE_S)
    spent_s = cpu_s(service.process) - began_s
    mean_added_s = (service.added_s() - added_s) / requests
    return Round(requests=requests, cpu_s=spent_s, added_s=mean_added_s, latency_us=latency_us)


def _ask(service: Service, candidates: int) -> int:
    began_s = time.perf_counter()
    answer = service.stub.Search(MESSAGE, timeout=_TIMEOUT_S)
    elapsed_s = time.perf_counter() - began_s
    if why := fault(answer, candidates):
        raise WrongAnswer(why)
    return round(elapsed_s * 1e6)


def fault(answer: mixer_pb2.SearchResponse, candidates: int) -> str:
    """Why an answer is not whole; empty where it is."""
    if len(answer.hits) != PAGE:
        return f"{len(answer.hits)} hits, not {PAGE}"
    if answer.execution.degraded:
        return f"degraded: {', '.join(answer.execution.degraded_reasons)}"
    if answer.candidates != candidates:
        return f"{answer.candidates} candidates, not {candidates}"
    return ""


def crowded(service: Service, callers: int, seconds: float, candidates: int) -> Crowd:
    """One round of many callers, from a process of their own. Raises: WrongAnswer."""
    mixer_s = cpu_s(service.process)
    command = ["-m", "tests.bench.crowd", *map(str, (service.port, callers, seconds, candidates))]
    told = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if told.returncode:
        raise WrongAnswer(told.stderr.strip().splitlines()[-1])
    spent = {"mixer_cpu_s": cpu_s(service.process) - mixer_s}
    return Crowd.model_validate(json.loads(told.stdout) | spent)
