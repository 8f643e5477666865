"""A registry's bytes, or a log's files, in a file system of fsspec's: object stores, servers, memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mixer.store import StoreFailed

P = ParamSpec("P")
T = TypeVar("T")

_TRIES = 5
_WHOLE_FILES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
"""Object stores, by fsspec's names: an object is there once all of it is."""


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


def _shows_whole_files_only(system: Any) -> bool:
    names = system.protocol
    return not _WHOLE_FILES.isdisjoint((names,) if isinstance(names, str) else names)


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
    def put(self, path: str, source: Path) -> None:
        """One put where the store shows nothing before its end; elsewhere beside it, then moved."""
        at = self._at(path)
        if _shows_whole_files_only(self._system):
            self._system.put_file(str(source), at)
            return
        folder, _, name = at.rpartition("/")
        draft = f"{folder}/.{name}-{secrets.token_hex(6)}"
        self._system.makedirs(folder, exist_ok=True)
        self._system.put_file(str(source), draft)
        self._system.mv(draft, at)

    @_translated
    def size(self, path: str) -> int | None:
        """The file's bytes."""
        try:
            return int(self._system.info(self._at(path))["size"])
        except FileNotFoundError:
            return None

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
