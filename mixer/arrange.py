"""Scores to a page: a total order, then the mix's rules, then the slice that was asked for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends.base import FloatColumn
from mixer.cursor import (
    CursorSigner,
    check_inputs,
    check_served,
    indexes_read,
    ranker_used,
    request_digest,
    served_digest,
)
from mixer.settings import DiversitySettings, MixSettings
from mixer.values import Bookmark, Candidates, Draft, IntColumn, Page, Plan, Reply, Scores


@dataclass(frozen=True, slots=True)
class Steps:
    """The order of all rows after each step, best first."""

    scored: IntColumn
    """By score alone."""
    spread: IntColumn
    """After the rule for diversity."""
    final: IntColumn
    """After the pins."""
    pinned: IntColumn
    """Rows of the pins, which stand first."""


class Rules:
    """From the order by score to the final one: diversity, then pins."""

    def __init__(self, mix: MixSettings) -> None:
        """Takes the mix whose rules they are."""
        self._pins = {pin.query.casefold().strip(): pin.ids for pin in mix.pins}
        self._diversity = mix.diversity

    def __call__(self, query: str, candidates: Candidates, scored: IntColumn) -> Steps:
        """What each step makes of the order."""
        spread_ = spread(scored, candidates, self._diversity) if self._diversity else scored
        pinned = self._pinned_rows(query, candidates.ids)
        final = np.concatenate([pinned, spread_[~np.isin(spread_, pinned)]]) if len(pinned) else spread_
        return Steps(scored, spread_, final, pinned)

    def _pinned_rows(self, query: str, ids: Sequence[str]) -> IntColumn:
        """Rows of the query's pins that a backend returned, in the pins' order."""
        wanted = self._pins.get(query.casefold().strip(), ()) if self._pins else ()
        places: Mapping[str, int] = {id_: row for row, id_ in enumerate(ids)} if wanted else {}
        return np.array([places[id_] for id_ in dict.fromkeys(wanted) if id_ in places], np.intp)


@dataclass(frozen=True, slots=True)
class Picks:
    """Who picked which row (n,); see `Draft`."""

    arms: tuple[str, str]
    teams: NDArray[np.int8]
    seed: str

    def along(self, order: IntColumn, pinned: IntColumn) -> Draft:
        """In this order; what a rule put first was picked by nobody."""
        teams = self.teams.copy()
        teams[pinned] = _NOBODY
        return Draft(self.arms, teams[order], self.seed)


_NOBODY = -1


class Arrange:
    """The stage: decides which hits stand where."""

    def __init__(self, mix: MixSettings, signer: CursorSigner, arm: str = "", explore_hits: int = 0) -> None:
        """Takes the mix whose rules it applies, and the arm of its experiment whose lists it cuts.

        `explore_hits` at the head of each list, below the pins, stand in an order drawn by chance.
        """
        self._rules, self._signer = Rules(mix), signer
        self._arm, self._explore_hits = arm, explore_hits

    def __call__(self, plan: Plan, replies: Sequence[Reply], candidates: Candidates, scores: Scores) -> Page:
        """Raises: StaleCursor or PageUnavailable where the page before was cut from another list."""
        scored, draft = self.ranked(plan, candidates, scores)
        steps = self._rules(plan.request.query, candidates, scored)
        order, pinned = steps.final, steps.pinned
        seed = draft.seed if draft else self._seed(plan)
        explored = bool(self._explore_hits)
        propensities = shuffle(order, len(pinned), self._explore_hits, seed) if explored else None
        ids = candidates.ids
        if plan.bookmark:
            check_inputs(plan.bookmark, replies, scores)
            check_served(plan.bookmark, [ids[row] for row in order[: plan.offset].tolist()])
        end = plan.offset + plan.request.page_size
        cursor = ""
        if end < len(order):
            served = [ids[row] for row in order[:end].tolist()]
            cursor = self._signer.seal(_bookmark(plan, replies, scores, served, self._arm, seed))
        return Page(
            order,
            plan.offset,
            plan.request.page_size,
            frozenset(pinned.tolist()),
            cursor,
            propensities,
            draft.along(order, pinned) if draft else None,
        )

    def ranked(self, plan: Plan, candidates: Candidates, scores: Scores) -> tuple[IntColumn, Picks | None]:
        """Row numbers, best first, before the mix's rules; and who picked them, where that is to be told."""
        return total_order(candidates, scores), None

    def _seed(self, plan: Plan) -> str:
        """What the order of the head is drawn by, the same for all pages of a list; empty where none is drawn."""
        if not self._explore_hits:
            return ""
        return plan.bookmark.seed if plan.bookmark else plan.request.query_id


def total_order(candidates: Candidates, scores: Scores) -> IntColumn:
    """Row numbers, best first."""
    return best_first(scores.values, candidates.prior)


def best_first(scores: FloatColumn, prior: IntColumn) -> IntColumn:
    """Row numbers (n,), best first: non-finite scores sink, ties break by fused score, then by id.

    The prior order breaks ties so, and the sort is stable.
    """
    values = np.where(np.isfinite(scores), scores, -np.inf)
    order: IntColumn = prior[np.argsort(-values[prior], kind="stable")]
    return order


def spread(order: IntColumn, candidates: Candidates, rule: DiversitySettings) -> IntColumn:
    """The order with at most `max` rows of one value among the first `within`; the surplus follows in order.

    Where too few other values exist, the best of the surplus fills up. An empty value is no value: never capped.
    """
    column = candidates.texts.get(rule.field)
    if column is None:
        return order
    head: list[int] = []
    seen: Counter[str] = Counter()
    for row in order.tolist():
        if len(head) == rule.within:
            break
        value = column[row]
        seen[value] += 1
        if not value or seen[value] <= rule.max:
            head.append(row)
    return np.concatenate([np.array(head, np.intp), order[~np.isin(order, head)]])


def shuffle(order: IntColumn, first: int, hits: int, seed: str) -> FloatColumn:
    """Put the next `hits` places after the `first` in an order drawn by chance, every order as probable as any other.

    Returns (n,) how probable it was that each row came to stand where it stands. What one seed draws is the same
    everywhere. So placed, clicks by place tell how much a place is looked at and nothing of what stands there
    (Joachims, Swaminathan, Schnabel, "Unbiased learning-to-rank with biased feedback", WSDM 2017, section 5).
    """
    head = order[first : first + hits]
    text = seed.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16, person=b"explore").digest()
    np.random.default_rng(int.from_bytes(digest, "big")).shuffle(head)
    propensities = np.ones(len(order))
    propensities[head] = 1 / max(len(head), 1)
    return propensities


def _bookmark(
    plan: Plan, replies: Sequence[Reply], scores: Scores, served: Sequence[str], arm: str, seed: str
) -> Bookmark:
    return Bookmark(
        request=request_digest(plan.request),
        indexes=indexes_read(replies),
        ranker=ranker_used(scores),
        served=served_digest(served),
        offset=len(served),
        arm=arm,
        seed=seed,
        step=plan.request.effort.step,
    )
