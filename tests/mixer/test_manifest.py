from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mixer.manifest import GOLDEN, MANIFEST, MODEL, Golden, Manifest, sha256_of
from mixer.schema import schema_hash
from tests import forest


@pytest.fixture
def raw(model_folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((model_folder / MANIFEST).read_text(encoding="utf-8"))
    return made


def test_a_file_s_hash_is_of_its_bytes(tmp_path: Path) -> None:
    """SHA-256, in hex, of every byte."""
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    assert sha256_of(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_manifest_survives_its_file(raw: dict[str, Any]) -> None:
    """Written and read again it is the same, floats to the last bit."""
    manifest = Manifest.model_validate(raw)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_a_manifest_is_of_its_folder(raw: dict[str, Any], model_folder: Path) -> None:
    """The hashes are those of the files beside it, the features those trained on, the version the content's."""
    manifest = Manifest.model_validate(raw)
    assert manifest.model_sha256 == sha256_of(model_folder / MODEL)
    assert manifest.golden_sha256 == sha256_of(model_folder / GOLDEN)
    assert manifest.features == forest.FEATURES
    assert manifest.schema_sha256 == schema_hash(forest.FEATURES)
    assert manifest.model_sha256.startswith(manifest.version)


def _unknown(raw: dict[str, Any]) -> None:
    raw["accuracy"] = 1


def _missing(raw: dict[str, Any]) -> None:
    del raw["model_sha256"]


def _future(raw: dict[str, Any]) -> None:
    raw["format"] = 2


def _path(raw: dict[str, Any]) -> None:
    raw["version"] = "../1"


def _feature(raw: dict[str, Any]) -> None:
    raw["features"][0]["source"] = "oracle"


@pytest.mark.parametrize("spoil", [_unknown, _missing, _future, _path, _feature])
def test_another_form_is_refused(raw: dict[str, Any], spoil: Callable[[dict[str, Any]], None]) -> None:
    """An unknown key, a missing one, another format, a version that is no name, a feature of no known source."""
    spoil(raw)
    with pytest.raises(ValidationError):
        Manifest.model_validate(raw)


def test_golden_rows_keep_what_is_missing(model_folder: Path) -> None:
    """Missing values are null in the file and None when read: never a number."""
    golden = Golden.model_validate_json((model_folder / GOLDEN).read_bytes())
    values = [value for query in golden.queries for row in query.features for value in row]
    assert None in values
    assert all(len(query.ids) == len(query.features) == len(query.scores) for query in golden.queries)


def test_a_manifest_from_before_the_scorer_was_told_is_read(raw: dict[str, Any]) -> None:
    """Models that were trained earlier load all the same; who scores is found out at load."""
    del raw["scorer"]
    assert Manifest.model_validate(raw).scorer == ""
