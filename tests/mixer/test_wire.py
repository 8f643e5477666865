from __future__ import annotations

import math
import string
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Equals, Filter, Hits, Index, Range, Terms
from mixer import wire
from mixer.client import search_request
from mixer.errors import InvalidRequest
from mixer.settings import LimitSettings, MixSettings
from mixer.values import Draft, Drop, Effort, Outcome, Page, Ranker, Reply, Request, Scores, Stored
from protos.mixer.v1 import mixer_pb2 as pb
from tests.samples import MODEL, answer, hits, merged, mix, reply, request

LIMITS = LimitSettings(
    query_chars=20, page_size=50, candidates=100, filters=3, terms=4, context_keys=2, text_chars=10
)
NAN = float("nan")


def read(message: pb.SearchRequest, rules: MixSettings | None = None) -> Request:
    return wire.request_from(message, "default", rules or mix("a"), LIMITS, 0.5)


SHORT = st.text(max_size=10)
VALUES = st.one_of(SHORT, st.floats(allow_nan=False, allow_infinity=False))
ENDS = st.tuples(st.one_of(st.none(), st.floats(-10, 0)), st.one_of(st.none(), st.floats(0, 10)))
CONDITIONS = st.one_of(
    st.builds(Equals, VALUES),
    st.builds(Terms, st.lists(VALUES, min_size=1, max_size=4).map(tuple)),
    ENDS.filter(lambda ends: ends != (None, None)).map(lambda ends: Range(*ends)),
)
FILTERS = st.lists(st.builds(Filter, st.text(min_size=1, max_size=8), CONDITIONS), max_size=3).map(tuple)


@given(
    query=st.text(string.ascii_letters + "é数 ", min_size=1, max_size=20).filter(lambda text: text.strip()),
    page_size=st.integers(1, 50),
    offset=st.integers(0, 100),
    filters=FILTERS,
    context=st.dictionaries(SHORT, VALUES, max_size=2),
    features=st.booleans(),
    request_id=st.text(min_size=1, max_size=10),
)
def test_a_request_arrives_as_it_was_sent(features: bool, request_id: str, **sent: Any) -> None:
    """What the client is told becomes, by way of bytes, the request that the pipeline sees."""
    message = search_request(features=features, request_id=request_id, **sent)
    made = read(pb.SearchRequest.FromString(message.SerializeToString()))
    assert made == Request(
        **sent, mix="default", cursor="", debug=features, query_id=request_id, time_left_s=0.5
    )


def test_defaults_are_filled_in() -> None:
    """No page size is the mix's own; no id gets one that is new every time."""
    first, second = (read(pb.SearchRequest(query="x"), mix("a", page_size=7)) for _ in range(2))
    assert (first.page_size, first.offset, first.debug) == (7, 0, False)
    assert first.query_id
    assert first.query_id != second.query_id


def number(value: float) -> pb.Value:
    return pb.Value(number=value)


def text(value: str) -> pb.Value:
    return pb.Value(text=value)


