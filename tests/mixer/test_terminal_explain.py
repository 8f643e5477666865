from __future__ import annotations

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from mixer.client import BackendReport, ExplainResult, Hit, Placement, SearchResult, Source
from mixer.terminal_explain import LACKING, explanation
from mixer.values import ModelRef


def told(**changes: object) -> ExplainResult:
    """One hit of two backends that a model of three features ranked."""
    hit = Hit("[b]d1", 1, 1.75, 0.5, 4, {}, (Source("words", 4, 1.0), Source("vectors", 2, 0.3)), False)
    reports = tuple(BackendReport(name, "ok", 1.0, 7, "", "v1") for name in ("words", "none", "vectors"))
    answer = SearchResult(
        hits=(hit,),
        query_id="q",
        trace_id="",
        mix="default",
        candidates=9,
        next_cursor="",
        elapsed_ms=1.0,
        ranker="model",
        model=ModelRef("forest", "1", "0" * 64),
        degraded=False,
        degraded_reasons=(),
        backends=reports,
        drops={},
        feature_names=("one", "two", "three"),
        features=np.array([[3.0, np.nan, 0.125]]),
    )
    placement = Placement(4, 2, 3, 1, 1, (0.2, 0.0, 0.3))
    return replace(
        ExplainResult(answer, (placement,), 0.25, np.array([[-0.5, 2.0, 0.001]]), "", answer.model),
        **changes,  # type: ignore[arg-type]
    )


def shown(result: ExplainResult, features: int = 8) -> str:
    out = StringIO()
    console = Console(file=out, width=200)
    for part in explanation("the [red]query", result, features):
        console.print(part)
    return out.getvalue()


def words(text: str, first: str) -> list[str]:
    """The words of the line that begins so."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(first)]
    return line.split()


def test_places_of_every_step() -> None:
    """Each step's place stands with how far it moved the hit; nothing in them is markup."""
    text = shown(told())
    assert "  fused 4 → by score 2 ▲2 → diversity 3 ▼1 → pins 1 ▲2\n" in text
    assert "the [red]query" in text
    assert "1 [b]d1" in text


def test_places_without_the_steps_of_the_rules() -> None:
    """Where the rules' steps are not known they are one."""
    logged = Placement(4, 1, 0, 1, 1, ())
    text = shown(told(placements=(logged,)))
    assert "  fused 4 → by score 1 ▲3 → rules 1\n" in text
    assert "fused score" not in text


def test_votes() -> None:
    """The fused score is the sum of the votes of the backends that returned the document, each with its rank."""
    assert "fused score 0.5000 = words 0.2000 (rank 4) + vectors 0.3000 (rank 2)\n" in shown(told())


def test_features_that_count() -> None:
    """The strongest stand first, missing values are called so, and what is not shown is one sum: all of it adds up."""
    text = shown(told())
    assert words(text, "two ") == ["two", "missing", "+2.0000"]
    assert words(text, "one ") == ["one", "3", "-0.5000"]
    assert words(text, "1 others") == ["1", "others", "+0.0010"]
    assert words(text, "the model's mean")[-1] == "+0.2500"
    assert words(text, "score ")[-1] == "1.7500"
    assert text.rindex("two ") < text.rindex("one ")
    assert words(shown(told(), features=1), "2 others") == ["2", "others", "-0.4990"]


def test_all_features() -> None:
    """0 shows every one, those that add nothing too."""
    text = shown(told(), features=0)
    assert words(text, "three ") == ["three", "0.125", "+0.0010"]
    assert "others" not in text


@pytest.mark.parametrize("lacking", LACKING)
def test_what_lacks(lacking: str) -> None:
    """Where features' parts lack, why is said in words, and the rest is there."""
    text = shown(told(lacking=lacking, contributions=np.empty((0, 3))))
    assert LACKING[lacking] in text
    assert "by score 2" in text
    assert "the model's mean" not in text


@pytest.mark.parametrize(
    ("served_by", "named"),
    [(ModelRef("old", "7", "1" * 64), "served by old 7"), (None, "served by the fused order")],
)
def test_what_another_model_would_do(served_by: ModelRef | None, named: str) -> None:
    """That it is no answer that was served is said, and by whom and where each hit was."""
    moved = replace(told().placements[0], served_rank=6)
    text = shown(told(served_by=served_by, placements=(moved,)))
    assert named in text
    assert "pins 1 ▲2 (served at 6)\n" in text
    assert "served" not in shown(told())
