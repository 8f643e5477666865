from __future__ import annotations

import logging

import pytest

from backends.base import Index
from mixer import origins
from mixer.metrics import Metrics
from mixer.origins import Origin

ONE, OTHER = Index("v1", 100.0, "engine/1", "s1"), Index("v2", 200.0, "engine/1", "s1")


class Clock:
    now_s = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(origins, "monotonic", lambda: made.now_s)
    return made


class Heard:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.origin = Origin("m", "b", self.metrics)

    def changes(self, what: str) -> float | None:
        labels = {"mix": "m", "backend": "b", "what": what}
        return self.metrics.registry.get_sample_value("mixer_backend_changes_total", labels)

    @property
    def fresh_at_s(self) -> float | None:
        labels = {"mix": "m", "backend": "b"}
        return self.metrics.registry.get_sample_value("mixer_backend_fresh_timestamp_seconds", labels)


def test_a_change_is_a_count_and_a_log_event(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A new index version counts once, for the index alone, and the log says from what to what."""
    heard = Heard()
    with caplog.at_level(logging.WARNING):
        for index in (ONE, ONE, OTHER, OTHER):
            heard.origin.heard(index)
    assert [heard.changes(what) for what in ("index", "schema", "server")] == [1, 0, 0]
    [line] = caplog.records
    assert line.message == "backend changed"
    told = {key: vars(line)[key] for key in ("mix", "backend", "what", "before", "after")}
    assert told == {"mix": "m", "backend": "b", "what": "index", "before": "v1", "after": "v2"}


def test_schema_and_server_are_watched_too(clock: Clock) -> None:
    """Each counts by itself; a backend that says nothing of one changes nothing."""
    heard = Heard()
    for index in (ONE, Index("v1"), Index("v1", 0.0, "engine/2", "s2")):
        heard.origin.heard(index)
    assert [heard.changes(what) for what in ("index", "schema", "server")] == [0, 1, 1]


def test_replicas_that_differ_are_one_change(clock: Clock) -> None:
    """While a new index is rolled out, answers come from both: that is one change, not one an answer."""
    heard = Heard()
    for _ in range(50):
        heard.origin.heard(ONE)
        heard.origin.heard(OTHER)
        clock.now_s += 1
    assert heard.changes("index") == 1


def test_a_way_back_is_a_change(clock: Clock) -> None:
    """The old index again, after it was gone for a while."""
    heard = Heard()
    for index in (ONE, OTHER):
        heard.origin.heard(index)
    clock.now_s += 100
    heard.origin.heard(ONE)
    assert heard.changes("index") == 2


def test_an_idle_backend_does_not_change(clock: Clock) -> None:
    """However long nothing was asked."""
    heard = Heard()
    for _ in range(3):
        heard.origin.heard(ONE)
        clock.now_s += 1e6
    assert heard.changes("index") == 0


def test_one_that_always_says_something_new_floods_nothing(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Every change counts; the log tells of one a second, and what is remembered is bounded."""
    heard = Heard()
    with caplog.at_level(logging.WARNING):
        for number in range(100):
            heard.origin.heard(Index(f"{number}" + "x" * 10_000))
    assert heard.changes("index") == 99
    assert len(caplog.records) == 1
    assert len(heard.origin._index._said_s) <= 17
    assert all(len(said) <= 128 for said in heard.origin._index._said_s)


def test_freshness_is_a_metric(clock: Clock) -> None:
    """When the documents were last brought up to date; nothing where the backend does not know."""
    heard = Heard()
    heard.origin.heard(Index("v1"))
    assert heard.fresh_at_s is None
    for index in (ONE, OTHER, Index("v2")):
        heard.origin.heard(index)
    assert heard.fresh_at_s == 200.0
