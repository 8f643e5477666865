"""Settings of what stands before a backend that fails or dawdles, and of the limit on calls that follows latency."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from mixer.frozen import Frozen

Part = Annotated[float, Field(gt=0, le=1)]


class BreakerSettings(Frozen):
    """A backend that mostly fails, or is mostly slow, is not asked for a while."""

    window_s: PositiveFloat = 10.0
    minimum_calls: PositiveInt = 20
    """Within the window, below which nothing is judged."""
    failure_share: Part = 0.5
    """Of the calls that end in an error or a timeout, at which it opens."""
    slow_s: PositiveFloat | None = None
    """Calls that take so long are slow; None knows no slow ones."""
    slow_share: Part = 0.8
    """Of slow calls, at which it opens."""
    wait_s: PositiveFloat = 5.0
    """Open for so long, then tried."""
    probes: PositiveInt = 3
    """Calls that try it; they alone decide whether it closes."""


class HedgeSettings(Frozen):
    """A call that takes longer than most is put once more; the first good answer counts."""

    quantile: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Of the latest latencies: where a call is put once more."""
    minimum_calls: PositiveInt = 20
    """Before so many were timed, none is."""
    window_calls: Annotated[int, Field(ge=20, le=10_000)] = 200
    """How many latencies are kept."""
    least_delay_s: PositiveFloat = 0.005
    most_delay_s: PositiveFloat = 1.0
    share: Part = 0.05
    """Of the calls that may be put once more, whatever the quantile says."""
    burst: Annotated[float, Field(ge=1)] = 10.0
    """The most calls put once more that may be saved up."""

    @model_validator(mode="after")
    def _can_be(self) -> HedgeSettings:
        if self.least_delay_s > self.most_delay_s:
            raise ValueError(
                f"least_delay_s {self.least_delay_s:g} is above most_delay_s {self.most_delay_s:g}"
            )
        if self.minimum_calls > self.window_calls:
            raise ValueError(f"minimum_calls {self.minimum_calls} is above window_calls {self.window_calls}")
        return self


class RetrySettings(Frozen):
    """A backend that could not be reached is tried again at once, while there is time and budget."""

    attempts: Annotated[int, Field(ge=2, le=5)] = 2
    """With the first."""
    pause_s: PositiveFloat = 0.02
    """Before the first new try at most, drawn by chance; twice as long before each one after that."""
    share: Part = 0.1
    """Of the calls that may be tried again."""
    burst: Annotated[float, Field(ge=1)] = 10.0
    """So many more at the start, and saved up at most."""


class GuardSettings(Frozen):
    """What stands before one backend; `{}` takes the defaults of each."""

    breaker: BreakerSettings | None = None
    hedge: HedgeSettings | None = None
    retry: RetrySettings | None = None


class DropSettings(Frozen):
    """Loads, as shares of the limit in use, at which work is left out, in this order; None never leaves it out."""

    beside: Part | None = 0.6
    """Shadows, and remembering answers for Explain."""
    optional_backends: Part | None = 0.7
    candidates: Part | None = 0.8
    """Backends are asked for fewer."""
    model: Part | None = 0.9
    """The fused order stands."""

    @model_validator(mode="after")
    def _rises(self) -> DropSettings:
        named = [(name, load) for name, load in self if load is not None]
        for (before, low), (after, high) in pairwise(named):
            if high < low:
                raise ValueError(f"{after} {high:g} is below {before} {low:g}; the order is fixed")
        return self


class AdaptiveSettings(Frozen):
    """A limit of calls at once that follows latency, and work that is left out before calls are turned away."""

    initial: PositiveInt = 20
    least: PositiveInt = 4
    """The limit falls no further."""
    tolerance: Annotated[float, Field(ge=1)] = 1.5
    """How many times its usual time an answer may take before the limit falls."""
    usual_s: PositiveFloat = 600.0
    """Over which the usual time is learned: an overload that lasts much longer becomes the usual."""
    load_s: PositiveFloat = 1.0
    """Over which the load is smoothed."""
    release: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """So far the load must fall below a step before what that left out comes back."""
    limit_share: Part = 0.5
    """Of each backend's limit, once candidates are left out."""
    drop: DropSettings = DropSettings()
