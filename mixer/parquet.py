"""Rows that never end, as Parquet files that are always whole: `<folder>/date=YYYY-MM-DD/hour=HH/<uuid>.parquet`.

Rows first go to a spool beside the files, an Arrow stream under a name that readers skip. A full or old spool is
turned into one Parquet file, which appears under its name by a rename. A killed process leaves its spool behind;
the next one to start turns it into a file, and what is lost is the tail that was being written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from time import monotonic
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_HOUR_US = 3_600_000_000
_HOURS_OPEN = 4
_ROW_GROUP_BYTES = 8 << 20
_SPOOL, _PART, _UNLOCKED = ".arrows", ".parquet.part", ".unlocked"

Published = Callable[[Path], None]


def unheard(path: Path) -> None:
    """Nobody counts."""


class Rotating:
    """Writes batches of one schema, by the hour of their `time` (timestamp[us, UTC]); written to by one thread.

    Several processes may write into one folder.
    """

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        rows: int = 10_000,
        seconds: float = 60.0,
        size_bytes: int = 64 << 20,
        published: Published = unheard,
        files_on: Executor | None = None,
    ) -> None:
        """A file is done at so many rows, seconds after its first row, or bytes of spool.

        It is made on `files_on`, so that no writer waits for the disk, or else by whoever writes. Raises: OSError.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._schema, self._published = folder, schema, published
        self._rows, self._seconds, self._size_bytes = rows, seconds, size_bytes
        self._files_on, self._pending = files_on, list[Future[None]]()
        self._open: dict[int, _Spool] = {}

    def recover(self) -> int:
        """Make files of what processes that ended left behind; how many. Raises: OSError."""
        files = 0
        for path in sorted(self._folder.rglob(f".*{_SPOOL}")):
            if (lock := _lock_of(path)) is None:
                continue
            try:
                files += self._publish(path)
            finally:
                os.close(lock)
        return files

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows of the schema, and make files that are due. Raises: OSError."""
        self.append(batch)
        self.turn()

    def append(self, batch: pa.RecordBatch) -> None:
        """Take rows of the schema; they are safe from this process's end when this returns. Raises: OSError."""
        for hour, rows in _by_hour(batch):
            if hour not in self._open:
                self._open[hour] = _Spool(self._folder / _partition(hour), self._schema)
            try:
                self._open[hour].append(rows)
            except BaseException:
                # What it holds is whole up to the failed row, and found at the next start.
                self._open.pop(hour).close()
                raise

    def turn(self) -> None:
        """Make files of the spools that are due; call it now and then, where no row may come. Raises: OSError."""
        due = [hour for hour, spool in self._open.items() if self._is_due(spool)]
        surplus = list(self._open)[: max(len(self._open) - _HOURS_OPEN, 0)]
        self._end(dict.fromkeys([*due, *surplus]))
        done = [making for making in self._pending if making.done()]
        self._pending = [making for making in self._pending if making not in done]
        for making in done:
            making.result()

    def close(self) -> None:
        """Make files of all that is open, and wait until they are there. Raises: OSError."""
        self._end(list(self._open))
        while self._pending:
            self._pending.pop().result()

    def _is_due(self, spool: _Spool) -> bool:
        full = spool.rows >= self._rows or spool.size_bytes >= self._size_bytes
        return full or monotonic() - spool.began_s >= self._seconds

    def _end(self, hours: Iterable[int]) -> None:
        for hour in hours:
            spool = self._open.pop(hour)
            if self._files_on is None:
                self._make_file(spool)
            else:
                self._pending.append(self._files_on.submit(self._make_file, spool))

    def _make_file(self, spool: _Spool) -> None:
        try:
            spool.finish()
            self._publish(spool.path)
        finally:
            spool.close()

    def _publish(self, spool: Path) -> bool:
        """Turn a spool into its file, if it holds a row and has not become one before."""
        made = spool.with_name(spool.name.removeprefix(".").removesuffix(_SPOOL) + ".parquet")
        new = not made.exists() and _write_parquet(spool, made)
        spool.unlink(missing_ok=True)
        if new:
            self._published(made)
        return new


