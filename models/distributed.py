"""Grows a forest on several machines: LightGBM's own distributed learning, over the workers of a Dask cluster.

Every worker holds a part of the listings, each listing whole, and they exchange histograms (`tree_learner=data`). Each
sees all of the validation, so all stop at the same round, by the same rule as on one machine. The same listings on as
many workers, of as many threads, give the same file; on another number of workers they give another, about as good.
"""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import lightgbm
import numpy as np

from models.collection import Listing
from models.learn import Learn, Lesson, here

if TYPE_CHECKING:
    from distributed import Client

PORTS = range(12_400, 16_400)
"""Over which the workers must reach each other."""

_TIMEOUT_MIN = 10
"""After which those that are left give up one of them."""
_ADDRESSES = re.compile(r"^\[(machines|local_listen_port): .*\]$", re.MULTILINE)


@contextmanager
def cluster(where: str) -> Iterator[Learn]:
    """What learns on the cluster of a scheduler's address, or on so many processes that are started here.

    Raises: ValueError where the extra is not installed or nobody answers there.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ValueError(
            "training on Dask needs the extra: pip install '.[dask]' in Mixer's checkout"
        ) from error
    if where.isdecimal():
        at = LocalCluster(
            n_workers=int(where), threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        )
        with at, Client(at) as client:
            yield lambda lesson: learn(lesson, client)
        return
    try:
        client = Client(where, timeout=10)
    except (OSError, ValueError) as error:
        raise ValueError(f"no Dask scheduler answers at {where}: {error}") from error
    with client:
        yield lambda lesson: learn(lesson, client)


def learn(lesson: Lesson, client: Client) -> tuple[lightgbm.Booster, dict[str, Any]]:
    """Learn on the workers that the client's cluster has now. Raises: ValueError where there is none."""
    threads = {
        name: told["nthreads"] for name, told in client.scheduler_info(n_workers=-1)["workers"].items()
    }
    if not threads:
        raise ValueError("the Dask cluster has no worker")
    parts = shared_out(lesson.train, len(threads))
    workers = sorted(threads)[: len(parts)]
    machines = _machines(workers, client)
    parameters = {**lesson.parameters, "tree_learner": "data", "num_machines": len(parts)}
    tasks = []
    for worker, part, machine in zip(workers, parts, machines, strict=True):
        network = {
            "machines": ",".join(machines),
            "local_listen_port": int(machine.rpartition(":")[2]),
            "time_out": _TIMEOUT_MIN,
            "num_threads": threads[worker],
        }
        own = replace(lesson, train=tuple(part), parameters=parameters | network)
        held = client.scatter(own, workers=[worker], hash=False)
        tasks.append(client.submit(_grow, held, workers=[worker], allow_other_workers=False, pure=False))
    text, best = client.gather(tasks)[0]
    booster = lightgbm.Booster(model_str=_ADDRESSES.sub(lambda found: f"[{found[1]}: ]", text))
    booster.best_iteration = best
    return booster, parameters | {"num_threads": threads[workers[0]]}


def shared_out(listings: Sequence[Listing], workers: int) -> list[list[Listing]]:
    """The listings in order, none parted, in as many parts of about as many rows; fewer where there are not enough."""
    ends = np.cumsum([len(listing) for listing in listings])
    places = ((ends - 1) * workers // ends[-1]).tolist()
    parts = [[one for one, at in zip(listings, places, strict=True) if at == part] for part in range(workers)]
    return [part for part in parts if part]


def _machines(workers: Sequence[str], client: Client) -> list[str]:
    """`host:port` of each worker, as LightGBM shall listen there."""
    machines: list[str] = []
    for worker in workers:
        host = urlsplit(worker).hostname or "127.0.0.1"
        taken = [machine for machine in machines if machine.startswith(f"{host}:")]
        port = client.submit(_free_port, taken, workers=[worker], pure=False).result()
        machines.append(f"{host}:{port}")
    return machines


def _free_port(taken: Sequence[str]) -> int:
    """On a worker: a port that nothing listens on, and that no other of this host was given."""
    for port in random.sample(PORTS, len(PORTS)):
        if any(machine.endswith(f":{port}") for machine in taken):
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port of {PORTS.start} to {PORTS.stop - 1} is free")


def _grow(lesson: Lesson) -> tuple[str, int]:
    """On a worker: the whole forest as text, and its best round; all of them have the same."""
    booster, _ = here(lesson)
    return booster.model_to_string(num_iteration=-1), booster.best_iteration
