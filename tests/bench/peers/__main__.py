"""Mixer beside what a team would write or pick instead: same candidates, same model, one run.

    make bench-peers

First the cost of a search, traced at 1 % and at 100 %; then what happens when one of the three backends stops
answering, and when it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from rich.console import Console

from tests.bench import processes, servers
from tests.bench.forest import Shelf
from tests.bench.peers import failures, load
from tests.bench.peers.services import Around, Service, http_backends, mixer, peer

MODELS = Path(".build/bench/models")
BACKEND_TIMEOUT_S = 0.5
"""Mixer's own default; the guarded peers get the same."""
PATIENT_S, IMPATIENT_S = 2.0, 0.3
"""How long a caller waits: longer than one backend may take, and less."""

console = Console(width=130)
Start = Callable[[str, Around, float], AbstractContextManager[Service]]

GUARDED: Mapping[str, Start] = {
    "mixer": mixer,
    "fastapi": partial(peer, "fastapi_service", BACKEND_TIMEOUT_S),
    "haystack": partial(peer, "haystack_service", BACKEND_TIMEOUT_S),
}
PLAIN: Mapping[str, Start] = {
    "fastapi, httpx defaults": partial(peer, "fastapi_service", None),
    "haystack, httpx defaults": partial(peer, "haystack_service", None),
}


def main() -> None:
    """Measure and print."""
    with console.status("training the forest, unless it is kept"):
        model = Shelf(MODELS).model(servers.BACKENDS)
    with (
        TemporaryDirectory() as folder,
        processes.helper("collector") as (_, (collector,)),
        processes.backends(servers.SHARED) as over_grpc,
        http_backends() as (_, urls),
    ):
        around = Around(over_grpc.targets, urls, model, collector, Path(folder))
        for share in (0.01, 1.0):
            compare_cost(around, share)
        compare_failures(around)


def compare_cost(around: Around, share: float) -> None:
    """The services under load, a share of the searches traced."""
    title = f"{servers.BACKENDS} backends x {servers.HITS} hits x {servers.COLUMNS} columns, one caller"
    with started(
        {f"{name}, tracing {share:.0%}": GUARDED[name] for name in GUARDED}, around, share
    ) as services:
        console.print(load.table(title, load.measure(services, around.collector)))


def compare_failures(around: Around) -> None:
    """The services while the last backend hangs, then while nothing listens at its address."""
    with (
        last_backend_apart(around) as (victims, apart),
        started({**GUARDED, **PLAIN}, apart, 0.01) as services,
    ):
        with suspended(victims):
            for wait_s in (PATIENT_S, IMPATIENT_S):
                title = f"one of three backends hangs, the caller waits {wait_s:g} s"
                console.print(failures.table(title, failures.ask_all(services, wait_s)))
        for victim in victims:
            victim.kill()
        title = f"one of three backends is gone, the caller waits {PATIENT_S:g} s"
        console.print(failures.table(title, failures.ask_all(services, PATIENT_S)))


@contextmanager
def started(starts: Mapping[str, Start], around: Around, share: float) -> Iterator[dict[str, Service]]:
    """The services, ready, and of one mind about the ten best documents."""
    with ExitStack() as stack:
        services = {name: stack.enter_context(start(name, around, share)) for name, start in starts.items()}
        load.check_same(services)
        yield services


@contextmanager
def last_backend_apart(around: Around) -> Iterator[tuple[list[psutil.Process], Around]]:
    """The same backends, but the last of them in processes of its own, which can be stopped alone."""
    with processes.backends(servers.SHARED) as over_grpc, http_backends() as (over_http, urls):
        apart = replace(
            around,
            grpc_targets=[*around.grpc_targets[:-1], over_grpc.targets[-1]],
            http_urls=[*around.http_urls[:-1], urls[-1]],
        )
        yield [over_grpc.process, over_http], apart


@contextmanager
def suspended(victims: list[psutil.Process]) -> Iterator[None]:
    """Processes that the kernel still takes connections and bytes for, and that do nothing."""
    for victim in victims:
        victim.suspend()
    try:
        yield
    finally:
        for victim in victims:
            victim.resume()


if __name__ == "__main__":
    main()
