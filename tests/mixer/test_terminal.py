from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mixer import terminal
from mixer.catalogue import ATTRIBUTES, METRICS, SPANS
from mixer.client import BackendReport, ExplainResult, Hit, Placement, SearchResult, Source, StoreReport
from mixer.values import ModelRef
from tests import forest

NAMES = tuple(feature.name for feature in forest.FEATURES)


def hit(rank: int, fused_rank: int | None = None, **changes: Any) -> Hit:
    made = Hit(
        id=f"d{rank}",
        rank=rank,
        score=1 / rank,
        fused_score=0.5,
        fused_rank=rank if fused_rank is None else fused_rank,
        fields={},
        sources=(Source("words", rank, 1.0),),
        pinned=False,
    )
    return replace(made, **changes)


def result(*hits: Hit, **changes: Any) -> SearchResult:
    made = SearchResult(
        hits=hits,
        query_id="q1",
        trace_id="",
        mix="default",
        candidates=42,
        next_cursor="",
        elapsed_ms=12.34,
        ranker="fused",
        model=None,
        degraded=False,
        degraded_reasons=(),
        backends=(report("words"), report("vectors")),
        drops={},
        feature_names=(),
        features=np.empty((0, 1)),
    )
    return replace(made, **changes)


def report(backend: str, outcome: str = "ok", detail: str = "") -> BackendReport:
    return BackendReport(backend, outcome, 3.21, 7, detail, "v1")


def shown(
    answer: SearchResult, query: str = "read csv", moved: Sequence[str] = (), color: bool = False
) -> str:
    out = StringIO()
    console = Console(file=out, width=250, force_terminal=color, color_system="standard" if color else None)
    for part in terminal.ranking(query, answer, moved):
        console.print(part)
    return out.getvalue()


def row(text: str, id_: str) -> list[str]:
    """The cells of a hit's line."""
    (line,) = [line for line in text.splitlines() if id_ in line]
    return [cell.strip() for cell in line.strip("│┃").split("│")]


def test_a_hit_s_row() -> None:
    """A row says the rank, the document, its place in every backend, the fused place, and the score."""
    text = shown(result(hit(2, sources=(Source("vectors", 9, 0.1),))))
    assert row(text, "d2") == ["2", "d2", "-", "9", "2", "0.500"]
    assert re.search(r"rank.*document.*words.*vectors.*fused.*score", text)
    assert text.startswith("read csv")


@pytest.mark.parametrize(("rank", "fused_rank", "told"), [(1, 4, "4 ▲3"), (4, 1, "1 ▼3"), (2, 2, "2")])
def test_arrows(rank: int, fused_rank: int, told: str) -> None:
    """An arrow says how many places the model moved a hit, up or down; none where it stayed."""
    assert row(shown(result(hit(rank, fused_rank))), f"d{rank}")[4] == told


def test_arrows_have_colors() -> None:
    """Up is green, down is red."""
    text = shown(result(hit(1, 2), hit(2, 1)), color=True)
    assert "\x1b[32m ▲1" in text
    assert "\x1b[31m ▼1" in text


def test_pinned() -> None:
    """A pinned hit says so beside its rank, and no other does."""
    text = shown(result(hit(1, pinned=True), hit(2)))
    assert (row(text, "d1")[0], row(text, "d2")[0]) == ("1 pinned", "2")


@pytest.mark.parametrize("words", ["[bold]x[/bold]", "[/]", "[red", "\\[x]", "[link=http://a]b"])
def test_markup_is_shown_as_it_is(words: str) -> None:
    """What looks like the terminal's markup in a query, an id, a text, a detail or a reason is only text."""
    told = result(
        hit(1, id=f"id-{words}", fields={"title": f"title {words}"}),
        backends=(report("words", "error", f"detail {words}"),),
        degraded=True,
        degraded_reasons=(f"reason {words}",),
    )
    text = shown(told, f"query {words}")
    for place in ("id-", "title ", "detail ", "reason ", "query "):
        assert f"{place}{words}" in text


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "d1"),
        ({"year": 1999.0}, "d1"),
        ({"id": "d1"}, "d1"),
        ({"kind": "class", "summary": "reads rows", "year": 1.0}, "d1  reads rows"),
        ({"summary": "x" * 60}, "d1  " + "x" * 60),
        ({"summary": "x" * 61}, "d1  " + "x" * 60 + "…"),
    ],
)
def test_the_text_of_a_document(fields: dict[str, str | float], told: str) -> None:
    """Beside the id stands the longest text that says something else, on one line, cut where it is long."""
    assert row(shown(result(hit(1, fields=fields))), "d1")[1] == told


def test_outcomes_of_backends() -> None:
    """Every backend's outcome, hits and time are there, and its detail where it has one."""
    outcomes = ("ok", "timeout", "error", "refused", "skipped")
    reports = tuple(report(f"b{n}", word, "why" * (n > 0)) for n, word in enumerate(outcomes))
    text = shown(result(backends=reports))
    for number, word in enumerate(outcomes):
        assert f"b{number} {word} 7 hits 3.2 ms{' (why)' if number else '  '}" in text
    colored = shown(result(backends=reports), color=True)
    for code, told in ((32, "b0 ok"), (33, "b1 timeout"), (31, "b2 error"), (35, "b3 refused")):
        assert f"\x1b[{code}m{told}" in colored


