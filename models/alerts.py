"""The alerts, in words: when each is raised is `models.rules`, this is what it tells people and what they do then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RUNBOOKS = "docs/runbooks.md"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. The texts are Prometheus templates over its labels and value."""

    name: str
    severity: Literal["critical", "warning", "info"]
    after: str
    """How long the condition must hold."""
    summary: str
    description: str
    means: str
    look: tuple[str, ...]
    do: tuple[str, ...]

    @property
    def anchor(self) -> str:
        """Of its section in the runbooks."""
        return self.name.lower()


_MIX, _BACKEND, _FEATURE = "{{ $labels.mix }}", "{{ $labels.backend }}", "{{ $labels.feature }}"
_VERSION, _STORE = "{{ $labels.version }}", "{{ $labels.store }}"
_VALUE = '{{ printf "%.3g" $value }}'

CALLS_FAIL = Alert(
    "MixerCallsFail",
    "critical",
    "5m",
    "Mixer fails calls",
    f"A share of {_VALUE} of the calls ended in an error of Mixer's own.",
    "Callers get errors: every backend of a mix is down, deadlines are too short, or Mixer has a fault.",
    (
        "`grpc_server_handled_total` by `grpc_code`: UNAVAILABLE is no backend, DEADLINE_EXCEEDED no time.",
        "`mixer_stage_failures_total` by `stage` and `error`; `unexpected` is a fault in the code.",
        "The log lines with `grpc_code` of that kind: each has a trace id.",
    ),
    (
        "UNAVAILABLE: see MixerBackendFails.",
        "`unexpected` since a release: roll the release back, keep the log line.",
    ),
)
ADDED_LATENCY = Alert(
    "MixerAddsLatency",
    "warning",
    "10m",
    f"Mixer itself is slow in mix {_MIX}",
    f"In one answer of a hundred Mixer adds more than {_VALUE} s to the slowest backend's time.",
    "The time is spent in Mixer: in ranking, in merging, or in waiting for a processor.",
    (
        "`mixer_stage_duration_seconds` by `stage`: which one grew; `hydrate` is waiting for feature stores.",
        "`mixer_model_scorer`: a model left to LightGBM takes several times as long.",
        "`mixer_calls_in_flight` and the processors' load: waiting looks like work.",
    ),
    ("More replicas or workers where it waits.", "A smaller model, or fewer candidates, where it ranks."),
)
FALLBACK = Alert(
    "MixerFallsBack",
    "critical",
    "5m",
    f"Mix {_MIX} answers without its model",
    f"A share of {_VALUE} of the answers is in fused order because the model could not rank.",
    "The answers are whole, but in the order that was there before the model.",
    (
        "`mixer_fallbacks_total` by `reason`: a check's name is a model refused at load, the others failed to score.",
        "`mixer_model_refused_total` by `check`, and the log event `model refused` with why.",
    ),
    (
        "A model refused: put the version before it back; `mixer check-config` says what is wrong with this one.",
        "`load`: see MixerOverloaded.",
        "`scores_not_finite` or `scoring_failed`: see MixerFeatureMissing and MixerFeatureOutOfRange.",
    ),
)
DEGRADED = Alert(
    "MixerDegraded",
    "warning",
    "10m",
    f"Mix {_MIX} answers from less than the whole",
    f"A share of {_VALUE} of the answers lacks a backend, a feature store or the model.",
    "Callers get answers, each of which says what was lacking.",
    (
        "`mixer_backend_duration_seconds_count` by `backend` and `outcome`.",
        "`mixer_store_duration_seconds_count` by `store` and `outcome`.",
        "`mixer_fallbacks_total`.",
    ),
    ("See MixerBackendFails, MixerStoreFails and MixerFallsBack.",),
)
BACKEND_FAILS = Alert(
    "MixerBackendFails",
    "warning",
    "5m",
    f"Backend {_BACKEND} fails mix {_MIX}",
    f"A share of {_VALUE} of the calls to backend {_BACKEND} did not end in an answer.",
    "The answers lack what only this backend finds; features made from it are missing.",
    (
        "`mixer_backend_duration_seconds_count` by `outcome`: timeout, error or refused.",
        "The backend's own spans below `retrieve`, and its logs.",
    ),
    (
        "Timeouts: raise `timeout_s` in the mix if callers can wait; otherwise give the backend room.",
        "Refused since a release of either side: the filters or fields no longer fit.",
    ),
)
STORE_FAILS = Alert(
    "MixerStoreFails",
    "warning",
    "5m",
    f"Feature store {_STORE} fails mix {_MIX}",
    f"A share of {_VALUE} of the times that store {_STORE} was asked did not end in an answer.",
    "The features made from it are missing but for what the caches still know; the model ranks without them.",
    (
        "`mixer_store_duration_seconds_count` by `outcome`: timeout, error, or skipped for want of time.",
        "`mixer_store_rows_total` by `source`: how many rows are lost, how many the caches still know.",
        "The store's own spans below `look_up`, and its logs.",
    ),
    (
        "Timeouts: give the store room, keep rows longer (`cache.ttl_s`), or raise `timeout_s` in the mix.",
        "Skipped: backends use up the deadline; see their timeouts.",
    ),
)
BREAKER_OPEN = Alert(
    "MixerBreakerOpen",
    "warning",
    "2m",
    f"Backend {_BACKEND} is not asked",
    f"Its circuit breaker keeps opening, in {_VALUE} processes.",
    "It failed or was slow so often that Mixer leaves it alone but for a few calls that try it. Answers are quick and "
    "lack what only this backend finds.",
    (
        "The log event `breaker changed`: how many calls failed or were slow when it opened.",
        "`mixer_backend_duration_seconds_count` by `outcome` just before: timeout or error.",
    ),
    (
        "Mend the backend: the circuit closes by itself within `wait_s` of its being well.",
        "It is well and the circuit still opens: raise `slow_s` or `failure_share` in `guards`.",
    ),
)
OVERLOADED = Alert(
    "MixerOverloaded",
    "warning",
    "10m",
    "Mixer leaves work out for load",
    f"Its quality is {_VALUE}, where 1 leaves nothing out.",
    "More is asked than can be answered well: shadows, optional backends, candidates or the model are left out, in "
    "this order, and at last calls are turned away.",
    (
        "`mixer_load_dropped_total` by `what`, and `mixer_calls_shed_total`.",
        "`mixer_concurrency_limit` beside `mixer_calls_in_flight`: did the limit fall, or did calls rise?",
        "`mixer_stage_duration_seconds` and `mixer_backend_duration_seconds`: what takes longer than it did.",
    ),
    (
        "More replicas or workers where calls rose.",
        "A backend that became slow holds all calls up: a shorter `timeout_s`, a breaker with `slow_s`.",
    ),
)
MODEL_REFUSED = Alert(
    "MixerModelRefused",
    "warning",
    "0m",
    f"Mix {_MIX} refused a model",
    "A model failed the check {{ $labels.check }} and does not rank.",
    "A version was offered that must not serve; what served before still does, if there was something.",
    ("The log event `model refused`: it says what differed.", "`mixer check-config` on the same settings."),
    ("`checksum`: the files are damaged, copy them again.", "Other checks: train and publish again."),
)
MODELS_DIFFER = Alert(
    "MixerModelsDiffer",
    "warning",
    "15m",
    f"Replicas of mix {_MIX} rank with different models",
    f"Only {_VALUE} of the replicas have version {_VERSION} loaded.",
    "The same query is ordered differently from call to call; cursors break between replicas.",
    ("`mixer_model_info` by instance.", "Log events of the replicas that are behind."),
    ("Restart those that are behind; if they refuse the version, see MixerModelRefused.",),
)
MODEL_OLD = Alert(
    "MixerModelOld",
    "info",
    "1h",
    f"The model of mix {_MIX} is old",
    f"It was trained {_VALUE} days ago.",
    "Models decay as documents and users change; `mixer models decay` measures how fast and recommends a greatest age.",
    (
        "MixerScoreDrift and MixerFeatureDrift of the same mix.",
        "When the last training ran, and why not since.",
    ),
    ("Train on newer judgements, evaluate, publish.",),
)
SCORE_DRIFT = Alert(
    "MixerScoreDrift",
    "warning",
    "30m",
    f"Scores of mix {_MIX} have moved away from training",
    f"The PSI of the scores of version {_VERSION} against its training is {_VALUE}.",
    "The model sees other documents, other queries or other features than it learned from; its order is a guess.",
    (
        "`mix_version_feature:mixer_feature:psi1h`, the weightiest features first: which moved.",
        "MixerBackendChanged around the time it began: a new index shifts scores.",
        "MixerBackendFails: a backend that is away takes its features with it.",
    ),
    (
        "Mend what changed if it is a fault.",
        "Train anew if the world changed; the profile comes with the model.",
    ),
)
FEATURE_DRIFT = Alert(
    "MixerFeatureDrift",
    "warning",
    "30m",
    f"Feature {_FEATURE} of mix {_MIX} has moved away from training",
    f"The PSI of {_FEATURE} against the training of version {_VERSION} is {_VALUE}.",
    "The feature's values are spread otherwise than when the model learned what they mean. It is a warning for the "
    "features that hold 90 % of the model's gain, information for the others.",
    (
        "`mix_version_feature_bin:mixer_feature_bin:share1h` beside `mixer_feature_bin_reference_ratio`: which bins.",
        "All values in the outer bins is a change of unit; all in `missing` a field that is no longer sent.",
        "MixerBackendChanged around the time it began.",
    ),
    ("Mend the source if it is a fault.", "Train anew if it is not."),
)
FEATURE_MISSING = Alert(
    "MixerFeatureMissing",
    "warning",
    "15m",
    f"Feature {_FEATURE} of mix {_MIX} is missing more often than in training",
    f"The share of rows without {_FEATURE} is {_VALUE} above that in the training of version {_VERSION}.",
    "A field is no longer sent, a backend is away, or values lie outside their range and count as missing.",
    (
        "`mix_feature:mixer_feature_missing:ratio1h` beside `mix_feature:mixer_feature_out_of_range:ratio1h`.",
        "The feature's `source` in the settings: which backend or caller sends it.",
    ),
    ("Mend the sender.",),
)
FEATURE_OUT_OF_RANGE = Alert(
    "MixerFeatureOutOfRange",
    "warning",
    "15m",
    f"Feature {_FEATURE} of mix {_MIX} leaves its range",
    f"A share of {_VALUE} of the values of {_FEATURE} is outside the range that the settings declare.",
    "The values are garbage or of another unit; each was replaced by the default.",
    ("The field's values in the backend's index.", "MixerBackendChanged around the time it began."),
    (
        "Mend the index.",
        "If the range is too narrow: declare another and train anew, the schema is the model's.",
    ),
)
BACKEND_CHANGED = Alert(
    "MixerBackendChanged",
    "info",
    "0m",
    f"Backend {_BACKEND} of mix {_MIX} became another",
    "Its {{ $labels.what }} changed.",
    "What answers is no longer what the model was trained over; a new index is common, a new schema is not.",
    (
        "The log event `backend changed`: what it was and what it is.",
        "MixerScoreDrift, MixerFeatureDrift and MixerFeatureMissing from then on.",
    ),
    (
        "`schema`: hold the features of the mix against it; a field that is gone is missing in every row.",
        "Scores that moved with a new index: train anew, or roll the index back.",
    ),
)
BACKEND_STALE = Alert(
    "MixerBackendStale",
    "warning",
    "15m",
    f"Backend {_BACKEND} of mix {_MIX} is not brought up to date",
    f"Its documents are {_VALUE} hours old.",
    "Answers lack what is new and hold what is gone.",
    (
        "`mixer_backend_fresh_timestamp_seconds`.",
        "The job that builds the index: when it ran last, and how it ended.",
    ),
    ("Mend the job; Mixer takes the new index as soon as the backend serves it.",),
)
_SLICE = "{{ $labels.slice }} {{ $labels.value }}"
SLICE_DEGRADED = Alert(
    "MixerSliceDegraded",
    "warning",
    "10m",
    f"Slice {_SLICE} of mix {_MIX} is answered from less than the whole",
    f"A share of {_VALUE} of its answers lacks a backend or the model.",
    "A part of the traffic fares worse than the whole shows.",
    (
        "`mixer_slice_fallbacks_total`: whether it is the model.",
        "Log lines or traces with `mixer.slice.*` of that value and `mixer.degraded`.",
    ),
    ("See MixerBackendFails and MixerFallsBack.",),
)
SLICE_SLOW = Alert(
    "MixerSliceSlow",
    "warning",
    "10m",
    f"Slice {_SLICE} of mix {_MIX} is slow",
    f"One answer of a hundred takes more than {_VALUE} s.",
    "A part of the traffic waits longer than its callers can.",
    (
        "Traces with `mixer.slice.*` of that value and a late `mixer.latency_bucket`: which backend, which stage.",
    ),
    ("Long queries: a smaller `limit`. One backend: see MixerBackendFails.",),
)
SLICE_DRIFT = Alert(
    "MixerSliceDrift",
    "warning",
    "30m",
    f"Scores of slice {_SLICE} of mix {_MIX} are not those of yesterday",
    f"The PSI of its scores by version {_VERSION} against those of a day before is {_VALUE}.",
    "Something changed for a part of the traffic, which the whole may hide. The manifest has no profile of slices, so "
    "a slice is held against its own past.",
    (
        "MixerBackendChanged within the day.",
        "Traces with `mixer.slice.*` of that value: which features are missing.",
    ),
    ("See MixerScoreDrift.",),
)
SPANS_DROPPED = Alert(
    "MixerSpansDropped",
    "info",
    "15m",
    "Mixer drops spans",
    f"{_VALUE} spans a second never reach the collector.",
    "Traces have gaps; answers are not touched.",
    ("`mixer_spans_dropped_total` by `reason`: queue_full or export_failed.", "The collector."),
    ("Sample less, or give the collector room.",),
)
LOG_NOT_SHIPPED = Alert(
    "MixerLogNotShipped",
    "warning",
    "15m",
    "A log of Mixer does not reach its far folder",
    'Of the {{ $labels.log }} {{ printf "%.0f" $value }} files wait, and none has arrived for a quarter of an hour.',
    "The storage is down, slow or refuses; answers are not touched. What waits fills this disk up to `ship.max_bytes`, "
    "then the oldest files are lost.",
    (
        "The log event `log files cannot be shipped`: it says why in the storage's own words.",
        "`mixer_ship_waiting_bytes`, and `mixer_ship_files_total` by `outcome`: failed, dropped.",
    ),
    (
        "Give the pod access to the storage again: nothing else need be done, all that waits is shipped.",
        "A long outage: raise `ship.max_bytes`, where the disk has room.",
    ),
)
WORKERS_RESTART = Alert(
    "MixerWorkersRestart",
    "warning",
    "0m",
    "Workers of Mixer are started again and again",
    '{{ $labels.reason }}: {{ printf "%.0f" $value }} times within an hour.',
    "A process dies or hangs; its calls in flight are lost.",
    ("Standard error of the worker: one that hangs says where.", "Memory: the kernel may have killed it."),
    ("Raise the memory limit, or roll back what came last.",),
)
CERTIFICATE_ENDS = Alert(
    "MixerCertificateEnds",
    "warning",
    "1h",
    "A certificate of Mixer ends soon",
    f"The certificate of the gRPC port ends in {_VALUE} days.",
    "From its end on no caller can connect; connections that are open stay until they are turned over.",
    (
        "`mixer_tls_certificate_expires_timestamp_seconds` by instance: which one.",
        "`mixer_tls_reloads_total`: `refused` is a pair that was wrong, the log event `files not reloaded` says why.",
        "What issues the certificate: whether it renewed it, and whether the file that is mounted is the new one.",
    ),
    ("Renew it; Mixer takes the new files within seconds, without a restart.",),
)
FILES_NOT_RELOADED = Alert(
    "MixerFilesNotReloaded",
    "warning",
    "0m",
    "Mixer cannot take new certificates or keys",
    'Files changed {{ printf "%.0f" $value }} times within 15 minutes to what cannot be used.',
    "What was good before stands: a certificate that ends, a key that should be gone, a caller not known yet.",
    (
        "The log event `files not reloaded`: which files, and what is wrong with them.",
        "`mixer_tls_reloads_total` and `mixer_auth_reloads_total` by `outcome`.",
    ),
    ("Mend the files; `mixer check-config` on the same settings says whether they are sound.",),
)

ALERTS = tuple(value for value in list(globals().values()) if isinstance(value, Alert))


def runbooks() -> str:
    """All runbooks as Markdown, a section an alert."""
    return "\n".join(
        ["# Runbooks", "", _INTRODUCTION, "", *(line for alert in ALERTS for line in _section(alert))]
    )


_INTRODUCTION = (
    "What to do when an alert of `mixer rules` is raised. Written by `make docs` from `models/alerts.py`, which "
    "also gives the alerts their texts."
)


def _section(alert: Alert) -> list[str]:
    return [
        f"## {alert.name}",
        "",
        f"{alert.severity.capitalize()}, after {alert.after}. {alert.means}",
        "",
        "Look at:",
        "",
        *(f"- {line}" for line in alert.look),
        "",
        "Do:",
        "",
        *(f"- {line}" for line in alert.do),
        "",
    ]
