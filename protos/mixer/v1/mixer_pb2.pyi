import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DebugLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEBUG_LEVEL_UNSPECIFIED: _ClassVar[DebugLevel]
    DEBUG_LEVEL_FEATURES: _ClassVar[DebugLevel]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_OK: _ClassVar[Outcome]
    OUTCOME_TIMEOUT: _ClassVar[Outcome]
    OUTCOME_ERROR: _ClassVar[Outcome]
    OUTCOME_REFUSED: _ClassVar[Outcome]
    OUTCOME_CANCELLED: _ClassVar[Outcome]
    OUTCOME_SKIPPED: _ClassVar[Outcome]

class Ranker(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RANKER_UNSPECIFIED: _ClassVar[Ranker]
    RANKER_MODEL: _ClassVar[Ranker]
    RANKER_FUSED: _ClassVar[Ranker]

class EventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_KIND_UNSPECIFIED: _ClassVar[EventKind]
    EVENT_KIND_IMPRESSION: _ClassVar[EventKind]
    EVENT_KIND_CLICK: _ClassVar[EventKind]
    EVENT_KIND_CONVERSION: _ClassVar[EventKind]

class EventOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_OUTCOME_UNSPECIFIED: _ClassVar[EventOutcome]
    EVENT_OUTCOME_ACCEPTED: _ClassVar[EventOutcome]
    EVENT_OUTCOME_DUPLICATE: _ClassVar[EventOutcome]
    EVENT_OUTCOME_LATE: _ClassVar[EventOutcome]
    EVENT_OUTCOME_UNKNOWN: _ClassVar[EventOutcome]
DEBUG_LEVEL_UNSPECIFIED: DebugLevel
DEBUG_LEVEL_FEATURES: DebugLevel
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_OK: Outcome
OUTCOME_TIMEOUT: Outcome
OUTCOME_ERROR: Outcome
OUTCOME_REFUSED: Outcome
OUTCOME_CANCELLED: Outcome
OUTCOME_SKIPPED: Outcome
RANKER_UNSPECIFIED: Ranker
RANKER_MODEL: Ranker
RANKER_FUSED: Ranker
EVENT_KIND_UNSPECIFIED: EventKind
EVENT_KIND_IMPRESSION: EventKind
EVENT_KIND_CLICK: EventKind
EVENT_KIND_CONVERSION: EventKind
EVENT_OUTCOME_UNSPECIFIED: EventOutcome
EVENT_OUTCOME_ACCEPTED: EventOutcome
EVENT_OUTCOME_DUPLICATE: EventOutcome
EVENT_OUTCOME_LATE: EventOutcome
EVENT_OUTCOME_UNKNOWN: EventOutcome

class SearchRequest(_message.Message):
    __slots__ = ("query", "mix", "page_size", "offset", "cursor", "filters", "context", "debug", "request_id")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    QUERY_FIELD_NUMBER: _ClassVar[int]
    MIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    DEBUG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    query: str
    mix: str
    page_size: int
    offset: int
    cursor: str
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    context: _containers.MessageMap[str, Value]
    debug: DebugLevel
    request_id: str
    def __init__(self, query: _Optional[str] = ..., mix: _Optional[str] = ..., page_size: _Optional[int] = ..., offset: _Optional[int] = ..., cursor: _Optional[str] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., context: _Optional[_Mapping[str, Value]] = ..., debug: _Optional[_Union[DebugLevel, str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("field", "equals", "range", "terms")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    EQUALS_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    field: str
    equals: Value
    range: Range
    terms: Terms
    def __init__(self, field: _Optional[str] = ..., equals: _Optional[_Union[Value, _Mapping]] = ..., range: _Optional[_Union[Range, _Mapping]] = ..., terms: _Optional[_Union[Terms, _Mapping]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("text", "number")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    text: str
    number: float
    def __init__(self, text: _Optional[str] = ..., number: _Optional[float] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("min", "max")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    min: float
    max: float
    def __init__(self, min: _Optional[float] = ..., max: _Optional[float] = ...) -> None: ...

class Terms(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("hits", "execution", "query_id", "trace_id", "mix", "candidates", "next_cursor", "features", "arm")
    HITS_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    MIX_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    execution: Execution
    query_id: str
    trace_id: str
    mix: str
    candidates: int
    next_cursor: str
    features: FeatureTable
    arm: str
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., execution: _Optional[_Union[Execution, _Mapping]] = ..., query_id: _Optional[str] = ..., trace_id: _Optional[str] = ..., mix: _Optional[str] = ..., candidates: _Optional[int] = ..., next_cursor: _Optional[str] = ..., features: _Optional[_Union[FeatureTable, _Mapping]] = ..., arm: _Optional[str] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("id", "rank", "score", "fused_score", "fused_rank", "fields", "sources", "pinned", "team")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    FUSED_SCORE_FIELD_NUMBER: _ClassVar[int]
    FUSED_RANK_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    id: str
    rank: int
    score: float
    fused_score: float
    fused_rank: int
    fields: _containers.MessageMap[str, Value]
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    pinned: bool
    team: str
    def __init__(self, id: _Optional[str] = ..., rank: _Optional[int] = ..., score: _Optional[float] = ..., fused_score: _Optional[float] = ..., fused_rank: _Optional[int] = ..., fields: _Optional[_Mapping[str, Value]] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., pinned: _Optional[bool] = ..., team: _Optional[str] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("backend", "rank", "score")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    backend: str
    rank: int
    score: float
    def __init__(self, backend: _Optional[str] = ..., rank: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class FeatureTable(_message.Message):
    __slots__ = ("names", "values")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ("backends", "ranker", "model", "fallback_reason", "degraded", "degraded_reasons", "drops", "elapsed_ms", "stores", "quality")
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    RANKER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_REASON_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASONS_FIELD_NUMBER: _ClassVar[int]
    DROPS_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_MS_FIELD_NUMBER: _ClassVar[int]
    STORES_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    backends: _containers.RepeatedCompositeFieldContainer[BackendExecution]
    ranker: Ranker
    model: Model
    fallback_reason: str
    degraded: bool
    degraded_reasons: _containers.RepeatedScalarFieldContainer[str]
    drops: _containers.RepeatedCompositeFieldContainer[Drop]
    elapsed_ms: float
    stores: _containers.RepeatedCompositeFieldContainer[StoreExecution]
    quality: float
    def __init__(self, backends: _Optional[_Iterable[_Union[BackendExecution, _Mapping]]] = ..., ranker: _Optional[_Union[Ranker, str]] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., fallback_reason: _Optional[str] = ..., degraded: _Optional[bool] = ..., degraded_reasons: _Optional[_Iterable[str]] = ..., drops: _Optional[_Iterable[_Union[Drop, _Mapping]]] = ..., elapsed_ms: _Optional[float] = ..., stores: _Optional[_Iterable[_Union[StoreExecution, _Mapping]]] = ..., quality: _Optional[float] = ...) -> None: ...

class StoreExecution(_message.Message):
    __slots__ = ("store", "outcome", "elapsed_ms", "asked", "cached", "found", "unreadable", "detail")
    STORE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_MS_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    store: str
    outcome: Outcome
    elapsed_ms: float
    asked: int
    cached: int
    found: int
    unreadable: int
    detail: str
    def __init__(self, store: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., elapsed_ms: _Optional[float] = ..., asked: _Optional[int] = ..., cached: _Optional[int] = ..., found: _Optional[int] = ..., unreadable: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class BackendExecution(_message.Message):
    __slots__ = ("backend", "outcome", "elapsed_ms", "hits", "detail", "index_version", "fresh_at", "server_version", "attempts", "hedged", "breaker")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_MS_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    INDEX_VERSION_FIELD_NUMBER: _ClassVar[int]
    FRESH_AT_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    HEDGED_FIELD_NUMBER: _ClassVar[int]
    BREAKER_FIELD_NUMBER: _ClassVar[int]
    backend: str
    outcome: Outcome
    elapsed_ms: float
    hits: int
    detail: str
    index_version: str
    fresh_at: _timestamp_pb2.Timestamp
    server_version: str
    attempts: int
    hedged: bool
    breaker: str
    def __init__(self, backend: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., elapsed_ms: _Optional[float] = ..., hits: _Optional[int] = ..., detail: _Optional[str] = ..., index_version: _Optional[str] = ..., fresh_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., server_version: _Optional[str] = ..., attempts: _Optional[int] = ..., hedged: _Optional[bool] = ..., breaker: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    sha256: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class Drop(_message.Message):
    __slots__ = ("reason", "count", "backend")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    reason: str
    count: int
    backend: str
    def __init__(self, reason: _Optional[str] = ..., count: _Optional[int] = ..., backend: _Optional[str] = ...) -> None: ...

class FeedbackRequest(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("event_id", "query_id", "kind", "id", "position", "time", "value")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    query_id: str
    kind: EventKind
    id: str
    position: int
    time: _timestamp_pb2.Timestamp
    value: float
    def __init__(self, event_id: _Optional[str] = ..., query_id: _Optional[str] = ..., kind: _Optional[_Union[EventKind, str]] = ..., id: _Optional[str] = ..., position: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., value: _Optional[float] = ...) -> None: ...

class FeedbackResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedScalarFieldContainer[EventOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[EventOutcome, str]]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("query_id", "search", "hits", "ids", "model")
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    query_id: str
    search: SearchRequest
    hits: int
    ids: _containers.RepeatedScalarFieldContainer[str]
    model: str
    def __init__(self, query_id: _Optional[str] = ..., search: _Optional[_Union[SearchRequest, _Mapping]] = ..., hits: _Optional[int] = ..., ids: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("answer", "placements", "contributions", "served_by")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    PLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    answer: SearchResponse
    placements: _containers.RepeatedCompositeFieldContainer[Placement]
    contributions: Contributions
    served_by: Model
    def __init__(self, answer: _Optional[_Union[SearchResponse, _Mapping]] = ..., placements: _Optional[_Iterable[_Union[Placement, _Mapping]]] = ..., contributions: _Optional[_Union[Contributions, _Mapping]] = ..., served_by: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("fused_rank", "scored_rank", "spread_rank", "rank", "votes", "served_rank")
    FUSED_RANK_FIELD_NUMBER: _ClassVar[int]
    SCORED_RANK_FIELD_NUMBER: _ClassVar[int]
    SPREAD_RANK_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    SERVED_RANK_FIELD_NUMBER: _ClassVar[int]
    fused_rank: int
    scored_rank: int
    spread_rank: int
    rank: int
    votes: _containers.RepeatedScalarFieldContainer[float]
    served_rank: int
    def __init__(self, fused_rank: _Optional[int] = ..., scored_rank: _Optional[int] = ..., spread_rank: _Optional[int] = ..., rank: _Optional[int] = ..., votes: _Optional[_Iterable[float]] = ..., served_rank: _Optional[int] = ...) -> None: ...

class Contributions(_message.Message):
    __slots__ = ("bias", "values", "lacking")
    BIAS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    bias: float
    values: _containers.RepeatedScalarFieldContainer[float]
    lacking: str
    def __init__(self, bias: _Optional[float] = ..., values: _Optional[_Iterable[float]] = ..., lacking: _Optional[str] = ...) -> None: ...
