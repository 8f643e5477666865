"""A registry in a folder with versions of one model, sound ones and broken ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lightgbm

from backends.base import FloatColumn
from mixer.manifest import MANIFEST, MODEL, Manifest
from mixer.model import raw_scores
from mixer.registry import Pointer, Registry, now
from tests import forest

NAME = "ranker"


class Shelf:
    """The model `ranker` in a registry of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.registry = root / "registry", Registry(str(root / "registry"))
        self._drafts = root / "drafts"
        self._boosters: dict[str, lightgbm.Booster] = {}

    @property
    def settings(self) -> dict[str, object]:
        """As a section of `models`."""
        root = self.root.parent
        return {"registry": str(self.root), "name": NAME, "poll_s": 0.05, "cache": str(root / "cache")}

    def publish(self, rounds: int) -> Manifest:
        """A sound version with so many trees."""
        folder = self._drafts / str(rounds)
        manifest = forest.written(
            folder, forest.trained(recipe=forest.RECIPE.model_copy(update={"rounds": rounds}))
        )
        self.registry.publish(folder, NAME)
        self._boosters[manifest.version] = lightgbm.Booster(model_file=str(folder / MODEL))
        return manifest

    def promote(self, manifest: Manifest) -> Pointer:
        """Make it current."""
        return self.registry.point(NAME, manifest.version, self.registry.current(NAME), "a test")

    def point_at(self, version: str, sha256: str) -> None:
        """Make anything current, past all checks."""
        fields = {"version": version, "sha256": sha256, "previous": None, "changed_at": now(), "why": "harm"}
        draft = self.root / NAME / ".current"
        draft.write_text(json.dumps(fields))
        draft.rename(self.root / NAME / "current.json")

    def broken(self, manifest: Manifest, version: str) -> Path:
        """A copy of a version under another name, to be spoiled; returns its folder."""
        versions = self.root / NAME / "versions"
        shutil.copytree(versions / manifest.version, versions / version)
        path = versions / version / MANIFEST
        raw = json.loads(path.read_text())
        path.write_text(json.dumps({**raw, "version": version}))
        return versions / version

    def scores(self, version: str, matrix: FloatColumn) -> FloatColumn:
        """What this version scores, by LightGBM itself."""
        return raw_scores(self._boosters[version], matrix)
