"""The frozen tree of settings: one YAML file, secrets from the environment, every fault named at once."""

from __future__ import annotations

import os
import secrets as random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from backends import BackendSettings
from backends.stores import AnyStoreSettings
from mixer.access_settings import AuthSettings, ServerTlsSettings, TenantName, TenantSettings
from mixer.experiment_settings import ExperimentSettings, ShadowSettings
from mixer.faults import Fault, dangling_references, describe, line_of, repeated_keys
from mixer.frozen import Frozen, named_once
from mixer.guard_settings import AdaptiveSettings, GuardSettings
from mixer.log_settings import FeatureLogSettings, FeedbackSettings
from mixer.model_settings import ModelSettings
from mixer.schema import Feature
from mixer.slices import Slice, distinct


class ServerSettings(Frozen):
    """Where the server listens and how long it waits."""

    listen: str = "0.0.0.0:50051"
    admin_listen: str = "0.0.0.0:9464"
    """HTTP: /metrics, /livez, /readyz."""
    tls: ServerTlsSettings | None = None
    """Of the gRPC port; None answers in the clear."""
    health_listen: str = ""
    """A gRPC port that speaks no TLS and answers health checks alone, for probes that cannot; empty for none."""
    default_mix: str = "default"
    default_deadline_s: PositiveFloat = 1.0
    """For callers that send no deadline."""
    drain_s: PositiveFloat = 10.0
    """How long calls in flight may still take after SIGTERM."""
    max_connection_age_s: PositiveFloat = 300.0
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that serve on the one port; more than one needs Linux."""


class LimitSettings(Frozen):
    """What one call, and all of them together, may ask."""

    query_chars: PositiveInt = 2048
    page_size: PositiveInt = 100
    candidates: PositiveInt = 2000
    """Documents one mix may ask of all its backends together."""
    concurrent_calls: PositiveInt = 64
    filters: PositiveInt = 32
    terms: PositiveInt = 1000
    context_keys: PositiveInt = 64
    text_chars: PositiveInt = 1024
    """Of one filter value, context key or context value, or an id."""
    events: PositiveInt = 1000
    """Of one call of Feedback."""
    adaptive: AdaptiveSettings | None = None
    """A limit of calls at once that follows latency, up to `concurrent_calls`; None keeps that one."""


class TelemetrySettings(Frozen):
    """What telemetry says; where it goes is set by the standard OTEL_* variables."""

    service_name: str = "mixer"
    query: Literal["hash", "raw", "drop"] = "hash"
    """How the user's words appear in spans and logs; never in metrics."""
    top_k: Annotated[int, Field(ge=0, le=100)] = 20
    """Hits whose scores and features a rank span carries."""
    top_features: Annotated[int, Field(ge=0, le=40)] = 10
    """Features a rank span carries, the most important first."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class ScoreBounds(Frozen):
    """The scale of a backend's scores: weak lists are measured against it, not against themselves."""

    low: float = 0.0
    high: float | None = None
    """The least score that counts as full; a list whose best is below it stays below 1."""

    @model_validator(mode="after")
    def _is_range(self) -> ScoreBounds:
        if self.high is not None and self.high < self.low:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


class MixBackendSettings(Frozen):
    """One backend's part in a mix."""

    weight: Annotated[float, Field(ge=0)] = 1.0
    limit: PositiveInt = 100
    timeout_s: PositiveFloat = 0.5
    group: str = ""
    """Backends of one group vote once: the strongest vote counts."""
    bounds: ScoreBounds = ScoreBounds()
    optional: bool = False
    """Left out when all is too much, before anything that every answer needs."""


StoreName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Without a dot: the feature log names a store's field after it, beyond one."""


class MixStoreSettings(Frozen):
    """One feature store's part in a mix."""

    timeout_s: PositiveFloat = 0.05


class RrfSettings(Frozen):
    """Weighted reciprocal rank fusion."""

    kind: Literal["rrf"] = "rrf"
    k: PositiveFloat = 60.0
    normalize: Literal["min_max", "z_score"] = "min_max"
    """Of the `normalized` feature; fusion itself reads ranks only."""


