from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixer.decision import Bounds, Check, Decision
from mixer.manifest import GOLDEN, MANIFEST, MODEL, sha256_of
from mixer.proof import RegistryError
from mixer.registry import Overtaken, Pointer, Registry, now
from mixer.store import open_store

NAME = "forest"


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "registry") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def registry(url: str) -> Registry:
    return Registry(url)


def spoiled(folder: Path, copy: Path, **changes: Any) -> Path:
    """A copy of a model folder whose manifest says something else."""
    shutil.copytree(folder, copy)
    raw = {**json.loads((copy / MANIFEST).read_text(encoding="utf-8")), **changes}
    (copy / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")
    return copy


@pytest.fixture
def other(model_folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes the same model under another version."""
    return lambda version: spoiled(model_folder, tmp_path / version, version=version)


@pytest.fixture
def three(registry: Registry, other: Callable[[str], Path]) -> Registry:
    """Versions v1, v2 and v3, none of them current."""
    for version in ("v1", "v2", "v3"):
        registry.publish(other(version))
    return registry


def promote(registry: Registry, version: str) -> Pointer:
    return registry.point(NAME, version, registry.current(NAME), "for a test")


def test_a_registry_begins_empty(registry: Registry) -> None:
    """Nothing has to be made before; nothing is current, and nothing has happened."""
    assert not registry.names()
    assert not registry.versions(NAME)
    assert not registry.history(NAME)
    assert registry.current(NAME) is None


def test_a_published_version_is_the_folder(registry: Registry, model_folder: Path, url: str) -> None:
    """Another who opens the registry finds every file as it was, and nothing is current by that."""
    manifest, new = registry.publish(model_folder, why="first")
    again = Registry(url)
    assert (new, again.names(), again.versions(NAME)) == (True, [NAME], [manifest])
    held = again.files(NAME, manifest.version)
    assert held == {path.name: path.read_bytes() for path in model_folder.iterdir()}
    assert again.current(NAME) is None
    assert [(e.action, e.version, e.why) for e in again.history(NAME)] == [
        ("publish", manifest.version, "first")
    ]


def test_publishing_again_changes_nothing(registry: Registry, model_folder: Path, tmp_path: Path) -> None:
    """The same model, even trained at another time, is the version that is there already."""
    manifest, _ = registry.publish(model_folder)
    later = spoiled(model_folder, tmp_path / "later", created_at_s=manifest.created_at_s + 60)
    assert registry.publish(model_folder) == (manifest, False)
    assert registry.publish(later) == (manifest, False)
    assert len(registry.history(NAME)) == 1


def test_a_version_never_changes(registry: Registry, model_folder: Path, tmp_path: Path) -> None:
    """Another model cannot have the version of one that is there, and what is there stays."""
    manifest, _ = registry.publish(model_folder)
    before = registry.files(NAME, manifest.version)
    forged = shutil.copytree(model_folder, tmp_path / "forged")
    with (forged / MODEL).open("a", encoding="utf-8") as file:
        file.write("\n")
    spoiled(forged, tmp_path / "other", model_sha256=sha256_of(forged / MODEL))
    with pytest.raises(RegistryError, match="another model already"):
        registry.publish(tmp_path / "other")
    assert registry.files(NAME, manifest.version) == before


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_truncated_file_is_not_published(
    registry: Registry, model_folder: Path, tmp_path: Path, name: str
) -> None:
    """Files that are not those of the manifest never enter; the refusal names the file."""
    cut = shutil.copytree(model_folder, tmp_path / "cut")
    (cut / name).write_bytes((cut / name).read_bytes()[:-100])
    with pytest.raises(RegistryError, match=f"checksum: {name}"):
        registry.publish(cut)
    (cut / name).unlink()
    with pytest.raises(RegistryError, match=f"lacks {name}"):
        registry.publish(cut)
    assert registry.names() == []


def test_what_is_no_model_folder_is_not_published(registry: Registry, tmp_path: Path) -> None:
    """A folder without a manifest, and one that is not there."""
    with pytest.raises(RegistryError, match=r"manifest\.json is missing"):
        registry.publish(tmp_path)
    with pytest.raises(RegistryError, match="cannot be read"):
        registry.publish(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "x" * 65, "[bold]"])
def test_names_stay_within_the_registry(registry: Registry, model_folder: Path, name: str) -> None:
    """No name or version reaches out of its folder."""
    with pytest.raises(RegistryError, match="cannot name"):
        registry.versions(name)
    with pytest.raises(RegistryError, match="cannot name"):
        registry.files(NAME, name)
    if name:
        with pytest.raises(RegistryError, match="cannot name"):
            registry.publish(model_folder, name)


def test_half_written_versions_are_none(registry: Registry, model_folder: Path, url: str) -> None:
    """A version without its manifest, or with half of it, is not listed and cannot become current."""
    store = open_store(url)
    store.replace(f"{NAME}/versions/half/{MODEL}", (model_folder / MODEL).read_bytes())
    store.replace(f"{NAME}/versions/torn/{MANIFEST}", (model_folder / MANIFEST).read_bytes()[:200])
    registry.publish(model_folder)
    assert len(registry.versions(NAME)) == 1
    for version in ("half", "torn"):
        with pytest.raises(RegistryError):
            registry.manifest(NAME, version)
        with pytest.raises(RegistryError):
            promote(registry, version)
    assert registry.current(NAME) is None


def test_a_publication_that_broke_off_is_finished(registry: Registry, model_folder: Path, url: str) -> None:
    """What an earlier try left on a store without renames does not stand in the way of the same files."""
    if "memory" not in url:
        return
    version = json.loads((model_folder / MANIFEST).read_text(encoding="utf-8"))["version"]
    open_store(url).replace(f"{NAME}/versions/{version}/{MODEL}", (model_folder / MODEL).read_bytes())
    assert registry.publish(model_folder)[1]
    open_store(url).replace(f"{NAME}-2/versions/{version}/{MODEL}", b"half")
    with pytest.raises(RegistryError, match="half-written"):
        registry.publish(model_folder, f"{NAME}-2")


def test_the_pointer_s_form(three: Registry, url: str) -> None:
    """Five keys that others read: the version, its hash, the one before, when, why."""
    promote(three, "v1")
    promote(three, "v2")
    raw = json.loads(open_store(url).read(f"{NAME}/current.json"))
    assert list(raw) == ["version", "sha256", "previous", "changed_at", "why"]
    assert (raw["version"], raw["previous"], raw["why"]) == ("v2", "v1", "for a test")
    assert raw["sha256"] == three.manifest(NAME, "v2").model_sha256
    assert raw["changed_at"].endswith("Z")


def test_a_pointer_that_makes_no_sense_is_said_to(three: Registry, url: str) -> None:
    """It is not taken for an empty registry."""
    open_store(url).replace(f"{NAME}/current.json", b"{")
    with pytest.raises(RegistryError, match="no pointer"):
        three.current(NAME)


def test_a_broken_version_cannot_become_current(three: Registry, url: str) -> None:
    """Its files are read and hashed before the pointer moves."""
    promote(three, "v1")
    data = bytearray(three.files(NAME, "v2", (MODEL,))[MODEL])
    data[100] ^= 1
    open_store(url).replace(f"{NAME}/versions/v2/{MODEL}", bytes(data))
    with pytest.raises(RegistryError, match="checksum"):
        promote(three, "v2")
    assert three.current(NAME).version == "v1"  # type: ignore[union-attr]


def test_who_comes_second_is_told(three: Registry) -> None:
    """The pointer moves only from where its mover saw it."""
    seen = promote(three, "v1")
    promote(three, "v2")
    with pytest.raises(Overtaken, match="v2 is current where v1 was"):
        three.point(NAME, "v3", seen, "late")
    with pytest.raises(Overtaken, match="v2 is current where nothing was"):
        three.point(NAME, "v3", None, "late")
    assert three.current(NAME).version == "v2"  # type: ignore[union-attr]


def test_one_of_many_at_once_wins(three: Registry, url: str) -> None:
    """Of those who saw the same pointer one moves it, on a store that can keep the others out."""
    if "memory" in url:
        return
    seen, won, lost = promote(three, "v1"), [], []

    def move(version: str) -> None:
        try:
            won.append(Registry(url).point(NAME, version, seen, ""))
        except Overtaken:
            lost.append(version)

    movers = [threading.Thread(target=move, args=(version,)) for version in ("v2", "v3") * 4]
    for mover in movers:
        mover.start()
    for mover in movers:
        mover.join()
    assert (len(won), len(lost)) == (1, 7)
    assert three.current(NAME) == won[0]
    assert [e.version for e in three.history(NAME) if e.action == "promote"] == ["v1", won[0].version]


def test_a_writer_that_was_overwritten_is_told(
    three: Registry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written is read back: who finds another's pointer there does not believe that it moved."""
    theirs = Pointer(version="v3", sha256="0", changed_at=now())
    store: Any = three._store
    replace = store.replace

    def race(path: str, data: bytes) -> None:
        replace(path, theirs.model_dump_json().encode())

    monkeypatch.setattr(store, "replace", race)
    with pytest.raises(Overtaken, match="v3 is current"):
        promote(three, "v1")
    assert not [e for e in three.history(NAME) if e.action == "promote"]


def test_rollback_walks_back(three: Registry) -> None:
    """Each goes one further, never forth to what was left; at the first there is no further."""
    for version in ("v1", "v2", "v3"):
        promote(three, version)
    assert three.rollback(NAME, "bad")[1].version == "v2"
    was, is_ = three.rollback(NAME, "bad too")
    assert (was.version, is_.version, is_.previous) == ("v2", "v1", None)
    with pytest.raises(RegistryError, match="first version"):
        three.rollback(NAME, "more")
    promote(three, "v3")
    assert three.rollback(NAME, "again")[1].version == "v1"
    actions = [(e.action, e.version) for e in three.history(NAME) if e.action != "publish"]
    assert actions == [
        *(("promote", version) for version in ("v1", "v2", "v3")),
        *(("rollback", version) for version in ("v2", "v1")),
        ("promote", "v3"),
        ("rollback", "v1"),
    ]


def test_rollback_to_what_once_was(three: Registry) -> None:
    """A named version must have been current: the others have passed no gate."""
    for version in ("v1", "v2"):
        promote(three, version)
    with pytest.raises(RegistryError, match="never current"):
        three.rollback(NAME, "", to="v3")
    assert three.rollback(NAME, "", to="v1")[1].version == "v1"


def test_rollback_from_nothing(three: Registry) -> None:
    """Where nothing is current there is nothing to go back from."""
    with pytest.raises(RegistryError, match="no current version"):
        three.rollback(NAME, "")


def test_a_torn_history_costs_a_line(three: Registry, url: str) -> None:
    """The rest of it is read."""
    open_store(url).append(f"{NAME}/history.jsonl", b'{"action": "prom')
    promote(three, "v1")
    assert [e.action for e in three.history(NAME)] == ["publish"] * 3 + ["promote"]


def decision(version: str, outcome: Any, figure: float) -> Decision:
    check = Check(name="ndcg_floor", outcome=outcome, told=f"NDCG is {figure}", figure=figure, bound=0.3)
    return Decision(
        name=NAME,
        version=version,
        sha256="0",
        against=None,
        decided_at=now(),
        by="me",
        evidence=None,
        bounds=Bounds(),
        checks=(check,),
    )


def test_decisions_are_kept_in_order(three: Registry) -> None:
    """Each stays, beside the version; a refusal is in the history with its figures."""
    made = [decision("v1", "failed", 0.1), decision("v1", "passed", 0.4)]
    for one in made:
        three.decide(one)
    assert three.decisions(NAME, "v1") == made
    assert [one.passed for one in made] == [False, True]
    assert [(e.version, e.why) for e in three.history(NAME) if e.action == "refuse"] == [
        ("v1", "ndcg_floor: NDCG is 0.1")
    ]
    assert three.decisions(NAME, "v2") == []
    assert set(three.files(NAME, "v1")) == set(three.files(NAME, "v2"))
