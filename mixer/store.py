"""Where a registry's bytes lie: a local folder, or any file system that fsspec knows by its URL.

A local folder renames, so whole folders and single files change in one step. An object store does not: there each file
is put whole, what must not be overwritten is created, and what was written is read back.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol


class StoreFailed(OSError):
    """The store cannot be reached or does not do what it is asked; says why in the store's own words."""


class Store(Protocol):
    """Files by their path (parts joined by `/`) under one root; every method raises OSError where it fails."""

    def read(self, path: str) -> bytes:
        """The file's bytes. Raises: FileNotFoundError."""
        ...

    def names(self, path: str) -> list[str]:
        """What lies in a folder, sorted; hidden drafts are left out, and a folder that is not there is empty."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Put a file in the place of what was there; no reader sees half of it."""
        ...

    def put(self, path: str, source: Path) -> None:
        """Put a copy of a local file there; no reader sees half of it."""
        ...

    def size(self, path: str) -> int | None:
        """The file's bytes, None where there is no such file."""
        ...

    def append(self, path: str, line: bytes) -> None:
        """Add a line to a file, which may be new."""
        ...

    def lay(self, path: str, files: Mapping[str, bytes]) -> None:
        """Write a new folder; its last file is written last. Raises: FileExistsError where other bytes lie there."""
        ...

    def alone(self, path: str) -> AbstractContextManager[None]:
        """Nobody else on this machine is in here for that folder, where the store can keep them out."""
        ...


def open_store(url: str) -> Store:
    """The store behind a path or an fsspec URL. Raises: StoreFailed where nothing can open such a URL."""
    if "://" not in url and "::" not in url:
        return LocalStore(Path(url))
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    from mixer.remote_store import RemoteStore

    try:
        system, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise StoreFailed(f"{url}: {error}") from error
    return LocalStore(Path(root)) if isinstance(system, LocalFileSystem) else RemoteStore(system, root)


def check_url(url: str) -> None:
    """Look whether something can open such a URL, without calling anybody. Raises: StoreFailed."""
    from fsspec import get_filesystem_class
    from fsspec.utils import get_protocol

    try:
        get_filesystem_class(get_protocol(url))
    except (ImportError, ValueError) as error:
        raise StoreFailed(f"{url}: {error}") from error


class LocalStore:
    """A folder of this machine's file system, or of one that is mounted."""

    def __init__(self, root: Path) -> None:
        """The folder need not be there yet."""
        self._root = root

    def read(self, path: str) -> bytes:
        """The file's bytes."""
        return (self._root / path).read_bytes()

    def names(self, path: str) -> list[str]:
        """What lies in a folder."""
        try:
            return sorted(name for name in os.listdir(self._root / path) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def replace(self, path: str, data: bytes) -> None:
        """Written beside it, then renamed."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = _draft(target)
        try:
            _write(draft, data)
            draft.rename(target)
        finally:
            draft.unlink(missing_ok=True)
        _settle(target.parent)

    def put(self, path: str, source: Path) -> None:
        """Copied beside it, then renamed."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = _draft(target)
        try:
            shutil.copyfile(source, draft)
            _sync(draft)
            draft.rename(target)
        finally:
            draft.unlink(missing_ok=True)
        _settle(target.parent)

    def size(self, path: str) -> int | None:
        """The file's bytes."""
        try:
            return (self._root / path).stat().st_size
        except FileNotFoundError:
            return None

    def append(self, path: str, line: bytes) -> None:
        """One write; a line that a crash left torn stays a line of its own."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a+b") as file:
            torn = file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            file.write((b"\n" if torn else b"") + line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lay(self, path: str, files: Mapping[str, bytes]) -> None:
        """Written under a hidden name, then renamed as a whole."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = _draft(target)
        draft.mkdir()
        try:
            for name, data in files.items():
                _write(draft / name, data)
            _settle(draft)
            draft.rename(target)
        except OSError as error:
            if target.exists():
                raise FileExistsError(f"{target} is there already") from error
            raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _settle(target.parent)

    @contextmanager
    def alone(self, path: str) -> Iterator[None]:
        """A lock on a hidden file, which ends with the process that holds it."""
        folder = self._root / path
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _draft(target: Path) -> Path:
    return target.with_name(f".{target.name}-{secrets.token_hex(6)}")


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _settle(folder: Path) -> None:
    """Make the names in a folder outlive a power cut, where its file system can."""
    with suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