class LinearSettings(Frozen):
    """Weighted sum of normalized scores."""

    kind: Literal["linear"]
    normalize: Literal["min_max", "z_score"] = "min_max"


class PinSettings(Frozen):
    """Documents put first, in this order, for one query; only those a backend returned."""

    query: str
    ids: Annotated[tuple[str, ...], Field(min_length=1)]


class DiversitySettings(Frozen):
    """At most `max` hits with the same value of a text field among the first `within`."""

    field: str
    max: PositiveInt
    within: PositiveInt = 10


class MixSettings(Frozen):
    """A set of backends and the model that orders what they return."""

    backends: Annotated[dict[str, MixBackendSettings], Field(min_length=1, max_length=32)]
    fusion: Annotated[RrfSettings | LinearSettings, Field(discriminator="kind")] = RrfSettings()
    stores: Annotated[dict[str, MixStoreSettings], Field(max_length=16)] = Field(default_factory=dict)
    """Feature stores that are asked about the candidates, all at once."""
    features: tuple[Feature, ...] = ()
    model: str = ""
    """A key of `models`; empty serves the fused order and is not degraded."""
    experiment: ExperimentSettings | None = None
    without_model: Literal["not_ready", "serve_fused"] = "not_ready"
    """What a failed model check means: never become ready, or serve the fused order and say so."""
    fields: tuple[str, ...] = ()
    """Document fields shown with each hit."""
    page_size: PositiveInt = 10
    rank_reserve_s: PositiveFloat = 0.02
    """Kept back from the caller's deadline for merging and ranking."""
    pins: tuple[PinSettings, ...] = ()
    diversity: DiversitySettings | None = None
    slices: Annotated[tuple[Slice, ...], Field(max_length=8), AfterValidator(distinct)] = ()
    """Parts of the traffic that metrics tell of apart."""
    shadows: Annotated[tuple[ShadowSettings, ...], Field(max_length=8)] = ()

    @field_validator("backends")
    @classmethod
    def _some_needed(cls, backends: dict[str, MixBackendSettings]) -> dict[str, MixBackendSettings]:
        if all(member.optional for member in backends.values()):
            raise ValueError("all are optional; one must not be, or nothing is asked under load")
        return backends

    @field_validator("shadows")
    @classmethod
    def _one_shadow_a_model(cls, shadows: tuple[ShadowSettings, ...]) -> tuple[ShadowSettings, ...]:
        named_once(shadow.model for shadow in shadows)
        return shadows


class ExplainSettings(Frozen):
    """What `Explain` may take: it works on one answer at a time, beside the event loop."""

    recent: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Answers that are remembered whole, in each process, so that they can be explained by their query id: by anybody
    who knows that."""
    hits: Annotated[int, Field(ge=1, le=1000)] = 20
    """At most so many in one call."""
    timeout_s: PositiveFloat = 2.0
    """For the model's part; hits that are not reached within it go without."""


class Settings(Frozen):
    """The whole file."""

    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    backends: Annotated[dict[str, BackendSettings], Field(min_length=1)]
    stores: dict[StoreName, AnyStoreSettings] = Field(default_factory=dict)
    guards: dict[str, GuardSettings] = Field(default_factory=dict)
    """By the names of backends: what stands before each, whatever mix asks it."""
    models: dict[str, ModelSettings] = Field(default_factory=dict)
    mixes: Annotated[dict[str, MixSettings], Field(min_length=1)]
    feature_log: FeatureLogSettings | None = None
    feedback: FeedbackSettings | None = None
    """None takes no feedback."""
    explain: ExplainSettings = ExplainSettings()
    auth: AuthSettings | None = None
    """None asks nobody for proof."""
    tenants: dict[TenantName, TenantSettings] = Field(default_factory=dict)
    """By their names; `default` is for all others."""

    def mix_called(self, name: str) -> str:
        """The name of a mix, the default one's for an empty one. Raises: ValueError where there is no such mix."""
        wanted = name or self.server.default_mix
        if wanted not in self.mixes:
            raise ValueError(f"no mix is called {wanted!r}; there are: {', '.join(self.mixes)}")
        return wanted


