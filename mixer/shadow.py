"""Models that score the traffic without being heard: off the response path, under a CPU budget.

An answer that was drawn is queued when it is complete, and a thread compares it with what each shadow would have
made of it. Nothing waits for that thread: what does not fit the queue or the budget is left out and counted.
"""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from queue import Empty, Full, Queue
from threading import Event, Thread
from time import monotonic, thread_time

import numpy as np

from backends.base import FloatColumn
from mixer.arrange import total_order
from mixer.budget import Budget
from mixer.compare import Ranking, kendall_tau_b, rank_biased_overlap, score_shift, top_churn
from mixer.model import ModelRefused
from mixer.rank import Scorer, ScoringFailed
from mixer.shadow_counts import Distance, ShadowCounts
from mixer.values import Answer, Ranker, Request, Scores

QUEUE = 64
"""Answers that wait, at most; each holds on to all its candidates."""

log = logging.getLogger(__name__)

Search = Callable[[Request], Awaitable[Answer]]
SlicesOf = Callable[[Answer], Mapping[str, str]]
"""The value of every declared slice for an answer."""


def _unsliced(answer: Answer) -> Mapping[str, str]:
    return {}


@dataclass(slots=True)
class _Work:
    """A model in the shadows, and what it may spend; it ends for good where it costs too much, or crashes."""

    scorer: Scorer
    budget: Budget
    rests: bool = False
    stopped: bool = False


class Shadow:
    """The place of one model in the shadows of a mix."""

    def __init__(
        self,
        share: float,
        budget: Callable[[], Budget],
        counts: ShadowCounts,
        slices: SlicesOf = _unsliced,
    ) -> None:
        """Scores `share` of the answers, as long as a model's budget lasts; distances are told by slice, too."""
        self.share = share
        self._budget, self._counts, self._slices = budget, counts, slices
        self._work: _Work | None = None
        counts.active(False)

    @property
    def is_active(self) -> bool:
        """Whether there is a model that scores."""
        return self._work is not None and not self._work.stopped

    def put(self, loaded: Scorer | ModelRefused | None) -> None:
        """This model scores from now on, with a budget of its own; one that failed a check is said and left out."""
        if isinstance(loaded, ModelRefused):
            told = {**self._counts.labels, "check": loaded.check, "why": str(loaded)}
            log.error("shadow refused", extra=told)
            loaded = None
        self._work = _Work(loaded, self._budget()) if loaded else None
        self._counts.active(self.is_active)

    def drop(self, reason: str) -> None:
        """Leave an answer out."""
        self._counts.dropped(reason)

    def compare(self, answer: Answer) -> None:
        """Score an answer's candidates as if this model had ranked them; whatever fails ends here."""
        work = self._work
        if work is None or not self._may_spend(work):
            self.drop("stopped" if work is None or work.stopped else "over_budget")
            return
        began_s = thread_time()
        left_out = self._compared(work, answer)
        self._spend(work, thread_time() - began_s)
        if left_out:
            self.drop(left_out)

    def _compared(self, work: _Work, answer: Answer) -> str:
        """Why the answer was left out; empty where it was not."""
        try:
            return self._compare(work.scorer, answer)
        except ScoringFailed:
            return "scoring_failed"
        except Exception:
            log.exception("a shadow crashed", extra=self._counts.labels)
            self._stop(work, "crashed")
            return "crashed"

    def _compare(self, scorer: Scorer, answer: Answer) -> str:
        if len(answer.candidates) < 2:
            return "too_few"
        values = scorer.score(_read_only(answer.features.matrix))
        if not np.isfinite(values).any():
            return "scores_not_finite"
        self._counts.compared(distance(answer, values), self._slices(answer).items())
        return ""

    def _may_spend(self, work: _Work) -> bool:
        if work.stopped:
            return False
        allowed = work.budget.allows()
        if not allowed and not work.rests:
            log.warning("a shadow rests: its CPU budget is spent", extra=self._counts.labels)
        work.rests = not allowed
        if work.budget.is_closed:
            self._stop(work, "cpu_budget")
        return allowed

    def _spend(self, work: _Work, seconds: float) -> None:
        self._counts.spent(seconds)
        work.budget.spend(seconds)
        if work.budget.is_closed:
            self._stop(work, "cpu_budget")

    def _stop(self, work: _Work, why: str) -> None:
        if not work.stopped:
            work.stopped = True
            self._counts.active(self.is_active)
            log.error("a shadow stopped itself", extra={**self._counts.labels, "why": why})


