from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from mixer.decision import Bounds
from mixer.manifest import JUDGED, MANIFEST, MODEL, sha256_of
from mixer.proof import RegistryError
from mixer.registry import Overtaken, Registry
from mixer.store import open_store
from models import listings, promotion
from models.promotion import Candidate, promote
from models.training import fit, write
from tests import forest

NAME = "forest"
BOUNDS = Bounds(min_queries=5, min_slice_queries=5)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def registry(url: str, model_folder: Path, tmp_path: Path) -> Registry:
    """The same model as v1 and v2, with v1 current."""
    made = Registry(url)
    for version in ("v1", "v2"):
        made.publish(called(model_folder, tmp_path / version, version))
    made.point(NAME, "v1", None, "")
    return made


def called(folder: Path, copy: Path, version: str, **changes: Any) -> Path:
    """A copy of a model folder under another version."""
    shutil.copytree(folder, copy)
    raw = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
    (copy / MANIFEST).write_text(json.dumps({**raw, "version": version, **changes}), encoding="utf-8")
    return copy


def stands(registry: Registry) -> str:
    pointer = registry.current(NAME)
    return pointer.version if pointer else ""


def test_what_passes_becomes_current(registry: Registry) -> None:
    """The decision is kept with what it was measured by, and the history says who was before."""
    decision, pointer = promote(registry, Candidate(NAME, "v2"), BOUNDS, "better")
    assert decision.passed
    assert pointer == registry.current(NAME)
    assert (stands(registry), pointer.previous if pointer else None) == ("v2", "v1")
    assert registry.decisions(NAME, "v2") == [decision]
    assert (decision.against, decision.bounds) == ("v1", BOUNDS)
    assert decision.evidence
    assert (decision.evidence.source, decision.evidence.queries) == ("current version", 8)
    assert registry.history(NAME)[-1].why == "better"


def test_what_is_refused_does_not(registry: Registry, url: str) -> None:
    """A version that was truncated in the registry is stopped by its checksum; the decision is kept, the pointer
    stays."""
    place = f"{NAME}/versions/v2/{MODEL}"
    store = open_store(url)
    store.replace(place, store.read(place)[:-500])
    decision, pointer = promote(registry, Candidate(NAME, "v2"), BOUNDS, "")
    assert (decision.passed, pointer, stands(registry)) == (False, None, "v1")
    assert [refusal.split(":")[0] for refusal in decision.refusals] == ["checksum"]
    assert registry.decisions(NAME, "v2") == [decision]
    assert (registry.history(NAME)[-1].action, registry.history(NAME)[-1].version) == ("refuse", "v2")


def test_a_version_is_not_measured_by_its_own_fault(registry: Registry, tmp_path: Path) -> None:
    """With a unit bug in its training and in its own listings alike, the current version's listings tell."""

    def scale(made: Any) -> Any:
        for listing in made:
            listing.features[:, 1] *= 100
        return made

    train, valid = scale(forest.listings(range(24))), scale(forest.listings(range(100, 108), "valid"))
    forest.written(tmp_path / "c", fit(train, valid, forest.FEATURES, forest.RECIPE))
    manifest, _ = registry.publish(tmp_path / "c")
    decision, pointer = promote(registry, Candidate(NAME, manifest.version), BOUNDS, "")
    assert pointer is None
    assert {"units", "ndcg_drop"} <= {refusal.split(":")[0] for refusal in decision.refusals}
    assert stands(registry) == "v1"


def test_listings_given_go_before_those_held(registry: Registry, tmp_path: Path) -> None:
    """They are read from the file, which the decision names by its hash."""
    file = tmp_path / "served.npz"
    listings.write(file, forest.listings(range(300, 330), "test"), forest.FEATURES, "test")
    decision, pointer = promote(registry, Candidate(NAME, "v2", judged=file), BOUNDS, "")
    assert pointer
    assert decision.evidence
    assert (decision.evidence.source, decision.evidence.queries) == (str(file), 30)
    assert decision.evidence.sha256 == sha256_of(file)


