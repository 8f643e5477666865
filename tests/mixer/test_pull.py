from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from pathlib import Path

import pytest

from mixer import pull
from mixer.manifest import GOLDEN, MANIFEST, MODEL
from mixer.proof import RegistryError
from mixer.registry import Pointer, Registry
from mixer.store import open_store

NAME = "forest"


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def registry(url: str, model_folder: Path) -> Registry:
    """One version, current."""
    made = Registry(url)
    manifest, _ = made.publish(model_folder)
    made.point(NAME, manifest.version, None, "")
    return made


@pytest.fixture
def pointer(registry: Registry) -> Pointer:
    current = registry.current(NAME)
    assert current
    return current


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_current_is_pulled(
    registry: Registry, pointer: Pointer, model_folder: Path, tmp_path: Path
) -> None:
    """What serving needs, byte for byte, and no more: neither card nor judged queries reach a server."""
    folder = pull.pull(registry, NAME, pointer, tmp_path)
    assert contents(folder) == {
        name: (model_folder / name).read_bytes() for name in (MANIFEST, MODEL, GOLDEN)
    }


def test_nothing_is_fetched_twice(registry: Registry, pointer: Pointer, url: str, tmp_path: Path) -> None:
    """A version that is in the cache needs only its manifest from the registry."""
    folder = pull.pull(registry, NAME, pointer, tmp_path)
    open_store(url).replace(f"{NAME}/versions/{pointer.version}/{MODEL}", b"not read")
    assert pull.pull(registry, NAME, pointer, tmp_path) == folder


@pytest.mark.parametrize("name", [MODEL, GOLDEN, MANIFEST])
def test_what_was_spoiled_in_the_cache_is_fetched_again(
    registry: Registry, pointer: Pointer, tmp_path: Path, name: str
) -> None:
    """A folder of the cache is proven each time, not believed."""
    folder = pull.pull(registry, NAME, pointer, tmp_path)
    sound = contents(folder)
    for spoiled in (sound[name][:-10], sound[name] + b" "):
        (folder / name).write_bytes(spoiled)
        assert contents(pull.pull(registry, NAME, pointer, tmp_path)) == sound


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_a_broken_version_never_reaches_the_cache(
    registry: Registry, pointer: Pointer, url: str, tmp_path: Path, name: str, damage: str
) -> None:
    """Truncated, flipped or half-written in the registry: nothing is left behind on this machine."""
    place = f"{NAME}/versions/{pointer.version}/{name}"
    store = open_store(url)
    data = bytearray(store.read(place))
    data[50] ^= 1
    store.replace(place, bytes(data) if damage == "flipped" else store.read(place)[:-50])
    if damage == "gone":
        from fsspec.core import url_to_fs

        system, root = url_to_fs(url)
        system.rm_file(f"{root}/{place}")
    with pytest.raises(RegistryError, match="lacks a file" if damage == "gone" else f"checksum: {name}"):
        pull.pull(registry, NAME, pointer, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_pointer_s_hash_must_be_the_version_s(
    registry: Registry, pointer: Pointer, tmp_path: Path
) -> None:
    """A version that was exchanged as a whole, manifest and all, is not what was promoted."""
    with pytest.raises(RegistryError, match="not the version that the pointer names"):
        pull.pull(registry, NAME, pointer.model_copy(update={"sha256": "0" * 64}), tmp_path)


def test_the_cache_keeps_the_last_few(registry: Registry, model_folder: Path, tmp_path: Path) -> None:
    """Old versions go, the one in use and those that a rollback may want stay."""
    raw = json.loads((model_folder / MANIFEST).read_text(encoding="utf-8"))
    folders = []
    for number in range(6):
        copy = shutil.copytree(model_folder, tmp_path / f"v{number}")
        (copy / MANIFEST).write_text(json.dumps({**raw, "version": f"v{number}"}), encoding="utf-8")
        registry.publish(copy)
        pointer = registry.point(NAME, f"v{number}", registry.current(NAME), "")
        folders.append(pull.pull(registry, NAME, pointer, tmp_path / "cache"))
        os.utime(folders[-1], (number, number))
    assert [folder.exists() for folder in folders] == [False, False, True, True, True, True]


def test_the_cache_is_this_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that others could have prepared is not used."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    folder = pull.default_cache()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
    (tmp_path / "theirs").mkdir()
    folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(RegistryError, match="another user's"):
        pull.default_cache()
