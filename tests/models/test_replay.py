from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mixer.model import LightGbmModel, load
from mixer.schema import schema_hash
from models import logs
from models.logs import Served
from models.replay import Replayed, Report, Verdict, Wanted, by_score, ranking, replay
from tests import forest, served
from tests.doubles import engines, mixers

SCHEMA = schema_hash(forest.FEATURES)
ALL = Wanted()


@pytest.fixture(scope="module")
def model(model_folder: Path) -> LightGbmModel:
    return load(model_folder, forest.FEATURES)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> LightGbmModel:
    folder = tmp_path_factory.mktemp("other") / "forest"
    recipe = forest.RECIPE.model_copy(update={"rounds": 5, "patience": 5})
    forest.written(folder, forest.trained(recipe=recipe))
    return load(folder, forest.FEATURES)


def read(folder: Path, wanted: Wanted = ALL) -> list[Served]:
    return list(logs.searches(wanted.of(logs.read(logs.files(folder).sound))))


def one(tmp_path: Path, row: dict[str, Any]) -> Served:
    (found,) = read(served.write(tmp_path, [row]))
    return found


def test_the_logged_model_gives_the_same_bits(model: LightGbmModel, tmp_path: Path) -> None:
    """Scores and order come out of the file's features as they were, to the last bit, missing values and all."""
    report = Report()
    rows = [served.row(number, model) for number in range(90)]
    assert any(np.isnan(np.array(row["features"])).any() for row in rows)
    for found in read(served.write(tmp_path, rows)):
        replayed = replay(found, model, SCHEMA)
        assert replayed.scores.tobytes() == found.scores.tobytes()
        assert replayed.order.tolist() == list(range(len(found)))
        report.add(replayed)
    assert (report.searches, report.compared, report.same) == (90, 90, True)
    assert report.verdicts == {Verdict.SAME: 90}
    assert list(report.lines()) == []


def test_one_bit_is_found(model: LightGbmModel, tmp_path: Path) -> None:
    """A score that was logged one bit away is named with both values."""
    row = served.row(3, model)
    row["scores"][4] = float(np.nextafter(row["scores"][4], np.inf))
    replayed = replay(one(tmp_path, row), model, SCHEMA)
    assert replayed.verdict is Verdict.SCORES
    assert replayed.differing.tolist() == [4]
    report = Report()
    report.add(replayed)
    assert not report.same
    (line,) = report.lines()
    assert line.startswith(
        f"q3: {row['ids'][4]} scored {row['scores'][4]!r}, now {float(replayed.scores[4])!r}"
    )


def test_another_ranker_is_nothing_to_compare(
    model: LightGbmModel, other: LightGbmModel, tmp_path: Path
) -> None:
    """What another model or the fusion ranked is ranked again, and is neither the same nor a difference."""
    report = Report()
    for row in (served.row(1, other), served.row(2, None)):
        replayed = replay(one(tmp_path, row), model, SCHEMA)
        assert replayed.verdict is Verdict.OTHER
        assert sorted(replayed.order.tolist()) == list(range(12))
        report.add(replayed)
    assert (report.searches, report.compared) == (2, 0)


def test_another_schema_is_left_out(model: LightGbmModel, tmp_path: Path) -> None:
    """A search whose features are others is never scored."""
    replayed = replay(one(tmp_path, served.row(1, model, schema_sha256="0" * 64)), model, SCHEMA)
    assert replayed.verdict is Verdict.FEATURES
    assert not len(replayed.scores)


def test_a_rearranged_answer_is_the_same_and_told(model: LightGbmModel, tmp_path: Path) -> None:
    """A pin that put the last hit first changes no score: the answer is the same, and that rules had a part is told."""
    row = served.row(5, model)
    for name in ("ids", "scores", "fused", "fused_ranks", "ranks", "backend_scores", "features"):
        row[name] = [row[name][-1], *row[name][:-1]]
    replayed = replay(one(tmp_path, row), model, SCHEMA)
    assert (replayed.verdict, replayed.rearranged) == (Verdict.SAME, True)
    assert replayed.order.tolist() == [*range(1, 12), 0]
    report = Report()
    report.add(replayed)
    assert list(report.lines()) == [
        "1 answers stand in another order than their scores': by rules of the mix, a draft or chance"
    ]


