"""Every name that telemetry uses: metrics with units and labels, spans, and attributes. A test refuses any other.

gRPC metrics carry the names of go-grpc-middleware; RPC and database attributes follow the OpenTelemetry semantic
conventions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """The Prometheus type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


LABELS = {
    "grpc_type": "call types of gRPC: unary, or unknown",
    "grpc_service": "services that the server registers, or unknown",
    "grpc_method": "methods that the server registers, or unknown",
    "grpc_code": "status codes of gRPC",
    "mix": "configured mixes",
    "stage": "stages of the pipeline",
    "error": "classes of request errors, cancelled, or unexpected",
    "backend": "configured backends",
    "store": "configured feature stores",
    "source": "where rows of a store come from: cache, store, lost",
    "what": "what a backend says of itself: index, schema, server; what there was no budget for: hedge, retry; what is "
    "left out under load: beside, optional_backends, candidates, model",
    "state": "states of a circuit breaker: closed, open, half_open",
    "won": "which call of a hedge was answered from: first, second, neither",
    "outcome": "outcomes of a backend or a store: ok, timeout, error, refused, cancelled, skipped; of an event: "
    "accepted, duplicate, late, unknown; of a swap: swapped, refused, unreadable, failed; of an arm: ok, error, "
    "refused; of a file to ship: shipped, failed, dropped; of files reloaded: swapped, refused, unreadable; of a "
    "wish to be traced: forced, refused; of a tenant's call: admitted, rate_limited, over_quota",
    "reason": "reasons listed in code",
    "check": "checks of a model: registry, manifest, checksum, schema, test_load, golden",
    "feature": "declared features",
    "shadow": "configured models that are shadows of the mix",
    "slice": "declared slices, and all",
    "value": "declared values of a slice, and other, none, all, without",
    "bin": "bins of the model's profiles, and missing",
    "model": "configured models",
    "version": "versions of the loaded models",
    "sha256": "hashes of the loaded models",
    "sink": "kinds of sinks: parquet, otlp, kafka",
    "arm": "arms of the configured experiments",
    "preferred": "whose hits the readers of a list preferred: arm, control, neither",
    "scorer": "what evaluates a model: forest, lightgbm",
    "log": "logs that can be shipped: searches, events",
    "kind": "kinds of events: impression, click, conversion",
    "tenant": "tenants that the settings name, and other",
}
"""Every label and what bounds its values; never a query, a document, a user or a trace."""

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTS = (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
_RPC = ("grpc_type", "grpc_service", "grpc_method")
_SHADOW_SLICE = ("mix", "shadow", "slice", "value")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name ends in its unit."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merged: Literal["livesum", "livemax", "livemin"] = "livesum"
    """How gauges of several workers become one; those of a worker that ended are left out. Others are summed."""


SERVER_STARTED = Metric("grpc_server_started_total", Kind.COUNTER, "Calls begun.", _RPC)
SERVER_HANDLED = Metric(
    "grpc_server_handled_total", Kind.COUNTER, "Calls ended, by code.", (*_RPC, "grpc_code")
)
SERVER_SECONDS = Metric(
    "grpc_server_handling_seconds", Kind.HISTOGRAM, "Time from a call's start to its end.", _RPC, _SECONDS
)
SERVER_IN_FLIGHT = Metric("mixer_calls_in_flight", Kind.GAUGE, "Calls being answered now.")
CALLS_SHED = Metric(
    "mixer_calls_shed_total", Kind.COUNTER, "Calls turned away because there were too many at once."
)
CONCURRENCY_LIMIT = Metric(
    "mixer_concurrency_limit", Kind.GAUGE, "Calls answered at once at most, as latency has it."
)
LOAD = Metric("mixer_load_ratio", Kind.GAUGE, "Smoothed share of that limit in use.", merged="livemax")
QUALITY = Metric(
    "mixer_quality_ratio",
    Kind.GAUGE,
    "1 where nothing is left out for load; the less, the more is.",
    merged="livemin",
)
LOAD_DROPPED = Metric(
    "mixer_load_dropped_total",
    Kind.COUNTER,
    "Searches for which something was left out for load.",
    ("mix", "what"),
)
STAGE_SECONDS = Metric(
    "mixer_stage_duration_seconds", Kind.HISTOGRAM, "Time spent in a stage.", ("mix", "stage"), _SECONDS
)
STAGE_FAILURES = Metric(
    "mixer_stage_failures_total", Kind.COUNTER, "Requests that ended in a stage.", ("mix", "stage", "error")
)
BACKEND_SECONDS = Metric(
    "mixer_backend_duration_seconds",
    Kind.HISTOGRAM,
    "Time until a backend's outcome was known.",
    ("mix", "backend", "outcome"),
    _SECONDS,
)
BACKEND_CANDIDATES = Metric(
    "mixer_backend_candidates",
    Kind.HISTOGRAM,
    "Documents in a backend's answer.",
    ("mix", "backend"),
    _COUNTS,
)
BACKEND_CHANGES = Metric(
    "mixer_backend_changes_total",
    Kind.COUNTER,
    "Times that a backend's index, schema or server became another.",
    ("mix", "backend", "what"),
)
BACKEND_FRESH_AT = Metric(
    "mixer_backend_fresh_timestamp_seconds",
    Kind.GAUGE,
    "Unix time when the backend's documents were last brought up to date, where it tells.",
    ("mix", "backend"),
    merged="livemax",
)
BREAKER_STATE = Metric(
    "mixer_backend_breaker_state",
    Kind.GAUGE,
    "1 for the state that the backend's circuit breaker is in.",
    ("backend", "state"),
    merged="livemax",
)
BREAKER_CHANGES = Metric(
    "mixer_backend_breaker_changes_total",
    Kind.COUNTER,
    "Times that the backend's circuit breaker came into a state.",
    ("backend", "state"),
)
HEDGES = Metric(
    "mixer_backend_hedges_total",
    Kind.COUNTER,
    "Calls put once more beside one that took long, by which won and how the other one ended.",
    ("backend", "won", "outcome"),
)
RETRIES = Metric(
    "mixer_backend_retries_total",
    Kind.COUNTER,
    "New tries of a backend that could not be reached, by how they ended.",
    ("backend", "outcome"),
)
BUDGET_EXHAUSTED = Metric(
    "mixer_backend_budget_exhausted_total",
    Kind.COUNTER,
    "Hedges and retries left out because their budget was spent.",
    ("backend", "what"),
)
CANDIDATES = Metric("mixer_candidates", Kind.HISTOGRAM, "Distinct candidates ranked.", ("mix",), _COUNTS)
ADDED_SECONDS = Metric(
    "mixer_added_latency_seconds",
    Kind.HISTOGRAM,
    "The answer's time less the slowest backend's; asking feature stores is part of it.",
    ("mix",),
    _SECONDS,
)
STORE_SECONDS = Metric(
    "mixer_store_duration_seconds",
    Kind.HISTOGRAM,
    "Time until a feature store's outcome was known; none where its cache had every row.",
    ("mix", "store", "outcome"),
    _SECONDS,
)
STORE_ROWS = Metric(
    "mixer_store_rows_total",
    Kind.COUNTER,
    "Rows looked up for a feature store, by where what is known of them came from; lost where nothing is.",
    ("mix", "store", "source"),
)
STORE_MISSING = Metric(
    "mixer_store_missing_total", Kind.COUNTER, "Rows that a feature store does not have.", ("mix", "store")
)
STORE_UNREADABLE = Metric(
    "mixer_store_unreadable_total",
    Kind.COUNTER,
    "Values read from a feature store that are no finite number, and count as missing.",
    ("mix", "store"),
)
DROPPED = Metric(
    "mixer_dropped_total", Kind.COUNTER, "Hits or scores left out, by reason.", ("mix", "backend", "reason")
)
FALLBACKS = Metric(
    "mixer_fallbacks_total", Kind.COUNTER, "Answers in fused order for want of a model.", ("mix", "reason")
)
DEGRADED = Metric("mixer_degraded_total", Kind.COUNTER, "Answers made from less than the whole.", ("mix",))
MODEL_INFO = Metric(
    "mixer_model_info",
    Kind.GAUGE,
    "1 for the model that ranks.",
    ("mix", "model", "version", "sha256"),
    merged="livemax",
)
MODEL_AGE = Metric(
    "mixer_model_age_seconds", Kind.GAUGE, "Time since the model was trained.", ("mix",), merged="livemax"
)
MODEL_SCORER = Metric(
    "mixer_model_scorer",
    Kind.GAUGE,
    "1 for what evaluates the model, and why where that is LightGBM.",
    ("mix", "scorer", "reason"),
    merged="livemax",
)
MODEL_REFUSED = Metric(
    "mixer_model_refused_total", Kind.COUNTER, "Models that failed a check at load.", ("mix", "check")
)
MODEL_SWAPS = Metric(
    "mixer_model_swaps_total",
    Kind.COUNTER,
    "Tries to follow a registry's pointer while serving, by how they ended.",
    ("mix", "outcome"),
)
SCORE_BIN = Metric(
    "mixer_score_bin_total",
    Kind.COUNTER,
    "Scores by bin of the model's own profile.",
    ("mix", "version", "bin"),
)
SCORE_BIN_REFERENCE = Metric(
    "mixer_score_bin_reference_ratio",
    Kind.GAUGE,
    "Share of the training scores in the bin.",
    ("mix", "version", "bin"),
    merged="livemax",
)
FEATURE_BIN = Metric(
    "mixer_feature_bin_total",
    Kind.COUNTER,
    "Values by bin of the feature's profile in the model's manifest.",
    ("mix", "version", "feature", "bin"),
)
FEATURE_BIN_REFERENCE = Metric(
    "mixer_feature_bin_reference_ratio",
    Kind.GAUGE,
    "Share of the training values in the bin.",
    ("mix", "version", "feature", "bin"),
    merged="livemax",
)
FEATURE_ROWS = Metric("mixer_feature_rows_total", Kind.COUNTER, "Rows of features made.", ("mix",))
FEATURE_MISSING = Metric(
    "mixer_feature_missing_total", Kind.COUNTER, "Values missing, by feature.", ("mix", "feature")
)
FEATURE_OUT_OF_RANGE = Metric(
    "mixer_feature_out_of_range_total",
    Kind.COUNTER,
    "Values outside the declared range, by feature.",
    ("mix", "feature"),
)
SLICE_SECONDS = Metric(
    "mixer_slice_duration_seconds",
    Kind.HISTOGRAM,
    "Time of a whole answer, by slice.",
    ("mix", "slice", "value"),
    _SECONDS,
)
SLICE_DEGRADED = Metric(
    "mixer_slice_degraded_total",
    Kind.COUNTER,
    "Answers made from less than the whole, by slice.",
    ("mix", "slice", "value"),
)
SLICE_FALLBACKS = Metric(
    "mixer_slice_fallbacks_total",
    Kind.COUNTER,
    "Answers in fused order for want of a model, by slice.",
    ("mix", "slice", "value"),
)
SLICE_SCORE_BIN = Metric(
    "mixer_slice_score_bin_total",
    Kind.COUNTER,
    "Scores by bin of the model's own profile, by slice.",
    ("mix", "version", "slice", "value", "bin"),
)
_ARM = ("mix", "arm")
ARM_REQUESTS = Metric(
    "mixer_arm_requests_total",
    Kind.COUNTER,
    "Requests in an arm; refused is the caller's fault, error is not.",
    (*_ARM, "outcome"),
)
ARM_SECONDS = Metric(
    "mixer_arm_duration_seconds", Kind.HISTOGRAM, "Time of an arm's answers.", _ARM, _SECONDS
)
ARM_FALLBACKS = Metric(
    "mixer_arm_fallbacks_total", Kind.COUNTER, "An arm's answers in fused order for want of its model.", _ARM
)
ARM_SHARE = Metric(
    "mixer_arm_share_ratio", Kind.GAUGE, "Share of the keys that an arm gets now.", _ARM, merged="livemax"
)
ARM_KEYS = Metric("mixer_arm_keys", Kind.GAUGE, "Distinct keys in an arm, or an even sample of them.", _ARM)
ARM_TAKEN_BACK = Metric(
    "mixer_arm_taken_back",
    Kind.GAUGE,
    "1 where the model in an arm went past a bound and serves no more.",
    _ARM,
    merged="livemax",
)
ROLLBACKS = Metric(
    "mixer_canary_rollbacks_total", Kind.COUNTER, "Arms taken back, by the bound.", (*_ARM, "reason")
)
SAMPLE_RATIO_P = Metric(
    "mixer_sample_ratio_p_value",
    Kind.GAUGE,
    "How probable it is that the arms' keys are at least so far from their shares by chance.",
    ("mix",),
    merged="livemin",
)
OUTSIDE = Metric(
    "mixer_outside_experiment_total", Kind.COUNTER, "Requests without the experiment's key.", ("mix",)
)
INTERLEAVED_LISTS = Metric(
    "mixer_interleaved_lists",
    Kind.GAUGE,
    "Lists drafted by an arm's model and the control's and seen by readers, by whose hits those preferred; since "
    "both models are at work.",
    (*_ARM, "preferred"),
)
INTERLEAVED_EVIDENCE = Metric(
    "mixer_interleaved_log_e_value",
    Kind.GAUGE,
    "Natural logarithm of the evidence that readers prefer one of the two; chance ever takes it to ln(1/alpha) with "
    "probability alpha at most.",
    _ARM,
)
SPANS_DROPPED = Metric(
    "mixer_spans_dropped_total", Kind.COUNTER, "Spans that never reached the collector.", ("reason",)
)
WORKERS = Metric("mixer_workers", Kind.GAUGE, "Processes of this server that are ready.")
WORKER_RESTARTS = Metric(
    "mixer_worker_restarts_total", Kind.COUNTER, "Workers started again, by why they ended.", ("reason",)
)
FEATURE_LOG_ROWS = Metric(
    "mixer_feature_log_rows_total", Kind.COUNTER, "Rows of the feature log handed to a sink.", ("sink",)
)
FEATURE_LOG_DROPPED = Metric(
    "mixer_feature_log_dropped_total", Kind.COUNTER, "Rows of the feature log lost, by reason.", ("reason",)
)
FEATURE_LOG_QUEUE = Metric("mixer_feature_log_queue", Kind.GAUGE, "Answers waiting to be logged.")
FEATURE_LOG_FILES = Metric("mixer_feature_log_files_total", Kind.COUNTER, "Files of the feature log written.")
SHIP_FILES = Metric(
    "mixer_ship_files_total",
    Kind.COUNTER,
    "Files of a log brought to its far folder; those that failed are tried again, those dropped made room here.",
    ("log", "outcome"),
)
SHIP_WAITING = Metric(
    "mixer_ship_waiting_files", Kind.GAUGE, "Files of a log that are not in its far folder yet.", ("log",)
)
SHIP_WAITING_BYTES = Metric("mixer_ship_waiting_bytes", Kind.GAUGE, "Their size.", ("log",))
FEEDBACK_EVENTS = Metric(
    "mixer_feedback_events_total",
    Kind.COUNTER,
    "Events sent, by what this process knows of their searches; duplicates are left out of the log.",
    ("kind", "outcome"),
)
SHADOW_OVERLAP = Metric(
    "mixer_shadow_overlap_ratio",
    Kind.HISTOGRAM,
    "Rank-biased overlap (p 0.9) of the order served and the shadow's.",
    _SHADOW_SLICE,
    (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
)
SHADOW_TAU = Metric(
    "mixer_shadow_kendall_tau",
    Kind.HISTOGRAM,
    "Kendall's tau-b of the scores served and the shadow's.",
    _SHADOW_SLICE,
    (-0.5, 0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
)
SHADOW_CHURN = Metric(
    "mixer_shadow_churn_ratio",
    Kind.HISTOGRAM,
    "Share of the shadow's first page that the order served does not have there.",
    _SHADOW_SLICE,
    (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
)
SHADOW_SHIFT = Metric(
    "mixer_shadow_score_shift",
    Kind.HISTOGRAM,
    "How far the shadow's mean score is from that served, in standard deviations of those served.",
    _SHADOW_SLICE,
    (-5.0, -2.0, -1.0, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0),
)
SHADOW_DROPPED = Metric(
    "mixer_shadow_dropped_total",
    Kind.COUNTER,
    "Answers drawn for a shadow and not compared, by reason.",
    ("mix", "shadow", "reason"),
)
SHADOW_CPU_SECONDS = Metric(
    "mixer_shadow_cpu_seconds_total", Kind.COUNTER, "CPU time that a shadow took.", ("mix", "shadow")
)
SHADOW_ACTIVE = Metric(
    "mixer_shadow_active",
    Kind.GAUGE,
    "Processes in which a shadow scores; 0 where its model was refused or it stopped itself.",
    ("mix", "shadow"),
)
TLS_RELOADS = Metric(
    "mixer_tls_reloads_total",
    Kind.COUNTER,
    "Times that the server's certificate files changed, by how that ended.",
    ("outcome",),
)
TLS_EXPIRES = Metric(
    "mixer_tls_certificate_expires_timestamp_seconds",
    Kind.GAUGE,
    "Unix time when the server's certificate ends; 0 without one.",
    merged="livemin",
)
AUTH_RELOADS = Metric(
    "mixer_auth_reloads_total",
    Kind.COUNTER,
    "Times that files of API keys or of token keys changed, by how that ended.",
    ("outcome",),
)
AUTH_REFUSED = Metric(
    "mixer_auth_refused_total",
    Kind.COUNTER,
    "Calls turned away for want of a credential, by why.",
    ("reason",),
)
TENANT_REQUESTS = Metric(
    "mixer_tenant_requests_total",
    Kind.COUNTER,
    "Calls of a tenant, let through or turned away at its limits.",
    ("tenant", "outcome"),
)
FORCED_SAMPLES = Metric(
    "mixer_forced_samples_total",
    Kind.COUNTER,
    "Calls that asked to be traced whatever the ratio; refused ones are answered all the same.",
    ("outcome",),
)

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


@dataclass(frozen=True, slots=True)
class Attribute:
    """One span attribute; a key may hold one `*` that stands for a configured name."""

    key: str
    type: str
    spans: str
    help: str


_ROOT, _RETRIEVE, _RANK, _STAGES, _RPCS = "root", "retrieve", "rank", "stages", "rpc"
_FEEDBACK, _LOOK_UP, _DB = "feedback", "look_up", "db"

ATTRIBUTES = (
    Attribute("rpc.system.name", "string", _RPCS, "Always grpc."),
    Attribute("rpc.method", "string", _RPCS, "Service and method."),
    Attribute("rpc.response.status_code", "string", _RPCS, "The gRPC status by name."),
    Attribute(
        "error.type",
        "string",
        f"{_RPCS}, {_RETRIEVE}, {_LOOK_UP}, {_STAGES}, {_DB}",
        "Why it failed; absent where it did not.",
    ),
    Attribute(
        "db.system.name",
        "string",
        _DB,
        "The engine's software, such as opensearch or postgresql.",
    ),
    Attribute("db.operation.name", "string", _DB, "What it was asked to do."),
    Attribute("db.collection.name", "string", _DB, "The index, collection or table asked."),
    Attribute("server.address", "string", _DB, "The host asked."),
    Attribute("server.port", "int", _DB, "Its port."),
    Attribute("mixer.tenant", "string", _RPCS, "The tenant that proved to be the caller."),
    Attribute(
        "mixer.refused", "string", _RPCS, "Why the caller was turned away: a credential, a scope, a limit."
    ),
    Attribute("mixer.force_sample", "string", _RPCS, "The caller asked to be traced: forced or refused."),
    Attribute("mixer.mix", "string", _ROOT, "The mix that answered."),
    Attribute("mixer.arm", "string", _ROOT, "The arm of the mix's experiment that answered."),
    Attribute("mixer.query_id", "string", _ROOT, "The answer's query id."),
    Attribute("mixer.query.hash", "string", _ROOT, "Keyed hash of the query (telemetry.query: hash)."),
    Attribute("mixer.query.raw", "string", _ROOT, "The query itself (telemetry.query: raw)."),
    Attribute("mixer.query.chars", "int", _ROOT, "Length of the query."),
    Attribute("mixer.slice.*", "string", _ROOT, "Its value of a declared slice."),
    Attribute("mixer.filters", "int", _ROOT, "Filters in the request."),
    Attribute("mixer.page.size", "int", _ROOT, "Hits asked for."),
    Attribute("mixer.page.offset", "int", _ROOT, "Hits skipped."),
    Attribute("mixer.hits", "int", f"{_ROOT}, arrange", "Hits served."),
    Attribute("mixer.candidates", "int", f"{_ROOT}, merge", "Distinct candidates."),
    Attribute("mixer.ranker", "string", f"{_ROOT}, rank", "Whose order stands: model or fused."),
    Attribute(
        "mixer.scorer", "string", f"{_ROOT}, rank", "What evaluated the model: forest, or lightgbm and why."
    ),
    Attribute("mixer.model.name", "string", f"{_ROOT}, rank", "The model that ranked, or would have."),
    Attribute("mixer.model.version", "string", f"{_ROOT}, rank", "Its version."),
    Attribute("mixer.model.sha256", "string", f"{_ROOT}, rank", "Its file's hash."),
    Attribute("mixer.fallback_reason", "string", f"{_ROOT}, rank", "Why the fused order stands."),
    Attribute("mixer.degraded", "bool", _ROOT, "Less than the whole was used."),
    Attribute("mixer.degraded_reasons", "string[]", _ROOT, "What was lacking."),
    Attribute("mixer.quality", "double", _ROOT, "Below 1 where something was left out for load."),
    Attribute("mixer.latency_bucket", "string", _ROOT, "The answer's time, by a step of a ladder."),
    Attribute("mixer.added_ms", "double", _ROOT, "The answer's time less the slowest backend's."),
    Attribute("mixer.stores.asked", "int", "hydrate", "Feature stores asked."),
    Attribute("mixer.stores.ok", "int", "hydrate", "Feature stores that answered."),
    Attribute("mixer.store.*.outcome", "string", _ROOT, "How asking it ended."),
    Attribute("mixer.store.*.elapsed_ms", "double", _ROOT, "Time until that was known."),
    Attribute("mixer.store.*.found", "int", _ROOT, "Rows that it, or its cache, has."),
    Attribute("mixer.store.name", "string", _LOOK_UP, "The feature store as configured."),
    Attribute("mixer.store.timeout_ms", "double", _LOOK_UP, "Time it was given."),
    Attribute("mixer.store.outcome", "string", _LOOK_UP, "How asking it ended."),
    Attribute("mixer.store.asked", "int", _LOOK_UP, "Rows looked up."),
    Attribute("mixer.store.cached", "int", _LOOK_UP, "Of them, those that its cache knew, be it as missing."),
    Attribute("mixer.store.found", "int", _LOOK_UP, "Of them, those that there are."),
    Attribute("mixer.store.unreadable", "int", _LOOK_UP, "Values that are no finite number."),
    Attribute("mixer.backends.asked", "int", f"{_ROOT}, plan, fan_out", "Backends asked."),
    Attribute("mixer.backends.ok", "int", f"{_ROOT}, fan_out", "Backends that answered."),
    Attribute("mixer.backend.*.outcome", "string", _ROOT, "How asking it ended."),
    Attribute("mixer.backend.*.elapsed_ms", "double", _ROOT, "Time until that was known."),
    Attribute("mixer.backend.*.hits", "int", _ROOT, "Documents it returned."),
    Attribute("mixer.backend.name", "string", _RETRIEVE, "The backend as configured."),
    Attribute("mixer.backend.outcome", "string", _RETRIEVE, "How asking it ended."),
    Attribute("mixer.backend.hits", "int", _RETRIEVE, "Documents it returned."),
    Attribute("mixer.backend.limit", "int", _RETRIEVE, "Documents asked for."),
    Attribute("mixer.backend.timeout_ms", "double", _RETRIEVE, "Time it was given."),
    Attribute("mixer.backend.index_version", "string", _RETRIEVE, "Version of the index it read."),
    Attribute("mixer.backend.server_version", "string", _RETRIEVE, "Its software and version."),
    Attribute("mixer.backend.attempts", "int", _RETRIEVE, "How often it was asked, where not once."),
    Attribute("mixer.backend.hedged", "bool", _RETRIEVE, "It was asked again beside a call that took long."),
    Attribute(
        "mixer.backend.breaker", "string", _RETRIEVE, "State of its circuit breaker, where it has one."
    ),
    Attribute("mixer.stage", "string", _STAGES, "The stage."),
    Attribute("mixer.dropped", "int", "merge", "Hits or scores left out."),
    Attribute("mixer.features", "int", "make_features", "Feature columns made."),
    Attribute("mixer.features.missing", "int", "make_features", "Values missing."),
    Attribute("mixer.features.out_of_range", "int", "make_features", "Values outside their declared range."),
    Attribute("mixer.top.ids", "string[]", _RANK, "The best candidates, best first."),
    Attribute("mixer.top.scores", "double[]", _RANK, "Their scores."),
    Attribute("mixer.top.prior_ranks", "int[]", _RANK, "Their places in the fused order, from 1."),
    Attribute("mixer.top.sources", "string[]", _RANK, "The backends that returned each."),
    Attribute(
        "mixer.top.feature.*",
        "double[]",
        _RANK,
        "Their values of one of the weightiest features; null where missing.",
    ),
    Attribute(
        "mixer.top.member.*",
        "double[]",
        _RANK,
        "Their scores by a member of an ensemble, or by the control of a draft.",
    ),
    Attribute("mixer.pinned", "int", "arrange", "Hits put first by a rule."),
    Attribute("mixer.feedback.events", "int", _FEEDBACK, "Events sent."),
    Attribute("mixer.feedback.duplicates", "int", _FEEDBACK, "Those of them that were taken before."),
    Attribute("mixer.explain.hits", "int", _ROOT, "Hits explained."),
    Attribute(
        "mixer.explain.model", "string", _ROOT, "Model of the settings that they were explained by instead."
    ),
    Attribute("mixer.explain.scored", "int", _ROOT, "Of them, those with every feature's part in the score."),
    Attribute("mixer.explain.elapsed_ms", "double", _ROOT, "Time in the thread that explains."),
    Attribute("mixer.explain.lacking", "string", _ROOT, "Why some have no part of a feature's."),
)

SPANS = {
    "mixer.v1.MixerService/Search": "The root: one call of Search.",
    "mixer.v1.MixerService/Feedback": "One call of Feedback.",
    "mixer.v1.MixerService/Explain": "The root: one call of Explain; a search that is asked anew is below it.",
    "backends.v1.BackendService/Retrieve": "A backend's own span, where it serves by gRPC.",
    "plan": "Whom to ask what, for how long.",
    "fan_out": "All backends at once.",
    "retrieve *": "One backend, as Mixer sees it.",
    "search *": "A call to OpenSearch, Elasticsearch or Solr, as its client in Mixer sees it.",
    "SELECT *": "A call to PostgreSQL.",
    "query *": "A call to Qdrant.",
    "merge": "One row a document, and the fused order.",
    "hydrate": "What feature stores know of the candidates and of who asks, where the mix has any.",
    "look_up *": "One feature store.",
    "make_features": "The columns that the model sees.",
    "rank": "The model's scores.",
    "arrange": "The final order, the mix's rules, the page.",
}

LATENCY_LADDER_MS = (10, 25, 50, 100, 250, 500, 1000, 2500)


def latency_bucket(elapsed_s: float) -> str:
    """A time as a step of the ladder: `<25ms`, `>=2500ms`; a search by exact match finds the slow ones."""
    step = next((step for step in LATENCY_LADDER_MS if elapsed_s * 1000 < step), None)
    return f">={LATENCY_LADDER_MS[-1]}ms" if step is None else f"<{step}ms"
