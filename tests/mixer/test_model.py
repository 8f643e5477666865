from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from mixer import model
from mixer.forest import Forest
from mixer.manifest import GOLDEN, MANIFEST, MODEL, Golden, sha256_of
from mixer.model import ModelRefused
from mixer.rank import ScoringFailed
from mixer.schema import Feature, schema_hash
from mixer.trees import Unsupported
from tests import forest


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A model folder that the test may spoil."""
    copied = tmp_path / "forest"
    shutil.copytree(model_folder, copied)
    return copied


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> model.LightGbmModel:
    return model.load(model_folder, forest.FEATURES)


def refused(folder: Path, features: Sequence[Feature] = forest.FEATURES) -> ModelRefused:
    with pytest.raises(ModelRefused) as refusal:
        model.load(folder, features)
    return refusal.value


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest."""
    raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(raw)
    (folder / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")


def forge(folder: Path) -> None:
    """Make the manifest's checksums fit the files, as one who means harm would."""
    sums = {"model_sha256": sha256_of(folder / MODEL), "golden_sha256": sha256_of(folder / GOLDEN)}
    rewrite(folder, lambda raw: raw.update(sums))


@pytest.fixture
def no_test_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is refused before anything is loaded: a test-load would be a mistake."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model file was loaded")

    monkeypatch.setattr(subprocess, "run", never)
    monkeypatch.setattr(lightgbm, "Booster", never)


def test_a_sound_folder_loads(loaded: model.LightGbmModel, model_folder: Path) -> None:
    """Every check passes; the model's name, version and hash are the manifest's."""
    manifest = model.read_manifest(model_folder)
    assert loaded.manifest == manifest
    assert loaded.ref == model.ref_of(manifest)
    assert (loaded.ref.name, loaded.ref.sha256) == ("forest", manifest.model_sha256)


def test_it_scores_the_golden_queries_to_the_last_bit(
    loaded: model.LightGbmModel, model_folder: Path
) -> None:
    """What was served when trained is served now, one row at a time or all at once."""
    golden = Golden.model_validate_json((model_folder / GOLDEN).read_bytes())
    for query in golden.queries:
        matrix = np.array(query.features, np.float64)
        assert loaded.score(matrix).tolist() == list(query.scores)
        assert [float(loaded.score(row[None])[0]) for row in matrix] == list(query.scores)


def test_no_rows_have_no_scores(loaded: model.LightGbmModel) -> None:
    """An empty list is scored without asking the forest."""
    assert loaded.score(np.empty((0, len(forest.FEATURES)))).tolist() == []


def test_a_matrix_of_another_width_is_a_failure_to_score(loaded: model.LightGbmModel) -> None:
    """What LightGBM refuses is a failure that the stage knows how to fall back from."""
    with pytest.raises(ScoringFailed):
        loaded.score(np.zeros((2, len(forest.FEATURES) + 1)))


@pytest.mark.usefixtures("no_test_load")
@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_truncated_file_never_gets_loaded(folder: Path, name: str) -> None:
    """The checksum comes first: a file cut short is refused before anything opens it."""
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    refusal = refused(folder)
    assert refusal.check == "checksum"
    assert name in str(refusal)
    assert refusal.ref
    assert refusal.ref.name == "forest"


@pytest.mark.usefixtures("no_test_load")
@pytest.mark.parametrize("name", [MODEL, GOLDEN])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_one_flipped_bit_is_refused(folder: Path, name: str, share: float) -> None:
    """Wherever in the file one bit differs, the file is not the one its manifest names."""
    data = bytearray((folder / name).read_bytes())
    data[int(len(data) * share)] ^= 1
    (folder / name).write_bytes(data)
    assert refused(folder).check == "checksum"


@pytest.mark.usefixtures("no_test_load")
@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    """Model and golden queries must both be there."""
    (folder / name).unlink()
    refusal = refused(folder)
    assert refusal.check == "checksum"
    assert f"{name} is missing" in str(refusal)


def test_a_folder_that_is_not_there_has_no_manifest(tmp_path: Path) -> None:
    """Without a manifest nothing is known of the model, not even its name."""
    refusal = refused(tmp_path / "nowhere")
    assert (refusal.check, refusal.ref) == ("manifest", None)
    assert MANIFEST in str(refusal)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"format": 1}', b"null"])
def test_a_manifest_that_makes_no_sense_is_refused(folder: Path, text: bytes) -> None:
    """Bytes, JSON or keys that are not a manifest's: one line that says where."""
    (folder / MANIFEST).write_bytes(text)
    refusal = refused(folder)
    assert (refusal.check, refusal.ref) == ("manifest", None)
    assert "\n" not in str(refusal)


TURNED = (forest.FEATURES[1], forest.FEATURES[0], *forest.FEATURES[2:])


