from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from backends.memory import Memory, MemorySettings
from mixer import cli, cli_drift, features
from mixer.features import MakeFeatures
from mixer.schema import FeatureBase
from mixer.settings import Settings
from models import logs, skew
from models.logs import Served
from tests.doubles import mixers

FIELDS = {
    "title": {"type": "text"},
    "body": {"type": "text"},
    "year": {"type": "number"},
    "length_s": {"type": "number"},
}
WORDS = ["read", "write", "csv", "json", "file", "rows", "fast", "old"]
DOCUMENTS: list[dict[str, Any]] = [
    {
        "id": f"d{(number * 7) % 40:02}",
        "title": f"{WORDS[number % 8]} a {WORDS[(number * 3) % 8]} file",
        "body": " ".join(WORDS[(number + step) % 8] for step in range(number % 5)),
        **({"year": 1950 + number} if number % 3 else {}),
        "length_s": 60.0 * number + 0.1,
    }
    for number in range(40)
]
MEMORY = {"kind": "memory", "fields": FIELDS, "documents": DOCUMENTS}
FEATURES: list[dict[str, Any]] = [
    {"name": "a_score", "source": "backend", "backend": "a", "value": "score"},
    {"name": "a_share", "source": "backend", "backend": "a", "value": "normalized"},
    {"name": "b_rank", "source": "backend", "backend": "b", "value": "rank", "low": 1},
    {"name": "fused", "source": "mix", "value": "fused", "relative": True},
    {"name": "votes", "source": "mix", "value": "backends"},
    {"name": "length", "source": "number", "field": "length_s"},
    {"name": "year", "source": "number", "field": "year", "low": 1960, "default": 1900},
    {"name": "year_asked", "source": "number_in_query", "field": "year"},
    {"name": "chars", "source": "query", "value": "chars"},
    {"name": "weighted", "source": "text", "fields": ["title", "body"], "measure": "weighted_coverage"},
    {"name": "letters", "source": "text", "fields": ["title"], "measure": "letters"},
    {"name": "like_first", "source": "first", "field": "title"},
    {"name": "age", "source": "context", "key": "age"},
    {"name": "plan", "source": "context", "key": "plan", "levels": ["free", "paid"], "dtype": "category"},
    {
        "name": "sold",
        "source": "store",
        "store": "sales",
        "field": "sold",
        "low": 1,
        "default": 0,
        "relative": True,
    },
    {"name": "spent", "source": "store", "store": "users", "field": "spent"},
]
QUERIES = ["csv file", "read json 1961", "old rows", "fast csv rows file", "zzz", "write"]


def settings(folder: Path, **log: Any) -> Settings:
    rules = {"query": "raw", "inputs": True, "sinks": [{"kind": "parquet", "folder": str(folder)}], **log}
    members = {"a": {"limit": 30, "timeout_s": 15.0}, "b": {"limit": 20, "timeout_s": 15.0}}
    stores = {name: {"timeout_s": 15.0} for name in ("sales", "users")}
    mix = {"features": FEATURES, "members": members, "fields": ["title"], "stores": stores}
    return mixers.settings({"a": MEMORY, "b": MEMORY}, mix, feature_log=rules, stores=_stores(folder))


def _stores(folder: Path) -> dict[str, Any]:
    """Sales of most documents, and what users spent."""
    folder.mkdir(exist_ok=True)
    file = folder / "stores.db"
    with closing(sqlite3.connect(file)) as made, made:
        made.execute("CREATE TABLE IF NOT EXISTS sales (id, sold)")
        made.execute("CREATE TABLE IF NOT EXISTS users (id, spent)")
        sold = [(row["id"], number / 7) for number, row in enumerate(DOCUMENTS) if number % 4]
        made.executemany("INSERT INTO sales VALUES (?, ?)", sold)
        made.execute("INSERT INTO users VALUES ('paid', 99.5)")
    kind = {"kind": "sqlite", "file": str(file)}
    users = {"table": "users", "key": "{context.plan}", "fields": ["spent"]}
    return {"sales": {**kind, "table": "sales", "fields": ["sold"]}, "users": {**kind, **users}}


class Backwards(Memory):
    """The same documents in another order."""

    async def retrieve(self, query: Any, timeout_s: float) -> Any:
        hits = await super().retrieve(query, timeout_s)
        return replace(
            hits,
            ids=hits.ids[::-1],
            scores=hits.scores[::-1] + 0.1,
            numbers={name: column[::-1] for name, column in hits.numbers.items()},
            texts={name: column[::-1] for name, column in hits.texts.items()},
        )


