"""Two rankings shown as one, so that every reader compares them: team-draft interleaving, pure.

Radlinski, Kurup and Joachims, "How does clickthrough data reflect retrieval quality?", CIKM 2008. In each round
both rankings pick, in an order drawn by a coin, their best document that is not there yet; a click counts for the
ranking that picked the document. Far more sensitive than two arms: the readers are their own control.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mixer.values import IntColumn


class Team(IntEnum):
    """Who picked a document."""

    CONTROL = 0
    TREATMENT = 1


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Row numbers, best first, and who picked each of the first ones."""

    order: IntColumn
    teams: NDArray[np.int8]


def coins(salt: str, query_id: str, rounds: int) -> list[bool]:
    """For each round whether the treatment picks first; the same for the same salt and query id, anywhere."""
    text = f"{salt}\0{query_id}".encode("utf-8", "surrogatepass")
    found: list[bool] = []
    for block in range((rounds + 511) // 512):
        digest = blake2b(text, digest_size=64, salt=block.to_bytes(8), person=b"interleave").digest()
        found.extend(bool(byte >> bit & 1) for byte in digest for bit in range(8))
    return found[:rounds]


def team_draft(control: IntColumn, treatment: IntColumn, size: int, toss: Iterable[bool]) -> Interleaved:
    """Draft `size` documents of two orders of the same documents; the rest follows in the control's order.

    `toss` has a coin for each round, of which there are (size + 1) // 2 at most. What follows the draft was picked by
    nobody: `teams` is as long as the draft. Raises: ValueError where the coins run out.
    """
    wanted = min(size, len(control))
    teams = [team for first in islice(toss, (wanted + 1) // 2) for team in (int(first), 1 - first)][:wanted]
    if len(teams) < wanted:
        raise ValueError(f"coins for {len(teams)} of {wanted} documents")
    lists = iter(control[:wanted].tolist()), iter(treatment[:wanted].tolist())
    taken = dict[int, None]()
    for team in teams:
        taken[next(row for row in lists[team] if row not in taken)] = None
    head = np.array(list(taken), np.intp)
    order = np.concatenate([head, control[~np.isin(control, head)]])
    return Interleaved(order, np.array(teams, np.int8))


def preference(teams: NDArray[np.int8], clicked: Iterable[int]) -> int:
    """Whom one search prefers: 1 the treatment, -1 the control, 0 neither; `clicked` are places from 1.

    `teams` says of each place who picked it; what is no Team is nobody.

    A place counts once however often it is clicked, and not at all where nobody picked it.
    """
    picked = [int(teams[place - 1]) for place in set(clicked) if 1 <= place <= len(teams)]
    treatment, control = picked.count(Team.TREATMENT), picked.count(Team.CONTROL)
    return (treatment > control) - (treatment < control)
