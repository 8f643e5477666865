"""Brings a log's files to where everybody can read them: object storage, or any folder that fsspec knows by its URL.

A file goes under the name it has here, which no other ever has, is looked for there, and only then taken away here.
What is not there yet is what lies in the folder: a process that was killed loses nothing, the next one goes on.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from time import monotonic, sleep, time
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mixer import catalogue
from mixer.log_settings import ShipSettings
from mixer.metrics import Metrics
from mixer.store import Store, StoreFailed, check_url, open_store

_BEAT_S, _FIRST_PAUSE_S, _LOCK_S = 1.0, 0.5, 0.05
_LOCK, _SHIPPED = ".ship.lock", ".shipped"

log = logging.getLogger(__name__)

LogName = Literal["searches", "events"]
Lost = Callable[[int], None]
"""Hears of rows that were dropped before they were shipped."""


def _unheard(rows: int) -> None:
    """Nobody counts."""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size: int
    made_s: float
    shipped_s: float | None
    """When, where it was shipped and is kept."""

    @property
    def mark(self) -> Path:
        return _mark(self.path)


class Shipper:
    """A thread that ships the files of one folder; of several processes with the same folder one does at a time."""

    def __init__(
        self, folder: Path, rules: ShipSettings, metrics: Metrics, of: LogName, lost: Lost = _unheard
    ) -> None:
        """Starts to ship what lies there. Raises: StoreFailed where nothing can open such a URL."""
        check_url(rules.to)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._rules, self._lost = folder, rules, lost
        self._store: Store | None = None
        self._lock: int | None = None
        self._bell, self._closing, self._until_s = threading.Event(), threading.Event(), float("inf")
        self._counts = metrics.by_outcome(catalogue.SHIP_FILES, ("shipped", "failed", "dropped"), log=of)
        self._waiting = metrics.gauge(catalogue.SHIP_WAITING, log=of)
        self._waiting_bytes = metrics.gauge(catalogue.SHIP_WAITING_BYTES, log=of)
        self._thread = threading.Thread(target=self._run, name=f"ship-{of}", daemon=True)
        self._thread.start()

    def published(self, path: Path) -> None:
        """A new file is there."""
        self._keep_within_bounds()
        self._bell.set()
        if self._lock is not None:
            self._tell()  # in case that a storage hangs

    def close(self, within_s: float) -> None:
        """Ship what waits, but for so long at most; what is left is shipped by the next process. Blocks."""
        self._until_s = monotonic() + within_s
        self._closing.set()
        self._bell.set()
        self._thread.join(within_s)
        if left := [file for file in self._files() if file.shipped_s is None]:
            log.warning("log files left to ship", extra={"folder": str(self._folder), "files": len(left)})

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._closing.is_set():
            self._bell.wait(_BEAT_S)
            self._bell.clear()
            if self._went_well(first=pause_s == _FIRST_PAUSE_S):
                pause_s = _FIRST_PAUSE_S
            else:
                self._closing.wait(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - many servers, not all at once
                pause_s = min(pause_s * 2, self._rules.retry_max_s)
        self._went_well(first=False)
        if self._lock is not None:
            os.close(self._lock)

    def _went_well(self, first: bool) -> bool:
        """Whether all that waited was shipped; the first failure of a row is logged."""
        try:
            self._round()
        except Exception as error:
            if first:
                extra = {"folder": str(self._folder), "to": self._rules.to, "why": str(error)}
                log.exception("log files cannot be shipped; trying again", extra=extra)
            return False
        return True

    def _round(self) -> None:
        if not self._is_ours():
            return
        try:
            for file in self._files():
                if file.shipped_s is None:
                    self._ship(file)
                elif time() - file.shipped_s >= self._rules.keep_s:
                    _remove(file)
        finally:
            self._tell()

    def _ship(self, file: _File) -> None:
        if monotonic() > self._until_s:
            return
        try:
            self._bring(file)
        except Exception:
            if file.path.exists():  # else it was dropped in the meantime
                self._counts["failed"].inc()
                raise
            return
        self._counts["shipped"].inc()
        if self._rules.keep_s:
            file.mark.touch()
        else:
            _remove(file)

    def _bring(self, file: _File) -> None:
        name = file.path.relative_to(self._folder).as_posix()
        store = self._store = self._store or open_store(self._rules.to)
        if store.size(name) != file.size:
            store.put(name, file.path)
        if (there := store.size(name)) != file.size:
            raise StoreFailed(f"{name}: {there} bytes are there, not {file.size}")

    def _keep_within_bounds(self) -> None:
        """Drop the oldest files beyond what this machine may hold; first those that were shipped."""
        files = self._files()
        over = sum(file.size for file in files) - self._rules.max_bytes
        for file in sorted(files, key=lambda file: (file.shipped_s is None, file.made_s)):
            if over <= 0:
                return
            self._drop(file)
            over -= file.size

    def _drop(self, file: _File) -> None:
        rows = _rows(file.path) if file.shipped_s is None else 0
        if _remove(file) and file.shipped_s is None:
            self._counts["dropped"].inc()
            self._lost(rows)
            log.error("log file dropped, not shipped", extra={"path": str(file.path), "rows": rows})

    def _files(self) -> list[_File]:
        """What lies in the folder, the oldest first."""
        found = (_file(path) for path in self._folder.rglob("*.parquet"))
        return sorted((file for file in found if file), key=lambda file: (file.made_s, file.path))

    def _tell(self) -> None:
        sizes = [file.size for file in self._files() if file.shipped_s is None]
        self._waiting.set(len(sizes))
        self._waiting_bytes.set(sum(sizes))

    def _is_ours(self) -> bool:
        """Whether no other process ships this folder; at the end, once none does."""
        for _ in self._tries():
            if self._lock is None:
                self._lock = _locked(self._folder / _LOCK)
            if self._lock is not None:
                return True
        return False

    def _tries(self) -> Iterator[None]:
        yield
        while self._closing.is_set() and monotonic() < self._until_s:
            sleep(_LOCK_S)
            yield


def _locked(path: Path) -> int | None:
    """The lock of this file until it is closed or the process ends, or None where another has it."""
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        flock(lock, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _file(path: Path) -> _File | None:
    """None where it has just gone."""
    try:
        told = path.stat()
    except FileNotFoundError:
        return None
    shipped_s = None
    with suppress(FileNotFoundError):
        shipped_s = _mark(path).stat().st_mtime
    return _File(path, told.st_size, told.st_mtime, shipped_s)


def _mark(path: Path) -> Path:
    return path.with_name(f".{path.stem}{_SHIPPED}")


def _remove(file: _File) -> bool:
    """Whether it was there."""
    try:
        file.path.unlink()
    except FileNotFoundError:
        return False
    file.mark.unlink(missing_ok=True)
    return True


def _rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowInvalid, OSError):
        return 0