def test_the_first_is_measured_by_its_own(url: str, model_folder: Path) -> None:
    """Where nothing is current there are no other listings; the decision says whose they are."""
    registry = Registry(url)
    manifest, _ = registry.publish(model_folder)
    decision, pointer = promote(registry, Candidate(NAME, manifest.version), BOUNDS, "")
    assert pointer
    assert decision.evidence
    assert (decision.evidence.source, decision.against) == ("candidate version", None)


def test_without_listings_nothing_passes(url: str, model_folder: Path, tmp_path: Path) -> None:
    """A model without any is refused, and told what to give."""
    bare = called(model_folder, tmp_path / "bare", "bare")
    (bare / JUDGED).unlink()
    registry = Registry(url)
    registry.publish(bare)
    decision, pointer = promote(registry, Candidate(NAME, "bare"), BOUNDS, "")
    assert pointer is None
    assert decision.refusals == (
        "judged: there are no judged listings of its features to measure by: give some with --judged",
    )
    assert decision.evidence is None


def narrower(folder: Path) -> None:
    """A model of one feature less, trained on the same queries."""
    features = forest.FEATURES[:3]

    def cut(made: Any) -> Any:
        for listing in made:
            object.__setattr__(listing, "features", listing.features[:, :3])
        return made

    train, valid = cut(forest.listings(range(24))), cut(forest.listings(range(100, 108), "valid"))
    trained = fit(train, valid, features, forest.RECIPE)
    judged = tuple(ls.judged for ls in (*trained.train, *trained.valid))
    write(trained, NAME, features, promotion_data(judged), folder)


def promotion_data(judged: Any) -> Any:
    from models.judgements import Judgements

    return Judgements("made-up.jsonl", "0" * 64, judged)


def test_other_features_need_the_mix_that_has_them(registry: Registry, tmp_path: Path) -> None:
    """What is served now refuses them; with the next mix's features both are compared over their own listings of the
    same queries."""
    narrower(tmp_path / "narrow")
    manifest, _ = registry.publish(tmp_path / "narrow")
    decision, _ = promote(registry, Candidate(NAME, manifest.version), BOUNDS, "")
    assert [refusal.split(":")[0] for refusal in decision.refusals] == ["schema"]
    loose = BOUNDS.model_copy(update={"max_drop": 0.5, "max_slice_drop": 0.5})
    candidate = Candidate(NAME, manifest.version, features=forest.FEATURES[:3])
    decision, pointer = promote(registry, candidate, loose, "")
    assert pointer, decision.refusals
    assert {c.name: c.outcome for c in decision.checks}["ndcg_drop"] == "passed"
    assert decision.evidence
    assert decision.evidence.source == "candidate version"


def test_a_broken_current_version_can_be_replaced(registry: Registry, url: str) -> None:
    """There is nothing to fall behind then, and the check says why it is off."""
    open_store(url).replace(f"{NAME}/versions/v1/{MODEL}", b"tree")
    decision, pointer = promote(registry, Candidate(NAME, "v2"), BOUNDS, "")
    assert pointer
    told = {c.name: c.told for c in decision.checks}
    assert told["ndcg_drop"].startswith("the current version is broken itself (checksum")


def test_who_was_overtaken_while_the_gate_ran(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate compared with what is no longer current: nothing moves."""
    decide = promotion.decide

    def slow(registry: Registry, *rest: Any) -> Any:
        made = decide(registry, *rest)
        registry.point(NAME, "v2", registry.current(NAME), "faster")
        return made

    monkeypatch.setattr(promotion, "decide", slow)
    with pytest.raises(Overtaken):
        promote(registry, Candidate(NAME, "v2"), BOUNDS, "")
    assert [e.why for e in registry.history(NAME) if e.action == "promote"] == ["", "faster"]


def test_what_is_not_there_cannot_be_promoted(registry: Registry) -> None:
    """The versions there are, are named."""
    with pytest.raises(RegistryError, match=r"no version 'v9'.*v1"):
        promote(registry, Candidate(NAME, "v9"), BOUNDS, "")
