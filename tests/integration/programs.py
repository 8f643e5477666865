"""Real programs beside the tests: their ports, their start, their end, and the jars of those that Java runs."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration.chart import TOOLS

_PORTS = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections: one of those may be gone when a slow program binds."""
_PATIENCE_S = 180.0


def free_port() -> int:
    """A port of the loopback that nothing listens on now, drawn by chance, so that two tests hardly draw the same."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port of the loopback is free")


def answers(port: int) -> bool:
    """Whether anybody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def program(
    command: Sequence[str | Path],
    log: Path,
    is_up: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is up, and ended afterwards; one that does not come up is a failure that shows its log."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=folder,
        )
    try:
        _wait(process, is_up, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], is_up: Callable[[], bool], log: Path) -> None:
    until_s = time.monotonic() + _PATIENCE_S
    while not is_up():
        if process.poll() is not None or time.monotonic() > until_s:
            state = "is not up yet" if process.poll() is None else f"ended with {process.returncode}"
            said = log.read_text(encoding="utf-8", errors="replace")
            raise AssertionError(f"{log.stem} {state}; it said:\n{said[-4000:]}")
        time.sleep(0.1)


def jars(name: str, *coordinates: str) -> Path:
    """A folder with these Maven artifacts (`group:artifact:version`) and all they need, kept in .tools.

    One that is a zip of jars (`group:artifact:version:zip`) is unpacked into it. Whatever cannot be fetched is an
    error, never skipped.
    """
    folder = TOOLS / name
    if not folder.exists():
        scratch = folder.with_name(f".{name}.{os.getpid()}")
        scratch.mkdir(parents=True)
        (scratch / "pom.xml").write_text(_pom(coordinates))
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={scratch}/jars"]
        subprocess.run(["mvn", "-q", "-B", "-f", str(scratch / "pom.xml"), *copy], check=True, timeout=600)
        for archive in (scratch / "jars").glob("*.zip"):
            shutil.unpack_archive(archive, scratch / "jars")
        try:
            (scratch / "jars").rename(folder)
        except OSError:
            if not folder.exists():  # else another test was faster
                raise
        shutil.rmtree(scratch)
    return folder


def _pom(coordinates: Sequence[str]) -> str:
    needed = "".join(map(_dependency, coordinates))
    return f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>mixer</groupId><artifactId>tests</artifactId><version>1</version>
<packaging>pom</packaging><dependencies>{needed}</dependencies></project>
"""


def _dependency(coordinates: str) -> str:
    parts = zip(("groupId", "artifactId", "version", "type"), coordinates.split(":"), strict=False)
    return f"<dependency>{''.join(f'<{key}>{value}</{key}>' for key, value in parts)}</dependency>\n"