class _Spool:
    """The rows of one file to be, locked while their process lives."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f".{uuid4().hex}{_SPOOL}"
        self.rows, self.began_s = 0, monotonic()
        unlocked = self.path.with_suffix(_UNLOCKED)
        self._lock = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        try:
            flock(self._lock, LOCK_EX)
            unlocked.rename(self.path)
            self._file = pa.OSFile(str(self.path), "wb")
            self._stream = pa.ipc.new_stream(self._file, schema)
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def size_bytes(self) -> int:
        size: int = self._file.tell()
        return size

    def append(self, rows: pa.RecordBatch) -> None:
        """Unbuffered: the rows are the operating system's from here on."""
        self._stream.write_batch(rows)
        self.rows += rows.num_rows

    def finish(self) -> None:
        self._stream.close()
        self._file.close()

    def close(self) -> None:
        """Let go of the file and the lock."""
        if not self._file.closed:
            self._file.close()
        os.close(self._lock)


def _lock_of(path: Path) -> int | None:
    """The lock of a spool whose process has ended, or None."""
    try:
        lock = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        flock(lock, LOCK_EX | LOCK_NB)
        if path.exists():  # else another process was faster
            return lock
    except BlockingIOError:
        pass
    os.close(lock)
    return None


def _by_hour(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    hours = batch.column("time").cast(pa.int64()).to_numpy() // _HOUR_US
    found = np.unique(hours).tolist()
    if len(found) == 1:
        yield found[0], batch
        return
    for hour in found:
        yield hour, batch.filter(pa.array(hours == hour))


def _partition(hour: int) -> Path:
    began = datetime.fromtimestamp(hour * 3600, UTC)
    return Path(f"date={began:%Y-%m-%d}", f"hour={began:%H}")


def _write_parquet(spool: Path, made: Path) -> bool:
    """Write the spool's whole batches as a file that appears at once and stays; whether there were any."""
    with pa.memory_map(str(spool)) as source:
        batches = list(_whole(source))
        if not batches:
            return False
        part = spool.with_suffix(_PART)
        with part.open("wb") as file:
            _write_row_groups(batches, file)
            file.flush()
            os.fsync(file.fileno())
    part.rename(made)
    _sync_folder(made.parent)
    return True


def _write_row_groups(batches: list[pa.RecordBatch], file: object) -> None:
    held: list[pa.RecordBatch] = []
    schema = batches[0].schema
    # Numbers hardly repeat: to look for repeats in them would cost more than all the rest.
    texts = [leaf for field in schema for leaf in _text_leaves(field.type, field.name)]
    with pq.ParquetWriter(file, schema, version="2.6", compression="zstd", use_dictionary=texts) as writer:
        for place, batch in enumerate(batches, 1):
            held.append(batch)
            if place == len(batches) or sum(part.nbytes for part in held) >= _ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held))
                held.clear()


def _text_leaves(kind: pa.DataType, path: str) -> Iterator[str]:
    """The columns of text that Parquet makes of a column, by their paths."""
    if pa.types.is_map(kind):
        yield from _text_leaves(kind.key_type, f"{path}.key_value.key")
        yield from _text_leaves(kind.item_type, f"{path}.key_value.value")
    elif pa.types.is_list(kind):
        yield from _text_leaves(kind.value_type, f"{path}.list.element")
    elif pa.types.is_string(kind):
        yield path


def _whole(source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    """Batches up to the stream's end, or to where it is torn."""
    try:
        reader = pa.ipc.open_stream(source)
        while True:
            batch = reader.read_next_batch()
            batch.validate(full=True)
            yield batch
    except (StopIteration, pa.ArrowInvalid, OSError):
        return


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