def filtered(**condition: Any) -> dict[str, Any]:
    return {"filters": [pb.Filter(field="year", **condition)]}


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"query": ""}, "query", "is empty"),
        ({"query": " \t\n"}, "query", "is empty"),
        ({"query": "x" * 21}, "query", "21 characters; send 20"),
        ({"page_size": -1}, "page_size", "-1; send 0 to 50"),
        ({"page_size": 51}, "page_size", "send 0 to 50"),
        ({"offset": -1}, "offset", "send 0 to 100"),
        ({"offset": 101}, "offset", "send 0 to 100"),
        ({"offset": 1, "cursor": "c"}, "offset", "without a cursor"),
        ({"request_id": "x" * 11}, "request_id", "longer than 10"),
        ({"filters": [pb.Filter(field="f", equals=number(1))] * 4}, "filters", "has 4; send 3"),
        ({"filters": [pb.Filter(equals=number(1))]}, "filters[0].field", "is empty"),
        (filtered(), "filters[0]", "no condition"),
        (filtered(equals=pb.Value()), "filters[0].equals", "is empty"),
        (filtered(equals=number(NAN)), "filters[0].equals", "not a finite number"),
        (filtered(equals=number(math.inf)), "filters[0].equals", "not a finite number"),
        (filtered(equals=text("x" * 11)), "filters[0].equals", "longer than 10"),
        (filtered(range=pb.Range()), "filters[0].range", "open at both ends"),
        (filtered(range=pb.Range(min=NAN)), "filters[0].range", "not a number"),
        (filtered(range=pb.Range(max=NAN)), "filters[0].range", "not a number"),
        (filtered(range=pb.Range(min=2, max=1)), "filters[0].range", "min 2 is above max 1"),
        (filtered(terms=pb.Terms()), "filters[0].terms.values", "has 0; send 1 to 4"),
        (filtered(terms=pb.Terms(values=[text("x")] * 5)), "filters[0].terms.values", "has 5"),
        (filtered(terms=pb.Terms(values=[text("x"), pb.Value()])), "filters[0].terms.values[1]", "is empty"),
        ({"context": dict.fromkeys("abc", number(1))}, "context", "has 3 keys; send 2"),
        ({"context": {"k" * 11: number(1)}}, "context", "key longer than 10"),
        ({"context": {"k": pb.Value()}}, "context['k']", "is empty"),
        ({"context": {"k": number(NAN)}}, "context['k']", "not a finite number"),
        ({"context": {"k": text("x" * 11)}}, "context['k']", "longer than 10"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], path: str, words: str) -> None:
    """Each violation names its path and what to do about it, and only the field that is wrong is named."""
    with pytest.raises(InvalidRequest) as refused:
        read(pb.SearchRequest(**{"query": "x", **fields}))
    [violation] = refused.value.violations
    assert violation.field == path
    assert words in violation.description


def test_all_wrong_fields_are_named_at_once() -> None:
    """A caller with four faults hears of four, in one answer."""
    message = pb.SearchRequest(
        query="",
        page_size=-1,
        filters=[pb.Filter(field="a", equals=number(1)), pb.Filter()],
        context={"k": pb.Value()},
    )
    with pytest.raises(InvalidRequest) as refused:
        read(message)
    assert [violation.field for violation in refused.value.violations] == [
        "query",
        "page_size",
        "filters[1].field",
        "filters[1]",
        "context['k']",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"query": "x" * 20},
        {"page_size": 50, "offset": 100},
        {"filters": [pb.Filter(field="f", terms=pb.Terms(values=[number(0)] * 4))] * 3},
        filtered(range=pb.Range(min=1, max=1)),
        filtered(range=pb.Range(min=-math.inf)),
        filtered(equals=text("")),
        {"context": {"k" * 10: text("x" * 10), "": number(0)}},
    ],
)
def test_the_limits_themselves_are_within(fields: dict[str, Any]) -> None:
    """What stands exactly at a limit passes."""
    assert read(pb.SearchRequest(**{"query": "x", **fields})).query


def response(asked: Any = None, **changes: Any) -> pb.SearchResponse:
    return wire.response_from(answer(asked, **changes), ("title", "year"), "t" * 32, 0.25)


def test_hits_stand_in_the_page_s_order() -> None:
    """Each hit has its rank from 1, the score it is ordered by, and its place in the fused order."""
    first, second = response().hits
    assert [first.id, first.rank, first.score, first.fused_rank] == ["y", 1, 0.75, 2]
    assert [second.id, second.rank, second.score, second.fused_rank] == ["x", 2, 0.5, 1]
    assert (first.fused_score, second.fused_score) == (1 / 62, 1 / 61)


def test_ranks_go_on_over_pages() -> None:
    """The first hit of a page from offset 1 has rank 2, and the pinned are told apart."""
    [hit] = response(page=Page(np.array([1, 0]), 1, 10, frozenset({0}))).hits
    assert (hit.id, hit.rank, hit.pinned) == ("x", 2, True)
    assert not response(page=Page(np.array([1, 0]), 0, 1, frozenset({0}))).hits[0].pinned


