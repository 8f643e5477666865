"""The frozen tree of settings: one YAML file, secrets from the environment, every fault named at once."""

from __future__ import annotations

import os
import secrets as random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from backends import BackendSettings
from mixer.faults import Fault, dangling_references, describe, line_of, repeated_keys
from mixer.schema import Feature
from mixer.slices import Slice, distinct


class Frozen(BaseModel):
    """Base of the tree: frozen; an unknown key is a fault, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    """A relative path starts at the settings file's folder."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / path


def _url_beside_the_file(url: str, info: ValidationInfo) -> str:
    """A URL as it is; a path as any other path."""
    return url if "://" in url or "::" in url else str(_beside_the_file(Path(url), info))


def _beside_the_file_if_any(path: Path | None, info: ValidationInfo) -> Path | None:
    return _beside_the_file(path, info) if path else None


def _named_once(names: Iterable[str]) -> None:
    """Raises: ValueError where a name stands twice."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{', '.join(map(repr, repeated))} stands twice")


class ServerSettings(Frozen):
    """Where the server listens and how long it waits."""

    listen: str = "0.0.0.0:50051"
    admin_listen: str = "0.0.0.0:9464"
    """HTTP: /metrics, /livez, /readyz."""
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


class FolderModelSettings(Frozen):
    """A model folder: manifest.json, model.txt, golden.json."""

    path: Annotated[Path, AfterValidator(_beside_the_file)]


class RegistryModelSettings(Frozen):
    """What a registry says is current of a model; see `mixer models`."""

    registry: Annotated[str, Field(min_length=1), AfterValidator(_url_beside_the_file)]
    """A folder, or any URL that fsspec can open: s3://…, gs://…"""
    name: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$")]
    poll_s: PositiveFloat = 2.0
    """How often to look for a change."""
    cache: Annotated[Path | None, AfterValidator(_beside_the_file_if_any)] = None
    """Where versions are kept on this machine; a folder of this user's for temporary files where not given."""


class MemberSettings(Frozen):
    """A model's part in an ensemble."""

    model: Annotated[str, Field(min_length=1)]
    """A key of `models` that is no ensemble itself."""
    weight: PositiveFloat = 1.0


class EnsembleModelSettings(Frozen):
    """The weighted sum of several models' scores."""

    members: Annotated[tuple[MemberSettings, ...], Field(min_length=1, max_length=16)]

    @field_validator("members")
    @classmethod
    def _each_once(cls, members: tuple[MemberSettings, ...]) -> tuple[MemberSettings, ...]:
        _named_once(member.model for member in members)
        return members


def _kind_of_model(raw: Any) -> str:
    keys = raw if isinstance(raw, dict) else getattr(raw, "__dict__", {})
    kinds = {"members": "(ensemble)", "registry": "(registry)"}
    return next((kind for key, kind in kinds.items() if key in keys), "(folder)")


ModelSettings = Annotated[
    Annotated[FolderModelSettings, Tag("(folder)")]
    | Annotated[RegistryModelSettings, Tag("(registry)")]
    | Annotated[EnsembleModelSettings, Tag("(ensemble)")],
    Discriminator(_kind_of_model),
]
"""A tag in brackets is no part of the file: a fault's path leaves it out."""


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


_Share = Annotated[float, Field(ge=0, le=1)]


class CanarySettings(Frozen):
    """Bounds of an arm beside the control; the arm that is past one of them is taken back. None is no bound.

    Nothing is judged before both have `min_requests` within the window, nor on what may be chance.
    """

    window_s: PositiveFloat = 300.0
    min_requests: PositiveInt = 200
    error_share: _Share | None = 0.01
    """How many more of its requests may fail than of the control's, of all."""
    fallback_share: _Share | None = 0.01
    """How many more may be answered in fused order."""
    latency_ratio: Annotated[float, Field(ge=1)] | None = 1.5
    """Of the 95th percentiles of the time that Mixer adds to its slowest backend's."""
    score_shift: PositiveFloat | None = 0.25
    """How much further its scores may be from the profile of its training than the control's from theirs, as a
    population stability index."""
    ctr_drop: _Share | None = 0.05
    """How many fewer of the searches that were seen may have a click, of all; where feedback comes in."""


class InterleaveSettings(Frozen):
    """Lists that the arm's ranking and the control's make by turns; clicks say whose hits readers prefer."""

    settle_s: PositiveFloat = 300.0
    """A list's clicks are counted once, so long after it was served."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """How often a winner may ever be named where there is none, however often it is looked at."""


def _switched(raw: Any) -> Any:
    return ({} if raw else None) if isinstance(raw, bool) else raw


class ArmSettings(Frozen):
    """A part of a mix's traffic, and the model that answers it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    share: _Share
    model: str | None = None
    """A key of `models`, or empty for the fused order; the mix's own model where not given."""
    explore_hits: Annotated[int, Field(ge=2, le=100)] | None = None
    """So many hits at the head of every list stand in an order drawn by chance: their clicks tell how much each place
    is looked at, whatever stands there. Pinned hits stay."""
    canary: CanarySettings | None = None
    interleave: Annotated[InterleaveSettings | None, BeforeValidator(_switched)] = None
    """Its lists are drafted by its model and the control's in turns; `true` takes the defaults."""

    @model_validator(mode="after")
    def _one_chance(self) -> ArmSettings:
        if self.explore_hits and self.interleave:
            raise ValueError(f"{self.name}: interleave and explore_hits both draw its order; take one")
        return self