class Secrets(Frozen):
    """What must not stand in a file."""

    cursor_key: SecretStr | None = None
    """Signs cursors; the same on all replicas. None makes one for this server alone."""
    redaction_key: SecretStr | None = None
    """Keys the hash that stands for a query in telemetry."""
    kafka_password: SecretStr | None = None
    """Of the Kafka sink, as librdkafka's sasl.password."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Secrets:
        """Read MIXER_CURSOR_KEY, MIXER_REDACTION_KEY, MIXER_KAFKA_PASSWORD; an empty one is as good as none."""
        return cls.model_validate(
            {
                "cursor_key": environment.get("MIXER_CURSOR_KEY") or None,
                "redaction_key": environment.get("MIXER_REDACTION_KEY") or None,
                "kafka_password": environment.get("MIXER_KAFKA_PASSWORD") or None,
            }
        )

    def as_environment(self) -> dict[str, str]:
        """What makes other processes read the same keys; a key that is lacking is made at random."""
        keys = {"MIXER_CURSOR_KEY": self.cursor_key, "MIXER_REDACTION_KEY": self.redaction_key}
        return {
            name: key.get_secret_value() if key else random.token_urlsafe(32) for name, key in keys.items()
        }


class SettingsError(Exception):
    """Every fault of a settings file, one a line, each with its path and line."""

    def __init__(self, source: str, faults: list[Fault]) -> None:
        """`source` names the file."""
        self.faults = faults
        lines = [f"{source}:{fault.line}: {fault.path}: {fault.message}" for fault in faults]
        super().__init__("\n".join(lines))


def load(path: Path) -> Settings:
    """Read a settings file; relative paths in it start at its folder.

    Raises: SettingsError with all its faults; OSError where the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        fault = Fault("(file)", f"is not UTF-8: {error.reason} at byte {error.start}", 1)
        raise SettingsError(str(path), [fault]) from error
    return parse(text, source=str(path), folder=path.parent)


def parse(text: str, source: str = "settings", folder: Path | None = None) -> Settings:
    """Settings from YAML text. Raises: SettingsError with all its faults."""
    try:
        tree, raw = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
        faults = [*repeated_keys(tree)]
    except yaml.YAMLError as error:
        raise SettingsError(source, [_not_yaml(error)]) from error
    except RecursionError as error:
        raise SettingsError(source, [Fault("(file)", "holds an alias to itself", 1)]) from error
    if not isinstance(raw, dict):
        raise SettingsError(source, [Fault("(file)", "is not a mapping of settings", 1)])
    faults.extend(dangling_references(raw))
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(raw, context={"folder": folder or Path()})
        faults.extend(_beyond_limits(settings))
    except ValidationError as error:
        faults.extend(describe(error))
    if faults or settings is None:
        located = [fault if fault.line else fault.at(line_of(tree, fault.path)) for fault in faults]
        raise SettingsError(source, sorted(located, key=lambda fault: (fault.line, fault.path)))
    return settings


def _not_yaml(error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None)
    return Fault("(file)", f"is not YAML: {getattr(error, 'problem', error)}", mark.line + 1 if mark else 1)


def _beyond_limits(settings: Settings) -> Iterator[Fault]:
    """What is right by itself but not beside the rest."""
    for name, mix in settings.mixes.items():
        asked = sum(backend.limit for backend in mix.backends.values())
        if asked > settings.limits.candidates:
            message = f"limits add up to {asked}, above limits.candidates {settings.limits.candidates}"
            yield Fault(f"mixes.{name}.backends", message)
        if mix.page_size > settings.limits.page_size:
            yield Fault(f"mixes.{name}.page_size", f"is above limits.page_size {settings.limits.page_size}")


def json_schema() -> dict[str, Any]:
    """JSON schema of the settings file, for editors."""
    return Settings.model_json_schema()