def test_teams_are_told_to_those_who_look_into_it() -> None:
    """Who picked each hit of the page goes out with the features, and not without them."""
    draft = Draft(("control", "duel"), np.array([1, -1, 0], np.int8), "")
    page = Page(np.array([1, 0]), 0, 2, draft=draft)
    assert [hit.team for hit in response(request(debug=True), page=page).hits] == ["duel", ""]
    assert [hit.team for hit in response(page=page).hits] == ["", ""]


def test_fields_are_those_shown_and_known() -> None:
    """Only displayed fields go out; an empty text and a missing number are left out, not sent as nothing."""
    first, second = response().hits
    assert not first.fields
    assert second.fields["title"].text == "the x"
    assert second.fields["year"].number == 1999
    assert not wire.response_from(answer(), (), "", 0).hits[1].fields


def test_sources_are_the_backends_that_returned_it() -> None:
    """Every backend that returned the document, with its rank and raw score; no other."""
    rules = mix("a", "b")
    replies = (reply("a", hits(["x"], [NAN])), reply("b", hits(["y", "x"], [3, 2])))
    found = merged(rules, replies)
    made = response(
        replies=replies,
        candidates=found,
        scores=Scores(found.fused, Ranker.FUSED),
        page=Page(np.array([0, 1]), 0, 10),
    )
    sources = {hit.id: [(s.backend, s.rank, s.score) for s in hit.sources] for hit in made.hits}
    assert sources["y"] == [("b", 1, 3)]
    assert [source[:2] for source in sources["x"]] == [("a", 1), ("b", 2)]
    assert math.isnan(sources["x"][0][2])
    assert sources["x"][1][2] == 2


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_word(outcome: Outcome) -> None:
    """Each way in which a backend can end is told by its own name."""
    failed = Reply("a", outcome, 0.125, None, "why")
    made = response(replies=(failed,)).execution.backends[0]
    assert pb.Outcome.Name(made.outcome) == f"OUTCOME_{outcome.name}"
    assert (made.backend, made.elapsed_ms, made.detail) == ("a", 125, "why")


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_store_says_how_it_ended(outcome: Outcome) -> None:
    """Each feature store of the mix: its outcome, its rows, and why it is lacking; then the answer is degraded."""
    stored = Stored(
        "clicks", outcome, 0.125, {}, asked=9, cached=4, found=3, lost=2, unreadable=1, detail="why"
    )
    execution = response(candidates=replace(answer().candidates, stores=(stored,))).execution
    [made] = execution.stores
    assert pb.Outcome.Name(made.outcome) == f"OUTCOME_{outcome.name}"
    assert (made.store, made.elapsed_ms, made.detail) == ("clicks", 125, "why")
    assert (made.asked, made.cached, made.found, made.unreadable) == (9, 4, 3, 1)
    expected = [] if outcome is Outcome.OK else [f"store clicks: {outcome}"]
    assert (list(execution.degraded_reasons), execution.degraded) == (expected, bool(expected))


def test_a_backend_says_what_it_read() -> None:
    """Index version, software and freshness come through; the hits counted are the distinct documents."""
    index = Index("v7", 1_700_000_000.25, "engine/2")
    replies = (Reply("a", Outcome.OK, 0.0, Hits(["x", "x", "y"], np.array([3.0, 2, 1]), index=index)),)
    made = response(replies=replies, candidates=merged(mix("a"), replies)).execution
    backend = made.backends[0]
    assert (backend.hits, backend.index_version, backend.server_version) == (2, "v7", "engine/2")
    assert backend.fresh_at.ToNanoseconds() == pytest.approx(1_700_000_000_250_000_000, abs=1000)
    assert [(d.reason, d.count, d.backend) for d in made.drops] == [("repeated", 1, "a")]


