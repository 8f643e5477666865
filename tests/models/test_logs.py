from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixer.logged import Conversion, Declared, Entry
from mixer.parquet import Rotating
from mixer.values import Answer, Ranker, Scores
from models import logs
from models.logs import Window
from tests.samples import MODEL, answer, request

DECLARED = {"default": Declared("schema", frozenset({"title", "year"}))}
NOON = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)


def write(folder: Path, *answers: tuple[Answer, datetime], inputs: bool = False) -> None:
    convert = Conversion(DECLARED, str, inputs)
    writer = Rotating(folder, convert.schema)
    for made, when in answers:
        writer.write(convert([Entry(made, "", int(when.timestamp() * 1e6))]))
    writer.close()


def at(id_: str, minutes: float = 0.0) -> tuple[Answer, datetime]:
    return answer(request(query_id=id_)), NOON + timedelta(minutes=minutes)


def ids(folder: Path, window: Window = Window()) -> list[str]:  # noqa: B008
    found = logs.read(logs.files(folder, window).sound, ["query_id"], window)
    return [id_ for batch in found for id_ in batch.column("query_id").to_pylist()]


def test_a_search_comes_back_as_it_was_served(tmp_path: Path) -> None:
    """Every value to the bit, in the order of the ranking; inputs by field."""
    made = answer(request("q", query_id="a", context={"plan": "free", "age": 3.5}))
    made = replace(made, candidates=replace(made.candidates, normalized=np.array([[0.5, 1.0]])))
    write(tmp_path, (made, NOON), inputs=True)
    [served] = logs.searches(logs.read(logs.files(tmp_path).sound))
    order = made.page.order
    assert (served.query_id, served.query, served.time, served.ids) == ("a", "q", NOON, ("y", "x"))
    assert (served.model, served.schema_sha256, served.backends) == (MODEL, "schema", ("a",))
    np.testing.assert_array_equal(served.features, made.features.matrix[order])
    np.testing.assert_array_equal(served.scores, made.scores.values[order])
    np.testing.assert_array_equal(served.ranks, made.candidates.ranks[:, order])
    np.testing.assert_array_equal(served.backend_scores, made.candidates.scores[:, order])
    assert served.fused_ranks.tolist() == [2, 1]
    assert served.inputs
    assert served.inputs.context == {"plan": "free", "age": 3.5}
    np.testing.assert_array_equal(served.inputs.normalized, made.candidates.normalized[:, order])
    np.testing.assert_array_equal(served.inputs.numbers["year"], [np.nan, 1999])
    assert served.inputs.texts["title"].tolist() == ["", "the x"]


def test_members_of_an_ensemble_come_back(tmp_path: Path) -> None:
    """Every member's scores in the order of the ranking; none where one model ranked, or by an old file."""
    made = answer()
    members = {"m": np.array([1.5, 2.5]), "n": np.array([np.nan, -1.0])}
    write(tmp_path, (replace(made, scores=replace(made.scores, members=members)), NOON), at("alone"))
    together, alone = logs.searches(logs.read(logs.files(tmp_path).sound))
    assert (list(together.members), dict(alone.members)) == (["m", "n"], {})
    for name, own in members.items():
        np.testing.assert_array_equal(together.members[name], own[made.page.order])
    [path] = tmp_path.rglob("*.parquet")
    table = pq.read_table(path).drop_columns(["member_models", "member_scores"])
    pq.write_table(table, path)
    assert [dict(served.members) for served in logs.searches(logs.read([path]))] == [{}, {}]


def test_files_with_and_without_inputs_are_read_together(tmp_path: Path) -> None:
    """A setting changed midway makes no row unreadable; what was not logged is None."""
    write(tmp_path, at("a"))
    write(tmp_path, at("b"), inputs=True)
    served = {s.query_id: s for s in logs.searches(logs.read(logs.files(tmp_path).sound))}
    assert served["a"].inputs is None
    assert served["b"].inputs is not None


def test_a_search_without_a_model_has_none(tmp_path: Path) -> None:
    """The fused order of a mix that names no model."""
    fused = replace(answer(), scores=Scores(np.array([1.0, 2.0]), Ranker.FUSED))
    write(tmp_path, (fused, NOON))
    [served] = logs.searches(logs.read(logs.files(tmp_path).sound))
    assert (served.model, served.ranker) == (None, "fused")


def test_torn_files_are_named_and_left_out(tmp_path: Path) -> None:
    """A file that something else cut short does not stop the reading of others; a spool is no file."""
    write(tmp_path, at("a"), at("b", 60))
    first, second = logs.files(tmp_path).sound
    first.write_bytes(first.read_bytes()[:-10])
    Rotating(tmp_path, Conversion(DECLARED, str).schema).write(
        Conversion(DECLARED, str)([Entry(answer(), "", 0)])
    )
    found = logs.files(tmp_path)
    assert (found.sound, found.torn) == ((second,), (first,))
    assert ids(tmp_path) == ["b"]


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, ["a", "b", "c"]),
        (0, None, ["a", "b", "c"]),
        (1e-9 + 1 / 60, None, ["b", "c"]),
        (None, 120, ["a", "b"]),
        (40, 120, ["b"]),
        (500, None, []),
    ],
)
def test_a_window_takes_its_rows(
    tmp_path: Path, since: float | None, until: float | None, expected: list[str]
) -> None:
    """Its start belongs to it, its end does not; files of other hours are not opened."""
    write(tmp_path, at("a"), at("b", 40), at("c", 120))
    bounds = [None if m is None else NOON + timedelta(minutes=m) for m in (since, until)]
    assert ids(tmp_path, Window(*bounds)) == expected


def test_files_of_other_hours_are_passed_over(tmp_path: Path) -> None:
    """By their folders' names alone."""
    write(tmp_path, at("a"), at("b", 60), at("c", 120))
    window = Window(NOON + timedelta(minutes=60), NOON + timedelta(minutes=61))
    assert len(logs.files(tmp_path, window).sound) == 1


def test_progress_is_told(tmp_path: Path) -> None:
    """After every file, and of how many."""
    write(tmp_path, at("a"), at("b", 60))
    heard: list[tuple[int, int]] = []
    found = logs.read(logs.files(tmp_path).sound, progress=lambda done, of: heard.append((done, of)))
    assert pa.Table.from_batches(found).num_rows == 2
    assert heard == [(1, 2), (2, 2)]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    """An empty answer would hide a mistyped path."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        logs.files(tmp_path / "nowhere")
