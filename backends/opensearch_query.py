"""A query as the body of a `_search` request, and the hits that come back. Nothing a user types is ever parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backends import bounds
from backends.base import Equals, Filter, FloatColumn, Hits, Index, Query, Range, Terms
from backends.filters import values_of
from backends.opensearch_settings import Dsl, OpenSearchSettings, Template, Vectors, Words
from backends.served import column, shortened

NONE: Dsl = {"match_none": {}}
_SPACES = {"cosine": "cosinesimil", "l2": "l2", "inner_product": "innerproduct"}
_SCRIPTS = {
    "cosine": "cosineSimilarity(params.vector, params.field) + 1.0",
    "l2": "1 / (1 + l2norm(params.vector, params.field))",
    "inner_product": "double d = dotProduct(params.vector, params.field); return d < 0 ? 1 / (1 - d) : d + 1;",
}
_MOST_NEIGHBORS = 10_000


class Held(NamedTuple):
    """A field as the index has it: the server's name and type of it."""

    name: str
    type: str


def body(
    settings: OpenSearchSettings,
    held: Mapping[str, Held],
    query: Query,
    vector: list[float] | None,
    timeout_s: float,
) -> Dsl:
    """`vector` is the query's, in mode vectors with an embedder; `timeout_s` is the server's own."""
    size = min(query.limit, settings.max_hits)
    conditions = [_condition(item, held, settings.id) for item in query.filters]
    asked: Dsl = {
        "size": size,
        "timeout": f"{max(1, int(timeout_s * 1000))}ms",
        "track_total_hits": False,
        "_source": False,
        "query": _beside(_main(settings, query.text, vector, conditions, size), _scores(settings, query)),
    }
    fields = [held[name].name for name in query.fields if name in held and name != "id"]
    if settings.id != "_id":
        fields.append(settings.id)
    if fields:
        asked["fields"] = fields
    if settings.least is not None:
        asked["min_score"] = settings.least
    return asked


def read(answer: Any, settings: OpenSearchSettings, held: Mapping[str, Held], query: Query) -> Hits:
    """The columns of an answer. Raises: KeyError, TypeError, ValueError, AttributeError, IndexError where it makes
    no sense."""
    found = answer["hits"]["hits"]
    fields = [hit.get("fields", {}) for hit in found]
    numbers: dict[str, FloatColumn] = {}
    texts: dict[str, list[str]] = {}
    for name in query.fields:
        if name in settings.fields:
            values = [row.get(held[name].name) for row in fields]
            if settings.fields[name].type == "number":
                numbers[name] = column([value[0] if value else None for value in values])
            else:
                texts[name] = [", ".join(value) if value else "" for value in values]
        elif name in settings.scores:
            matched = [hit.get("matched_queries", {}) for hit in found]
            numbers[name] = column([row.get(name, 0.0) for row in matched])
    ids = [hit["_id"] for hit in found] if settings.id == "_id" else [row[settings.id][0] for row in fields]
    return Hits(ids, column([hit["_score"] for hit in found]), numbers, texts, Index())


def _main(
    settings: OpenSearchSettings, text: str, vector: list[float] | None, conditions: list[Dsl], size: int
) -> Dsl:
    """What matches and scores, under the conditions."""
    match settings.search:
        case Words() as words:
            return _under(_words(words, settings.named("text"), text), conditions)
        case Template() as template:
            return _under(filled(template.query, shortened(text, 1)), conditions)
        case Vectors() as vectors if vectors.exact and vector is not None:
            return _compared(settings, vectors, vector, conditions)
        case Vectors() as vectors:
            build = _near_elasticsearch if settings.flavor == "elasticsearch" else _near_opensearch
            most = min(max(size, vectors.candidates), _MOST_NEIGHBORS)
            return build(vectors, text, vector, conditions, most)


def _words(words: Words, texts: Mapping[str, str], text: str) -> Dsl:
    searched = words.boosts or dict.fromkeys(texts, 1.0)
    return {
        "multi_match": {
            "query": shortened(text, len(searched)),
            "fields": [f"{texts[name]}^{boost:g}" for name, boost in searched.items()],
            **(
                {"type": "cross_fields", "operator": "and"}
                if words.match == "all"
                else {"type": "most_fields"}
            ),
        }
    }