def _read_only(matrix: FloatColumn) -> FloatColumn:
    """What was served is not a shadow's to write on."""
    view = matrix.view()
    view.flags.writeable = False
    return view


def distance(answer: Answer, values: FloatColumn) -> Distance:
    """Between the order that was served, before the mix's rules, and the one by these scores (n,); of a drafted list,
    the order of the arm's own model.

    Scores of the fused order are on a scale of their own: there is no shift from them.
    """
    candidates, served = answer.candidates, answer.scores
    before = total_order(candidates, served)
    after = total_order(candidates, Scores(values, Ranker.MODEL))
    return Distance(
        overlap=rank_biased_overlap(Ranking.of(before), Ranking.of(after)),
        tau=kendall_tau_b(served.values, values),
        churn=top_churn(before, after, answer.plan.request.page_size),
        shift=score_shift(served.values, values) if served.ranker is Ranker.MODEL else np.nan,
    )


def drawn(query_id: str) -> float:
    """A number from 0 to 1 that a query id always draws; independent of what else is drawn by it."""
    text = query_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8, person=b"shadow").digest()) / 2**64


_Job = tuple[Answer, Sequence[Shadow]]


class Shadows:
    """All shadows of a mix, and the thread on which they score."""

    def __init__(self, shadows: Iterable[Shadow], queue: int = QUEUE) -> None:
        """Starts the thread, which ends with `close`."""
        self._shadows = tuple(shadows)
        self._queue: Queue[_Job | None] = Queue(queue)
        self._closed = Event()
        self._thread = Thread(target=self._run, name="shadows", daemon=True)
        self._thread.start()

    def beside(self, search: Search) -> Search:
        """The search, whose answers are offered to the shadows."""

        async def shadowed(request: Request) -> Answer:
            answer = await search(request)
            # Once this answer is on its way: until then the thread would take its time from it.
            get_running_loop().call_soon(self.offer, answer)
            return answer

        return shadowed

    def offer(self, answer: Answer) -> None:
        """Queue an answer for the shadows that draw it; returns at once."""
        place = drawn(answer.plan.request.query_id)
        chosen = [shadow for shadow in self._shadows if shadow.is_active and place < shadow.share]
        if chosen and self._closed.is_set():
            _drop((answer, chosen), "closing")
        elif chosen and not answer.plan.request.effort.beside:
            _drop((answer, chosen), "load")
        elif chosen:
            self._queue_up((answer, chosen))

    def _queue_up(self, job: _Job) -> None:
        try:
            self._queue.put_nowait(job)
        except Full:
            _drop(job, "queue_full")

    def close(self, within_s: float) -> None:
        """Compare what is queued, within a time; the rest is left out. Blocks."""
        until_s = monotonic() + within_s
        self._closed.set()
        with suppress(Full):
            self._queue.put(None, timeout=within_s)
        self._thread.join(max(until_s - monotonic(), 0.0))
        with suppress(Empty):
            while True:
                _drop(self._queue.get_nowait(), "closing")
        # The thread may be in the middle of an answer: this ends it after that.
        self._queue.put_nowait(None)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            answer, chosen = job
            for shadow in chosen:
                shadow.compare(answer)


def _drop(job: _Job | None, reason: str) -> None:
    for shadow in job[1] if job else ():
        shadow.drop(reason)
