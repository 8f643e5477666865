from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mixer.guard_settings import AdaptiveSettings, GuardSettings


def test_every_part_has_defaults() -> None:
    """An empty mapping switches a guard on; without one there is none."""
    assert GuardSettings.model_validate({}) == GuardSettings()
    made = GuardSettings.model_validate({"breaker": {}, "hedge": {}, "retry": {}})
    assert all((made.breaker, made.hedge, made.retry))
    assert AdaptiveSettings.model_validate({}).drop.model == 0.9


@pytest.mark.parametrize(
    ("guard", "told"),
    [
        ({"breaker": {"failure_share": 0}}, "breaker.failure_share"),
        ({"breaker": {"slow_share": 1.5}}, "breaker.slow_share"),
        ({"breaker": {"probes": 0}}, "breaker.probes"),
        ({"hedge": {"quantile": 1.0}}, "hedge.quantile"),
        ({"hedge": {"least_delay_s": 2.0}}, "least_delay_s 2 is above most_delay_s 1"),
        ({"hedge": {"minimum_calls": 300}}, "minimum_calls 300 is above window_calls 200"),
        ({"retry": {"attempts": 1}}, "retry.attempts"),
        ({"retrys": {}}, "retrys"),
    ],
)
def test_what_cannot_be_is_refused(guard: dict[str, Any], told: str) -> None:
    """With the field, or with both where they do not go together."""
    with pytest.raises(ValidationError, match=told):
        GuardSettings.model_validate(guard)


def test_the_order_of_what_is_left_out_is_fixed() -> None:
    """Loads may be moved, or a step taken out, but no step comes before the one before it."""
    with pytest.raises(ValidationError, match=r"model 0.7 is below candidates 0.8; the order is fixed"):
        AdaptiveSettings.model_validate({"drop": {"model": 0.7}})
    with pytest.raises(ValidationError, match=r"model 0.5 is below beside 0.6"):
        AdaptiveSettings.model_validate(
            {"drop": {"model": 0.5, "candidates": None, "optional_backends": None}}
        )
