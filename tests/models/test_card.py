from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from mixer.manifest import CARD, Manifest
from mixer.model import read_manifest
from models import card
from tests import forest


@pytest.fixture(scope="module")
def manifest(model_folder: Path) -> Manifest:
    return read_manifest(model_folder)


def rows(text: str) -> list[tuple[str, ...]]:
    """The cells of every table's rows."""
    return [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    ]


def test_the_card_says_all_that_the_manifest_says(manifest: Manifest) -> None:
    """Every feature with its source, share and missing values, every metric and every parameter has its row."""
    told = rows(card.markdown(manifest))
    for feature in manifest.features:
        share, missing = manifest.importance[feature.name], manifest.profiles[feature.name].missing
        assert (f"`{feature.name}`", feature.source, f"{share:.1%}", f"{missing:.1%}") in told
    for measure, value in manifest.metrics.items():
        assert (measure, f"{value:.4f}") in told
    for parameter, setting in manifest.parameters.items():
        assert (parameter, f"`{setting}`") in told
    heads = 3
    assert len(told) == heads + len(manifest.features) + len(manifest.metrics) + len(manifest.parameters)


def test_the_most_important_feature_is_first(manifest: Manifest) -> None:
    """Features stand in the order of their share of the gain."""
    text = card.markdown(manifest)
    places = {feature.name: text.index(f"| `{feature.name}` |") for feature in manifest.features}
    shares = [manifest.importance[name] for name in sorted(places, key=places.__getitem__)]
    assert shares == sorted(shares, reverse=True)


def test_which_model_it_is(manifest: Manifest) -> None:
    """Name, version, number of trees, when, by which code, and from which judgements: all are there."""
    text = card.markdown(manifest.model_copy(update={"created_at_s": 0.0}))
    assert text.startswith(f"# Model card: forest {manifest.version}\n")
    assert f"forest of {manifest.trees} trees (`lambdarank`), trained 1970-01-01 00:00 UTC" in text
    assert manifest.code_version in text
    assert manifest.schema_sha256[:12] in text
    assert "`made-up.jsonl` (SHA-256 `000000000000…`), 2024-01-01 to 2024-01-24" in text
    assert "24 train, 8 valid" in text
    assert "96 valid" in text


def test_judgements_without_dates(manifest: Manifest) -> None:
    """Where no judgement bears a day the card says so."""
    undated = manifest.data.model_copy(update={"since": None, "until": None})
    assert ", not dated\n" in card.markdown(manifest.model_copy(update={"data": undated}))


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG that is whole."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_written_with_its_picture(manifest: Manifest, tmp_path: Path) -> None:
    """The folder gets the card, and the picture that the card shows."""
    card.write(manifest, tmp_path)
    text = (tmp_path / CARD).read_text(encoding="utf-8")
    assert text == card.markdown(manifest)
    (shown,) = re.findall(r"!\[.*\]\((.*)\)", text)
    assert {path.name for path in tmp_path.iterdir()} == {CARD, shown}
    width, height = png_size((tmp_path / shown).read_bytes())
    assert width > height > 50


def test_a_picture_of_many_features(manifest: Manifest, tmp_path: Path) -> None:
    """However many the features are, the picture shows the weightiest and stays of a size to look at."""
    many = {f"f{number}": number / 1000 for number in range(200)}
    card.write(manifest.model_copy(update={"importance": {**many, **manifest.importance}}), tmp_path)
    assert png_size((tmp_path / card.PLOT).read_bytes())[1] < 1500


def test_a_forest_that_learned_nothing(manifest: Manifest, tmp_path: Path) -> None:
    """Where no feature has any gain there is a card all the same."""
    flat = manifest.model_copy(update={"importance": dict.fromkeys(manifest.importance, 0.0)})
    card.write(flat, tmp_path)
    assert (f"`{forest.FEATURES[0].name}`", "backend", "0.0%", "0.0%") in rows(card.markdown(flat))
