from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixer import catalogue, workers
from mixer.line import MESSAGE_BYTES, Assignment, Word
from mixer.metrics import Metrics
from mixer.serving import State
from mixer.workers import Reporter
from tests.doubles import engines, mixers

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The supervisor's end, and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(20)
    with ours, theirs:
        yield ours, theirs


def assignment(folder: Path) -> Assignment:
    return Assignment(mixers.settings({"a": MEMORY}), folder, 0.01, 60.0)


def heard(end: socket.socket) -> Word:
    return Word.unpacked(end.recv(MESSAGE_BYTES))


@pytest.fixture
def stderr_is_a_file(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What tells where a loop hangs needs a file to write to, which a captured stream is not."""
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.usefixtures("stderr_is_a_file")
async def test_a_state_is_told_at_every_beat(
    line: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    """A worker says at once what became of it, and goes on saying it for as long as its event loop runs."""
    ours, theirs = line
    reporter = Reporter(theirs, assignment(tmp_path), Metrics())
    reporter.tell(State.READY)
    beats = asyncio.create_task(reporter.beat())
    for _ in range(4):
        assert (await asyncio.to_thread(heard, ours)) == Word(State.READY)
    beats.cancel()


def test_a_failure_is_told(line: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """The reason goes along."""
    Reporter(line[1], assignment(tmp_path), Metrics()).fail("no such index")
    assert heard(line[0]) == Word(State.FAILED, "no such index")


@pytest.mark.usefixtures("stderr_is_a_file")
def test_nobody_listens(line: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """A supervisor that is suspended, and one that is gone, hold up no worker."""
    reporter = Reporter(line[1], assignment(tmp_path), Metrics())
    for _ in range(5000):
        reporter.tell(State.STARTING)
    line[0].close()
    reporter.tell(State.STARTING)


def test_ages_go_on(line: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """At every beat the age of the model is written down for those who read it from outside."""
    metrics, ages = Metrics(), iter([1.0, 2.0, 3.0, 4.0])
    metrics.gauge(catalogue.MODEL_AGE, mix="m").set_function(lambda: next(ages))
    Reporter(line[1], assignment(tmp_path), metrics).tell(State.STARTING)
    assert next(ages) == 2.0


def test_a_worker_ends_with_its_supervisor(
    line: tuple[socket.socket, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the line it drains as at SIGTERM, and ends by force where its event loop does not."""
    done: list[object] = []
    told = assignment(tmp_path / "folder")
    told.folder.mkdir()
    monkeypatch.setattr(os, "kill", lambda pid, number: done.append(number))
    monkeypatch.setattr(os, "_exit", done.append)
    monkeypatch.setattr(time, "sleep", lambda wait_s: done.append(wait_s))
    thread = threading.Thread(target=workers._follow, args=(line[1], told))
    thread.start()
    thread.join(0.05)
    assert done == []
    line[0].close()
    thread.join(20)
    assert done == [signal.SIGTERM, 0.2 + 8.0, 1]
    assert not told.folder.exists()


def test_lines_are_numbered_and_whole() -> None:
    """A log line tells whose it is, and is written at once whatever its length: lines of two workers do not mix."""
    script = (
        "import logging, pathlib, sys\n"
        "from mixer import workers\n"
        "from mixer.line import Assignment\n"
        "from tests.doubles import mixers\n"
        "settings = mixers.settings({'a': {'kind': 'memory', 'fields': {}}})\n"
        "workers._start_logging(7, Assignment(settings, pathlib.Path(), 1.0, 1.0))\n"
        "for size in (1, 100, 10_000, 100_000):\n"
        "    logging.getLogger('x').info('said', extra={'text': 'y' * size})\n"
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(60)
    with ours:
        with theirs:
            running = subprocess.Popen([sys.executable, "-c", script], stdout=theirs.fileno())
        # One packet is one write.
        lines = [json.loads(ours.recv(200_000)) for _ in range(4)]
        assert running.wait(60) == 0
    assert [(line["worker"], len(line["text"])) for line in lines] == [
        (7, 1),
        (7, 100),
        (7, 10_000),
        (7, 100_000),
    ]
    assert logging.getLogRecordFactory() is logging.LogRecord