def test_stores_are_told() -> None:
    """Of each feature store how it ended, how many rows there are, and why where it did not answer."""
    stores = (
        StoreReport("clicks", "ok", 1.26, 200, 150, 182, 0, ""),
        StoreReport("users", "timeout", 20.0, 1, 0, 0, 0, "no answer within 20 ms"),
    )
    told = shown(result(hit(1), stores=stores))
    assert "store clicks ok 182 of 200 rows, 150 from the cache, 1.3 ms" in told
    assert "store users timeout 0 of 1 rows, 0 from the cache, 20.0 ms (no answer within 20 ms)" in told


def test_how_it_came_about() -> None:
    """One line says candidates, ranker, model, time, arm, query id, and the trace where there is one."""
    assert "42 candidates, ranked by fused (no model), 12.3 ms, query id q1\n" in shown(result())
    assert "12.3 ms, arm canary, query id q1\n" in shown(result(arm="canary"))
    told = result(ranker="model", model=ModelRef("forest", "v7", "0" * 64), trace_id="abc")
    assert "ranked by model (forest v7), 12.3 ms, query id q1, trace abc" in shown(told)


def test_degraded() -> None:
    """A degraded answer says so, with every reason; a whole one does not use the word."""
    text = shown(result(degraded=True, degraded_reasons=("b: timeout", "checksum_failed")))
    assert "degraded: b: timeout; checksum_failed" in text
    assert "degraded" not in shown(result())


def test_nothing_found() -> None:
    """An answer without hits is a table without rows, and still tells how it came about."""
    assert "42 candidates" in shown(result())


def explained(*rows: Sequence[float], **changes: Any) -> ExplainResult:
    """Hits of which the two features `one` and `two` have these parts."""
    hits = [hit(place + 1) for place in range(len(rows))]
    parts = np.array(rows, np.float64).reshape(len(rows), 2)
    answer = result(*hits, ranker="model", feature_names=("one", "two"), features=parts)
    placements = tuple(Placement(h.rank, h.rank, h.rank, h.rank, h.rank, (0.5,)) for h in hits)
    return replace(ExplainResult(answer, placements, 0.25, parts, "", None), **changes)


def test_movers_are_told_against_the_average() -> None:
    """What all the hits have in common moved none; the strongest stands first, what rounds to nothing is left out."""
    told = terminal.movers(explained((1.0, 5.0), (3.0, 5.006), (2.0, 4.994)))
    assert told == ["one -1.00", "one +1.00, two +0.01", "two -0.01"]
    assert terminal.movers(explained((1.0, 5.0), (1.0, 5.0))) == ["", ""]


def test_movers_of_one_alone() -> None:
    """With no other to be held against, its parts are told as they are."""
    assert terminal.movers(explained((1.0, -5.0))) == ["two -5.00, one +1.00"]


def test_the_three_strongest_movers() -> None:
    """More are not told."""
    parts = np.array([[1.0, -4.0, 3.0, 2.0], [0.0] * 4]) * 2
    answer = result(hit(1), hit(2), feature_names=("a", "b", "c", "d"))
    told = terminal.movers(ExplainResult(answer, (), 0.0, parts, "", None))
    assert told == ["b -4.00, c +3.00, d +2.00", "b +4.00, c -3.00, d -2.00"]


def test_movers_of_nothing() -> None:
    """Where no part is told, none is; the table has no column for it then."""
    assert terminal.movers(explained((1.0, 2.0), contributions=np.empty((0, 2)))) == []
    assert terminal.movers(explained()) == []
    assert "what moved it" not in shown(result(hit(1)))


def test_movers_in_the_table() -> None:
    """Each hit has what moved it in its row; hits beyond those that are told have nothing there."""
    text = shown(result(hit(1), hit(2)), moved=["one +1.00"])
    assert "what moved it" in text
    assert row(text, "d1")[-1] == "one +1.00"
    assert row(text, "d2")[-1] == ""


def strictly(text: str) -> Any:
    """JSON without NaN and its like."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_plain() -> None:
    """The result in JSON says all that the result says; a missing feature is null."""
    answer = result(
        hit(1, fields={"year": 1999.0, "title": "t"}),
        model=ModelRef("forest", "1", "0" * 64),
        drops={"a: repeated": 1},
        feature_names=("one", "two"),
        features=np.array([[1.5, np.nan]]),
    )
    told = strictly(json.dumps(terminal.plain(answer)))
    assert told["hits"][0]["sources"] == [{"backend": "words", "rank": 1, "score": 1.0}]
    assert told["hits"][0]["fields"] == {"year": 1999.0, "title": "t"}
    assert told["features"] == [[1.5, None]]
    assert (told["model"]["name"], told["drops"]) == ("forest", {"a: repeated": 1})
    assert set(told) == {field for field in SearchResult.__slots__}  # noqa: C416


def cells(lines: Sequence[str]) -> list[int]:
    """Cells a line."""
    return [len(re.split(r"(?<!\\)\|", line)) for line in lines]


def test_catalogue() -> None:
    """Every metric, span and attribute has its row, and every table is a table."""
    text = terminal.catalogue_markdown()
    for name in (*(m.name for m in METRICS), *SPANS, *(a.key for a in ATTRIBUTES)):
        assert f"| `{name}` |" in text
    for table in text.split("\n\n"):
        assert len(set(cells(table.splitlines()))) == 1


def test_who_was_asked_again() -> None:
    """How often a backend was asked is told where it was not once."""
    again = replace(report("words", "timeout", "late"), attempts=2)
    assert "7 hits 3.2 ms (late, asked 2 times)" in shown(result(backends=(again, report("vectors"))))
    assert "asked" not in shown(result())
