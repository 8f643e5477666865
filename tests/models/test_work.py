from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from mixer.client import AsyncMixerClient
from mixer.manifest import CARD, MANIFEST, MODEL, sha256_of
from mixer.manifest import JUDGED as LISTINGS
from mixer.model import read_manifest
from mixer.settings import Settings
from models import card, listings, training, work
from models.judgements import Judged, Judgements, Split
from models.training import Recipe
from models.work import Job
from tests import forest
from tests.doubles import mixers

WORDS = ("csv", "json", "date", "path")
DOCUMENTS: list[dict[str, Any]] = [
    {"id": f"{word}{number}", "title": f"{word} entry", "uses": (number * 7) % 10}
    for word in WORDS
    for number in range(10)
]
ENGINE = {
    "kind": "memory",
    "fields": {"title": {"type": "text"}, "uses": {"type": "number"}},
    "documents": DOCUMENTS,
}
FEATURES = [
    {"name": "uses", "source": "number", "field": "uses"},
    {"name": "rank", "source": "backend", "backend": "a", "value": "rank"},
]
RECIPE = Recipe(
    rounds=15,
    patience=15,
    threads=1,
    parameters={"num_leaves": 5, "min_data_in_leaf": 3, "learning_rate": 0.3},
)
SPLITS: tuple[Split, ...] = ("train", "train", "train", "train", "valid", "test")