def _near_opensearch(
    vectors: Vectors, text: str, vector: list[float] | None, conditions: list[Dsl], k: int
) -> Dsl:
    wanted: Dsl = {"k": k}
    if conditions:
        wanted["filter"] = _all(conditions)
    if vector is None:
        asked = {"query_text": shortened(text, 1), "model_id": vectors.model}
        return {"neural": {vectors.field: {**asked, **wanted}}}
    return {"knn": {vectors.field: {"vector": vector, **wanted}}}


def _near_elasticsearch(
    vectors: Vectors, text: str, vector: list[float] | None, conditions: list[Dsl], k: int
) -> Dsl:
    asked: Dsl = {"field": vectors.field, "num_candidates": k}
    if vector is None:
        model = {"model_id": vectors.model, "model_text": shortened(text, 1)}
        asked["query_vector_builder"] = {"text_embedding": model}
    else:
        asked["query_vector"] = vector
    if conditions:
        asked["filter"] = _all(conditions)
    return {"knn": asked}


def _compared(
    settings: OpenSearchSettings, vectors: Vectors, vector: list[float], conditions: list[Dsl]
) -> Dsl:
    """Every document that has a vector and meets the conditions, by its exact score."""
    among = _all([*conditions, {"exists": {"field": vectors.field}}])
    if settings.flavor == "elasticsearch":
        parameters = {"field": vectors.field, "vector": vector}
        script: Dsl = {"source": _SCRIPTS[vectors.metric], "params": parameters}
    else:
        space = _SPACES[vectors.metric]
        parameters = {"field": vectors.field, "query_value": vector, "space_type": space}
        script = {"lang": "knn", "source": "knn_score", "params": parameters}
    return {"script_score": {"query": among, "script": script}}


def _scores(settings: OpenSearchSettings, query: Query) -> list[Dsl]:
    """The named queries whose scores the query wants back."""
    text = shortened(query.text, 1)
    return [
        {"bool": {"must": [filled(template, text)], "_name": name}}
        for name, template in settings.scores.items()
        if name in query.fields
    ]


def filled(template: Any, text: str) -> Any:
    """The template with the text wherever a whole value is `{query}`."""
    if isinstance(template, dict):
        return {key: filled(value, text) for key, value in template.items()}
    if isinstance(template, list):
        return [filled(value, text) for value in template]
    return text if template == "{query}" else template


def _beside(main: Dsl, named: Sequence[Dsl]) -> Dsl:
    """The main query, with others scored beside it that neither match nor rank."""
    if not named:
        return main
    silent = {"constant_score": {"filter": {"bool": {"should": list(named)}}, "boost": 0.0}}
    return {"bool": {"must": [main], "should": [silent]}}


def _under(query: Dsl, conditions: list[Dsl]) -> Dsl:
    return {"bool": {"must": [query], "filter": conditions}} if conditions else query


def _all(conditions: list[Dsl]) -> Dsl:
    return {"bool": {"filter": conditions}}


def _condition(item: Filter, held: Mapping[str, Held], id_field: str) -> Dsl:
    """A filter that `filters.check` passed."""
    if item.field == "id" and not isinstance(item.condition, Range):
        ids = [str(value) for value in values_of(item.condition) if value != ""]
        return {"ids": {"values": ids}} if id_field == "_id" else {"terms": {id_field: ids}}
    name, kind = held[item.field]
    if isinstance(item.condition, Range):
        return _range(name, kind, item.condition)
    return _among(name, kind, item.condition)


def _among(name: str, kind: str, condition: Equals | Terms) -> Dsl:
    values = list(values_of(condition))
    if kind in bounds.WHOLE or kind in bounds.FRACTIONAL:
        values = list(bounds.held(values, kind))
    return {"terms": {name: values}} if values else NONE


def _range(name: str, kind: str, condition: Range) -> Dsl:
    ends = bounds.ends(condition, kind)
    if ends is None:
        return NONE
    kept = {key: end for key, end in zip(("gte", "lte"), ends, strict=True) if end is not None}
    return {"range": {name: kept}} if kept else {"exists": {"field": name}}
