"""A registry of models: immutable versions, and one pointer a model that says which of them is current.

    <root>/<name>/versions/<version>/   manifest.json, model.txt, golden.json, card.md, judged.npz …, never changed
    <root>/<name>/current.json          {version, sha256, previous, changed_at, why}; replaced, never written into
    <root>/<name>/history.jsonl         one event a line, appended: publish, promote, refuse, rollback
    <root>/<name>/decisions/<version>/  <time>.gate.json: what the gate decided, and by which figures

A version's manifest is the last of its files to be written: without a manifest there is no version.
"""

from __future__ import annotations

import getpass
import re
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mixer.decision import Decision
from mixer.manifest import GOLDEN, MANIFEST, MODEL, Manifest
from mixer.proof import RegistryError, checked, first_fault, read_folder, sealed
from mixer.store import open_store

CURRENT, HISTORY = "current.json", "history.jsonl"
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")

Action = Literal["publish", "promote", "refuse", "rollback"]


class Overtaken(RegistryError):
    """Somebody else moved the pointer meanwhile."""


class Pointer(BaseModel):
    """current.json; `sha256` is that of the version's model file, `changed_at` UTC in ISO 8601."""

    model_config = ConfigDict(frozen=True)

    version: str
    sha256: str
    previous: str | None = None
    """What `rollback` goes back to."""
    changed_at: str
    why: str = ""


class Event(BaseModel):
    """A line of history.jsonl."""

    model_config = ConfigDict(frozen=True)

    action: Action
    version: str
    sha256: str
    previous: str | None = None
    changed_at: str
    why: str = ""
    by: str = ""


