"""A Redis server of the tests' own."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.doubles.stores import Table
from tests.integration.chart import TOOLS, tool
from tests.integration.programs import program


class RedisServer:
    """One on a port, as long as it runs; it keeps nothing on disk."""

    def __init__(self, port: int, folder: Path, password: str = "") -> None:
        self.port, self._folder, self._password = port, folder, password
        self.socket = folder / "redis.sock"
        self.process: subprocess.Popen[bytes]
        self.client: redis.Redis = redis.Redis(port=port, password=password or None, socket_timeout=60)
        self.url = f"redis://127.0.0.1:{port}/0"

    @contextmanager
    def running(self) -> Iterator[None]:
        """While within, it is up."""
        command = [tool("redis/redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--unixsocket", str(self.socket), "--requirepass", self._password]
        libraries = {"LD_LIBRARY_PATH": str(TOOLS / "redis" / "lib")}
        with program(command, self._folder / "redis.log", self._answers, libraries, self._folder) as process:
            self.process = process
            yield
        self.client.connection_pool.disconnect()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """While within, it takes connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """At once, in the middle of whatever it does."""
        self.process.kill()
        self.process.wait()

    def write_hashes(self, table: Table, prefix: str = "") -> None:
        """A hash a row; a field without a value is not there."""
        with self.client.pipeline() as writing:
            for key, row in table.items():
                held: dict[Any, Any] = {name: value for name, value in row.items() if value is not None}
                writing.hset(prefix + key, mapping=held)
            writing.execute()

    def write_json(self, table: Table) -> None:
        """A JSON text a row."""
        for key, row in table.items():
            self.client.set(key, json.dumps(row))

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False
