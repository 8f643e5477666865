"""What a mix's backends say of themselves: a change of index, schema or server is an event, and so is its age."""

from __future__ import annotations

import logging
from time import monotonic

from backends.base import Index
from mixer import catalogue
from mixer.describe import FOREIGN_CHARS
from mixer.metrics import Metrics

_RECENT_S = 60.0
"""Replicas of a backend may differ for a while: what another said within this time is no change."""
_KEPT, _QUIET_S = 16, 1.0
"""Values remembered, and the least time between two log lines: some backend may say something new with each answer."""

log = logging.getLogger(__name__)


class Origin:
    """One backend of one mix."""

    def __init__(self, mix: str, backend: str, metrics: Metrics) -> None:
        """Nothing is known of it yet."""
        self._fresh_at_s = 0.0
        self._metrics, self._labels = metrics, {"mix": mix, "backend": backend}
        self._index, self._schema, self._server = (
            _Fact(mix, backend, what, metrics) for what in ("index", "schema", "server")
        )

    def heard(self, index: Index) -> None:
        """A backend answered from this index."""
        now_s = monotonic()
        self._index.heard(index.version, now_s)
        self._schema.heard(index.schema, now_s)
        self._server.heard(index.server_version, now_s)
        if index.fresh_at_s not in (0.0, self._fresh_at_s):
            self._metrics.gauge(catalogue.BACKEND_FRESH_AT, **self._labels).set(index.fresh_at_s)
        self._fresh_at_s = index.fresh_at_s


class _Fact:
    """One thing that a backend says of itself with every answer."""

    __slots__ = ("_changes", "_last", "_logged_s", "_said_s", "_told")

    def __init__(self, mix: str, backend: str, what: str, metrics: Metrics) -> None:
        self._told = {"mix": mix, "backend": backend, "what": what}
        self._changes = metrics.counter(catalogue.BACKEND_CHANGES, **self._told)
        self._last, self._logged_s = "", -_QUIET_S
        self._said_s: dict[str, float] = {}

    def heard(self, value: str, now_s: float) -> None:
        """Counts and logs another value than the last, unless it was said a moment ago; the first is no change."""
        value = value[:FOREIGN_CHARS]
        if not value:
            return
        if value != self._last:
            if self._last and now_s - self._said_s.get(value, -_RECENT_S) >= _RECENT_S:
                self._changed(value, now_s)
            self._last = value
        self._said_s[value] = now_s
        if len(self._said_s) > _KEPT:
            del self._said_s[min(self._said_s, key=self._said_s.__getitem__)]

    def _changed(self, value: str, now_s: float) -> None:
        self._changes.inc()
        if now_s - self._logged_s >= _QUIET_S:
            self._logged_s = now_s
            log.warning("backend changed", extra={**self._told, "before": self._last, "after": value})
