"""Who is in which arm of an experiment, and whether the arms got the shares that they were given. Pure.

A key's place in [0, 1) is a hash of the experiment's salt and the key; the arms lie side by side on that line, in their
order. So a key stays in its arm on every server and after every restart, and a growing last arm only takes keys from
the one before it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

KEYS = 16_384
"""The most keys that a sample keeps."""
_PLACES = 2.0**-53


def draw(salt: str, key: str) -> tuple[float, int]:
    """A key's place in [0, 1), and a number of 64 bits that has nothing to do with the place (BLAKE2b, RFC 7693)."""
    data = f"{len(salt)}:{salt}{key}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) * _PLACES, int.from_bytes(digest[8:], "big")


class Split:
    """The line of the arms."""

    def __init__(self, shares: Sequence[float]) -> None:
        """Takes shares that add up to 1."""
        self._ends = list(accumulate(shares))[:-1]

    def arm(self, place: float) -> int:
        """The arm, by its number, that lies at this place."""
        return bisect_right(self._ends, place)


class KeySample:
    """Distinct keys by arm: all of them while they are few, then an even sample of them.

    Requests are no measure of a split: one busy key would count many times. Wegman's adaptive sampling (Flajolet,
    "On adaptive sampling", Computing 43, 1990): a key is kept where its number ends in so many zeros, one more each
    time that the sample is full.
    """

    def __init__(self, arms: int, most: int = KEYS) -> None:
        """Empty."""
        self._most, self._mask = most, 0
        self._kept: dict[int, int] = {}
        self.counts = [0] * arms
        """Keys kept, by arm."""

    def add(self, number: int, arm: int) -> None:
        """One request of the key with this number."""
        if number & self._mask or number in self._kept:
            return
        self._kept[number] = arm
        self.counts[arm] += 1
        while len(self._kept) > self._most:
            self._thin()

    def _thin(self) -> None:
        self._mask = self._mask << 1 | 1
        self._kept = {number: arm for number, arm in self._kept.items() if not number & self._mask}
        arms = list(self._kept.values())
        self.counts = [arms.count(arm) for arm in range(len(self.counts))]


def sample_ratio_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """How probable it is that keys drawn by these shares fall at least as far from them as these did.

    Pearson's chi-square test of the goodness of fit; see Fabijan et al., "Diagnosing sample ratio mismatch in online
    controlled experiments" (KDD 2019). 1 where nothing was counted; 0 where an arm without a share was asked.
    """
    from scipy.special import chdtrc

    total = sum(counts)
    expected = [total * share for share in shares]
    if any(count and not share for count, share in zip(counts, shares, strict=True)):
        return 0.0
    drawn = [(count, mean) for count, mean in zip(counts, expected, strict=True) if mean]
    if len(drawn) < 2:
        return 1.0
    statistic = sum((count - mean) ** 2 / mean for count, mean in drawn)
    return float(chdtrc(len(drawn) - 1, statistic))
