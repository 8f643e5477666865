from __future__ import annotations

import numpy as np

from mixer.feature_counts import FeatureCounts
from mixer.metrics import Metrics
from mixer.values import Features


def features(rows: int, missing: list[int], outside: list[int]) -> Features:
    return Features(("x", "y"), np.zeros((rows, 2)), np.array(missing), np.array(outside))


def test_counters_tell_what_was_counted_when_they_are_read() -> None:
    """Rows, missing values and values out of range of all answers so far, however often they are read."""
    metrics = Metrics()
    counts, value = FeatureCounts("m", metrics, ["x", "y"]), metrics.registry.get_sample_value

    def told() -> list[float | None]:
        names = ("mixer_feature_missing_total", "mixer_feature_out_of_range_total")
        each = [value(name, {"mix": "m", "feature": feature}) for name in names for feature in "xy"]
        return [value("mixer_feature_rows_total", {"mix": "m"}), *each]

    assert told() == [0.0] * 5
    counts.count(features(3, [1, 0], [0, 2]))
    assert told() == told() == [3.0, 1.0, 0.0, 0.0, 2.0]
    counts.count(features(2, [2, 1], [0, 0]))
    counts.count(features(0, [0, 0], [0, 0]))
    assert told() == [5.0, 3.0, 1.0, 0.0, 2.0]