class Registry:
    """The models under one root, a path or an fsspec URL. Every method raises OSError where the store fails."""

    def __init__(self, url: str) -> None:
        """Opens nothing yet. Raises: StoreFailed where nothing can open such a URL."""
        self.url, self._store = url, open_store(url)

    def names(self) -> list[str]:
        """The models it holds."""
        return [name for name in self._store.names("") if _NAME.fullmatch(name)]

    def versions(self, name: str) -> list[Manifest]:
        """The whole versions of a model, the newest first; what is half-written is none."""
        places = self._store.names(f"{_sound(name)}/versions")
        found = [self._find(name, version) for version in places if _NAME.fullmatch(version)]
        return sorted((m for m in found if m), key=lambda manifest: -manifest.created_at_s)

    def manifest(self, name: str, version: str) -> Manifest:
        """A version's manifest. Raises: RegistryError where there is no such whole version."""
        if found := self._find(_sound(name), _sound(version)):
            return found
        held = ", ".join(manifest.version for manifest in self.versions(name)) or "none"
        raise RegistryError(f"{name} has no version {version!r} in {self.url}; there are: {held}")

    def current(self, name: str) -> Pointer | None:
        """What is current; None where nothing was ever promoted. Raises: RegistryError where it makes no sense."""
        try:
            return Pointer.model_validate_json(self._store.read(f"{_sound(name)}/{CURRENT}"))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise RegistryError(f"{self.url}/{name}/{CURRENT} is no pointer: {first_fault(error)}") from error

    def pointer_to(self, name: str, version: str) -> Pointer:
        """A pointer to a version, current or not. Raises: RegistryError where there is no such whole version."""
        held = self.manifest(name, version)
        return Pointer(version=held.version, sha256=held.model_sha256, changed_at=now())

    def history(self, name: str) -> list[Event]:
        """All that happened to a model, in order; a torn line is passed over."""
        try:
            lines = self._store.read(f"{_sound(name)}/{HISTORY}").splitlines()
        except FileNotFoundError:
            return []
        return [event for line in lines if (event := _event(line))]

    def decisions(self, name: str, version: str) -> list[Decision]:
        """What the gate decided of a version, in order."""
        folder = f"{_sound(name)}/decisions/{_sound(version)}"
        return [
            Decision.model_validate_json(self._store.read(f"{folder}/{file}"))
            for file in self._store.names(folder)
        ]

    def publish(self, folder: Path, name: str = "", why: str = "") -> tuple[Manifest, bool]:
        """Add a model folder as a version; whether it was new. The same model again changes nothing.

        Raises: RegistryError where its files are not those of its manifest, or another model has its version.
        """
        files = read_folder(folder)
        manifest = checked(files, str(folder))
        name = _sound(name or manifest.name)
        if held := self._find(name, manifest.version):
            return _same(held, manifest, name), False
        try:
            self._store.lay(f"{name}/versions/{manifest.version}", files)
        except FileExistsError as error:
            if held := self._find(name, manifest.version):
                return _same(held, manifest, name), False
            raise RegistryError(
                f"what another publication left half-written is in the way: {error}"
            ) from error
        checked(self.files(name, manifest.version), f"{self.url}/{name}")
        self._log(name, Event(action="publish", **_of(manifest), changed_at=now(), why=why, by=by()))
        return manifest, True

    def files(self, name: str, version: str, only: tuple[str, ...] = ()) -> dict[str, bytes]:
        """The files of a version, or `only` these, as they lie there, unchecked. Raises: RegistryError."""
        folder = f"{_sound(name)}/versions/{_sound(version)}"
        try:
            return {file: self._store.read(f"{folder}/{file}") for file in only or self._store.names(folder)}
        except FileNotFoundError as error:
            raise RegistryError(f"version {version} of {name} in {self.url} lacks a file: {error}") from error

    def point(
        self, name: str, version: str, expected: Pointer | None, why: str, action: Action = "promote"
    ) -> Pointer:
        """Make a version current, if what was expected to be current still is.

        Raises: Overtaken; RegistryError where the version is not whole.
        """
        previous = expected.version if expected else None
        return self._move(name, version, expected, previous, why, action)

    def rollback(self, name: str, why: str, to: str = "") -> tuple[Pointer, Pointer]:
        """Go back to the version before, or to one that was current once; what was, and what is. No gate runs.

        Raises: RegistryError where there is none to go back to; Overtaken.
        """
        was = self.current(name)
        if not was:
            raise RegistryError(f"{name} has no current version in {self.url}: nothing to roll back")
        target = to or was.previous
        if not target:
            raise RegistryError(
                f"{was.version} is the first version of {name} that was current: name one with --to"
            )
        before = [
            e for e in self.history(name) if e.action in ("promote", "rollback") and e.version == target
        ]
        if to and not before:
            raise RegistryError(f"{to} was never current: promote it, which runs the gate")
        previous = before[-1].previous if before else None
        return was, self._move(name, target, was, previous, why, "rollback")

    def decide(self, decision: Decision) -> None:
        """Keep what the gate decided; a refusal becomes an event too."""
        stamp = re.sub(r"[-:]", "", decision.decided_at)
        text = decision.model_dump_json(indent=1) + "\n"
        self._store.replace(f"{decision.name}/decisions/{decision.version}/{stamp}.gate.json", text.encode())
        if not decision.passed:
            refused = Event(
                action="refuse",
                version=decision.version,
                sha256=decision.sha256,
                previous=decision.against,
                changed_at=decision.decided_at,
                why="; ".join(decision.refusals),
                by=decision.by,
            )
            self._log(decision.name, refused)

    def _move(
        self,
        name: str,
        version: str,
        expected: Pointer | None,
        previous: str | None,
        why: str,
        action: Action,
    ) -> Pointer:
        of = _of(checked(self.files(name, version, (MANIFEST, MODEL, GOLDEN)), f"{name} {version}"))
        with self._store.alone(name):
            self._expect(name, expected)
            pointer = Pointer(**of, previous=previous, changed_at=now(), why=why)
            self._store.replace(f"{name}/{CURRENT}", (pointer.model_dump_json(indent=1) + "\n").encode())
            self._expect(name, pointer)
            self._log(name, Event(action=action, by=by(), **pointer.model_dump()))
        return pointer

    def _expect(self, name: str, pointer: Pointer | None) -> None:
        if (found := self.current(name)) != pointer:
            stands, stood = (p.version if p else "nothing" for p in (found, pointer))
            raise Overtaken(
                f"somebody else moved {name}: {stands} is current where {stood} was; look, and run it again"
            )

    def _find(self, name: str, version: str) -> Manifest | None:
        try:
            return Manifest.model_validate_json(self._store.read(f"{name}/versions/{version}/{MANIFEST}"))
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return None

    def _log(self, name: str, event: Event) -> None:
        self._store.append(f"{name}/{HISTORY}", event.model_dump_json().encode())


def now() -> str:
    """The time, UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def by() -> str:
    """Who does it: user and machine, as far as they are known."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user need not have a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _same(held: Manifest, ours: Manifest, name: str) -> Manifest:
    """What is held, where it is the same model. Raises: RegistryError."""
    if (sealed(held), held.schema_sha256) != (sealed(ours), ours.schema_sha256):
        raise RegistryError(
            f"version {ours.version} of {name} is another model already; a version never changes"
        )
    return held


def _of(manifest: Manifest) -> dict[str, str]:
    return {"version": manifest.version, "sha256": manifest.model_sha256}


def _sound(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RegistryError(
            f"{name!r} cannot name a model or version: letters, digits, '.', '_' and '-', at most 64"
        )
    return name


def _event(line: bytes) -> Event | None:
    try:
        return Event.model_validate_json(line)
    except ValidationError:
        return None
