"""Indexes are published whole, or not at all, under a version that is their content's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.base import Backend, Query
from backends.build import Definition, build
from backends.index import IndexFault, open_manifest

SCHEMA = {"fields": {"title": {"type": "text"}, "kind": {"type": "keyword"}, "year": {"type": "number"}}}
LINES = ['{"id": "a", "title": "read csv", "year": 1}', '{"id": "b", "title": "write csv", "kind": ["x"]}']
KINDS = ["tantivy", "sqlite", "vectors"]
OpenRaw = Callable[[dict[str, Any]], Backend]


def definition(kind: str = "sqlite", **options: Any) -> Definition:
    return Definition.model_validate({"schema": SCHEMA, "engine": {"kind": kind, **options}})


def source(folder: Path, *lines: str) -> Path:
    path = folder / "documents.jsonl"
    path.write_text("\n".join(lines or LINES))
    return path


@pytest.mark.parametrize("kind", KINDS)
async def test_built_index_answers(tmp_path: Path, open_raw: OpenRaw, kind: str) -> None:
    """What was built can be opened and asked; answers tell its version and age."""
    report = build(definition(kind), source(tmp_path), tmp_path / "new" / "index")
    backend = open_raw({"kind": kind, "index": tmp_path / "new" / "index"})
    hits = await backend.retrieve(Query("read csv", 1), timeout_s=10.0)
    await backend.close()
    manifest = open_manifest(tmp_path / "new" / "index", kind)
    assert (report.indexed, report.bad_lines, report.published, report.version) == (
        2,
        (),
        True,
        manifest.version,
    )
    assert hits.ids == ["a"]
    assert hits.index.version.startswith(report.version)
    assert hits.index.fresh_at_s == manifest.built_at_s > 1e9


@pytest.mark.parametrize(("allowed", "published"), [(0, False), (1, False), (2, True)])
def test_bad_lines_are_the_callers_choice(tmp_path: Path, allowed: int, published: bool) -> None:
    """More bad lines than allowed publish nothing; every one is reported either way."""
    lines = source(tmp_path, LINES[0], "{", LINES[1], LINES[0])
    report = build(definition(), lines, tmp_path / "index", allowed_bad_lines=allowed)
    assert [bad.number for bad in report.bad_lines] == [2, 4]
    assert (report.indexed, report.published) == (2, published)
    assert (tmp_path / "index").exists() is published


@pytest.mark.parametrize("kind", KINDS)
def test_version_is_the_contents(tmp_path: Path, kind: str) -> None:
    """The same documents, schema and options make the same version; anything else another."""
    plain = source(tmp_path)
    version = build(definition(kind), plain, tmp_path / "index").version
    assert build(definition(kind), plain, tmp_path / "again").version == version
    changed = {
        "documents": build(definition(kind), source(tmp_path, *LINES[::-1]), tmp_path / "c").version,
        "value": build(
            definition(kind), source(tmp_path, LINES[0], LINES[1].replace("x", "y")), tmp_path / "d"
        ).version,
    }
    assert len({version, *changed.values()}) == 3
    option = {"parts": [{"fields": ["title"]}]} if kind == "vectors" else {"stemming": "english"}
    assert build(definition(kind, **option), source(tmp_path), tmp_path / "e").version != version


async def test_settings_change_the_served_version(tmp_path: Path, open_raw: OpenRaw) -> None:
    """Settings that change answers change the version answers carry; the folder's name and threads do not."""
    for name in ("one", "two"):
        build(definition(), source(tmp_path), tmp_path / name)

    async def version(**settings: Any) -> str:
        backend = open_raw({"kind": "sqlite", "index": tmp_path / "one", **settings})
        hits = await backend.retrieve(Query("csv", 1), timeout_s=10.0)
        await backend.close()
        return hits.index.version

    plain = await version()
    assert await version(index=tmp_path / "two", threads=1) == plain
    assert await version(exact=11.0) != plain


