"""A share of the calls as a budget for asking once more."""

from __future__ import annotations

_WHOLE = 1.0 - 1e-9
"""Ten tenths add up to a little less than one."""


class Tokens:
    """A bucket: every call puts a share of a token into it, asking once more takes a whole one out.

    Of n calls no more than `held + share * n` ask once more, whatever happens: retries and hedges cannot grow with
    what makes them necessary (Finagle's retry budget; gRPC's proposal A6 on throttling).
    """

    def __init__(self, share: float, burst: float, held: float = 0.0) -> None:
        """Holds `burst` at most, and `held` to begin with."""
        self._share, self._burst, self._held = share, burst, held

    def earn(self) -> None:
        """A call begins."""
        self._held = min(self._held + self._share, self._burst)

    def spend(self) -> bool:
        """Take one out; whether there was one."""
        if self._held < _WHOLE:
            return False
        self._held -= 1.0
        return True
