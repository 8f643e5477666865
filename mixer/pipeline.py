"""The sentence that a search is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from mixer.values import Answer, Candidates, Explainable, Features, Page, Plan, Reply, Request, Scores


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One mix's stages, each one verb."""

    plan: Callable[[Request], Plan]
    fan_out: Callable[[Plan], Awaitable[tuple[Reply, ...]]]
    merge: Callable[[Plan, Sequence[Reply]], Candidates]
    hydrate: Callable[[Plan, Candidates], Awaitable[Candidates]]
    make_features: Callable[[Plan, Candidates], Features]
    rank: Callable[[Candidates, Features], Scores]
    arrange: Callable[[Plan, Sequence[Reply], Candidates, Scores], Page]
    arm: str = ""
    """The arm of an experiment that this one answers for."""
    model: Explainable | None = None
    """What `rank` ranks by, where it can be explained."""

    async def search(self, request: Request) -> Answer:
        """Answer one request. Raises: RequestError."""
        plan = self.plan(request)
        replies = await self.fan_out(plan)
        candidates = self.merge(plan, replies)
        candidates = await self.hydrate(plan, candidates)
        features = self.make_features(plan, candidates)
        scores = self.rank(candidates, features)
        page = self.arrange(plan, replies, candidates, scores)
        return Answer(plan, replies, candidates, features, scores, page, self.arm, self.model)