@pytest.mark.usefixtures("no_test_load")
@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (TURNED, "feature 0 is 'coverage', trained as 'a_score'"),
        (forest.FEATURES[:-1], "3 of them, trained on 4"),
        ((*forest.FEATURES, TURNED[0].model_copy(update={"name": "more"})), "5 of them, trained on 4"),
        (
            (
                *forest.FEATURES[:2],
                forest.FEATURES[2].model_copy(update={"default": 0.0}),
                forest.FEATURES[3],
            ),
            "feature 2 is 'year', trained as 'year': default 0.0 was None",
        ),
        ((), "0 of them"),
    ],
)
def test_a_mix_that_declares_other_features_is_refused(
    folder: Path, declared: Sequence[Feature], words: str
) -> None:
    """Features in another order, of another number or with another default would score in silence, and wrong: the
    first difference is named."""
    refusal = refused(folder, declared)
    assert refusal.check == "schema"
    assert words in str(refusal)


@pytest.mark.usefixtures("no_test_load")
def test_a_manifest_whose_features_were_changed_is_refused(folder: Path) -> None:
    """Features edited in the manifest are not those it was sealed with, even where the mix agrees with them."""
    turned = [feature.model_dump(mode="json") for feature in TURNED]
    rewrite(folder, lambda raw: raw.update(features=turned))
    refusal = refused(folder, TURNED)
    assert refusal.check == "schema"
    assert "sealed" in str(refusal)


def golden_fault(folder: Path) -> str | None:
    manifest = model.read_manifest(folder)
    return model.check_golden(folder, manifest, lightgbm.Booster(model_file=str(folder / MODEL)))


def test_a_sound_folder_has_no_golden_fault(model_folder: Path) -> None:
    """The forest as it was written passes."""
    assert golden_fault(model_folder) is None


def test_a_forest_with_its_columns_turned_is_found_out(folder: Path) -> None:
    """A forest trained on the same features in another order has other columns, and is refused by their names."""
    text = (folder / MODEL).read_text(encoding="utf-8")
    names = " ".join(feature.name for feature in forest.FEATURES)
    turned = " ".join(feature.name for feature in TURNED)
    assert f"feature_names={names}" in text
    (folder / MODEL).write_text(
        text.replace(f"feature_names={names}", f"feature_names={turned}"), encoding="utf-8"
    )
    assert golden_fault(folder) == "the forest's columns are not the manifest's features"


def test_a_changed_leaf_is_found_out(folder: Path) -> None:
    """One digit of one leaf loads in silence; the golden queries notice."""
    data = (folder / MODEL).read_bytes()
    leaf = data.index(b"leaf_value=") + len(b"leaf_value=")
    digit = data.index(b".", leaf) + 3
    flipped = b"1" if data[digit : digit + 1] != b"1" else b"2"
    (folder / MODEL).write_bytes(data[:digit] + flipped + data[digit + 1 :])
    fault = golden_fault(folder)
    assert fault
    assert "scores otherwise than when trained" in fault


def test_a_model_without_golden_queries_proves_nothing(folder: Path) -> None:
    """An empty list of golden queries is no proof."""
    (folder / GOLDEN).write_text('{"queries": []}', encoding="utf-8")
    assert golden_fault(folder) == "there is no golden query"


def test_a_changed_golden_query_is_refused_by_the_test_load(folder: Path) -> None:
    """With checksums forged to match, scores other than the forest's are refused, in the test-load's own words."""
    golden = json.loads((folder / GOLDEN).read_text(encoding="utf-8"))
    golden["queries"][0]["scores"][0] += 1e-12
    (folder / GOLDEN).write_text(json.dumps(golden), encoding="utf-8")
    forge(folder)
    refusal = refused(folder)
    assert refusal.check == "golden"
    assert str(refusal) == "golden query 0 scores otherwise than when trained"


