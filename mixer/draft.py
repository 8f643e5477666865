"""Lists that two rankings make by turns, so that every reader compares them: see `mixer.interleave`.

Both models rank the same candidates by the same features. Coins are tossed for each search by itself: who would always
click the first hit of one query is no vote for anybody. A cursor keeps the coins of its list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from mixer.arrange import Arrange, Picks, total_order
from mixer.cursor import CursorSigner
from mixer.interleave import coins, team_draft
from mixer.rank import Rank
from mixer.settings import MixSettings
from mixer.values import Candidates, Features, IntColumn, Plan, Scores

DEPTH = 100
"""Places that are drafted, whatever page is asked for; the rest follows in the control's order."""


@dataclass(frozen=True, slots=True)
class Rival:
    """The ranking that an arm drafts against: the control's."""

    arm: str
    rank: Callable[[], Rank]
    """What ranks there now."""
    salt: str
    """Of the coins."""


class RankBoth:
    """The stage of an arm that drafts: its own scores, and beside them the control's."""

    def __init__(self, rank: Rank, rival: Rival) -> None:
        """Takes the arm's own ranker."""
        self._rank, self._rival = rank, rival

    def __call__(self, candidates: Candidates, features: Features) -> Scores:
        """Where one of both could not rank, there is nothing to compare: the arm's own scores stand alone."""
        own, control = self._rank(candidates, features), self._rival.rank()(candidates, features)
        if own.fallback_reason or control.fallback_reason:
            return own
        return replace(own, members={**own.members, self._rival.arm: control.values}, against=control)


class ArrangeDraft(Arrange):
    """The stage of an arm that drafts: the mix's rules and the page are those of any list."""

    def __init__(self, mix: MixSettings, signer: CursorSigner, arm: str, rival: Rival) -> None:
        """Takes the arm that drafts against the rival."""
        super().__init__(mix, signer, arm)
        self._arms, self._salt = (rival.arm, arm), rival.salt

    def ranked(self, plan: Plan, candidates: Candidates, scores: Scores) -> tuple[IntColumn, Picks | None]:
        """The list of both, and who picked what."""
        if scores.against is None:
            return super().ranked(plan, candidates, scores)
        control = total_order(candidates, scores.against)
        size, seed = min(DEPTH, len(control)), _seed(plan)
        made = team_draft(
            control, total_order(candidates, scores), size, coins(self._salt, seed, (size + 1) // 2)
        )
        teams = np.full(len(control), -1, np.int8)
        teams[made.order[:size]] = made.teams
        return made.order, Picks(self._arms, teams, seed)


def _seed(plan: Plan) -> str:
    """Of the page before, or the search's own."""
    if plan.bookmark:
        return plan.bookmark.seed
    text = plan.request.query_id.encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16, person=b"draft").hexdigest()
