"""Settings of experiments, the bounds of canaries, and shadows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from mixer.frozen import Frozen, Share, beside_the_file


class CanarySettings(Frozen):
    """Bounds of an arm beside the control; the arm that is past one of them is taken back. None is no bound.

    Nothing is judged before both have `min_requests` within the window, nor on what may be chance.
    """

    window_s: PositiveFloat = 300.0
    min_requests: PositiveInt = 200
    error_share: Share | None = 0.01
    """How many more of its requests may fail than of the control's, of all."""
    fallback_share: Share | None = 0.01
    """How many more may be answered in fused order."""
    latency_ratio: Annotated[float, Field(ge=1)] | None = 1.5
    """Of the 95th percentiles of the time that Mixer adds to its slowest backend's."""
    score_shift: PositiveFloat | None = 0.25
    """How much further its scores may be from the profile of its training than the control's from theirs, as a
    population stability index."""
    ctr_drop: Share | None = 0.05
    """How many fewer of the searches that were seen may have a click, of all; where feedback comes in."""


class InterleaveSettings(Frozen):
    """Lists that the arm's ranking and the control's make by turns; clicks say whose hits readers prefer."""

    settle_s: PositiveFloat = 300.0
    """A list's clicks are counted once, so long after it was served."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """How often a winner may ever be named where there is none, however often it is looked at."""


def _switched(raw: Any) -> Any:
    return ({} if raw else None) if isinstance(raw, bool) else raw


class ArmSettings(Frozen):
    """A part of a mix's traffic, and the model that answers it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    share: Share
    model: str | None = None
    """A key of `models`, or empty for the fused order; the mix's own model where not given."""
    explore_hits: Annotated[int, Field(ge=2, le=100)] | None = None
    """So many hits at the head of every list stand in an order drawn by chance: their clicks tell how much each place
    is looked at, whatever stands there. Pinned hits stay."""
    canary: CanarySettings | None = None
    interleave: Annotated[InterleaveSettings | None, BeforeValidator(_switched)] = None
    """Its lists are drafted by its model and the control's in turns; `true` takes the defaults."""

    @model_validator(mode="after")
    def _one_chance(self) -> ArmSettings:
        if self.explore_hits and self.interleave:
            raise ValueError(f"{self.name}: interleave and explore_hits both draw its order; take one")
        return self


class ExperimentSettings(Frozen):
    """Traffic split over arms, the control first. Who is in which arm depends on salt, key and shares alone."""

    salt: Annotated[str, Field(min_length=1)]
    """Another one draws everybody anew."""
    key: str = "query_id"
    """Context key whose value stays in one arm; a request without it is answered by the control, outside of the
    experiment. `query_id` draws every search by itself."""
    arms: Annotated[tuple[ArmSettings, ...], Field(min_length=2, max_length=8)]
    verdicts: Annotated[Path, AfterValidator(beside_the_file)] | None = None
    """Folder that keeps which arms were taken back, for other processes and after a restart."""

    @model_validator(mode="after")
    def _adds_up(self) -> ExperimentSettings:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError("two arms have one name")
        if abs(sum(arm.share for arm in self.arms) - 1) > 1e-9:
            raise ValueError(f"the arms' shares add up to {sum(arm.share for arm in self.arms):g}, not 1")
        if self.arms[0].canary:
            raise ValueError(f"{names[0]}, the first arm, is the control: it has no bounds")
        if self.arms[0].interleave:
            raise ValueError(f"{names[0]}, the first arm, is the control: others interleave with it")
        return self


class ShadowSettings(Frozen):
    """A model that scores a mix's traffic without being heard."""

    model: Annotated[str, Field(min_length=1)]
    """A key of `models`."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the searches, drawn by their query id."""
    cpu_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of one processor, in each process that serves. Where that is not enough the shadow rests, and in the end stops
    itself."""
