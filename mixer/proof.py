"""Whether the files of a version are those that its manifest names, before anything opens them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from mixer.manifest import GOLDEN, JUDGED, MANIFEST, MODEL, Manifest


class RegistryError(Exception):
    """What the registry will not do, or does not hold."""


def checked(files: Mapping[str, bytes], where: str) -> Manifest:
    """The manifest of these files, whose hashes are those that it names. Raises: RegistryError."""
    try:
        manifest = Manifest.model_validate_json(files.get(MANIFEST, b""))
    except ValidationError as error:
        raise RegistryError(
            f"{where}: {MANIFEST} is missing or makes no sense: {first_fault(error)}"
        ) from error
    beside = {JUDGED: manifest.judged_sha256} if JUDGED in files and manifest.judged_sha256 else {}
    for name, expected in {**sealed(manifest), **beside}.items():
        if name not in files:
            raise RegistryError(f"checksum: {where} lacks {name}")
        if (found := hashlib.sha256(files[name]).hexdigest()) != expected:
            raise RegistryError(
                f"checksum: {name} of {where} is not the file its manifest names: "
                f"SHA-256 {found[:12]}…, not {expected[:12]}…"
            )
    return manifest


def sealed(manifest: Manifest) -> dict[str, str]:
    """The files that serving reads beside the manifest, and the hashes that it gives them."""
    return {MODEL: manifest.model_sha256, GOLDEN: manifest.golden_sha256}


def read_folder(folder: Path) -> dict[str, bytes]:
    """The folder's files, its manifest last."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: (path.name == MANIFEST, path.name))
    except OSError as error:
        raise RegistryError(f"{folder} cannot be read: {error.strerror}") from error
    return {p.name: p.read_bytes() for p in paths if p.is_file() and not p.name.startswith(".")}


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or '(file)'}: {first['msg']}"