def test_unknown_freshness_is_not_1970() -> None:
    """An index whose age is unknown has no time."""
    assert not response().execution.backends[0].HasField("fresh_at")


def test_the_model_that_ranked_is_named() -> None:
    """Name, version and hash of the model, and that nothing is degraded."""
    execution = response().execution
    assert execution.ranker == pb.RANKER_MODEL
    assert (execution.model.name, execution.model.version, execution.model.sha256) == (
        MODEL.name,
        MODEL.version,
        MODEL.sha256,
    )
    assert (execution.degraded, list(execution.degraded_reasons), execution.fallback_reason) == (
        False,
        [],
        "",
    )
    assert execution.elapsed_ms == 250


def test_a_mix_without_a_model_names_none() -> None:
    """The fused order, where it was asked for, is no degradation and has no model."""
    execution = response(scores=Scores(answer().candidates.fused, Ranker.FUSED)).execution
    assert execution.ranker == pb.RANKER_FUSED
    assert not execution.HasField("model")
    assert not execution.degraded


def test_less_than_the_whole_is_said() -> None:
    """A backend that did not answer and a model that did not rank are each a reason."""
    rules = mix("a", "b")
    replies = (reply("a", hits(["x", "y"])), reply("b", None, Outcome.TIMEOUT))
    fallback = Scores(answer().candidates.fused, Ranker.FUSED, MODEL, "scoring_failed")
    execution = response(replies=replies, candidates=merged(rules, replies), scores=fallback).execution
    assert execution.degraded
    assert list(execution.degraded_reasons) == ["b: timeout", "ranker: scoring_failed"]
    assert execution.fallback_reason == "scoring_failed"
    assert execution.model.sha256 == MODEL.sha256


def test_features_go_out_only_when_asked_for() -> None:
    """At the debug level, one row a hit in the order of the hits, NaN for missing; otherwise none."""
    assert not response().HasField("features")
    table = response(asked=request(debug=True)).features
    assert list(table.names) == ["one", "two"]
    np.testing.assert_equal(list(table.values), [2, 4, 1, NAN])


def test_the_answer_says_whose_it_is() -> None:
    """Query id, trace id, mix, number of candidates and the cursor of the next page."""
    page = replace(answer().page, next_cursor="next")
    made = response(asked=request(query_id="q7", mix="other"), page=page)
    assert (made.query_id, made.trace_id, made.mix) == ("q7", "t" * 32, "other")
    assert (made.candidates, made.next_cursor) == (2, "next")


@given(
    st.lists(st.builds(Drop, SHORT, st.integers(1, 10**6), SHORT), max_size=3),
    st.floats(0, 10),
    st.sampled_from(list(Ranker)),
)
def test_an_answer_survives_the_bytes(drops: list[Drop], elapsed_s: float, ranker: Ranker) -> None:
    """What is said of an answer is the same after it went through bytes."""
    made = answer(
        candidates=replace(answer().candidates, drops=tuple(drops)),
        scores=replace(answer().scores, ranker=ranker),
    )
    sent = wire.response_from(made, ("title",), "", elapsed_s)
    read_back = pb.SearchResponse.FromString(sent.SerializeToString())
    assert read_back == sent
    assert [Drop(d.reason, d.count, d.backend) for d in read_back.execution.drops] == drops
    assert pb.Ranker.Name(read_back.execution.ranker) == f"RANKER_{ranker.name}"


def test_what_guards_and_load_did_is_told() -> None:
    """Attempts, a hedge and the breaker's state of each backend; the quality of the whole."""
    replies = (replace(answer().replies[0], attempts=3, hedged=True, breaker="half_open"),)
    made = response(asked=request(effort=Effort(2, 0.6, beside=False, optional=False)), replies=replies)
    backend = made.execution.backends[0]
    assert (backend.attempts, backend.hedged, backend.breaker) == (3, True, "half_open")
    assert made.execution.quality == 0.6
    plain = response().execution
    assert (plain.quality, plain.backends[0].attempts, plain.backends[0].breaker) == (1.0, 1, "")
