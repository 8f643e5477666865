"""Prometheus rules for a settings file: what is recorded, and when which alert is raised.

Names come from the catalogue, mixes from the settings, features and what chance does to their figures from the
manifests. The trained shares themselves are metrics of the server, so that a model swapped in is held against its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from mixer import catalogue as metrics
from mixer import stability
from mixer.catalogue import Metric
from mixer.manifest import Manifest
from models import alerts, drift
from models.alerts import Alert

FAILURES = "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"
_DAY_S = 86_400
Share = Annotated[float, Field(gt=0, lt=1)]


class Bounds(BaseModel):
    """Beyond which an alert is raised."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    failed_calls: Share = 0.01
    added_p99_s: PositiveFloat = 0.1
    fallbacks: Share = 0.01
    degraded: Share = 0.05
    backend_failures: Share = 0.05
    store_failures: Share = 0.05
    psi: PositiveFloat = 0.25
    missing: Share = 0.1
    """Above the share in training."""
    out_of_range: Share = 0.01
    backend_age_hours: PositiveFloat = 48.0
    model_age_days: PositiveFloat = 90.0
    slice_p99_s: PositiveFloat = 1.0
    certificate_days: PositiveFloat = 14.0
    """Left of the server's certificate."""
    answers: PositiveInt = 100
    """Within an hour, below which nothing is said of drift; more where the manifest asks for it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recording rule."""

    name: str
    expr: str

    def written(self, mixes: Mixes) -> dict[str, Any]:
        """As the rules file has it."""
        labels = {"labels": dict(mixes.match)} if mixes.match else {}
        return {"record": self.name, "expr": self.expr, **labels}


@dataclass(frozen=True, slots=True)
class Raised:
    """One alert rule."""

    alert: Alert
    expr: str

    def written(self, mixes: Mixes, runbooks: str) -> dict[str, Any]:
        """As the rules file has it."""
        alert = self.alert
        return {
            "alert": alert.name,
            "expr": self.expr,
            "for": alert.after,
            "labels": {"severity": alert.severity, **mixes.match},
            "annotations": {
                "summary": alert.summary,
                "description": alert.description,
                "runbook_url": f"{runbooks}#{alert.anchor}",
            },
        }


@dataclass(frozen=True, slots=True)
class Mixes:
    """What rules are made for: mixes by name with their models' manifests, None without a model."""

    manifests: Mapping[str, Manifest | None]
    match: Mapping[str, str] = field(default_factory=dict)
    """Labels, such as `job: mixer`, that choose among several deployments."""
    sliced: bool = False
    """Whether some mix declares slices."""
    named: bool = True
    """Whether the rules are for these mixes alone; else for all that there are, of which these are examples."""

    @property
    def matchers(self) -> tuple[str, ...]:
        """What chooses the deployment, as selectors have it."""
        return tuple(f'{name}="{value}"' for name, value in self.match.items())

    def of(self, metric: Metric, *more: str, suffix: str = "") -> str:
        """The metric's series of these mixes."""
        own = [f"mix=~{any_of(self.manifests)}"] if self.named and "mix" in metric.labels else []
        found = ",".join([*own, *more, *self.matchers])
        return f"{metric.name}{suffix}{{{found}}}" if found else f"{metric.name}{suffix}"

    @property
    def modelled(self) -> dict[str, Manifest]:
        """Those with a model."""
        return {name: manifest for name, manifest in self.manifests.items() if manifest}


