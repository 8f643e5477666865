"""Whom the readers of drafted lists prefer, by the logs of all servers: every click that came in time counts.

A page is a vote: those of one list have query ids of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixer.interleave import Team, preference
from mixer.sequential import Tally
from models.feedback import Joined, Served

_COLUMNS = ("mix", "arm", "model_version", "teams")


class Pair(NamedTuple):
    """An arm that drafts against the control, and the version of its model."""

    mix: str
    arm: str
    version: str


def tallies(joined: Joined) -> Mapping[Pair, Tally]:
    """The votes of every arm's drafted pages that somebody saw. Raises: ValueError where the log names no teams."""
    found: defaultdict[Pair, Tally] = defaultdict(Tally)
    for served in joined.searches(_COLUMNS):
        told = served.seen.size + served.clicked.size + served.converted.size
        if served.row["teams"] and told:
            pair = Pair(served.row["mix"], served.row["arm"], served.row["model_version"])
            found[pair] += _vote(served)
    return found


def _vote(served: Served) -> int:
    clicked = np.union1d(served.clicked, served.converted) + 1
    return preference(_teams(served.row["teams"], served.row["arm"]), clicked.tolist())


def _teams(names: tuple[str, ...], arm: str) -> NDArray[np.int8]:
    picked = [-1 if not name else Team.TREATMENT if name == arm else Team.CONTROL for name in names]
    return np.array(picked, np.int8)
