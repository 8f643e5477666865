"""Promotion: a version passes the gate and becomes current, or is refused; either way the decision is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mixer import model
from mixer.decision import Bounds, Decision, Evidence
from mixer.manifest import JUDGED, Manifest
from mixer.registry import Pointer, Registry, by, now
from mixer.schema import Feature
from mixer.slices import Slices
from models import gate, listings
from models.listings import Held, ListingsError
from models.measured import Measured, Peer
from models.slicing import BY_LENGTH


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that is to become current; `features` of the mix that will serve it, None to believe its manifest.

    `slices` are those that the mix declares, None for the lengths of queries.
    """

    name: str
    version: str
    features: tuple[Feature, ...] | None = None
    slices: Slices | None = None
    judged: Path | None = None
    """Judged listings to measure by; where not given, those of the current version, or its own."""


def promote(
    registry: Registry, candidate: Candidate, bounds: Bounds, why: str
) -> tuple[Decision, Pointer | None]:
    """Run the gate and move the pointer if it passed; None where it did not move. Takes seconds.

    Raises: RegistryError where there is no such version, or somebody else moved the pointer meanwhile; OSError;
    ListingsError where the judged listings given cannot be read.
    """
    was = registry.current(candidate.name)
    decision = decide(registry, candidate, was, bounds)
    registry.decide(decision)
    if not decision.passed:
        return decision, None
    return decision, registry.point(candidate.name, candidate.version, was, why)


def decide(registry: Registry, candidate: Candidate, was: Pointer | None, bounds: Bounds) -> Decision:
    """What the gate says of a candidate against what is current; changes nothing. Raises: as `promote`."""
    manifest = registry.manifest(candidate.name, candidate.version)
    with TemporaryDirectory(prefix="mixer-gate-") as scratch:
        ours = _laid(registry, candidate.name, candidate.version, Path(scratch) / "candidate")
        theirs = _laid(registry, candidate.name, was.version, Path(scratch) / "current") if was else None
        held = _held(candidate, manifest, (theirs, ours))
        peer = _peer(theirs, held)
        schema = _schema(candidate, theirs)
        checks = gate.judge(ours, held, peer, schema, bounds, candidate.slices or BY_LENGTH)
    return Decision(
        name=candidate.name,
        version=candidate.version,
        sha256=manifest.model_sha256,
        against=was.version if was else None,
        decided_at=now(),
        by=by(),
        evidence=_evidence(held) if isinstance(held, Held) else None,
        bounds=bounds,
        checks=checks,
    )


def _laid(registry: Registry, name: str, version: str, folder: Path) -> Path:
    """A version's files as they lie in the registry: whether they are sound is for the gate to say."""
    folder.mkdir()
    for file, data in registry.files(name, version).items():
        (folder / file).write_bytes(data)
    return folder


def _held(candidate: Candidate, manifest: Manifest, folders: Sequence[Path | None]) -> Held | str:
    """Listings of the candidate's features, preferably not its own: a fault of its training would be in them too."""
    if candidate.judged:
        return listings.read(candidate.judged)
    for folder in folders:
        try:
            found = listings.read(folder / JUDGED) if folder else None
        except (OSError, ListingsError):
            continue
        if found and found.schema_sha256 == manifest.schema_sha256:
            return found
    return "there are no judged listings of its features to measure by: give some with --judged"


def _peer(folder: Path | None, held: Held | str) -> Peer:
    """The current version over the same listings, or over its own where its features are others."""
    if folder is None:
        return Peer()
    try:
        loaded = model.load(folder, model.read_manifest(folder).features)
        same = isinstance(held, Held) and held.schema_sha256 == loaded.manifest.schema_sha256
        return Peer(
            Measured(loaded, held if same and isinstance(held, Held) else listings.read(folder / JUDGED))
        )
    except model.ModelRefused as refusal:
        return Peer(why_not=f"the current version is broken itself ({refusal.check}: {refusal})")
    except (OSError, ListingsError) as error:
        return Peer(
            why_not=f"the current version has other features and no judged listings of its own ({error})"
        )


def _schema(candidate: Candidate, theirs: Path | None) -> tuple[Feature, ...] | None:
    """The features to hold the candidate to: the mix's, or what is served now."""
    if candidate.features is not None or theirs is None:
        return candidate.features
    try:
        return model.read_manifest(theirs).features
    except model.ModelRefused:
        return None


def _evidence(held: Held) -> Evidence:
    source = Path(held.source)
    name = f"{source.parent.name} version" if source.name == JUDGED else held.source
    return Evidence(source=name, sha256=held.sha256, split=held.split, queries=len(held.listings))
