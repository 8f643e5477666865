"""Object storage for tests: a real S3 API on the loopback, and one in memory that fails or hangs as it is told."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem


class Shaky(MemoryFileSystem):  # type: ignore[misc]
    """Memory whose puts fail, hang or are looked at."""

    protocol = "shaky"
    store: dict[str, Any] = {}  # noqa: RUF012 - of the class, as its parent's
    pseudo_dirs = [""]  # noqa: RUF012
    failing = False
    passing, asked = threading.Event(), threading.Event()
    puts: list[str] = []  # noqa: RUF012
    seen_midway: list[str] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("shaky:/")))

    @classmethod
    def reset(cls) -> None:
        """Sound and empty."""
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.puts.clear()
        cls.seen_midway.clear()
        cls.failing = False
        cls.passing.set()
        cls.asked.clear()

    def put_file(self, lpath: str, rpath: str, **rest: Any) -> None:
        """One file."""
        type(self).asked.set()
        type(self).passing.wait()
        if type(self).failing:
            raise ConnectionError("the storage is down")
        super().put_file(lpath, rpath, **rest)
        self.puts.append(rpath)
        self.seen_midway.extend(path for path in self.find("/") if path.endswith(".parquet"))


@contextmanager
def shaky() -> Iterator[type[Shaky]]:
    """Within it, `shaky://` is such a storage."""
    fsspec.register_implementation("shaky", Shaky, clobber=True)
    Shaky.reset()
    try:
        yield Shaky
    finally:
        Shaky.passing.set()


@contextmanager
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a real S3 API, which the environment leads to; its URL."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    with contextlib.redirect_stdout(io.StringIO()):
        server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    type(system).clear_instance_cache()  # of other endpoints
    try:
        system.mkdir("logs")
        yield "s3://logs"
    finally:
        type(system).clear_instance_cache()
        server.stop()
