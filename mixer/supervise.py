"""Keeps several workers serving on one port, and answers for all of them on the admin port.

Workers are fresh processes, each a whole Mixer; the kernel spreads connections over them (SO_REUSEPORT). One that ends
is started again, with growing pauses; one whose event loop falls silent is drained if it can be, killed if not, and
started again. Whatever ends the supervisor ends the workers.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from mixer import catalogue
from mixer.admin import Admin
from mixer.line import Assignment
from mixer.metrics import Merged, Metrics
from mixer.ports import reserved
from mixer.serving import State, stop_signal
from mixer.settings import Secrets, ServerSettings, Settings
from mixer.worker_process import Patience, WorkerProcess

log = logging.getLogger(__name__)

REASONS = ("exited", "failed_to_start", "silent")
"""Why a worker was started again."""


class WorkersFailed(Exception):
    """Workers cannot start; `status` is what the last one ended with, as a shell would have it."""

    def __init__(self, why: str, status: int) -> None:
        """`why` is what the worker said, where it said something."""
        self.status = status
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class End:
    """How one life of a worker ended."""

    reason: str
    status: int
    why: str = ""
    lived_s: float = 0.0


@dataclass(slots=True)
class Record:
    """What is remembered of the lives before: failures in a row, and failed starts in a row."""

    failures: int = 0
    failed_starts: int = 0

    def add(self, end: End, patience: Patience) -> None:
        """One more life."""
        failed = end.reason == "failed_to_start"
        self.failed_starts = self.failed_starts + 1 if failed else 0
        self.failures = 0 if end.lived_s >= patience.good_s and not failed else self.failures + 1


@dataclass(slots=True)
class Supervisor:
    """The workers of one server.

    Ready once all are, so that a rollout proves them; from then on while one is: what the others would have
    answered goes to it, and to turn it away too would make a partial loss a whole one.
    """

    settings: Settings
    assignment: Path
    environment: Mapping[str, str]
    metrics: Metrics
    merged: Merged
    patience: Patience
    admin: Admin | None = None
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """All workers have come up, ready or not."""
    _workers: dict[int, WorkerProcess] = field(default_factory=dict)
    _was_ready: bool = False
    _leaves: bool = False

    def __post_init__(self) -> None:
        for reason in REASONS:
            self.metrics.counter(catalogue.WORKER_RESTARTS, reason=reason)

    async def keep(self, number: int) -> None:
        """Keep a worker of this number running until cancelled. Raises: WorkersFailed."""
        record = Record()
        while True:
            end = await self._run(number)
            record.add(end, self.patience)
            told = {"worker": number, "status": end.status, "reason": end.reason, "why": end.why}
            log.error("worker ended", extra=told)
            self._give_up(number, end, record)
            self.metrics.counter(catalogue.WORKER_RESTARTS, reason=end.reason).inc()
            await asyncio.sleep(self.patience.pause(record.failures))

    def leave(self) -> None:
        """Ready no more: all workers are about to drain."""
        self._leaves = True
        self._heard()

    async def _run(self, number: int) -> End:
        """One life of a worker, from its start to its end."""
        try:
            worker = await WorkerProcess.start(number, self.assignment, self.environment, self._heard)
        except OSError as error:
            return End("failed_to_start", 1, str(error))
        self._workers[number] = worker
        try:
            silent = await worker.fell_silent(self.patience)
            if silent:
                log.error("worker silent", extra={"worker": number, "pid": worker.pid})
        finally:
            await worker.end(self.settings.server.drain_s, self.patience)
            worker.close()
            del self._workers[number]
            self.merged.forget(number)
            self._heard()
        reason = "silent" if silent else "exited" if worker.came_up else "failed_to_start"
        return End(reason, worker.status, worker.why, worker.lived_s)

    def _give_up(self, number: int, end: End, record: Record) -> None:
        """Raises: WorkersFailed where no start is worth another try.

        What one says is wrong before all came up is wrong with all. Later a worker that is ready is worth more than
        an end, however often the others fail.
        """
        if not record.failed_starts:
            return
        at_start, often = not self.answering.is_set(), record.failed_starts >= self.patience.starts
        if (end.why or often) if at_start else (often and not self._count(State.READY)):
            why = end.why or f"worker {number} ended with status {end.status} before it was ready"
            raise WorkersFailed(why, end.status or 1)

    def _count(self, *states: State) -> int:
        return sum(worker.state in states for worker in self._workers.values())

    def _heard(self) -> None:
        """Something about a worker changed."""
        wanted, ready = self.settings.server.workers, self._count(State.READY)
        self._was_ready = self._was_ready or ready == wanted
        if self.admin:
            self.admin.ready = self._was_ready and ready > 0 and not self._leaves
        if self._count(State.READY, State.NOT_READY) == wanted:
            self.answering.set()


async def serve(settings: Settings, patience: Patience | None = None) -> None:
    """Serve with `server.workers` processes until SIGTERM or SIGINT, then drain them all.

    Raises: OSError where a port is taken or cannot be shared; WorkersFailed.
    """
    told, patience, server = stop_signal(), patience or Patience(), settings.server
    with _listening(server) as shared, TemporaryDirectory(prefix="mixer-", dir=_in_memory()) as folder:
        metrics = Metrics()
        merged = Merged(metrics, Path(folder))
        assignment = _assignment(settings, shared, Path(folder), patience).write()
        environment = {**os.environ, **Secrets.from_environment().as_environment()}
        supervisor = Supervisor(settings, assignment, environment, metrics, merged, patience)
        ports = {"port": int(shared["listen"].rpartition(":")[2]), "admin_port": 0}
        if server.admin_listen:
            supervisor.admin = Admin(merged.registry)
            ports["admin_port"] = supervisor.admin.start(server.admin_listen)
        try:
            await _supervise(supervisor, told, ports)
        finally:
            if supervisor.admin:
                await asyncio.to_thread(supervisor.admin.stop)


async def _supervise(supervisor: Supervisor, told: asyncio.Event, ports: Mapping[str, int]) -> None:
    """Keep all workers until told to stop."""
    wanted = supervisor.settings.server.workers

    async def announce() -> None:
        await supervisor.answering.wait()
        log.info("serving", extra={**ports, "workers": wanted})

    failed: list[WorkersFailed] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(supervisor.keep(number)) for number in range(1, wanted + 1)]
            tasks.append(group.create_task(announce()))
            await told.wait()
            log.info("draining")
            supervisor.leave()
            for task in tasks:
                task.cancel()
    except* WorkersFailed as group_of:
        failed += [error for error in group_of.exceptions if isinstance(error, WorkersFailed)]
    if failed:
        raise failed[0]


@contextmanager
def _listening(server: ServerSettings) -> Iterator[dict[str, str]]:
    """The addresses that the workers share, by their settings' names, held with the ports that they have."""
    with ExitStack() as held:
        shared = {"listen": server.listen, "health_listen": server.health_listen}
        yield {name: address and held.enter_context(reserved(address)) for name, address in shared.items()}


def _assignment(settings: Settings, shared: dict[str, str], folder: Path, patience: Patience) -> Assignment:
    server = settings.server.model_copy(update={**shared, "admin_listen": ""})
    own = settings.model_copy(update={"server": server})
    return Assignment(own, folder, patience.beat_s, patience.beat_s * patience.beats)


def _in_memory() -> str | None:
    """A folder where no count waits for a disk, where there is one; None for the usual one."""
    shared = "/dev/shm"  # noqa: S108
    return shared if os.access(shared, os.W_OK) else None
