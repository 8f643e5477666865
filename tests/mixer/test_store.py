from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mixer.remote_store import RemoteStore
from mixer.store import LocalStore, Store, StoreFailed, open_store

Open = Callable[[], Store]


@pytest.fixture(params=["folder", "file url", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {
        "folder": str(tmp_path / "root"),
        "file url": f"file://{tmp_path}/root",
        "memory": f"memory://{uuid.uuid4().hex}",
    }[request.param]


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


def test_a_path_or_a_file_url_is_a_folder(tmp_path: Path) -> None:
    """What lies on this machine is renamed into place; everything else is put."""
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert isinstance(open_store(f"file://{tmp_path}"), LocalStore)
    assert isinstance(open_store("memory://x"), RemoteStore)


def test_what_nothing_can_open_is_said() -> None:
    """A URL of no known kind fails at once, and its name is in the message."""
    with pytest.raises(StoreFailed, match=r"nonsense://x"):
        open_store("nonsense://x")


def test_what_is_not_there(store: Store) -> None:
    """A file is missing by its own name; a folder is empty."""
    with pytest.raises(FileNotFoundError):
        store.read("a/b")
    assert store.names("") == store.names("a") == []


def test_a_file_is_replaced_whole(store: Store, url: str) -> None:
    """Another who opens the same place reads the last one, and nothing but it lies there."""
    for data in (b"long" * 100, b"short"):
        store.replace("a/pointer", data)
        assert open_store(url).read("a/pointer") == data
    assert store.names("a") == ["pointer"]


def test_lines_are_appended(store: Store) -> None:
    """Each is a line of its own, in order."""
    for number in range(3):
        store.append("a/log", f"line {number}".encode())
    assert store.read("a/log") == b"line 0\nline 1\nline 2\n"


def test_a_folder_is_laid_once(store: Store) -> None:
    """All its files are there; other bytes in its place are refused and what was there stays."""
    store.lay("a/v1", {"one": b"1", "last": b"2"})
    assert store.names("a/v1") == ["last", "one"]
    with pytest.raises(FileExistsError):
        store.lay("a/v1", {"one": b"other", "last": b"2"})
    assert store.read("a/v1/one") == b"1"
    assert store.names("a") == ["v1"]


def test_alone_lets_one_in_after_the_other(store: Store) -> None:
    """What is written in there is there when it is left."""
    with store.alone("a"):
        store.replace("a/x", b"1")
    with store.alone("a"):
        assert store.read("a/x") == b"1"


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    """A line that a crash left without its end is not continued by the next."""
    (tmp_path / "log").write_bytes(b"whole\ntorn")
    LocalStore(tmp_path).append("log", b"next")
    assert (tmp_path / "log").read_bytes() == b"whole\ntorn\nnext\n"


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up midway leaves the old file, and neither drafts nor half a folder."""
    store = LocalStore(tmp_path)
    store.replace("pointer", b"old")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        store.replace("pointer", b"new")
    with pytest.raises(OSError, match="disk full"):
        store.lay("v1", {"a": b"1", "b": b"2"})
    assert os.listdir(tmp_path) == ["pointer"]
    assert store.read("pointer") == b"old"


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    """While one writes, others read the old or the new bytes, nothing between."""
    store, sizes, done = LocalStore(tmp_path), set(), threading.Event()
    store.replace("pointer", b"a" * 100_000)

    def write() -> None:
        for number in range(100):
            store.replace("pointer", (b"a", b"bb")[number % 2] * 100_000)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        sizes.add(len(store.read("pointer")))
    writer.join()
    assert sizes <= {100_000, 200_000}


def test_two_of_one_machine_are_not_in_at_once(tmp_path: Path) -> None:
    """The second waits until the first has left."""
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with LocalStore(tmp_path).alone("a"):
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with LocalStore(tmp_path).alone("a"):
        inside.set()
        other.join(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_an_earlier_try_is_gone_on_with(url: str) -> None:
    """On a store without renames, what a broken publication left is kept where it is the same."""
    store = open_store(url)
    if isinstance(store, LocalStore):
        return
    store.replace("v1/one", b"1")
    store.lay("v1", {"one": b"1", "last": b"2"})
    assert store.names("v1") == ["last", "one"]


def test_a_lost_line_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another writer overwrites the file between write and read, the line is added once more."""
    store = RemoteStore(fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}")
    replace = store.replace
    raced: list[str] = []

    def race(path: str, data: bytes) -> None:
        replace(path, b"theirs\n" if not raced else data)
        raced.append(path)

    monkeypatch.setattr(store, "replace", race)
    store.append("log", b"ours")
    assert store.read("log") == b"theirs\nours\n"


def test_what_a_library_raises_becomes_an_os_error() -> None:
    """Callers need to know one family of errors, and the message keeps the library's own words."""

    class Broken:
        def invalidate_cache(self) -> None: ...

        def cat_file(self, path: str) -> Any:
            raise RuntimeError("no credentials")

    with pytest.raises(StoreFailed, match="RuntimeError: no credentials"):
        RemoteStore(Broken(), "bucket").read("x")
