"""Whom readers prefer: an arm's ranking or the control's, by the clicks on lists that both drafted.

A list, with all its pages, is one vote, for the ranking that picked more of what was clicked. Its vote is counted once,
a while after the list was first served, so that no later click takes it back and the test may be looked at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from mixer import catalogue
from mixer.experiment_settings import InterleaveSettings
from mixer.interleave import preference
from mixer.metrics import Metrics
from mixer.sequential import SequentialTest, Tally, log_evidence
from mixer.values import Answer, ModelRef

log = logging.getLogger(__name__)

LISTS = 16_384
"""That wait for clicks at most; beyond them the oldest is counted as it is."""
PREFERRED = {1: "arm", -1: "control", 0: "neither"}


@dataclass(slots=True)
class _List:
    """A list that was served: its hits, page after page, who picked each, and the places that were clicked."""

    served_s: float
    ids: list[str] = field(default_factory=list)
    teams: list[int] = field(default_factory=list)
    query_ids: list[str] = field(default_factory=list)
    clicked: set[int] = field(default_factory=set)
    seen: bool = False

    def saw(self, id_: str, clicked: bool) -> None:
        self.seen = True
        if clicked and id_ in self.ids:
            self.clicked.add(self.ids.index(id_) + 1)

    @property
    def prefers(self) -> int:
        return preference(np.array(self.teams, np.int8), self.clicked)


class Duel:
    """The running test of one arm."""

    def __init__(
        self,
        mix: str,
        arm: str,
        declared: InterleaveSettings,
        metrics: Metrics,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Begins anew with every model that comes into the arm or the control; `clock` in seconds."""
        self._told = {"mix": mix, "arm": arm}
        self._settle_s, self._alpha, self._clock = declared.settle_s, declared.alpha, clock
        self._counts = {
            way: metrics.gauge(catalogue.INTERLEAVED_LISTS, **self._told, preferred=name).set
            for way, name in PREFERRED.items()
        }
        self._evidence = metrics.gauge(catalogue.INTERLEAVED_EVIDENCE, **self._told).set
        self._begin(("", ""))

    @property
    def test(self) -> SequentialTest:
        """What is known of these two models."""
        return self._test

    def served(self, answer: Answer) -> None:
        """Remember who picked the hits of this page; a list that is not drafted is no part of the test."""
        draft, against = answer.page.draft, answer.scores.against
        if draft is None or against is None:
            return
        pair = _hash(answer.scores.model), _hash(against.model)
        if pair != self._pair:
            self._begin(pair)
        page, query_id = answer.page, answer.plan.request.query_id
        held = self._lists.setdefault(draft.seed, _List(self._clock()))
        held.ids += [answer.candidates.ids[row] for row in page.rows.tolist()]
        held.teams += draft.teams[page.places].tolist()
        held.query_ids.append(query_id)
        self._seeds[query_id] = draft.seed
        if len(self._lists) > LISTS:
            self._settle_oldest()

    def saw(self, query_id: str, id_: str, clicked: bool) -> bool:
        """A hit was seen or clicked; whether its list waits here."""
        held = self._lists.get(self._seeds.get(query_id, ""))
        if held is None:
            return False
        held.saw(id_, clicked)
        return True

    def settle(self) -> None:
        """Count the lists that waited long enough."""
        until_s = self._clock() - self._settle_s
        while self._lists and next(iter(self._lists.values())).served_s <= until_s:
            self._settle_oldest()

    def _settle_oldest(self) -> None:
        held = self._lists.pop(next(iter(self._lists)))
        for query_id in held.query_ids:
            self._seeds.pop(query_id, None)
        if held.seen:
            before = self._test.verdict
            self._test.tell(held.prefers)
            self._tell()
            if self._test.verdict != before:
                self._say()

    def _begin(self, pair: tuple[str, str]) -> None:
        self._pair = pair
        self._lists: dict[str, _List] = {}
        self._seeds: dict[str, str] = {}
        self._test = SequentialTest(self._alpha)
        self._tell()

    def _tell(self) -> None:
        tally = self._test.tally
        for way, count in ((1, tally.wins), (-1, tally.losses), (0, tally.ties)):
            self._counts[way](count)
        self._evidence(log_evidence(tally))

    def _say(self) -> None:
        tally: Tally = self._test.tally
        told = {"wins": tally.wins, "losses": tally.losses, "ties": tally.ties, "p": self._test.p_value}
        why = {"preferred": self._test.verdict, "sha256": self._pair[0], "control_sha256": self._pair[1]}
        log.warning("readers prefer one of two rankings", extra={**self._told, **why, **told})


def _hash(model: ModelRef | None) -> str:
    return model.sha256 if model else ""