def test_a_broken_forest_kills_another_process(folder: Path) -> None:
    """A truncated forest whose checksum was forged to match takes down the test-load at worst: we live to refuse it,
    and never load it ourselves."""
    data = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(data[: len(data) // 2])
    forge(folder)
    refusal = refused(folder)
    assert refusal.check == "test_load"
    assert "died of signal" in str(refusal)


class Finished:
    """What `subprocess.run` gives back."""

    def __init__(self, returncode: int, stderr: str) -> None:
        self.returncode, self.stderr = returncode, stderr


@pytest.mark.parametrize(
    ("returncode", "stderr", "check", "words"),
    [
        (-11, "", "test_load", "signal 11"),
        (-6, "terminate called\n", "test_load", "signal 6"),
        (1, "a warning\nwhat was wrong\n", "golden", "what was wrong"),
        (137, "", "golden", "status 137"),
    ],
)
def test_how_the_test_load_ended_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, returncode: int, stderr: str, check: str, words: str
) -> None:
    """Death by a signal and a word of refusal are two things."""
    seen: list[list[str]] = []

    def run(command: list[str], **_: object) -> Finished:
        seen.append(command)
        return Finished(returncode, stderr)

    monkeypatch.setattr(subprocess, "run", run)
    refusal = refused(folder)
    assert refusal.check == check
    assert words in str(refusal)
    assert seen == [[sys.executable, "-m", "mixer.testload", str(folder)]]


def test_what_a_dying_process_prints_need_not_be_text(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LightGBM prints whatever memory holds as it dies: bytes that are no text are no error of ours."""
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\nprintf '\\200\\377'\nprintf '\\200' >&2\nkill -ABRT $$\n", encoding="utf-8")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    refusal = refused(folder)
    assert refusal.check == "test_load"
    assert "signal 6" in str(refusal)


def test_a_test_load_without_end_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test-load that hangs is a refusal too."""

    def run(command: list[str], **limits: Any) -> Finished:
        raise subprocess.TimeoutExpired(command, limits["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    refusal = refused(folder)
    assert refusal.check == "test_load"
    assert "no end within" in str(refusal)


def test_the_schema_hash_is_the_mix_s_too(loaded: model.LightGbmModel) -> None:
    """The hash that the manifest was sealed with is the one that a mix with these features has."""
    assert loaded.manifest.schema_sha256 == schema_hash(forest.FEATURES)


def test_the_own_scorer_scores_to_the_last_bit(loaded: model.LightGbmModel, model_folder: Path) -> None:
    """A loaded model is scored by the forest, and gives the doubles that LightGBM gives."""
    assert loaded.scorer == "forest"
    matrix = np.random.default_rng(3).normal(size=(200, len(forest.FEATURES)))
    booster = lightgbm.Booster(model_file=str(model_folder / "model.txt"))
    assert loaded.score(matrix).tobytes() == model.raw_scores(booster, matrix).tobytes()


def test_a_forest_untrue_to_the_golden_queries_is_left_to_lightgbm(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the own scorer's golden scores differ by a bit, LightGBM scores, and the reason is told."""
    exact = Forest.score
    monkeypatch.setattr(Forest, "score", lambda self, matrix: np.nextafter(exact(self, matrix), np.inf))
    made = model.load(model_folder, forest.FEATURES)
    assert (made.scorer, made.left_to_lightgbm) == ("lightgbm: mismatch", "mismatch")
    golden = Golden.model_validate_json((model_folder / GOLDEN).read_bytes()).queries[0]
    rows = np.array(golden.features, np.float64)
    assert made.score(rows).tolist() == list(golden.scores)


def test_what_the_own_scorer_cannot_do_is_left_to_lightgbm(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A forest of a kind that is not supported is served all the same; the reason is told, by a warning too."""

    def refuse(*_: object) -> Forest:
        raise Unsupported("linear_tree", "leaves are linear models")

    monkeypatch.setattr(Forest, "compile", refuse)
    with caplog.at_level(logging.WARNING, "mixer.model"):
        made = model.load(model_folder, forest.FEATURES)
    assert (made.scorer, made.left_to_lightgbm) == ("lightgbm: linear_tree", "linear_tree")
    (record,) = caplog.records
    assert (vars(record)["scorer"], vars(record)["scorer_when_trained"]) == (made.scorer, "forest")
    golden = Golden.model_validate_json((model_folder / GOLDEN).read_bytes()).queries[0]
    assert made.score(np.array(golden.features, np.float64)).tolist() == list(golden.scores)


def test_a_model_that_its_own_scorer_scores_is_loaded_in_silence(
    loaded: model.LightGbmModel, model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The manifest foretold it, and there is nothing to warn of."""
    with caplog.at_level(logging.WARNING):
        made = model.load(model_folder, forest.FEATURES)
    assert made.left_to_lightgbm is None
    assert made.scorer == loaded.scorer == loaded.manifest.scorer == "forest"
    assert not caplog.records


def test_a_real_forest_of_linear_leaves_is_scored_by_lightgbm(tmp_path: Path) -> None:
    """From training to serving: the manifest says who scores and why, and so does the loaded model."""
    recipe = forest.RECIPE.model_copy(
        update={"parameters": {**forest.RECIPE.parameters, "linear_tree": True, "objective": "regression"}}
    )
    manifest = forest.written(tmp_path / "forest", forest.trained(recipe=recipe))
    assert manifest.scorer == "lightgbm: linear_tree"
    made = model.load(tmp_path / "forest", forest.FEATURES)
    assert made.scorer == manifest.scorer
    booster = lightgbm.Booster(model_file=str(tmp_path / "forest" / MODEL))
    rows = np.random.default_rng(4).normal(size=(50, len(forest.FEATURES)))
    assert made.score(rows).tobytes() == model.raw_scores(booster, rows).tobytes()


def test_the_loops_are_compiled_before_the_model_is_ready(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading warms them before it reads the forest: no request waits for a compiler."""
    done: list[str] = []
    exact = Forest.compile

    def read(booster: lightgbm.Booster) -> Forest:
        done.append("read")
        return exact(booster)

    monkeypatch.setattr("mixer.forest.warm", lambda: done.append("warm"))
    monkeypatch.setattr(Forest, "compile", read)
    model.load(model_folder, forest.FEATURES)
    assert done == ["warm", "read"]