class ExperimentSettings(Frozen):
    """Traffic split over arms, the control first. Who is in which arm depends on salt, key and shares alone."""

    salt: Annotated[str, Field(min_length=1)]
    """Another one draws everybody anew."""
    key: str = "query_id"
    """Context key whose value stays in one arm; a request without it is answered by the control, outside of the
    experiment. `query_id` draws every search by itself."""
    arms: Annotated[tuple[ArmSettings, ...], Field(min_length=2, max_length=8)]
    verdicts: Annotated[Path, AfterValidator(_beside_the_file)] | None = None
    """Folder that keeps which arms were taken back, for other processes and after a restart."""

    @model_validator(mode="after")
    def _adds_up(self) -> ExperimentSettings:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError("two arms have one name")
        if abs(sum(arm.share for arm in self.arms) - 1) > 1e-9:
            raise ValueError(f"the arms' shares add up to {sum(arm.share for arm in self.arms):g}, not 1")
        if self.arms[0].canary:
            raise ValueError(f"{names[0]}, the first arm, is the control: it has no bounds")
        if self.arms[0].interleave:
            raise ValueError(f"{names[0]}, the first arm, is the control: others interleave with it")
        return self


class ShadowSettings(Frozen):
    """A model that scores a mix's traffic without being heard."""

    model: Annotated[str, Field(min_length=1)]
    """A key of `models`."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the searches, drawn by their query id."""
    cpu_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of one processor, in each process that serves. Where that is not enough the shadow rests, and in the end stops
    itself."""


class MixSettings(Frozen):
    """A set of backends and the model that orders what they return."""

    backends: Annotated[dict[str, MixBackendSettings], Field(min_length=1, max_length=32)]
    fusion: Annotated[RrfSettings | LinearSettings, Field(discriminator="kind")] = RrfSettings()
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

    @field_validator("shadows")
    @classmethod
    def _one_shadow_a_model(cls, shadows: tuple[ShadowSettings, ...]) -> tuple[ShadowSettings, ...]:
        _named_once(shadow.model for shadow in shadows)
        return shadows


class ParquetSinkSettings(Frozen):
    """Files of a local folder, by the hour: `date=YYYY-MM-DD/hour=HH/<uuid>.parquet`."""

    kind: Literal["parquet"]
    folder: Annotated[Path, AfterValidator(_beside_the_file)]
    file_rows: PositiveInt = 10_000
    file_s: PositiveFloat = 60.0
    """Time after which a file ends, and its rows can be read."""
    file_bytes: PositiveInt = 64 << 20
    """Of rows, before they are packed."""


class OtlpSinkSettings(Frozen):
    """A log record a row, its body JSON; where it goes is set by the standard OTEL_* variables."""

    kind: Literal["otlp"]


class KafkaSinkSettings(Frozen):
    """A message a row, its key the query id and its value JSON; needs the extra `kafka`."""

    kind: Literal["kafka"]
    servers: Annotated[str, Field(min_length=1)]
    """`host:port`, comma-separated."""
    topic: Annotated[str, Field(min_length=1)]
    options: dict[str, str | int | float | bool] = {}
    """Of librdkafka, by its own names."""


class FeatureLogSettings(Frozen):
    """What was served, and from what: a row a request, written beside the request path."""

    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of the requests, by a hash of the query id."""
    queue: PositiveInt = 1024
    """Answers that wait to be written, each held in memory whole; those beyond are dropped and counted."""
    query: Literal["raw", "hash", "drop"] = "hash"
    """How the user's words are kept. Facts about a user in the context, and features made of them, always are."""
    inputs: bool = False
    """Also log the document fields that features are made from, so that they can be made again."""
    drain_s: PositiveFloat = 5.0
    """How long writing may go on at the end."""
    sinks: tuple[
        Annotated[ParquetSinkSettings | OtlpSinkSettings | KafkaSinkSettings, Field(discriminator="kind")],
        ...,
    ]

    @model_validator(mode="after")
    def _can_be_made_again(self) -> FeatureLogSettings:
        if self.inputs and self.query != "raw":
            raise ValueError("inputs are of no use without the query: set query to raw")
        return self

    @model_validator(mode="after")
    def _goes_somewhere(self) -> FeatureLogSettings:
        if not self.sinks:
            raise ValueError("names no sink")
        return self


class FeedbackSettings(Frozen):
    """Where events go that callers send with Feedback, and how long they count."""

    folder: Annotated[Path, AfterValidator(_beside_the_file)]
    """Of Parquet files by hour; several servers may share it."""
    window_s: PositiveFloat = 3600.0
    """How long after its search an event counts, and for how long an event that is sent again is known."""
    remembered: PositiveInt = 100_000
    """Events, and searches, that the server keeps in mind at most."""
    queue: PositiveInt = 10_000
    """Events that may wait for the disk."""
    rows: PositiveInt = 100_000
    seconds: PositiveFloat = 60.0
    """A file is done at so many rows, or so long after its first."""


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
    models: dict[str, ModelSettings] = {}
    mixes: Annotated[dict[str, MixSettings], Field(min_length=1)]
    feature_log: FeatureLogSettings | None = None
    feedback: FeedbackSettings | None = None
    """None takes no feedback."""
    explain: ExplainSettings = ExplainSettings()

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
