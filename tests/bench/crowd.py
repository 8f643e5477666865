"""Several callers at once, each with a connection of its own, asking again as soon as they are answered.

`python -m tests.bench.crowd PORT CALLERS SECONDS CANDIDATES` prints what it got and what it cost, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

from mixer.serving import run_loop
from protos.mixer.v1 import mixer_pb2
from tests.bench.http2 import Connection
from tests.bench.load import MESSAGE, fault

Ask = Callable[[bytes], Awaitable[bytes]]

_TIMEOUT_S = 10.0
_REQUEST = MESSAGE.SerializeToString()
_METHOD = "/mixer.v1.MixerService/Search"
_CHECKED = 16
"""One answer of so many is decoded and looked at: the callers are to leave the cores to the workers."""


async def crowd(port: int, callers: int, seconds: float, candidates: int) -> None:
    """Ask and print. Raises: NoAnswer; ValueError at the first answer that is not whole; TimeoutError."""
    connections = [await _connected(port) for _ in range(callers)]
    asks = [connection.ask for connection in connections]
    async with asyncio.timeout(seconds + _TIMEOUT_S):
        await asyncio.gather(*(_ask(ask, candidates) for ask in asks))
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        until_s = began_s + seconds
        answers = sum(await asyncio.gather(*(_caller(ask, until_s, candidates) for ask in asks)))
        elapsed_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    told = {"callers": callers, "answers": answers, "elapsed_s": elapsed_s, "generator_cpu_s": cpu_s}
    print(json.dumps(told))
    for connection in connections:
        connection.close()


async def _connected(port: int) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(_METHOD), "127.0.0.1", port)
    return connection


async def _caller(ask: Ask, until_s: float, candidates: int) -> int:
    answers = 0
    while time.perf_counter() < until_s:
        await _ask(ask, candidates, checked=answers % _CHECKED == 0)
        answers += 1
    return answers


async def _ask(ask: Ask, candidates: int, checked: bool = True) -> None:
    answer = await ask(_REQUEST)
    if checked and (why := fault(mixer_pb2.SearchResponse.FromString(answer), candidates)):
        raise ValueError(why)


if __name__ == "__main__":
    port, callers, seconds, candidates = sys.argv[1:]
    run_loop(crowd(int(port), int(callers), float(seconds), int(candidates)))
