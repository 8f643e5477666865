"""A worker's process as its supervisor sees it: started, listened to, ended."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM

from mixer.line import MESSAGE_BYTES, SHUTDOWN_S, Word
from mixer.serving import State


@dataclass(frozen=True, slots=True)
class Patience:
    """How long workers are waited for. Silence is counted in beats that the supervisor itself was awake for."""

    beat_s: float = 1.0
    start_beats: int = 300
    """Silence of one that starts: it imports, it opens indexes."""
    beats: int = 10
    """Silence of one that serves, before it is told to drain."""
    last_beats: int = 5
    """Silence of one that was told to, before it is killed."""
    pause_s: float = 0.5
    """After the first failure; doubled after every other in a row."""
    longest_pause_s: float = 30.0
    good_s: float = 60.0
    """A life of this length makes earlier failures forgotten."""
    starts: int = 3
    """Failed starts in a row that end the supervisor, where no other worker is ready."""

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        if not failures:
            return 0.0
        return float(min(self.pause_s * 2.0 ** min(failures - 1, 30), self.longest_pause_s))


class WorkerProcess:
    """One worker, from its start to its end."""

    def __init__(self, process: Process, line: socket.socket, heard: Callable[[], None]) -> None:
        """Calls `heard` after every word of the worker's."""
        self.pid = process.pid
        self.state, self.why, self.came_up = State.STARTING, "", False
        self._missed, self._began_s = 0, time.monotonic()
        self._process, self._line, self._heard = process, line, heard
        self._exit = asyncio.create_task(process.wait())
        asyncio.get_running_loop().add_reader(line.fileno(), self._hear)

    @classmethod
    async def start(
        cls, number: int, assignment: Path, environment: Mapping[str, str], heard: Callable[[], None]
    ) -> WorkerProcess:
        """A fresh process, in a session of its own: what a terminal sends goes to the supervisor. Raises: OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        command = [sys.executable, "-m", "mixer.workers", str(theirs.fileno()), str(number), str(assignment)]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=DEVNULL,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours, heard)

    @property
    def status(self) -> int:
        """What it ended with, as a shell would have it."""
        status = self._exit.result()
        return 128 - status if status < 0 else status

    @property
    def lived_s(self) -> float:
        """Time since its start."""
        return time.monotonic() - self._began_s

    async def fell_silent(self, patience: Patience) -> bool:
        """Wait until it ended (False) or was silent for too long (True)."""
        while not await self._ended(patience.beat_s):
            self._missed += 1
            starting = self.state is State.STARTING
            if self._missed > (patience.start_beats if starting else patience.beats):
                return True
        return False

    async def end(self, drain_s: float, patience: Patience) -> None:
        """Let it drain for as long as it shows life, then kill it."""
        latest_s = time.monotonic() + drain_s + SHUTDOWN_S
        self._missed = 0
        self._signal(SIGTERM)
        while not await self._ended(patience.beat_s):
            self._missed += 1
            if self._missed > patience.last_beats or time.monotonic() > latest_s:
                self._signal(SIGKILL)

    def close(self) -> None:
        """Hear what it said last, and hang up; where it still runs, this ends it."""
        asyncio.get_running_loop().remove_reader(self._line.fileno())
        while message := self._received():
            self._take(message)
        self._line.close()

    async def _ended(self, within_s: float) -> bool:
        await asyncio.wait({self._exit}, timeout=within_s)
        return self._exit.done()

    def _hear(self) -> None:
        message = self._received()
        if message:
            self._take(message)
        elif message is not None:
            asyncio.get_running_loop().remove_reader(self._line.fileno())

    def _received(self) -> bytes | None:
        """The next message; empty at the line's end, None where none waits."""
        try:
            return self._line.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _take(self, message: bytes) -> None:
        word = Word.unpacked(message)
        self._missed, self.state, self.why = 0, word.state, word.why
        self.came_up = self.came_up or word.state in (State.READY, State.NOT_READY)
        self._heard()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
