"""A test that may be looked at after every search: who wins an interleaved comparison, and when to stop.

An ordinary p-value that is watched until it is small ends up small by chance far more often than it says. This one
holds at all times at once. If neither ranking is better, each search that prefers one of them is a fair coin, given
all before it; the likelihood of the wins under a mixture of unfair coins over that under the fair one is then a
non-negative martingale that starts at 1, and by Ville's inequality it ever reaches 1/alpha with probability alpha at
most. The mixture is a beta distribution, which makes the ratio one of beta functions.

Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of Mathematical Statistics 1970;
Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
Statistics 2021; Johari, Koomen, Pekelis and Walsh, "Always valid inference", Operations Research 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log
from typing import Literal

Verdict = Literal["treatment", "control", "undecided"]

PRIOR = 10.0
"""Both parameters of the beta mixture: most of it lies between 0.3 and 0.7, where interleaved comparisons end."""
_EDGE = 1e-12


@dataclass(frozen=True, slots=True)
class Tally:
    """Searches that preferred the treatment, the control, or neither."""

    wins: int = 0
    losses: int = 0
    ties: int = 0

    def __add__(self, preferred: int) -> Tally:
        """One search more: 1 for the treatment, -1 for the control, 0 for neither."""
        return Tally(self.wins + (preferred > 0), self.losses + (preferred < 0), self.ties + (preferred == 0))

    @property
    def decided(self) -> int:
        """Searches that preferred one."""
        return self.wins + self.losses

    @property
    def lead(self) -> float:
        """Of the treatment, ties being half of each: Chapelle et al., TOIS 2012; from -0.5 to 0.5, 0 for neither."""
        seen = self.decided + self.ties
        return (self.wins + 0.5 * self.ties) / seen - 0.5 if seen else 0.0


def log_evidence(tally: Tally, share: float = 0.5, prior: float = PRIOR) -> float:
    """Logarithm of the mixture's likelihood over that of a treatment that wins `share` of the decided searches."""
    found = _log_beta(prior + tally.wins, prior + tally.losses) - _log_beta(prior, prior)
    return found - tally.wins * log(share) - tally.losses * log(1 - share)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


class SequentialTest:
    """Follows one comparison; every search is told once, and it may be asked after each."""

    def __init__(self, alpha: float = 0.05, prior: float = PRIOR) -> None:
        """`alpha`: how often it may ever name a winner where there is none."""
        self.tally = Tally()
        self.verdict: Verdict = "undecided"
        """Who led when the evidence first sufficed; it stays."""
        self._alpha, self._prior = alpha, prior
        self._most = 0.0

    def tell(self, preferred: int) -> None:
        """One search: 1 for the treatment, -1 for the control, 0 for neither."""
        self.tally += preferred
        self._most = max(self._most, log_evidence(self.tally, prior=self._prior))
        if self.verdict == "undecided" and self.p_value <= self._alpha:
            self.verdict = "treatment" if self.tally.wins > self.tally.losses else "control"

    @property
    def p_value(self) -> float:
        """The least that was ever justified; it never rises."""
        return exp(-self._most)

    @property
    def interval(self) -> tuple[float, float]:
        """All shares of the decided searches that the treatment may have, those being left out that are refuted now.

        At all times at once it holds the true share with probability 1 - alpha at least.
        """
        return interval(self.tally, self._alpha, self._prior)


def interval(tally: Tally, alpha: float = 0.05, prior: float = PRIOR) -> tuple[float, float]:
    """The shares that a tally does not refute, whenever it is looked at."""
    from scipy.optimize import brentq  # takes a while, which nobody who serves need wait for

    if not tally.decided:
        return 0.0, 1.0
    best = min(max(tally.wins / tally.decided, 2 * _EDGE), 1 - 2 * _EDGE)

    def excess(share: float) -> float:
        return log_evidence(tally, share, prior) + log(alpha)

    low = brentq(excess, _EDGE, best) if excess(_EDGE) > 0 else 0.0
    high = brentq(excess, best, 1 - _EDGE) if excess(1 - _EDGE) > 0 else 1.0
    return float(low), float(high)
