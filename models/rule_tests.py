"""Unit tests for the rules, in promtool's format: a healthy server raises nothing, each fault raises its own alert.

The figures expected of the drift rules are computed by `models.drift`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixer import catalogue as metrics
from mixer import stability
from mixer.catalogue import Metric
from mixer.manifest import Manifest, Profile
from models import alerts, drift
from models.alerts import Alert
from models.rules import Bounds, Mixes, groups

_MINUTES = 110
_AT = "105m"
_ANSWERS, _ROWS = 6000.0, 600_000.0
"""A minute."""
_TO = 1e-6

Series = dict[str, str]


@dataclass(frozen=True, slots=True)
class Expected:
    """One alert that is raised: its rule, the labels that its expression gives, and its value."""

    alert: Alert
    labels: Mapping[str, str]
    value: float
    severity: str = ""

    def written(self, runbooks: str, of: Series) -> dict[str, Any]:
        """As the test file has it, of the deployment with these labels."""
        alert = self.alert
        return {
            "exp_labels": {**self.labels, "severity": self.severity or alert.severity, **of},
            "exp_annotations": {
                "summary": self._told(alert.summary),
                "description": self._told(alert.description),
                "runbook_url": f"{runbooks}#{alert.anchor}",
            },
        }

    def _told(self, template: str) -> str:
        labelled = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: self.labels[found[1]], template)
        return re.sub(r'{{ printf "(%[^"]+)" \$value }}', lambda found: found[1] % self.value, labelled)


@dataclass(frozen=True, slots=True)
class Case:
    """What is otherwise than in a healthy server, and which alerts it raises; nothing of `silent` is raised."""

    series: Series
    expected: Sequence[Expected] = ()
    silent: Sequence[Alert] = ()
    samples: Mapping[str, tuple[Mapping[str, str], float]] = field(default_factory=dict)
    """Recorded values by expression."""
    at: str = _AT


def unit_tests(
    mixes: Mixes,
    bounds: Bounds,
    rules_file: str,
    runbooks: str = alerts.RUNBOOKS,
) -> dict[str, Any]:
    """The test file, to be written as YAML beside the rules file."""
    made = _Maker(mixes, bounds)
    used = {
        rule["alert"]
        for group in groups(mixes, bounds)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    healthy = Case({}, silent=[alert for alert in alerts.ALERTS if alert.name in used])
    return {
        "rule_files": [rules_file],
        "evaluation_interval": "5m",
        "tests": [made.written(case, runbooks) for case in (healthy, *made.cases())],
    }


def changing(per_minute: float, start: float = 0.0) -> str:
    """A series that grows evenly."""
    return f"{start:g}+{per_minute!r}x{_MINUTES}"


def constant(value: float) -> str:
    """A series that stays."""
    return f"{value!r}x{_MINUTES}"


class _Maker:
    def __init__(self, mixes: Mixes, bounds: Bounds) -> None:
        self._mixes, self._bounds, self._extra = mixes, bounds, dict(mixes.match)

    def written(self, case: Case, runbooks: str) -> dict[str, Any]:
        """One test; of a healthy server with all features, of a faulty one with those that its cases are about."""
        series = {**self._healthy(whole=not case.series), **case.series}
        named = {expected.alert.name: expected.alert for expected in case.expected}
        raised = [
            {
                "eval_time": case.at,
                "alertname": name,
                "exp_alerts": [
                    e.written(runbooks, self._extra) for e in case.expected if e.alert.name == name
                ],
            }
            for name in named
        ]
        quiet = [{"eval_time": case.at, "alertname": alert.name, "exp_alerts": []} for alert in case.silent]
        checked = [
            {
                "expr": f"round({name}, {_TO!r})",
                "eval_time": _AT,
                "exp_samples": [
                    {"labels": _selector("", {**labels, **self._extra}), "value": _rounded(value)}
                ],
            }
            for name, (labels, value) in case.samples.items()
        ]
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            **({"alert_rule_test": [*raised, *quiet]} if raised or quiet else {}),
            **({"promql_expr_test": checked} if checked else {}),
        }

    def series(self, metric: Metric, suffix: str = "", /, **labels: str) -> str:
        """A series' name."""
        return _selector(metric.name + suffix, {**labels, **self._extra})

    def cases(self) -> Iterator[Case]:
        yield from self._of_calls()
        for mix, manifest in self._mixes.manifests.items():
            yield from self._of_service(mix)
            if manifest:
                yield from self._of_model(mix, manifest)
                yield from self._of_drift(mix, manifest)
                yield from self._of_features(mix, manifest)
            if self._mixes.sliced:
                yield from self._of_slices(mix, manifest)

    def _healthy(self, whole: bool) -> Series:
        made = self._calls(_ANSWERS, 0.0)
        for mix, manifest in self._mixes.manifests.items():
            made |= self._served(mix)
            if manifest:
                made |= self._modelled(
                    mix, manifest, tuple(manifest.profiles) if whole else _chosen(manifest)
                )
        return made

    def _calls(self, well: float, badly: float) -> Series:
        rpc = {"grpc_type": "unary", "grpc_service": "mixer.v1.MixerService", "grpc_method": "Search"}
        return {
            self.series(metrics.SERVER_HANDLED, **rpc, grpc_code="OK"): changing(well),
            self.series(metrics.SERVER_HANDLED, **rpc, grpc_code="INTERNAL"): changing(badly),
            self.series(metrics.SPANS_DROPPED, reason="queue_full"): changing(0.0),
            self.series(metrics.WORKER_RESTARTS, reason="exited"): changing(0.0),
            self.series(metrics.QUALITY): constant(1.0),
            self.series(metrics.BREAKER_STATE, backend="b", state="open"): constant(0.0),
            self.series(metrics.TLS_EXPIRES): constant(0.0),
            self.series(metrics.TLS_RELOADS, outcome="refused"): changing(0.0),
            self.series(metrics.AUTH_RELOADS, outcome="refused"): changing(0.0),
            **self._shipped(1.0),
        }

    def _shipped(self, per_minute: float) -> Series:
        """A log of which a file waits, and so many arrive."""
        labels = {"log": "searches", "instance": "one"}
        return {
            self.series(metrics.SHIP_WAITING, **labels): constant(3.0),
            self.series(metrics.SHIP_FILES, **labels, outcome="shipped"): changing(per_minute),
        }

    def _served(self, mix: str) -> Series:
        return {
            self.series(metrics.CANDIDATES, "_count", mix=mix): changing(_ANSWERS),
            self.series(metrics.DEGRADED, mix=mix): changing(0.0),
            self.series(metrics.FALLBACKS, mix=mix, reason="scoring_failed"): changing(0.0),
            self.series(metrics.BACKEND_CHANGES, mix=mix, backend="b", what="index"): constant(0.0),
            self.series(metrics.BACKEND_FRESH_AT, mix=mix, backend="b"): constant(0.0),
            **self._asked(mix, _ANSWERS, 0.0),
            **self._looked_up(mix, _ANSWERS, 0.0),
            **self._added(mix, _ANSWERS),
            **(self._sliced(mix, _ANSWERS, 0.0) if self._mixes.sliced else {}),
        }

    def _sliced(self, mix: str, within: float, degraded: float) -> Series:
        """One slice: so many answers within its bound, and so many that lack something."""
        labels, bound = {"mix": mix, "slice": "tier", "value": "paid"}, self._bounds.slice_p99_s
        return {
            self.series(metrics.SLICE_SECONDS, "_count", **labels): changing(_ANSWERS),
            self.series(metrics.SLICE_SECONDS, "_bucket", **labels, le=f"{bound:g}"): changing(within),
            self.series(metrics.SLICE_SECONDS, "_bucket", **labels, le=f"{10 * bound:g}"): changing(_ANSWERS),
            self.series(metrics.SLICE_SECONDS, "_bucket", **labels, le="+Inf"): changing(_ANSWERS),
            self.series(metrics.SLICE_DEGRADED, **labels): changing(degraded),
            self.series(metrics.SLICE_FALLBACKS, **labels): changing(0.0),
        }

    def _asked(self, mix: str, well: float, badly: float) -> Series:
        name = (metrics.BACKEND_SECONDS, "_count")
        return {
            self.series(*name, mix=mix, backend="b", outcome="ok"): changing(well),
            self.series(*name, mix=mix, backend="b", outcome="timeout"): changing(badly),
            self.series(*name, mix=mix, backend="b", outcome="skipped"): changing(_ANSWERS),
        }

    def _looked_up(self, mix: str, well: float, badly: float) -> Series:
        name = (metrics.STORE_SECONDS, "_count")
        return {
            self.series(*name, mix=mix, store="s", outcome="ok"): changing(well),
            self.series(*name, mix=mix, store="s", outcome="skipped"): changing(badly),
        }

    def _added(self, mix: str, within: float) -> Series:
        """So many within the bound, the others within ten times it."""
        name, bound = (metrics.ADDED_SECONDS, "_bucket"), self._bounds.added_p99_s
        return {
            self.series(*name, mix=mix, le=f"{bound:g}"): changing(within),
            self.series(*name, mix=mix, le=f"{10 * bound:g}"): changing(_ANSWERS),
            self.series(*name, mix=mix, le="+Inf"): changing(_ANSWERS),
        }

    def _modelled(self, mix: str, manifest: Manifest, features: Sequence[str]) -> Series:
        made = {
            self.series(metrics.MODEL_AGE, mix=mix): constant(86_400.0),
            self.series(metrics.FEATURE_ROWS, mix=mix): changing(_ROWS),
            **{self._info(mix, manifest, instance): constant(1.0) for instance in ("one", "two")},
            **self._scored(mix, manifest, drift.shares_of(manifest.score_profile)),
        }
        for feature in features:
            made[self.series(metrics.FEATURE_MISSING, mix=mix, feature=feature)] = changing(0.0)
            made[self.series(metrics.FEATURE_OUT_OF_RANGE, mix=mix, feature=feature)] = changing(0.0)
            made |= self._valued(mix, manifest, feature, drift.shares_of(manifest.profiles[feature]))
        return made

    def _info(self, mix: str, manifest: Manifest, instance: str, version: str = "") -> str:
        labels = {
            "model": manifest.name,
            "version": version or manifest.version,
            "sha256": manifest.model_sha256,
        }
        return self.series(metrics.MODEL_INFO, mix=mix, **labels, instance=instance)

    def _scored(self, mix: str, manifest: Manifest, shares: Sequence[float]) -> Series:
        names, labels = (
            (metrics.SCORE_BIN, metrics.SCORE_BIN_REFERENCE),
            {"mix": mix, "version": manifest.version},
        )
        return self._binned(*names, labels, manifest.score_profile, shares)

    def _valued(self, mix: str, manifest: Manifest, feature: str, shares: Sequence[float]) -> Series:
        names = (metrics.FEATURE_BIN, metrics.FEATURE_BIN_REFERENCE)
        labels = {"mix": mix, "version": manifest.version, "feature": feature}
        return self._binned(*names, labels, manifest.profiles[feature], shares)

    def _binned(
        self, counter: Metric, reference: Metric, labels: Series, profile: Profile, shares: Sequence[float]
    ) -> Series:
        """These shares served of every bin, beside the trained ones."""
        made = {}
        for place, (share, trained) in enumerate(zip(shares, drift.shares_of(profile), strict=True)):
            bin_ = str(place) if place < len(profile.shares) else "missing"
            made[self.series(counter, **labels, bin=bin_)] = changing(_ROWS * share)
            made[self.series(reference, **labels, bin=bin_)] = constant(trained)
        return made

    def _of_calls(self) -> Iterator[Case]:
        yield Case(self._calls(0.75 * _ANSWERS, 0.25 * _ANSWERS), [Expected(alerts.CALLS_FAIL, {}, 0.25)])
        dropped = self.series(metrics.SPANS_DROPPED, reason="queue_full")
        yield Case({dropped: changing(120.0)}, [Expected(alerts.SPANS_DROPPED, {}, 2.0)])
        opened = self.series(metrics.BREAKER_STATE, backend="b", state="open")
        # Half open whenever it is looked at: every fifth minute.
        flapping = " ".join("1 1 1 1 0" for _ in range(_MINUTES // 5 + 1))
        yield Case({opened: flapping}, [Expected(alerts.BREAKER_OPEN, {"backend": "b"}, 1.0)])
        yield Case({self.series(metrics.QUALITY): constant(0.6)}, [Expected(alerts.OVERLOADED, {}, 0.6)])
        restarts = self.series(metrics.WORKER_RESTARTS, reason="exited")
        waits = Expected(alerts.LOG_NOT_SHIPPED, {"log": "searches", "instance": "one"}, 3.0)
        yield Case(self._shipped(0.0), [waits])
        yield Case({restarts: changing(0.1)}, [Expected(alerts.WORKERS_RESTART, {"reason": "exited"}, 6.0)])

        yield from self._of_files()

    def _of_files(self) -> Iterator[Case]:
        days = self._bounds.certificate_days
        # Tests begin at the Unix epoch, 105 minutes before.
        ends, left = self.series(metrics.TLS_EXPIRES), (days / 2 * 86_400 - 6300) / 86_400
        yield Case({ends: constant(days / 2 * 86_400)}, [Expected(alerts.CERTIFICATE_ENDS, {}, left)])
        yield Case({ends: constant(2 * days * 86_400)}, silent=[alerts.CERTIFICATE_ENDS])
        for metric in (metrics.TLS_RELOADS, metrics.AUTH_RELOADS):
            failed = self.series(metric, outcome="refused")
            raised = [Expected(alerts.FILES_NOT_RELOADED, {}, 1.0)]
            yield Case({failed: f"0x100 1x{_MINUTES - 101}"}, raised)

    def _of_service(self, mix: str) -> Iterator[Case]:
        labels, bound = {"mix": mix}, self._bounds.added_p99_s
        fallbacks = self.series(metrics.FALLBACKS, mix=mix, reason="scoring_failed")
        degraded = self.series(metrics.DEGRADED, mix=mix)
        half, quarter = changing(_ANSWERS / 2), changing(_ANSWERS / 4)
        yield Case({fallbacks: half}, [Expected(alerts.FALLBACK, labels, 0.5)])
        yield Case({degraded: quarter}, [Expected(alerts.DEGRADED, labels, 0.25)])
        failing = self._asked(mix, 0.75 * _ANSWERS, 0.25 * _ANSWERS)
        yield Case(failing, [Expected(alerts.BACKEND_FAILS, {**labels, "backend": "b"}, 0.25)])
        lost = self._looked_up(mix, 0.75 * _ANSWERS, 0.25 * _ANSWERS)
        yield Case(lost, [Expected(alerts.STORE_FAILS, {**labels, "store": "s"}, 0.25)])
        changed = self.series(metrics.BACKEND_CHANGES, mix=mix, backend="b", what="index")
        became = Expected(alerts.BACKEND_CHANGED, {**labels, "backend": "b", "what": "index"}, 1.0)
        yield Case({changed: f"0x100 1x{_MINUTES - 101}"}, [became])
        fresh, old_h = (
            self.series(metrics.BACKEND_FRESH_AT, mix=mix, backend="b"),
            self._bounds.backend_age_hours,
        )
        stale = Expected(alerts.BACKEND_STALE, {**labels, "backend": "b"}, old_h + 11.75)
        # Tests begin at the Unix epoch, 105 minutes before.
        yield Case({fresh: constant(-3600 * (old_h + 10))}, [stale])
        yield Case(self._added(mix, 0.0), [Expected(alerts.ADDED_LATENCY, labels, bound + 0.99 * 9 * bound)])

    def _of_slices(self, mix: str, manifest: Manifest | None) -> Iterator[Case]:
        labels, bound = {"mix": mix, "slice": "tier", "value": "paid"}, self._bounds.slice_p99_s
        slow = Expected(alerts.SLICE_SLOW, labels, bound + 0.99 * 9 * bound)
        yield Case(self._sliced(mix, 0.0, 0.0), [slow])
        lacks = Expected(alerts.SLICE_DEGRADED, labels, 0.25)
        yield Case(self._sliced(mix, _ANSWERS, _ANSWERS / 4), [lacks])
        if manifest:
            yield self._of_yesterday(mix, manifest, labels)

    def _of_yesterday(self, mix: str, manifest: Manifest, labels: Series) -> Case:
        """A day of scores in the first bin, and then two hours of scores in the second."""
        labels, answers = {**labels, "version": manifest.version}, (metrics.SLICE_SECONDS, "_count")
        hours = 26 * 60
        series = {
            self.series(*answers, mix=mix, slice="tier", value="paid"): f"0+{_ANSWERS!r}x{hours}",
            self.series(
                metrics.SLICE_SCORE_BIN, **labels, bin="0"
            ): f"0+100x{hours - 120} {hours - 120}00x119",
            self.series(metrics.SLICE_SCORE_BIN, **labels, bin="1"): f"0x{hours - 120} 0+100x119",
        }
        value = stability.psi([1.0, 0.0], [0.0, 1.0])
        return Case(series, [Expected(alerts.SLICE_DRIFT, labels, value)], at="1555m")

    def _of_model(self, mix: str, manifest: Manifest) -> Iterator[Case]:
        labels, old = {"mix": mix}, self._bounds.model_age_days + 10
        age = self.series(metrics.MODEL_AGE, mix=mix)
        yield Case({age: constant(old * 86_400)}, [Expected(alerts.MODEL_OLD, labels, old)])
        refused = self.series(metrics.MODEL_REFUSED, mix=mix, check="golden")
        raised = [Expected(alerts.MODEL_REFUSED, {**labels, "check": "golden"}, 1.0)]
        yield Case({refused: f"_x100 1x{_MINUTES - 101}"}, raised)
        yield Case({refused: f"1x100 2x{_MINUTES - 101}"}, raised)
        other = {
            self._info(mix, manifest, "two"): constant(0.0),
            self._info(mix, manifest, "two", "other"): constant(1.0),
        }
        differ = [
            Expected(alerts.MODELS_DIFFER, {**labels, "version": version}, 1.0)
            for version in (manifest.version, "other")
        ]
        yield Case(other, differ)

    def _of_drift(self, mix: str, manifest: Manifest) -> Iterator[Case]:
        """All scores in the last bin, while there are answers enough and while there are few."""
        labels = {"mix": mix, "version": manifest.version}
        trained = drift.shares_of(manifest.score_profile)
        moved = [0.0] * (len(trained) - 2) + [1.0, 0.0]
        value, series = stability.psi(trained, moved), self._scored(mix, manifest, moved)
        samples = {"mix_version:mixer_score:psi1h" + _selector("", {"mix": mix}): (labels, value)}
        yield Case(series, [Expected(alerts.SCORE_DRIFT, labels, value)], samples=samples)
        answers = self.series(metrics.CANDIDATES, "_count", mix=mix)
        yield Case(
            {**series, answers: changing((self._bounds.answers - 1) / 60)}, silent=[alerts.SCORE_DRIFT]
        )

    def _of_features(self, mix: str, manifest: Manifest) -> Iterator[Case]:
        known, heavy, *light = _chosen(manifest)
        lesser = "info" if self._mixes.named else "warning"
        for feature, severity in ((heavy, "warning"), *((name, lesser) for name in light)):
            yield self._of_feature(mix, manifest, feature, severity)
        labels = {"mix": mix, "version": manifest.version}
        gone = [*[0.0] * len(manifest.profiles[known].shares), 1.0]
        excess, lacks = 1.0 - manifest.profiles[known].missing, {**labels, "feature": known}
        yield Case(
            self._valued(mix, manifest, known, gone), [Expected(alerts.FEATURE_MISSING, lacks, excess)]
        )
        outside = self.series(metrics.FEATURE_OUT_OF_RANGE, mix=mix, feature=heavy)
        leaves = Expected(alerts.FEATURE_OUT_OF_RANGE, {"mix": mix, "feature": heavy}, 0.5)
        yield Case({outside: changing(_ROWS / 2)}, [leaves])

    def _of_feature(self, mix: str, manifest: Manifest, feature: str, severity: str) -> Case:
        """All values in the bin that had the fewest."""
        trained = drift.shares_of(manifest.profiles[feature])
        least = trained.index(min(trained))
        moved = [float(place == least) for place in range(len(trained))]
        value = stability.psi(trained, moved)
        labels = {"mix": mix, "version": manifest.version, "feature": feature}
        selector = _selector("", {"mix": mix, "feature": feature})
        samples = {f"mix_version_feature:mixer_feature:psi1h{selector}": (labels, value)}
        expected = [Expected(alerts.FEATURE_DRIFT, labels, value, severity)]
        return Case(self._valued(mix, manifest, feature, moved), expected, samples=samples)


def _chosen(manifest: Manifest) -> tuple[str, ...]:
    """The feature that is known most often, the weightiest, and one of little weight where there is one."""
    held = drift.weighty(manifest)
    known = min(manifest.profiles, key=lambda name: manifest.profiles[name].missing)
    return (known, held[0], *[name for name in manifest.profiles if name not in held][:1])


def _selector(name: str, labels: Mapping[str, str]) -> str:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return f"{name}{{{', '.join(f'{key}={quoted(value)}' for key, value in labels.items())}}}"


def _rounded(value: float) -> float:
    """As PromQL's `round` does it."""
    inverse = 1.0 / _TO
    return math.floor(value * inverse + 0.5) / inverse