def judged(number: int) -> Judged:
    """A query whose best documents are the much used ones."""
    word = WORDS[number % len(WORDS)]
    grades = {d["id"]: min(d["uses"] // 2, 3) for d in DOCUMENTS if word in d["id"]}
    return Judged(query=f"{word} {number}", need=f"n{number}", grades=grades, split=SPLITS[number % 6])


JUDGED = Judgements("made-up.jsonl", "0" * 64, tuple(map(judged, range(60))))


def settings(**mix: Any) -> Settings:
    return mixers.settings({"a": ENGINE}, {"features": FEATURES, "fields": ["title"], **mix})


def job(**changes: Any) -> Job:
    return replace(Job(settings(), "default", JUDGED), **changes)


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=200)


@pytest.fixture(scope="module")
def served() -> Settings:
    """Two mixes with all that a mix can say."""
    made = mixers.settings(
        {"a": ENGINE, "b": ENGINE},
        {
            "features": FEATURES,
            "model": "m",
            "page_size": 3,
            "fusion": {"kind": "rrf", "k": 20},
            "members": {"a": {"limit": 70, "weight": 2, "timeout_s": 0.01}, "b": {"limit": 80, "group": "g"}},
            "pins": [{"query": "q", "ids": ["csv1"]}],
        },
        models={"m": {"path": "/models/m"}},
        limits={"page_size": 50},
        server={"drain_s": 30, "admin_listen": "127.0.0.1:9464"},
    )
    other = made.mixes["default"].model_copy(update={"model": ""})
    return made.model_copy(update={"mixes": {**made.mixes, "other": other}})


@pytest.mark.parametrize("with_model", [True, False])
def test_settings_for_work(served: Settings, with_model: bool) -> None:
    """Of the mix only the patience changes, and the model where none is to rank; nothing else is served."""
    private = work.for_work(served, "default", with_model)
    (mix,) = private.mixes.values()
    before = served.mixes["default"]
    assert {b.timeout_s for b in mix.backends.values()} == {5.0}
    patience = {name: b.model_copy(update={"timeout_s": 5.0}) for name, b in before.backends.items()}
    assert mix == before.model_copy(update={"backends": patience, "model": "m" if with_model else ""})
    assert private.backends == served.backends
    assert private.models == served.models


def test_settings_for_work_serve_whole_lists(served: Settings) -> None:
    """A page may hold all that the backends are asked for, the port is private, and there is no admin port."""
    private = work.for_work(served, "other", with_model=True)
    assert private.limits.page_size == 150
    assert (private.server.listen, private.server.admin_listen) == ("127.0.0.1:0", "")
    assert private.server.default_mix == "other"
    assert served.limits.page_size == 50


def test_settings_for_work_keep_no_log(served: Settings, tmp_path: Path) -> None:
    """What is asked for judging is no traffic: neither the feature log nor the event log is opened for it."""
    logs = {
        "feature_log": {"sinks": [{"kind": "parquet", "folder": str(tmp_path / "served")}]},
        "feedback": {"folder": str(tmp_path / "events")},
    }
    logged = Settings.model_validate({**served.model_dump(), **logs})
    private = work.for_work(logged, "default", with_model=False)
    assert (private.feature_log, private.feedback) == (None, None)


async def test_training_twice(tmp_path: Path, console: Console) -> None:
    """The same judgements, mix and recipe give the same model file, to the byte; it ranks better than fusion."""
    folders = [tmp_path / "deep" / name for name in ("one", "two")]
    one, two = [await work.train(job(), "m", RECIPE, folder, console) for folder in folders]
    assert one.model_sha256 == two.model_sha256 == sha256_of(folders[0] / MODEL)
    assert one.golden_sha256 == two.golden_sha256
    assert one.metrics["valid_open_ndcg10_model"] > one.metrics["valid_open_ndcg10_fused"] + 0.1
    assert one.data.queries == {"train": 40, "valid": 10, "test": 10}
    assert read_manifest(folders[0]) == one
    assert (folders[0] / CARD).exists()
    assert sorted(path.name for path in folders[0].parent.iterdir()) == ["one", "two"]
    assert one.judged_sha256 == two.judged_sha256 == sha256_of(folders[0] / LISTINGS)


async def test_what_was_held_out_is_kept_beside_the_model(tmp_path: Path, console: Console) -> None:
    """The test queries as they were served, which the model never saw; of the validation split where there are none."""
    made = await work.train(job(), "m", RECIPE, tmp_path / "m", console)
    held = listings.read(tmp_path / "m" / LISTINGS)
    assert (held.split, held.schema_sha256) == ("test", made.schema_sha256)
    assert {ls.judged.query for ls in held.listings} == {judged.query for judged in JUDGED.of("test")}
    assert held.feature_names == ("uses", "rank")
    assert {len(ls) for ls in held.listings} == {10}
    few = replace(JUDGED, queries=(*JUDGED.of("train"), *JUDGED.of("valid")))
    await work.train(job(judgements=few), "m", RECIPE, tmp_path / "few", console)
    assert listings.read(tmp_path / "few" / LISTINGS).split == "valid"


async def test_training_on_both_pools(tmp_path: Path, console: Console) -> None:
    """Each pool gives its own rows and its own figures."""
    made = await work.train(job(pools=("open", "judged")), "m", RECIPE, tmp_path / "m", console)
    assert {"valid_open_ndcg10_model", "valid_judged_ndcg10_model"} <= set(made.metrics)
    assert made.data.rows["train"] == 2 * 40 * 10


async def test_nothing_to_learn_from(tmp_path: Path, console: Console) -> None:
    """Without a query with contrast there is no model and no folder, and the error says so."""
    flat = replace(JUDGED, queries=(Judged(query="csv", need="n", grades={"csv1": 0}, split="train"),))
    with pytest.raises(ValueError, match="no training or no validation query"):
        await work.train(job(judgements=flat), "m", RECIPE, tmp_path / "m", console)
    assert os.listdir(tmp_path) == []


def text(parts: list[RenderableType]) -> str:
    out = Console(file=StringIO(), width=200)
    for part in parts:
        out.print(part)
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


async def test_measuring_without_a_model(console: Console) -> None:
    """Every pool has its table of every backend and the fused order; what is served is the fused order."""
    told = text(await work.evaluate(job(pools=("open", "judged")), "test", console))
    for pool in ("open", "judged"):
        assert f"test, {pool} pool" in told
    assert told.count("10 queries; served less fused") == 2
    assert "degraded" not in told


@pytest.mark.parametrize(("split", "count"), [("all", 60), ("valid", 10)])
async def test_which_queries_are_asked(console: Console, split: Any, count: int) -> None:
    """The queries of the split, or all of them."""
    assert f"{count} queries" in text(await work.evaluate(job(), split, console))


async def test_a_split_without_queries(console: Console) -> None:
    """A split that no query is of is an error, not an empty table."""
    train = replace(JUDGED, queries=JUDGED.of("train"))
    with pytest.raises(ValueError, match="'test'"):
        await work.evaluate(job(judgements=train), "test", console)


async def test_a_model_that_is_refused(console: Console, tmp_path: Path) -> None:
    """A mix whose model fails its checks is not measured, and the error says which check of which file."""
    made = settings(model="m").model_copy(update={"models": {}})
    raw = {**made.model_dump(mode="json", exclude_none=True), "models": {"m": {"path": str(tmp_path)}}}
    with pytest.raises(ValueError, match=r"the model of mix 'default' is refused: .*manifest\.json"):
        await work.evaluate(job(settings=Settings.model_validate(raw)), "test", console)


def test_degraded_answers_are_counted() -> None:
    """A table over answers in which a backend was missing says how many they are."""
    listed = forest.listings(range(3), "test")
    told = text(work.report([replace(listed[0], degraded=True), *listed[1:]], "t"))
    assert "1 answers were degraded" in told
    assert "degraded" not in text(work.report(listed, "t"))


async def test_a_running_mixer_is_asked() -> None:
    """With a target no server is started, and that one answers."""
    async with work.answering(job(target="example:1"), with_model=True) as target:
        assert target == "example:1"
    async with (
        work.answering(job(), with_model=False) as target,
        AsyncMixerClient(target, timeout_s=10) as client,
    ):
        assert len((await client.search("csv", page_size=100)).hits) == 10


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with a model, and something beside it that is of no model."""
    folder = tmp_path / "m"
    work.publish(forest.trained(), "old", forest_job(), folder)
    (folder / "extra").touch()
    return folder


def forest_job() -> Job:
    """A job whose mix declares the features of the forest."""
    declared = [feature.model_dump(exclude_none=True) for feature in forest.FEATURES]
    return job(settings=settings(features=declared))


def name_of(folder: Path) -> str:
    return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["name"])


def test_a_model_is_replaced_as_a_whole(published: Path) -> None:
    """The new folder has nothing of the old one, and nothing is left beside it."""
    work.publish(forest.trained(), "new", forest_job(), published)
    assert name_of(published) == "new"
    assert not (published / "extra").exists()
    assert list(published.parent.iterdir()) == [published]


def breaks(*_: object) -> None:
    raise OSError("disk full")


def break_training(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(training, "write", breaks)


def break_card(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(card, "write", breaks)


def break_last_rename(patch: pytest.MonkeyPatch) -> None:
    rename: Callable[[Path, Path], Path] = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.name == "m" and path.parent.name.startswith("."):
            breaks()
        return rename(path, target)

    patch.setattr(Path, "rename", fails)


@pytest.mark.parametrize("broken", [break_training, break_card, break_last_rename])
def test_a_model_stays_when_the_next_cannot_be_written(
    published: Path, monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Wherever the writing fails, the old model is there in full and nothing is beside it."""
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    forest_ = forest.trained()
    broken(monkeypatch)
    with pytest.raises(OSError, match="disk full"):
        work.publish(forest_, "new", forest_job(), published)
    assert {path.name: path.read_bytes() for path in published.iterdir()} == before
    assert list(published.parent.iterdir()) == [published]


def test_a_first_model_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there was none, there is none."""
    break_last_rename(monkeypatch)
    with pytest.raises(OSError, match="disk full"):
        work.publish(forest.trained(), "new", forest_job(), tmp_path / "m")
    assert not list(tmp_path.iterdir())
