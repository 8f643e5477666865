"""People who search without end, click as a position-based model has them, and remember how they were answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mixer.client import AsyncMixerClient, MixerError
from mixer.results import SearchResult
from models.clicks import PositionBased, by_power, events_of
from models.judgements import Judged

PEOPLE = 12
_THINK_S = 0.1
"""On average, between two searches of one of them."""
_ETA = 1.0
LOOKS = PositionBased(by_power(_ETA), (0.02, 0.25, 0.6, 0.95))


@dataclass(frozen=True, slots=True)
class Visit:
    """One search: by whom it was answered, whether a hit was clicked, how long it took."""

    arm: str
    version: str
    status: str
    clicked: bool
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What some visits amount to."""

    searches: int
    failed: int
    versions: tuple[str, ...]
    click_share: float
    """Searches with a click, of all that were answered."""
    median_ms: float


class Crowd:
    """Some people, on a thread with an event loop of its own."""

    def __init__(self, target: str, queries: Sequence[Judged], seed: int = 7) -> None:
        """They ask these queries, in no order, from `__enter__` to `__exit__`."""
        self._target, self._queries, self._seed = target, queries, seed
        self._visits: list[Visit] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="crowd", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._over.set()
        self._thread.join()
        return False

    @property
    def visits(self) -> int:
        """How many there were; a mark for `figures`."""
        return len(self._visits)

    def figures(self, since: int = 0, arm: str | None = None) -> Figures:
        """Of the visits since a mark, of one arm or of all."""
        taken = [visit for visit in self._visits[since:] if arm is None or visit.arm == arm]
        answered = [visit for visit in taken if visit.status == "ok"]
        return Figures(
            searches=len(taken),
            failed=len(taken) - len(answered),
            versions=tuple(sorted({visit.version for visit in answered})),
            click_share=float(np.mean([visit.clicked for visit in answered])) if answered else 0.0,
            median_ms=float(np.median([visit.elapsed_s for visit in answered])) * 1000 if answered else 0.0,
        )

    def failures(self) -> Counter[str]:
        """What went wrong, by status, over all visits."""
        return Counter(visit.status for visit in self._visits if visit.status != "ok")

    def wait(self, searches: int, console: Console, over: Callable[[], bool] = lambda: False) -> None:
        """Until so many more searches were answered, or `over` says so; with a progress bar."""
        began = self.visits
        columns = (TextColumn("  people search"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("", total=searches)
            while self.visits - began < searches and not over() and self._thread.is_alive():
                progress.update(bar, completed=self.visits - began)
                time.sleep(0.2)

    async def _all(self) -> None:
        async with AsyncMixerClient(self._target, timeout_s=10.0, attempts=1) as client:
            await asyncio.gather(*(self._person(client, number) for number in range(PEOPLE)))

    async def _person(self, client: AsyncMixerClient, number: int) -> None:
        """Everybody is somebody else each time: arms are drawn by `user`."""
        random = np.random.default_rng((self._seed, number))
        while not self._over.is_set():
            judged = self._queries[int(random.integers(len(self._queries)))]
            user = f"{number}-{random.integers(1_000_000)}"
            self._visits.append(await self._visit(client, judged, user, random))
            await asyncio.sleep(float(random.exponential(_THINK_S)))

    async def _visit(
        self, client: AsyncMixerClient, judged: Judged, user: str, random: np.random.Generator
    ) -> Visit:
        began_s = time.perf_counter()
        try:
            result = await client.search(judged.query, context={"user": user})
            elapsed_s = time.perf_counter() - began_s
            clicked = await self._look(client, judged, result, random)
        except MixerError as error:
            return Visit("", "", error.code.name, False, time.perf_counter() - began_s)
        version = result.model.version if result.model else ""
        return Visit(result.arm, version, "ok", clicked, elapsed_s)

    async def _look(
        self, client: AsyncMixerClient, judged: Judged, result: SearchResult, random: np.random.Generator
    ) -> bool:
        """See the page, click what is liked, and let Mixer know."""
        ids = [hit.id for hit in result.hits]
        grades = np.array([judged.grades.get(id_, 0) for id_ in ids], np.intp)
        clicked = LOOKS.clicks(grades, random)
        await client.feedback(events_of(result.query_id, ids, clicked, time.time()))
        return bool(clicked.any())