async def test_replaced_while_open(tmp_path: Path, open_raw: OpenRaw) -> None:
    """A new index takes the old one's place; who has the old one open goes on reading it."""
    folder = tmp_path / "index"
    for kind in KINDS:
        build(definition(kind), source(tmp_path), folder)
        old = open_raw({"kind": kind, "index": folder})
        build(definition(kind), source(tmp_path, LINES[0].replace("csv", "toml")), folder)
        new = open_raw({"kind": kind, "index": folder})
        assert (
            (await old.retrieve(Query("csv", 9, fields=("title",)), 10.0)).texts["title"][0].endswith("csv")
        )
        assert (await new.retrieve(Query("toml", 9, fields=("title",)), 10.0)).texts["title"] == ["read toml"]
        await old.close()
        await new.close()


def test_failed_build_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that fails leaves the old index as it was, and nothing else behind."""
    build(definition(), source(tmp_path), tmp_path / "out" / "index")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("backends.sqlite.fill", fail)
    with pytest.raises(OSError, match="disk full"):
        build(definition(), source(tmp_path, LINES[0]), tmp_path / "out" / "index")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


async def test_failed_swap_puts_the_old_index_back(
    tmp_path: Path, open_raw: OpenRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the new index cannot take the old one's place, the old one is back in it."""
    build(definition(), source(tmp_path), tmp_path / "index")
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name == "draft":
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"):
        build(definition(), source(tmp_path, LINES[0]), tmp_path / "index")
    monkeypatch.undo()
    backend = open_raw({"kind": "sqlite", "index": tmp_path / "index"})
    assert len(await backend.retrieve(Query("csv", 9), timeout_s=10.0)) == 2
    await backend.close()


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    """A folder that holds something else than an index is never replaced."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("…")
    with pytest.raises(IndexFault, match="something else"):
        build(definition(), source(tmp_path), tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "…"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sqlite", {"symbols": ["title", "nope"]}),
        ("sqlite", {"popularity": "nope"}),
        ("vectors", {"parts": [{"fields": ["nope"]}]}),
    ],
)
def test_unknown_fields_in_options(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    """Options that name a field the schema does not have for it are a fault that names it."""
    with pytest.raises(IndexFault, match="nope"):
        build(definition(kind, **options), source(tmp_path), tmp_path / "index")


def test_unknown_fields_in_settings(tmp_path: Path, open_raw: OpenRaw) -> None:
    """So are settings, when the index is opened."""
    for kind, key in (("sqlite", "words"), ("tantivy", "boosts")):
        build(definition(kind), source(tmp_path), tmp_path / kind)
        with pytest.raises(IndexFault, match=f"{key} names fields .*: nope"):
            open_raw({"kind": kind, "index": tmp_path / kind, key: {"nope": 2.0}})


def test_not_an_index(tmp_path: Path, open_raw: OpenRaw) -> None:
    """A folder that is missing, of another kind or of another format is a fault that says so."""
    with pytest.raises(IndexFault, match="no index"):
        open_raw({"kind": "sqlite", "index": tmp_path / "absent"})
    build(definition("tantivy"), source(tmp_path), tmp_path / "index")
    with pytest.raises(IndexFault, match="kind tantivy, not sqlite"):
        open_raw({"kind": "sqlite", "index": tmp_path / "index"})
    manifest = json.loads((tmp_path / "index" / "index.json").read_text())
    (tmp_path / "index" / "index.json").write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(IndexFault, match="not a manifest"):
        open_raw({"kind": "tantivy", "index": tmp_path / "index"})


@pytest.mark.parametrize("kind", ["tantivy", "sqlite"])
async def test_no_documents(tmp_path: Path, open_raw: OpenRaw, kind: str) -> None:
    """An index of nothing opens and finds nothing."""
    build(definition(kind), source(tmp_path, "\n"), tmp_path / "index")
    backend = open_raw({"kind": kind, "index": tmp_path / "index"})
    hits = await backend.retrieve(Query("csv", 10, fields=("title", "year")), timeout_s=10.0)
    await backend.close()
    assert (hits.ids, hits.fault()) == ([], None)


def test_definition_from_yaml(tmp_path: Path) -> None:
    """A definition is a YAML file with a schema and an engine."""
    text = "schema: {fields: {title: {type: text}}}\nengine: {kind: tantivy, stemming: english}\n"
    (tmp_path / "d.yaml").write_text(text)
    loaded = Definition.load(tmp_path / "d.yaml")
    assert (loaded.engine.kind, loaded.declared.names("text")) == ("tantivy", ["title"])