async def serve(folder: Path, **log: Any) -> Settings:
    """Log these queries, as they are served."""
    made = settings(folder, **log)
    other = Backwards(MemorySettings.model_validate(MEMORY))
    async with mixers.running(made, {"b": other}) as mixer:
        for place, query in enumerate(QUERIES):
            await mixer.search(query, context={"plan": "paid", "age": 30.0 + place / 3, "31": "31"})
    return made


def read(folder: Path) -> Iterator[Served]:
    return logs.searches(logs.read(logs.files(folder).sound))


def compare(folder: Path, made: Settings) -> skew.Report:
    return skew.compare(read(folder), "default", made.mixes["default"].features)


async def test_what_was_served_is_made_again_to_the_bit(tmp_path: Path) -> None:
    """Of every source a feature can have, from the logged inputs alone, in the order of the ranking."""
    made = await serve(tmp_path)
    report = compare(tmp_path, made)
    assert (report.searches, report.skewed, report.left_out) == (len(QUERIES), [], {})
    assert report.rows > 60
    make = MakeFeatures(made.mixes["default"].features)
    for served in read(tmp_path):
        np.testing.assert_array_equal(skew.made_again(served, make), served.features)


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Until it is undone, code that takes seconds for minutes."""
    right = features._COLUMNS

    def wrong(feature: FeatureBase, facts: Any) -> Any:
        column = right[type(feature)](feature, facts)
        return column / 60 if feature.name == "length" else column

    monkeypatch.setattr(features, "_COLUMNS", dict.fromkeys(right, wrong))
    return monkeypatch


async def test_a_unit_bug_is_caught_and_named(tmp_path: Path, minutes: pytest.MonkeyPatch) -> None:
    """A server that divided by 60 what training does not: that feature is skewed and no other, by that factor."""
    made = await serve(tmp_path)
    minutes.undo()
    report = compare(tmp_path, made)
    [found] = report.skewed
    assert (found.name, found.differ, found.compared) == ("length", report.rows, report.rows)
    assert found.hint == "logged is 0.0166667 times what is made"


async def test_a_lost_value_is_skew_too(tmp_path: Path) -> None:
    """A value that was logged and is missing when made again, or the other way around, is shown with its hit."""
    made = await serve(tmp_path)
    searches = [replace(served, features=served.features.copy()) for served in read(tmp_path)]
    for served in searches:
        served.features[:1, 5] = np.nan
    report = skew.compare(searches, "default", made.mixes["default"].features)
    [found] = report.skewed
    assert (found.name, found.differ) == ("length", 5)
    assert "nan was logged" in found.hint
    assert searches[0].ids[0] in found.hint


async def test_what_cannot_be_compared_is_counted(tmp_path: Path) -> None:
    """Searches logged without inputs, or of features declared otherwise, are left out and said."""
    made = await serve(tmp_path, inputs=False)
    assert compare(tmp_path, made).left_out == {"logged without inputs": len(QUERIES)}
    await serve(tmp_path)
    others = skew.compare(read(tmp_path), "default", made.mixes["default"].features[1:])
    assert others.left_out == {
        "logged without inputs": len(QUERIES),
        "of other declared features": len(QUERIES),
    }
    assert skew.compare(read(tmp_path), "other", ()).searches == 0


def test_the_command_says_what_is_skewed(tmp_path: Path, minutes: pytest.MonkeyPatch) -> None:
    """Status 0 without skew, 2 with; 1 where there is nothing to compare."""
    import asyncio

    config, right, wrong = tmp_path / "m.yaml", tmp_path / "right", tmp_path / "wrong"
    made = asyncio.run(serve(wrong))
    minutes.undo()
    asyncio.run(serve(right))
    config.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_none=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_drift, "console", Console(width=200))
        run = CliRunner().invoke
        sound = run(cli.app, ["models", "skew", str(right), "--config", str(config)])
        skewed = run(cli.app, ["models", "skew", str(wrong), "--config", str(config)])
    (tmp_path / "none").mkdir()
    empty = CliRunner().invoke(cli.app, ["models", "skew", str(tmp_path / "none"), "--config", str(config)])
    assert (sound.exit_code, skewed.exit_code, empty.exit_code) == (0, 2, 1)
    assert "no skew" in sound.output
    assert "1 skewed" in skewed.output
    assert "logged is 0.0166667 times" in skewed.output
    assert "holds no search" in empty.output