def test_ties_break_as_in_serving(model: LightGbmModel, tmp_path: Path) -> None:
    """Equal scores stand by fused score, then by id; scores that are no number last."""
    found = replace(
        one(tmp_path, served.row(1, model)),
        ids=("b", "a", "c", "d"),
        fused=np.array([0.5, 0.5, 0.9, 0.1]),
    )
    assert by_score(found, np.array([1.0, 1.0, 1.0, np.nan])).tolist() == [2, 1, 0, 3]
    assert by_score(found, np.array([np.nan, np.inf, 1.0, 2.0])).tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Wanted(), ["q1", "q2", "q3"]),
        (Wanted(query_id="q2"), ["q2"]),
        (Wanted(trace_id=f"{3:032x}"), ["q3"]),
        (Wanted(arm="b"), ["q3"]),
        (Wanted(mix="default", arm="b", query_id="q1"), []),
    ],
)
def test_what_is_wanted(wanted: Wanted, ids: list[str], model: LightGbmModel, tmp_path: Path) -> None:
    """Every column that is asked for must be as asked."""
    rows = [served.row(1, model), served.row(2, model), served.row(3, model, arm="b")]
    assert [found.query_id for found in read(served.write(tmp_path, rows), wanted)] == ids


def test_an_empty_answer(model: LightGbmModel, tmp_path: Path) -> None:
    """A search that found nothing is the same again."""
    lists = ("ids", "scores", "fused", "fused_ranks", "propensities", "ranks", "backend_scores", "features")
    replayed = replay(one(tmp_path, {**served.row(1, model), **{name: [] for name in lists}}), model, SCHEMA)
    assert replayed.verdict is Verdict.SAME


def test_the_table_of_one_search(model: LightGbmModel, other: LightGbmModel, tmp_path: Path) -> None:
    """The new order stands beside the logged ranks, with both scores; markup in a query or an id is only text."""
    row = served.row(7, other, query="[red]q[/]")
    row["ids"][0] = "[bold]x"
    replayed: Replayed = replay(one(tmp_path, row), model, SCHEMA)
    out = StringIO()
    Console(file=out, width=120).print(ranking(replayed))
    text = out.getvalue()
    assert "[red]q[/]" in text
    (line,) = [line for line in text.splitlines() if "[bold]x" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    rank = replayed.order.tolist().index(0) + 1
    assert cells == [str(rank), "[bold]x", "1", f"{replayed.scores[0]:.4f}", f"{row['scores'][0]:.4f}"]


async def test_what_a_server_logs_comes_out_the_same(
    model: LightGbmModel, model_folder: Path, tmp_path: Path
) -> None:
    """From a search over a socket to the file and back: the model that served gives the bits that it served."""
    memory = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
    settings = mixers.settings(
        {"a": memory},
        {"model": "m", "features": [feature.model_dump() for feature in forest.FEATURES]},
        models={"m": {"path": model_folder}},
        feature_log={"query": "raw", "sinks": [{"kind": "parquet", "folder": tmp_path}]},
    )
    async with mixers.running(settings) as mixer:
        answers = [await mixer.search(query) for query in ("csv file", "read csv", "nothing of it", "file")]
    found = {logged.query_id: replay(logged, model, SCHEMA) for logged in read(tmp_path)}
    assert len(found) == len(answers)
    for answer in answers:
        replayed = found[answer.query_id]
        assert replayed.verdict is Verdict.SAME
        assert [replayed.served.ids[place] for place in replayed.order] == [hit.id for hit in answer.hits]
        assert [replayed.scores[place] for place in replayed.order] == [hit.score for hit in answer.hits]
