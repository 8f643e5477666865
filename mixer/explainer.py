"""Explains answers beside the event loop: one at a time, in a thread of its own, within the time that is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import Protocol

from mixer.errors import Overloaded, UnknownAnswer
from mixer.explain import Answered, Explain, Explanation
from mixer.recent import Recent
from mixer.record import current
from mixer.settings import ExplainSettings
from mixer.values import TENANT, Answer, IntColumn, Request

Search = Callable[[Request], Awaitable[Answer]]


class Which(Protocol):
    """What of an answer to explain."""

    @property
    def model(self) -> str:
        """Of the settings, to rank it by; empty for the one that did."""
        ...

    def rows_of(self, answer: Answer) -> IntColumn:
        """Rows of the answer, best first. Raises: InvalidRequest."""
        ...


class Explainer:
    """Remembers the latest answers, each with the model that ranked it, and explains them or others."""

    def __init__(self, settings: ExplainSettings) -> None:
        """Its thread starts with the first explanation."""
        self.settings = settings
        self._answers: Recent[Answered] = Recent(settings.recent)
        self._thread = ThreadPoolExecutor(1, "explain")
        self._turn = Lock()

    def remembering(self, search: Search) -> Search:
        """The search, whose answers are remembered until enough others came."""
        if not self.settings.recent:
            return search

        async def remembered(request: Request) -> Answer:
            if not request.effort.beside:
                return await search(request)
            answered = await timed(search, request)
            self._answers.put(request.query_id, answered)
            return answered.answer

        return remembered

    def answered(self, query_id: str, tenant: str = "") -> Answered:
        """The answer of a query id, where it is the tenant's own. Raises: UnknownAnswer."""
        found = self._answers.get(query_id)
        if found and tenant in ("", found.answer.plan.request.context.get(TENANT)):
            return found
        kept = f"of the last {self.settings.recent} answers of this process"
        told = (
            f"none {kept} has it" if self.settings.recent else "no answer is remembered (explain.recent is 0)"
        )
        raise UnknownAnswer(f"query_id: {told}; send the search instead, or ask the feature log")

    async def explain(
        self,
        find: Callable[[], Awaitable[Answered]],
        which: Which,
        through: Callable[[Answer], Explain],
        left_s: Callable[[], float],
    ) -> tuple[Answered, Explanation]:
        """Find an answer and explain rows of it within the time that is left. Raises: Overloaded where another is."""
        if not self._turn.acquire(blocking=False):
            raise Overloaded("another answer is being explained; try again with a pause")
        working: Future[Explanation] | None = None
        try:
            answered = await find()
            until_s = perf_counter() + left_s()
            explain = through(answered.answer)
            working = self._thread.submit(self._explained, explain, answered.answer, which, until_s)
            explanation = await asyncio.wrap_future(working)
        finally:
            # A caller who goes away does not end the thread's work: the next turn is when it is done.
            if working is None:
                self._turn.release()
            else:
                working.add_done_callback(lambda _: self._turn.release())
        return answered, explanation

    def close(self) -> None:
        """Wait for the explanation in work."""
        self._thread.shutdown()

    def _explained(self, explain: Explain, answer: Answer, which: Which, until_s: float) -> Explanation:
        """On the thread; loading another model is not held against the settings' time."""
        answer = explain.by(answer, which.model) if which.model else answer
        latest_s = min(perf_counter() + self.settings.timeout_s, until_s)
        return explain(answer, which.rows_of(answer), lambda: perf_counter() < latest_s)


async def timed(search: Search, request: Request) -> Answered:
    """The answer of a search, and what its caller is told beside it."""
    began_s = perf_counter()
    answer = await search(request)
    return Answered(answer, current().trace_id, perf_counter() - began_s)
