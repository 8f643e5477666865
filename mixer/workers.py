"""One worker of several on one port: a whole Mixer that reports to its supervisor.

`mixer.supervise` starts `python -m mixer.workers DESCRIPTOR NUMBER ASSIGNMENT`; the descriptor is the worker's end of
the line between the two.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from backends.index import IndexFault
from mixer import catalogue, metrics, server, telemetry
from mixer.line import SHUTDOWN_S, Assignment, Word
from mixer.metrics import Metrics
from mixer.serving import State, run_loop


class Reporter:
    """Says at every beat of the event loop how far the worker is."""

    def __init__(self, line: socket.socket, assignment: Assignment, counted: Metrics) -> None:
        """Starting, until told otherwise."""
        self._line, self._assignment, self._metrics = line, assignment, counted
        self._state = State.STARTING

    async def beat(self) -> None:
        """For as long as the loop runs."""
        while True:
            self._beat()
            await asyncio.sleep(self._assignment.beat_s)

    def tell(self, state: State) -> None:
        """This is the state from now on."""
        self._state = state
        self._beat()

    def fail(self, why: str) -> None:
        """Say why there will be no start."""
        self._send(Word(State.FAILED, why))

    def _beat(self) -> None:
        self._metrics.settle()
        self._metrics.write_down(catalogue.MODEL_AGE)
        if self._state is not State.STARTING:
            # A loop that hangs tells where, on standard error, before the worker is replaced.
            faulthandler.dump_traceback_later(self._assignment.silence_s * 0.8)
        self._send(Word(self._state))

    def _send(self, word: Word) -> None:
        """A supervisor that does not listen misses a beat: nothing waits for it."""
        with suppress(OSError):
            self._line.send(word.packed(), socket.MSG_DONTWAIT)


def main(descriptor: int, number: int, path: Path) -> int:
    """Serve until SIGTERM or the supervisor's end; the exit status."""
    assignment, line = Assignment.read(path), socket.socket(fileno=descriptor)
    threading.Thread(target=_follow, args=(line, assignment), daemon=True).start()
    _start_logging(number, assignment)
    metrics.share(assignment.folder, number)
    counted = Metrics()
    reporter = Reporter(line, assignment, counted)
    try:
        run_loop(_serve(reporter, assignment, counted))
    except (OSError, ValueError, IndexFault) as error:
        reporter.fail(str(error))
        return 1
    return 0


async def _serve(reporter: Reporter, assignment: Assignment, counted: Metrics) -> None:
    beats = asyncio.create_task(reporter.beat())
    try:
        await server.serve(assignment.settings, counted, reporter.tell, shares_port=True)
    finally:
        counted.settle()
        beats.cancel()
        faulthandler.cancel_dump_traceback_later()


def _follow(line: socket.socket, assignment: Assignment) -> None:
    """End when the supervisor does, however it ended; on a thread, since an event loop may hang."""
    with suppress(OSError):
        line.recv(1)  # Nothing is ever sent: this returns when the other end is closed.
    shutil.rmtree(assignment.folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(assignment.settings.server.drain_s + SHUTDOWN_S)
    os._exit(1)


def _start_logging(number: int, assignment: Assignment) -> None:
    """As any Mixer does; every line carries the worker's number."""
    make, told = logging.getLogRecordFactory(), assignment.settings.telemetry

    def numbered(*described: Any, **more: Any) -> logging.LogRecord:
        record = make(*described, **more)
        record.worker = number
        return record

    logging.setLogRecordFactory(numbered)
    telemetry.start_logging(told.log_level, raw_messages=told.query == "raw")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
