"""Where a registry's bytes lie: a local folder, or any file system that fsspec knows by its URL.

A local folder renames, so whole folders and single files change in one step. An object store does not: there each file
is put whole, what must not be overwritten is created, and what was written is read back.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_TRIES = 5


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

    try:
        system, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise StoreFailed(f"{url}: {error}") from error
    return LocalStore(Path(root)) if isinstance(system, LocalFileSystem) else RemoteStore(system, root)


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
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _translated(method: Callable[P, T]) -> Callable[P, T]:
    """Whatever a store's library raises becomes an OSError; the two that mean something stay what they are."""

    @wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (FileNotFoundError, FileExistsError, StoreFailed):
            raise
        except Exception as error:
            raise StoreFailed(f"{type(error).__name__}: {error}") from error

    return called


class RemoteStore:
    """A file system of fsspec's: object stores, servers, memory."""

    def __init__(self, system: Any, root: str) -> None:
        """`system` is an `fsspec.AbstractFileSystem`, `root` a path in its own form."""
        self._system, self._root = system, root.rstrip("/")

    def _at(self, path: str) -> str:
        self._system.invalidate_cache()  # what others wrote since is what is asked for
        return f"{self._root}/{path}" if path else self._root

    @_translated
    def read(self, path: str) -> bytes:
        """The file's bytes."""
        return bytes(self._system.cat_file(self._at(path)))

    @_translated
    def names(self, path: str) -> list[str]:
        """What lies in a folder."""
        try:
            found = self._system.ls(self._at(path), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = {str(entry).rstrip("/").rpartition("/")[2] for entry in found}
        return sorted(name for name in names if name and not name.startswith("."))

    @_translated
    def replace(self, path: str, data: bytes) -> None:
        """One put."""
        self._system.pipe_file(self._at(path), data)

    @_translated
    def append(self, path: str, line: bytes) -> None:
        """All of it written anew with the line, then read back: a writer that came between makes it try again."""
        for _ in range(_TRIES):
            held = self._held(path) or b""
            self.replace(path, held + line + b"\n")
            if line + b"\n" in (self._held(path) or b""):
                return
        raise StoreFailed(f"{path}: others kept writing it; the line was lost {_TRIES} times")

    @_translated
    def lay(self, path: str, files: Mapping[str, bytes]) -> None:
        """Each file created, none overwritten; what an earlier try left is kept where it is the same."""
        for name, data in files.items():
            at = f"{path}/{name}"
            try:
                self._system.pipe_file(self._at(at), data, mode="create")
            except FileExistsError:
                if self._held(at) != data:
                    raise FileExistsError(f"{at} is there already with other bytes") from None

    def alone(self, path: str) -> AbstractContextManager[None]:
        """Nobody can be kept out: callers read back what they wrote."""
        return nullcontext()

    def _held(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except FileNotFoundError:
            return None
