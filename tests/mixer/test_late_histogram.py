from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.exposition import generate_latest

from mixer import late_histogram
from mixer.late_histogram import LateHistogram

BUCKETS = (-1.0, 0.5, 2.0)


def late(registry: CollectorRegistry) -> LateHistogram:
    return LateHistogram("seen", "What was seen.", ["mix"], registry=registry, buckets=BUCKETS)


@given(st.lists(st.one_of(st.sampled_from(BUCKETS), st.floats(-5, 5), st.just(math.inf))))
def test_it_tells_what_its_base_tells(amounts: list[float]) -> None:
    """Amounts on a bound, between bounds and beyond them fall into the buckets that they would have at once."""
    registries = CollectorRegistry(), CollectorRegistry()
    eager = Histogram("seen", "What was seen.", ["mix"], registry=registries[0], buckets=BUCKETS).labels("m")
    noted = late(registries[1]).labels("m")
    for amount in amounts:
        eager.observe(amount)
        noted.observe(amount)
    noted.settle()
    at_once, later = (
        [sample for family in each.collect() for sample in family.samples] for each in registries
    )
    assert [sample[:2] for sample in later] == [sample[:2] for sample in at_once]
    assert [sample.value for sample in later] == pytest.approx([sample.value for sample in at_once])


def test_an_exemplar_stands_behind_its_bucket() -> None:
    """Each bucket tells the last exemplar that fell into it, also one of a single slow call among many."""
    registry = CollectorRegistry()
    noted = late(registry).labels("m")
    for amount, trace_id in ((0.2, "abc"), (9.0, "def"), (0.3, "fed")):
        noted.observe(amount, {"trace_id": trace_id})
    noted.settle()
    told = generate_latest(registry).decode()
    assert 'le="0.5",mix="m"} 2.0 # {trace_id="fed"} 0.3' in told
    assert 'le="+Inf",mix="m"} 3.0 # {trace_id="def"} 9.0' in told


def test_what_is_noted_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody reads, notes are sorted in by themselves before they are many."""
    monkeypatch.setattr(late_histogram, "_MOST_NOTED", 3)
    registry = CollectorRegistry()
    noted = late(registry).labels("m")
    for _ in range(4):
        noted.observe(1.0)
    assert registry.get_sample_value("seen_count", {"mix": "m"}) == 3


def test_threads_lose_nothing() -> None:
    """Amounts noted by some threads while others sort in are all counted, once."""
    registry = CollectorRegistry()
    noted = late(registry).labels("m")

    def note(_: int) -> None:
        for _ in range(500):
            noted.observe(1.0)
            noted.settle()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(note, range(8)))
    noted.settle()
    assert registry.get_sample_value("seen_count", {"mix": "m"}) == 4000


def test_a_nan_is_in_no_bucket() -> None:
    """An amount that is no number makes the sum one that is none, and counts nowhere."""
    registry = CollectorRegistry()
    noted = late(registry).labels("m")
    noted.observe(math.nan)
    noted.settle()
    assert registry.get_sample_value("seen_count", {"mix": "m"}) == 0
