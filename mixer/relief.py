"""Gives each search of a mix the effort that the load leaves it, and counts what was left out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from mixer import catalogue
from mixer.cursor import CursorSigner
from mixer.errors import InvalidRequest
from mixer.load import Load
from mixer.metrics import Metrics
from mixer.settings import Settings
from mixer.values import Answer, Effort, Request

Search = Callable[[Request], Awaitable[Answer]]


class Relief:
    """Stands around the searches of every mix. All pages of a list are made with the effort of the first: a page that
    took less would be cut from another list."""

    def __init__(self, settings: Settings, load: Load, signer: CursorSigner, metrics: Metrics) -> None:
        """Takes the settings of the mixes, and who opens their cursors."""
        self._settings, self._load, self._signer, self._metrics = settings, load, signer, metrics

    def search(self, name: str, verb: Search) -> Search:
        """A mix's search, with the effort that is left."""
        rules = self._settings.mixes[name]
        arms = rules.experiment.arms if rules.experiment else ()
        has = {
            "beside": bool(rules.shadows or self._settings.explain.recent),
            "optional_backends": any(member.optional for member in rules.backends.values()),
            "candidates": True,
            "model": any([rules.model, *(arm.model for arm in arms)]),
        }
        counts = {
            what: self._metrics.counter(catalogue.LOAD_DROPPED, mix=name, what=what).inc
            for what, there in has.items()
            if there
        }

        async def eased(request: Request) -> Answer:
            effort = self._effort(request)
            if not effort.step and effort.beside:
                return await verb(request)
            for what in _left_out(effort):
                if what in counts:
                    counts[what]()
            return await verb(replace(request, effort=effort))

        return eased

    def _effort(self, request: Request) -> Effort:
        """Of the page before, where there is one. What is wrong with a cursor, the plan says."""
        now = self._load.effort
        if not request.cursor:
            return now
        try:
            step = self._signer.open(request.cursor).step
        except InvalidRequest:
            return now
        efforts = self._load.efforts
        return replace(efforts[min(step, len(efforts) - 1)], beside=now.beside)


def _left_out(effort: Effort) -> list[str]:
    kept = {
        "beside": effort.beside,
        "optional_backends": effort.optional,
        "candidates": effort.limit_share == 1.0,
        "model": effort.model,
    }
    return [what for what, there in kept.items() if not there]
