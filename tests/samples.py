"""Small values of every kind that flows through the pipeline, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backends.base import Filter, FloatColumn, Hits, Index, Terms
from mixer.cursor import CursorSigner
from mixer.merge import Merge
from mixer.plan import MakePlan
from mixer.settings import MixSettings
from mixer.values import (
    Answer,
    Candidates,
    Features,
    ModelRef,
    Outcome,
    Page,
    Plan,
    Ranker,
    Reply,
    Request,
    Scores,
)

SIGNER = CursorSigner(b"a key for tests")
MODEL = ModelRef("forest", "1", hashlib.sha256(b"forest").hexdigest())


def hits(
    ids: Sequence[str] = (),
    scores: Sequence[float] | None = None,
    numbers: Mapping[str, Sequence[float]] | None = None,
    texts: Mapping[str, Sequence[str]] | None = None,
    version: str = "v1",
) -> Hits:
    """Columns; scores fall from the number of ids to 1 where none are given."""
    return Hits(
        list(ids),
        np.array(range(len(ids), 0, -1) if scores is None else scores, np.float64),
        {name: np.array(column, np.float64) for name, column in (numbers or {}).items()},
        {name: list(column) for name, column in (texts or {}).items()},
        Index(version),
    )


def reply(backend: str, answered: Hits | None, outcome: Outcome = Outcome.OK, detail: str = "") -> Reply:
    """A reply that took 10 ms."""
    return Reply(backend, outcome, 0.01, answered, detail)


def mix(*backends: str, **settings: Any) -> MixSettings:
    """A mix of these backends; `members` gives some of them settings of their own."""
    members: dict[str, Any] = {**{name: {} for name in backends}, **settings.pop("members", {})}
    return MixSettings.model_validate({"backends": members, **settings})


def request(query: str = "read csv", **fields: Any) -> Request:
    """A request for the first ten of the mix called default."""
    return Request(query, **{"mix": "default", "page_size": 10, "time_left_s": 1.0, **fields})


def plan(rules: MixSettings | None = None, asked: Request | None = None) -> Plan:
    """The plan of a request."""
    return MakePlan(rules or mix("a"), SIGNER)(asked or request())


def merged(rules: MixSettings, replies: Sequence[Reply]) -> Candidates:
    """What these replies become in this mix."""
    return Merge(rules)(plan(rules), replies)


def candidates(
    fused: Sequence[float],
    ids: Sequence[str] | None = None,
    texts: Mapping[str, Sequence[str]] | None = None,
    numbers: Mapping[str, Sequence[float]] | None = None,
) -> Candidates:
    """Candidates of one backend `a` with these fused scores; ids d00, d01 … where none are given."""
    n = len(fused)
    column = np.array(fused, np.float64)
    prior = np.argsort(-column, kind="stable")
    ranks = np.zeros((1, n), np.int32)
    ranks[0, prior] = np.arange(1, n + 1)
    return Candidates(
        ids=[f"d{row:02}" for row in range(n)] if ids is None else list(ids),
        backends=("a",),
        ranks=ranks,
        scores=column[None],
        normalized=column[None],
        fused=column,
        prior=prior,
        numbers={name: np.array(values, np.float64) for name, values in (numbers or {}).items()},
        texts={name: np.array([*values, ""], object)[:-1] for name, values in (texts or {}).items()},
    )


def scores(values: Sequence[float], model: ModelRef = MODEL) -> Scores:
    """Scores of a model."""
    return Scores(np.array(values, np.float64), Ranker.MODEL, model)


def features(**columns: Sequence[float]) -> Features:
    """Feature columns by name."""
    matrix: FloatColumn = np.array(list(columns.values()), np.float64).T
    missing = np.isnan(matrix).sum(axis=0)
    return Features(tuple(columns), matrix, missing, np.zeros(len(columns), np.intp))


def answer(asked: Request | None = None, **changes: Any) -> Answer:
    """Two documents of backend `a`, ranked by a model."""
    rules = mix("a")
    replies = (
        reply("a", hits(["x", "y"], numbers={"year": [1999, np.nan]}, texts={"title": ["the x", ""]})),
    )
    made = Answer(
        plan(rules, asked),
        replies,
        merged(rules, replies),
        features(one=[1, 2], two=[np.nan, 4]),
        scores([0.5, 0.75]),
        Page(np.array([1, 0]), 0, 10),
    )
    return replace(made, **changes)


def only(*ids: str) -> Filter:
    """A filter on the id."""
    return Filter("id", Terms(ids))
