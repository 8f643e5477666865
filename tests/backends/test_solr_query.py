"""Parameters of searches in Solr."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from backends import solr_query
from backends.base import Equals, Filter, Query, Range, Terms
from backends.solr_query import Held, escaped
from backends.solr_settings import SolrSettings
from tests.doubles.web_engines import settings

HELD = {
    "title": Held("title_t", "text", True),
    "kind": Held("kind_s", "keyword", False),
    "year": Held("year_i", "integer", True),
}


def asked(query: Query, vector: list[float] | None = None, **more: Any) -> list[tuple[str, str]]:
    chosen = SolrSettings.model_validate(settings("solr", "http://localhost", **more))
    return solr_query.parameters(chosen, HELD, query, vector, 0.25)


def test_words() -> None:
    """Words by edismax, summed over fields; only what can be shown is asked for; the time is the server's."""
    fields = {
        "title": {"type": "text", "field": "title_t"},
        "kind": {"type": "keyword", "field": "kind_s"},
        "year": {"type": "number", "field": "year_i"},
    }
    search = {"mode": "words", "boosts": {"title": 2.5}, "parameters": {"pf": "title_t"}}
    query = Query("read csv", 7, fields=("title", "kind", "year", "title_bm25", "other"))
    assert dict(asked(query, fields=fields, search=search)) == {
        "wt": "json",
        "rows": "7",
        "timeAllowed": "250",
        "q": "read csv",
        "defType": "edismax",
        "qf": "title_t^2.5",
        "tie": "1.0",
        "mm": "1",
        "pf": "title_t",
        "fl": "id,score,title_t,year_i,title_bm25:query($score0,0)",
        "score0": "{!edismax qf=title v=$text}",
        "text": "read csv",
    }


def test_filters_are_never_parsed() -> None:
    """Values stand in parameters of their own, between signs that none of them has."""
    filters = (
        Filter("kind", Terms(("a,b", "\x01", "{!func}1"))),
        Filter("year", Terms((2001.0, 2001.5, 1e10))),
        Filter("year", Range(0.5, 1e10)),
        Filter("year", Range()),
        Filter("id", Equals("")),
    )
    sent = asked(Query("x", 7, filters))
    assert [value for name, value in sent if name == "fq"] == [
        "{!terms f=kind_s separator=$between0 v=$among0}",
        "{!terms f=year_i separator=$between1 v=$among1}",
        'year_i:["1" TO *]',
        "year_i:[* TO *]",
        "-*:*",
    ]
    held = dict(sent)
    assert held["among0"].split(held["between0"]) == ["a,b", "\x01", "{!func}1"]
    assert held["among1"] == "2001"


def test_neighbors() -> None:
    """The graph is asked for candidates, the answer for hits."""
    search = {"mode": "vectors", "field": "embedding", "embedder": Path("index"), "candidates": 50}
    held = dict(asked(Query("x", 7), [0.5, 1.0], search=search))
    assert (held["q"], held["vector"]) == ("{!knn f=embedding topK=50 v=$vector}", "[0.5, 1.0]")
    assert held["rows"] == "7"


def test_operators_are_escaped() -> None:
    """Signs and words of the query language are plain ones; others are left alone."""
    assert escaped("a+b AND (NOTE)") == r"a\+b \AND \(NOTE\)"
    assert escaped("{!lucene}*:*") == r"\{\!lucene\}\*\:\*"
    assert escaped("東京 café_1 é") == "東京 café_1 é"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"search": {"mode": "words", "parameters": {"fq": "x"}}}, "what a search sets itself: fq"),
        ({"collection": "a/b"}, "collection"),
        ({"fields": {"title": {"type": "text", "field": "a b"}}}, "names are letters"),
        ({"scores": {"year": "x"}}, "scores has names of fields: year"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any], said: str) -> None:
    """What cannot be meant, or would be parsed, is refused with its mend."""
    with pytest.raises(ValidationError, match=said):
        SolrSettings.model_validate(settings("solr", "http://localhost") | change)