def any_of(names: Mapping[str, Any] | tuple[str, ...]) -> str:
    """A quoted regular expression that these names alone match."""
    escaped = "|".join(re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", name) for name in names)
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def groups(mixes: Mixes, bounds: Bounds, runbooks: str = alerts.RUNBOOKS) -> dict[str, Any]:
    """The rules file, to be written as YAML."""
    modelled = replace(mixes, manifests=mixes.modelled)
    drifting: list[Recorded | Raised] = [*_drift(modelled, bounds)] if mixes.modelled else []
    sliced: list[Recorded | Raised] = [*_slices(mixes, bounds)] if mixes.sliced else []
    if mixes.sliced and mixes.modelled:
        sliced.extend(_slice_drift(modelled, bounds))
    service = [*_service(mixes, bounds), *_models(mixes, bounds)]
    made = {"mixer-service": service, "mixer-drift": drifting, "mixer-slices": sliced}
    recorded = [rule.name for rules in made.values() for rule in rules if isinstance(rule, Recorded)]
    return {
        "groups": [
            {
                "name": name,
                "rules": [
                    r.written(mixes, runbooks) if isinstance(r, Raised) else r.written(mixes)
                    for r in of_this_deployment(rules, recorded, mixes)
                ],
            }
            for name, rules in made.items()
            if rules
        ]
    }


def of_this_deployment(
    rules: Iterable[Recorded | Raised], recorded: Iterable[str], mixes: Mixes
) -> Iterator[Recorded | Raised]:
    """Rules that read what this deployment recorded, as they read its metrics already, and no other's."""
    own, names = ",".join(mixes.matchers), re.compile(rf"(?<![\w:])({'|'.join(recorded)})(?![\w:])(\{{?)")
    for rule in rules:
        expr = names.sub(lambda f: f"{f[1]}{{{own}{',' if f[2] else '}'}", rule.expr) if own else rule.expr
        yield replace(rule, expr=expr)


def _rate(by: str, series: str, window: str = "5m") -> str:
    return f"sum by ({by}) (rate({series}[{window}]))"


def _increase(by: str, series: str, window: str = "1h") -> str:
    return f"sum by ({by}) (increase({series}[{window}]))"


def _ratio(by: str, part: str, whole: str) -> str:
    return f"{_rate(by, part)} / ({_rate(by, whole)} > 0)"


def _service(mixes: Mixes, bounds: Bounds) -> Iterator[Recorded | Raised]:
    answers = mixes.of(metrics.CANDIDATES, suffix="_count")
    ratios = (
        ("mix:mixer_fallbacks:ratio5m", mixes.of(metrics.FALLBACKS), alerts.FALLBACK, bounds.fallbacks),
        ("mix:mixer_degraded:ratio5m", mixes.of(metrics.DEGRADED), alerts.DEGRADED, bounds.degraded),
    )
    for name, part, alert, bound in ratios:
        yield Recorded(name, _ratio("mix", part, answers))
        yield Raised(alert, f"{name} > {bound:g}")
    yield from _backends(mixes, bounds)
    yield from _stores(mixes, bounds)
    yield from _calls(mixes, bounds)
    buckets = _rate("mix, le", mixes.of(metrics.ADDED_SECONDS, suffix="_bucket"))
    p99 = "mix:mixer_added_latency_seconds:p99_5m"
    yield Recorded(p99, f"histogram_quantile(0.99, {buckets})")
    yield Raised(alerts.ADDED_LATENCY, f"{p99} > {bounds.added_p99_s:g}")


def _backends(mixes: Mixes, bounds: Bounds) -> Iterator[Recorded | Raised]:
    def asked(*matchers: str) -> str:
        return mixes.of(metrics.BACKEND_SECONDS, *matchers, suffix="_count")

    name = "mix_backend:mixer_backend_failures:ratio5m"
    yield Recorded(name, _ratio("mix, backend", asked('outcome!~"ok|skipped"'), asked('outcome!="skipped"')))
    yield Raised(alerts.BACKEND_FAILS, f"{name} > {bounds.backend_failures:g}")
    # Between its tries an open one is half open for a moment.
    opened = mixes.of(metrics.BREAKER_STATE, 'state="open"')
    yield Raised(alerts.BREAKER_OPEN, f"sum by (backend) (max_over_time({opened}[1m])) > 0")
    changed = _increase("mix, backend, what", mixes.of(metrics.BACKEND_CHANGES), "15m")
    yield Raised(alerts.BACKEND_CHANGED, f"{changed} > 0")
    fresh = f"max by (mix, backend) ({mixes.of(metrics.BACKEND_FRESH_AT)})"
    yield Raised(alerts.BACKEND_STALE, f"(time() - {fresh}) / 3600 > {bounds.backend_age_hours:g}")


def _stores(mixes: Mixes, bounds: Bounds) -> Iterator[Recorded | Raised]:
    """A store that is skipped was wanted: there was no time left for it."""
    failed, asked = (
        mixes.of(metrics.STORE_SECONDS, *matchers, suffix="_count") for matchers in (['outcome!="ok"'], [])
    )
    name = "mix_store:mixer_store_failures:ratio5m"
    yield Recorded(name, _ratio("mix, store", failed, asked))
    yield Raised(alerts.STORE_FAILS, f"{name} > {bounds.store_failures:g}")


def _calls(mixes: Mixes, bounds: Bounds) -> Iterator[Recorded | Raised]:
    def handled(*matchers: str) -> str:
        service = 'grpc_service="mixer.v1.MixerService"'
        return f"sum(rate({mixes.of(metrics.SERVER_HANDLED, service, *matchers)}[5m]))"

    name = "mixer_calls:failures:ratio5m"
    yield Recorded(name, f"{handled(f'grpc_code=~{chr(34)}{FAILURES}{chr(34)}')} / ({handled()} > 0)")
    yield Raised(alerts.CALLS_FAIL, f"{name} > {bounds.failed_calls:g}")
    yield Raised(alerts.OVERLOADED, f"min({mixes.of(metrics.QUALITY)}) < 1")
    dropped = f"sum(rate({mixes.of(metrics.SPANS_DROPPED)}[5m]))"
    yield Raised(alerts.SPANS_DROPPED, f"{dropped} > 0")
    waiting = f"sum by (log, instance) ({mixes.of(metrics.SHIP_WAITING)})"
    arrived = _increase("log, instance", mixes.of(metrics.SHIP_FILES, 'outcome="shipped"'), "15m")
    yield Raised(alerts.LOG_NOT_SHIPPED, f"{waiting} > 0 unless {arrived} > 0")
    yield from _files(mixes, bounds)
    yield Raised(alerts.WORKERS_RESTART, f"{_increase('reason', mixes.of(metrics.WORKER_RESTARTS))} > 2")


def _files(mixes: Mixes, bounds: Bounds) -> Iterator[Raised]:
    # A server without a certificate says 0.
    ends = f"min({mixes.of(metrics.TLS_EXPIRES)} > 0)"
    yield Raised(alerts.CERTIFICATE_ENDS, f"({ends} - time()) / {_DAY_S} < {bounds.certificate_days:g}")
    failed = (
        f"(sum(increase({mixes.of(metric, 'outcome!=' + chr(34) + 'swapped' + chr(34))}[15m])) or vector(0))"
        for metric in (metrics.TLS_RELOADS, metrics.AUTH_RELOADS)
    )
    yield Raised(alerts.FILES_NOT_RELOADED, f"{' + '.join(failed)} > 0")


def _models(mixes: Mixes, bounds: Bounds) -> Iterator[Recorded | Raised]:
    refused = _increase("mix, check", mixes.of(metrics.MODEL_REFUSED), "15m")
    # A counter that is there for the first time has not increased yet.
    new = f"sum by (mix, check) ({mixes.of(metrics.MODEL_REFUSED)} unless {mixes.of(metrics.MODEL_REFUSED)} offset 15m)"
    yield Raised(alerts.MODEL_REFUSED, f"({refused} > 0) or ({new} > 0)")
    loaded = f"{mixes.of(metrics.MODEL_INFO)} == 1"
    having = f"count by (mix, version) (count by (mix, version, instance) ({loaded}))"
    every = f"count by (mix) (count by (mix, instance) ({loaded}))"
    yield Raised(alerts.MODELS_DIFFER, f"{having} < on (mix) group_left () {every}")
    age = f"max by (mix) ({mixes.of(metrics.MODEL_AGE)}) / {_DAY_S}"
    yield Raised(alerts.MODEL_OLD, f"{age} > {bounds.model_age_days:g}")


def _drift(mixes: Mixes, bounds: Bounds) -> Iterator[Recorded | Raised]:
    """Nothing is said before there were as many answers as it takes."""
    yield Recorded(
        "mix:mixer_answers:increase1h", _increase("mix", mixes.of(metrics.CANDIDATES, suffix="_count"))
    )
    yield from _values(mixes, bounds)
    for by, counter, reference in (
        ("mix, version", metrics.SCORE_BIN, metrics.SCORE_BIN_REFERENCE),
        ("mix, version, feature", metrics.FEATURE_BIN, metrics.FEATURE_BIN_REFERENCE),
    ):
        yield from _psi(by, mixes.of(counter), mixes.of(reference), counter.name.split("_")[1])
    enough = _enough(mixes, bounds)
    yield Raised(
        alerts.SCORE_DRIFT, f"(mix_version:mixer_score:psi1h > {bounds.psi:g}) and on (mix) ({enough})"
    )
    yield from _feature_drift(mixes, bounds, enough)
    share = 'mix_version_feature_bin:mixer_feature_bin:share1h{bin="missing"}'
    trained = 'mix_version_feature_bin:mixer_feature_bin:trained{bin="missing"}'
    excess = f"sum by (mix, version, feature) ({share} - {trained}) > {bounds.missing:g}"
    yield Raised(alerts.FEATURE_MISSING, f"({excess}) and on (mix) ({enough})")


def _enough(mixes: Mixes, bounds: Bounds) -> str:
    """The mixes with as many answers as it takes to tell drift from chance."""
    counted = "mix:mixer_answers:increase1h"
    if not mixes.named:
        return f"{counted} >= {bounds.answers}"
    needed = {
        name: max(bounds.answers, drift.answers_needed(manifest, bounds.psi) or bounds.answers)
        for name, manifest in mixes.modelled.items()
    }
    return " or ".join(f"{counted}{{mix=~{any_of((name,))}}} >= {count}" for name, count in needed.items())


def _values(mixes: Mixes, bounds: Bounds) -> Iterator[Recorded | Raised]:
    rows = f"({_increase('mix', mixes.of(metrics.FEATURE_ROWS))} > 0)"
    for name, metric in (
        ("missing", metrics.FEATURE_MISSING),
        ("out_of_range", metrics.FEATURE_OUT_OF_RANGE),
    ):
        part = _increase("mix, feature", mixes.of(metric))
        yield Recorded(f"mix_feature:mixer_feature_{name}:ratio1h", f"{part} / on (mix) group_left () {rows}")
    outside = "mix_feature:mixer_feature_out_of_range:ratio1h"
    yield Raised(alerts.FEATURE_OUT_OF_RANGE, f"{outside} > {bounds.out_of_range:g}")


def _psi(by: str, counted: str, reference: str, what: str) -> Iterator[Recorded]:
    """The shares of bins, and from them the index, as `mixer.stability.psi` computes it."""
    level = by.replace(", ", "_")
    share, trained = f"{level}_bin:mixer_{what}_bin:share1h", f"{level}_bin:mixer_{what}_bin:trained"
    whole = f"({_increase(by, counted)} > 0)"
    yield Recorded(share, f"{_increase(f'{by}, bin', counted)} / on ({by}) group_left () {whole}")
    yield Recorded(trained, f"max by ({by}, bin) ({reference})")
    yield Recorded(f"{level}:mixer_{what}:psi1h", _index(by, share, trained))


def _feature_drift(mixes: Mixes, bounds: Bounds, enough: str) -> Iterator[Raised]:
    """A warning where a weighty feature drifts, information where another does; of mixes unknown, a warning."""
    psi = "mix_version_feature:mixer_feature:psi1h"
    if not mixes.named:
        yield Raised(alerts.FEATURE_DRIFT, f"({psi} > {bounds.psi:g}) and on (mix) ({enough})")
        return
    light = replace(alerts.FEATURE_DRIFT, severity="info")
    for name, manifest in mixes.modelled.items():
        mix, held = f"mix=~{any_of((name,))}", any_of(drift.weighty(manifest))
        for alert, features in ((alerts.FEATURE_DRIFT, f"feature=~{held}"), (light, f"feature!~{held}")):
            yield Raised(alert, f"({psi}{{{mix},{features}}} > {bounds.psi:g}) and on (mix) ({enough})")


def _slices(mixes: Mixes, bounds: Bounds) -> Iterator[Recorded | Raised]:
    by = "mix, slice, value"
    answers = mixes.of(metrics.SLICE_SECONDS, suffix="_count")
    for what, metric in (("fallbacks", metrics.SLICE_FALLBACKS), ("degraded", metrics.SLICE_DEGRADED)):
        yield Recorded(f"mix_slice_value:mixer_slice_{what}:ratio5m", _ratio(by, mixes.of(metric), answers))
    yield Raised(alerts.SLICE_DEGRADED, f"mix_slice_value:mixer_slice_degraded:ratio5m > {bounds.degraded:g}")
    buckets = _rate(f"{by}, le", mixes.of(metrics.SLICE_SECONDS, suffix="_bucket"))
    p99 = "mix_slice_value:mixer_slice_duration_seconds:p99_5m"
    yield Recorded(p99, f"histogram_quantile(0.99, {buckets})")
    yield Raised(alerts.SLICE_SLOW, f"{p99} > {bounds.slice_p99_s:g}")
    yield Recorded("mix_slice_value:mixer_slice_answers:increase1h", _increase(by, answers))


def _slice_drift(mixes: Mixes, bounds: Bounds) -> Iterator[Recorded | Raised]:
    """A slice's scores against its own of a day before, where both hours had answers enough."""
    by, counted = "mix, version, slice, value", mixes.of(metrics.SLICE_SCORE_BIN)
    share = "mix_version_slice_value_bin:mixer_slice_score_bin:share1h"
    yield Recorded(
        share, f"{_increase(f'{by}, bin', counted)} / on ({by}) group_left () ({_increase(by, counted)} > 0)"
    )
    psi = "mix_version_slice_value:mixer_slice_score:psi1h_1d"
    yield Recorded(psi, _index(by, share, f"{share} offset 1d"))
    many = "mix_slice_value:mixer_slice_answers:increase1h"
    enough = " and ".join(f"({many}{offset} >= {4 * bounds.answers})" for offset in ("", " offset 1d"))
    yield Raised(alerts.SLICE_DRIFT, f"({psi} > {bounds.psi:g}) and on (mix, slice, value) ({enough})")


def _index(by: str, share: str, trained: str) -> str:
    new, old = (f"clamp_min({name}, {stability.LEAST_SHARE:g})" for name in (share, trained))
    return f"sum by ({by}) (({new} - {old}) * ln({new} / {old}))"


def doubts(mixes: Mixes, bounds: Bounds) -> Iterator[str]:
    """Why a mix's figures of drift may mislead, for people, one a line."""
    for name, manifest in mixes.manifests.items():
        if manifest is None:
            yield f"{name}: has no model, so nothing is said of drift"
            continue
        about = f"{name}: model {manifest.name} {manifest.version}"
        if not manifest.profile_rows:
            yield f"{about} tells not what its profiles are of; they may be of the rows that it learned from only"
        if manifest.profile_rows == "judged":
            yield f"{about} has profiles of judged documents only, which are spread otherwise than those served"
        if drift.answers_needed(manifest, bounds.psi) is None:
            yield f"{about} learned from too few queries to tell a PSI of {bounds.psi:g} from chance"
