"""How the loops are compiled: once, for every forest alike, and so that no sum is reordered."""

from __future__ import annotations

import logging
from typing import Any

import numba
import numpy as np
import pytest
from numba.core import event

from mixer import walk
from mixer.forest import Forest, warm
from tests.mixer.test_forest import KINDS, compiled, grown, table


def kernels() -> dict[str, Any]:
    """Every compiled loop."""
    found = {name: kernel for name, kernel in vars(walk).items() if hasattr(kernel, "signatures")}
    assert len(found) > 8
    return found


def test_no_model_compiles_anything() -> None:
    """Warm once, any forest is read and scored with the code that is there, whatever its shape and the rows."""
    warm()
    recorded = event.RecordingListener()  # type: ignore[no-untyped-call]
    with event.install_listener("numba:compile", recorded):
        for kind in KINDS:
            forest = Forest.compile(grown(kind))
            for rows in (0, 1, 70, 300):
                forest.score(table()[:rows])
        assert recorded.buffer == []
        numba.njit(lambda x: x + 1)(1)
        assert recorded.buffer, "the listener hears compiling"


def test_each_loop_is_compiled_for_two_widths_of_code_at_most() -> None:
    """Bytes and pairs of bytes; a third would be compiled in the middle of a request."""
    warm()
    compiled("plain").score(table()[:10])
    assert {name for name, kernel in kernels().items() if len(kernel.signatures) > 2} == set()


def test_no_sum_may_be_reordered() -> None:
    """Fast mathematics would add leaves in another order, or fuse what LightGBM rounds twice."""
    for kernel in kernels().values():
        assert not kernel.targetoptions.get("fastmath")
        assert not kernel.targetoptions.get("parallel")


def test_sums_are_taken_tree_after_tree() -> None:
    """Leaves of very different sizes show every other order."""
    forest = compiled("plain")
    sums = {"forward": np.zeros(300), "backward": np.zeros(300)}
    assert len(forest.trees) == 9
    for name, order in (("forward", range(8)), ("backward", range(7, -1, -1))):
        for place in order:
            lone = Forest.compile(_alone(place)).score(table()[:300])
            sums[name] += lone
    assert np.array_equal(sums["forward"], forest.score(table()[:300]))
    assert not np.array_equal(sums["backward"], sums["forward"])


def _alone(place: int) -> str:
    return str(grown("plain").model_to_string(start_iteration=place, num_iteration=1))


def test_without_a_folder_for_machine_code_it_is_kept_in_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A read-only home and package must not keep Mixer from starting; that each start compiles is told once."""
    njit = numba.njit

    def without_cache(**chosen: Any) -> Any:
        if chosen.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**chosen)

    monkeypatch.setattr(numba, "njit", without_cache)
    walk._warn_uncached.cache_clear()
    with caplog.at_level(logging.WARNING, "mixer.walk"):
        first, second = (walk.compiled(kernel) for kernel in (lambda x: x + 1, lambda x: x + 2))
    assert (first(1), second(1)) == (2, 3)  # type: ignore[no-untyped-call]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
