"""Brings a registry's version into a folder of this machine, whole and proven, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from mixer.manifest import GOLDEN, MANIFEST, MODEL
from mixer.proof import RegistryError, checked
from mixer.registry import Pointer, Registry

_KEPT = 4
"""Versions that stay in the cache: the one in use, and those that a rollback may want at once."""


def pull(registry: Registry, name: str, pointer: Pointer, cache: Path | None = None) -> Path:
    """A folder of the cache with the version's manifest, model and golden queries, its hashes checked.

    What is in the cache is checked anew, and fetched again where it does not hold. Raises: RegistryError where the
    registry's files are not those of manifest and pointer; OSError.
    """
    shelf = (cache or default_cache()) / name
    sealed = registry.files(name, pointer.version, (MANIFEST,))[MANIFEST]
    kept = shelf / hashlib.sha256(sealed).hexdigest()
    if not _holds(kept, sealed, pointer):
        _fetch(registry, name, pointer, kept)
    os.utime(kept)
    _prune(shelf, kept)
    return kept


def default_cache() -> Path:
    """A folder of this user's for temporary files. Raises: RegistryError where another user's is in its place."""
    folder = Path(tempfile.gettempdir()) / f"mixer-models-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise RegistryError(f"{folder} is another user's: name a cache folder in the settings")
    return folder


def _fetch(registry: Registry, name: str, pointer: Pointer, kept: Path) -> None:
    files = registry.files(name, pointer.version, (MANIFEST, MODEL, GOLDEN))
    _agree(files, pointer, f"{name} {pointer.version} in {registry.url}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".", dir=kept.parent))
    try:
        for file, data in files.items():
            (draft / file).write_bytes(data)
        if kept.exists() and not _holds(kept, files[MANIFEST], pointer):
            shutil.rmtree(kept, ignore_errors=True)
        if not kept.exists():
            _settle(draft, kept)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _settle(draft: Path, kept: Path) -> None:
    """Another process of this machine may have been faster: then its folder stands."""
    try:
        draft.rename(kept)
    except OSError:
        if not kept.exists():
            raise


def _holds(kept: Path, sealed: bytes, pointer: Pointer) -> bool:
    try:
        files = {name: (kept / name).read_bytes() for name in (MANIFEST, MODEL, GOLDEN)}
        _agree(files, pointer, str(kept))
    except (OSError, RegistryError):
        return False
    return files[MANIFEST] == sealed


def _agree(files: dict[str, bytes], pointer: Pointer, where: str) -> None:
    manifest = checked(files, where)
    if (manifest.version, manifest.model_sha256) != (pointer.version, pointer.sha256):
        raise RegistryError(f"checksum: {where} is not the version that the pointer names")


def _prune(shelf: Path, kept: Path) -> None:
    def age(folder: Path) -> float:
        try:
            return -folder.stat().st_mtime
        except OSError:
            return 0.0

    folders = sorted((f for f in shelf.iterdir() if not f.name.startswith(".") and f != kept), key=age)
    for folder in folders[_KEPT - 1 :]:
        shutil.rmtree(folder, ignore_errors=True)
