from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from rich.console import Console

from backends.base import FloatColumn
from mixer.model import LightGbmModel, load
from mixer.schema import schema_hash
from mixer.values import ModelRef
from models import difference_plot, logs
from models.differences import Differences, difference
from models.logs import Served
from tests import forest, served

SCHEMA = schema_hash(forest.FEATURES)


class ByColumn:
    """A model that scores by one feature."""

    scorer = "forest"

    def __init__(self, column: int, sign: float = 1.0) -> None:
        self.ref = ModelRef("column", f"{column}{sign:+g}", "0" * 64)
        self._column, self._sign = column, sign

    def score(self, matrix: FloatColumn) -> FloatColumn:
        return self._sign * matrix[:, self._column]


@pytest.fixture(scope="module")
def model(model_folder: Path) -> LightGbmModel:
    return load(model_folder, forest.FEATURES)


@pytest.fixture(scope="module")
def searches(model: LightGbmModel, tmp_path_factory: pytest.TempPathFactory) -> list[Served]:
    rows = [served.row(number, model) for number in range(20)]
    rows.append(served.row(20, model, schema_sha256="0" * 64))
    rows.append(served.row(21, model, query=None))
    folder = served.write(tmp_path_factory.mktemp("log"), rows)
    return list(logs.searches(logs.read(logs.files(folder).sound)))


def found(searches: list[Served], before: ByColumn, after: ByColumn) -> Differences:
    return Differences.of(searches, before, after, SCHEMA)


def test_a_model_differs_in_nothing_from_itself(searches: list[Served], model: LightGbmModel) -> None:
    """Then every search is unchanged; one of other features is left out and counted."""
    summary = Differences.of(searches, model, model, SCHEMA).summary()
    assert summary == {
        "searches": 21,
        "left_out": 1,
        "top_10_unchanged": 21,
        "first_changed": 0,
        "rank_biased_overlap": pytest.approx(1),
        "kendall_tau_b": pytest.approx(1),
        "top_10_churn": 0,
        "score_shift": 0,
    }


def test_the_opposite_order(searches: list[Served]) -> None:
    """The opposite of an order is as far from it as can be, and the movers are its ends."""
    changed = difference(searches[0], ByColumn(0), ByColumn(0, -1.0))
    assert changed.tau == pytest.approx(-1)
    assert changed.before.tolist() == changed.after.tolist()[::-1]
    rose, fell = changed.movers()
    last, first = (changed.ids[place] for place in (changed.before[-1], changed.before[0]))
    assert (rose, fell) == (f"{last} 12→1", f"{first} 1→12")
    assert changed.first_changed
    assert changed.churn == pytest.approx(0.2)


def test_the_most_changed_come_first(searches: list[Served]) -> None:
    """Tables and JSON list searches by how far the orders are apart; a query that was not kept has its id."""
    differences = found(searches, ByColumn(0), ByColumn(1))
    overlaps = [each.overlap for each in differences.worst_first]
    assert overlaps == sorted(overlaps)
    assert overlaps[0] < overlaps[-1]
    told = json.loads(json.dumps(differences.plain(), allow_nan=False))
    assert [each["query_id"] for each in told["searches"]] == [e.query_id for e in differences.worst_first]
    assert "q21" in {each.name for each in differences.changed}
    out = StringIO()
    for table in differences.tables():
        Console(file=out, width=200).print(table)
    assert "column 0+1 → column 1+1" in out.getvalue()
    assert differences.worst_first[0].name in out.getvalue()


def test_a_query_has_one_row(searches: list[Served]) -> None:
    """A query that was searched often stands once in the table, with how often, and every time in JSON."""
    differences = found([searches[0]] * 3 + [searches[1]], ByColumn(0), ByColumn(1))
    out = StringIO()
    Console(file=out, width=200).print(list(differences.tables())[1])
    rows = [[cell.strip() for cell in line.split("│")] for line in out.getvalue().splitlines() if "│" in line]
    assert sorted((row[1], row[2]) for row in rows) == [("query 0", "3"), ("query 1", "1")]
    assert len(differences.plain()["searches"]) == 4


def test_ranks_follow_the_orders(searches: list[Served]) -> None:
    """The rank of a document is its place in the order, before and after."""
    changed = difference(searches[1], ByColumn(0), ByColumn(1))
    before, after = changed.ranks
    assert before[changed.before[0]] == after[changed.after[0]] == 1
    assert sorted(before.tolist()) == sorted(after.tolist()) == list(range(1, 13))


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture(searches: list[Served], ending: str, tmp_path: Path) -> None:
    """It is of the kind that its name says; an id with a dollar sign is not taken for mathematics."""
    path = tmp_path / f"diff.{ending}"
    difference_plot.plot(found(searches, ByColumn(0), ByColumn(1)), path)
    if ending == "png":
        assert path.read_bytes().startswith(b"\x89PNG")
    else:
        assert ET.parse(path).getroot().tag.endswith("svg")


def test_the_picture_of_nothing(tmp_path: Path) -> None:
    """Without a search there is still a picture."""
    difference_plot.plot(found([], ByColumn(0), ByColumn(1)), tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 0


def test_an_unknown_ending_is_refused(searches: list[Served], tmp_path: Path) -> None:
    """A picture of a kind that cannot be drawn is a fault, not a file."""
    with pytest.raises(ValueError, match="format"):
        difference_plot.plot(found(searches[:1], ByColumn(0), ByColumn(1)), tmp_path / "diff.doc")


def test_scores_without_a_scale(searches: list[Served]) -> None:
    """Where a model tells nothing apart, its correlation is unknown and left out of the mean."""
    constant = ByColumn(3)
    differences = found(searches, constant, constant)
    assert np.isnan(differences.changed[0].tau)
    assert differences.plain()["summary"]["kendall_tau_b"] is None
