"""Bodies of searches, of the forms that no server here can be asked for too."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from backends import opensearch_query
from backends.base import Equals, Filter, Query, Range, Terms
from backends.opensearch_query import Held, filled
from backends.opensearch_settings import OpenSearchSettings
from tests.doubles.web_engines import settings

HELD = {"title": Held("title", "text"), "kind": Held("kind", "keyword"), "year": Held("year", "integer")}
FILTERS = (
    Filter("kind", Equals("f")),
    Filter("year", Range(2000.5, 1e10)),
    Filter("id", Terms(("a", "", "b"))),
)
CONDITIONS = [
    {"terms": {"kind": ["f"]}},
    {"range": {"year": {"gte": 2001}}},
    {"ids": {"values": ["a", "b"]}},
]
VECTOR = [0.6, 0.8]


def body(flavor: str, vector: list[float] | None, query: Query, **more: Any) -> dict[str, Any]:
    chosen = OpenSearchSettings.model_validate(settings(flavor, "http://localhost", **more))
    return opensearch_query.body(chosen, HELD, query, vector, 0.25)


def near(**more: Any) -> dict[str, Any]:
    return {"search": {"mode": "vectors", "field": "embedding", "candidates": 50, **more}}


def test_words() -> None:
    """Words are a value, filters score nothing, the time is the server's, and no source is sent."""
    asked = body("opensearch", None, Query("a:b OR c", 7, FILTERS, ("year", "other")))
    assert asked == {
        "size": 7,
        "timeout": "250ms",
        "track_total_hits": False,
        "_source": False,
        "fields": ["year"],
        "query": {
            "bool": {
                "must": [
                    {"multi_match": {"query": "a:b OR c", "fields": ["title^1"], "type": "most_fields"}}
                ],
                "filter": CONDITIONS,
            }
        },
    }


def test_neighbors_in_opensearch() -> None:
    """Filters go before the neighbors; the graph is asked for candidates, the answer for hits."""
    asked = body("opensearch", VECTOR, Query("x", 7, FILTERS), **near(embedder=Path("index")))
    knn = {"vector": VECTOR, "k": 50, "filter": {"bool": {"filter": CONDITIONS}}}
    assert asked["query"] == {"knn": {"embedding": knn}}
    assert asked["size"] == 7


def test_neighbors_by_the_servers_model() -> None:
    """OpenSearch's `neural` query and Elasticsearch's vector builder embed the words themselves."""
    asked = body("opensearch", None, Query("red jar", 100), **near(model="m1"))
    neural = {"query_text": "red jar", "model_id": "m1", "k": 100}
    assert asked["query"] == {"neural": {"embedding": neural}}
    asked = body("elasticsearch", None, Query("red jar", 100), **near(model="m1"))
    builder = {"text_embedding": {"model_id": "m1", "model_text": "red jar"}}
    assert asked["query"] == {
        "knn": {"field": "embedding", "num_candidates": 100, "query_vector_builder": builder}
    }


def test_neighbors_in_elasticsearch() -> None:
    """The `knn` query, with its filter inside, and room for other scores beside it."""
    query = Query("x", 7, FILTERS[:1], ("title_bm25",))
    asked = body("elasticsearch", VECTOR, query, **near(embedder=Path("index")))
    knn = {
        "field": "embedding",
        "num_candidates": 50,
        "query_vector": VECTOR,
        "filter": {"bool": {"filter": CONDITIONS[:1]}},
    }
    named = {"bool": {"must": [{"match": {"title": "x"}}], "_name": "title_bm25"}}
    silent = {"constant_score": {"filter": {"bool": {"should": [named]}}, "boost": 0.0}}
    assert asked["query"] == {"bool": {"must": [{"knn": knn}], "should": [silent]}}


@pytest.mark.parametrize(
    ("flavor", "script"),
    [
        (
            "opensearch",
            {
                "lang": "knn",
                "source": "knn_score",
                "params": {"field": "embedding", "query_value": VECTOR, "space_type": "l2"},
            },
        ),
        (
            "elasticsearch",
            {
                "source": "1 / (1 + l2norm(params.vector, params.field))",
                "params": {"field": "embedding", "vector": VECTOR},
            },
        ),
    ],
)
def test_exact(flavor: str, script: dict[str, Any]) -> None:
    """Every document that has a vector and meets the conditions is compared."""
    more = near(embedder=Path("index"), exact=True, metric="l2")
    asked = body(flavor, VECTOR, Query("x", 7, FILTERS[:1]), **more)
    among = {"bool": {"filter": [*CONDITIONS[:1], {"exists": {"field": "embedding"}}]}}
    assert asked["query"] == {"script_score": {"query": among, "script": script}}


def test_template_takes_the_words_as_a_value() -> None:
    """Only a whole value that is `{query}` becomes the words; they are never looked into."""
    template = {"a": ["{query}", "x {query}", 1], "{query}": {"b": "{query}"}}
    assert filled(template, '{query}"}') == {
        "a": ['{query}"}', "x {query}", 1],
        "{query}": {"b": '{query}"}'},
    }


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (near(), "give one of `embedder` and `model`"),
        (near(embedder="a", model="b"), "give one of `embedder` and `model`"),
        (near(model="b", exact=True), "`exact` needs an `embedder`"),
        ({"scores": {"title": {}}}, "scores has names of fields: title"),
        ({"api_key_env": "A", "user": "u", "password_env": "P"}, "give one of `user` and `api_key_env`"),
        ({"urls": []}, "at least 1 item"),
    ],
)
def test_settings_that_make_no_sense(search: dict[str, Any], said: str) -> None:
    """What cannot be meant is refused with its mend."""
    with pytest.raises(ValidationError, match=said):
        OpenSearchSettings.model_validate(settings("opensearch", "http://localhost", **search))
