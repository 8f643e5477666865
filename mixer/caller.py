"""Who asks: what an interceptor found out, for the code that answers."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from mixer.errors import Forbidden


class Scope(StrEnum):
    """What a caller may do."""

    SEARCH = "search"
    FEEDBACK = "feedback"
    EXPLAIN = "explain"
    DEBUG = "debug"
    """Have what the model saw in answers."""
    FORCE_SAMPLE = "force_sample"
    """Have a call traced, whatever the ratio."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A tenant, empty where nobody asked for proof, and what its credential allows."""

    tenant: str
    scopes: frozenset[Scope]

    def require(self, scope: Scope) -> None:
        """Raises: Forbidden, naming what is lacking."""
        if scope not in self.scopes:
            raise Forbidden(scope.value)


ANYBODY = Caller("", frozenset(Scope))
"""Where nobody asks for proof, everybody may do everything."""

_current: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)

caller = _current.get
opened = _current.set
"""From here on this one calls; returns what `closed` takes."""
closed = _current.reset
