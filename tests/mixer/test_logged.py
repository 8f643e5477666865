from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from mixer.logged import INPUTS, SCHEMA, Conversion, Declared, Entry
from mixer.schema import schema_hash
from mixer.slices import Slice, Slices
from mixer.values import Answer, Features, Outcome, Page, Ranker, Scores, Stored
from tests import forest
from tests.samples import MODEL, answer, features, hits, merged, mix, reply, request, scores

DECLARED = Declared.of(forest.FEATURES)
NAN = float("nan")


def converted(*answers: Answer, shown: Any = str, inputs: bool = False) -> list[dict[str, Any]]:
    convert = Conversion({"default": DECLARED}, shown, inputs)
    batch = convert([Entry(made, "ab" * 16, 1_700_000_000_123_456) for made in answers])
    assert batch.schema == convert.schema
    batch.validate(full=True)
    rows: list[dict[str, Any]] = batch.to_pylist()
    return rows


def test_members_of_an_ensemble_have_a_list_each() -> None:
    """Their unweighted scores in the order of the hits; where one model ranked there is none."""
    made = answer()
    both = replace(made.scores, members={"m": np.array([1.5, 2.5]), "n": np.array([NAN, -1.0])})
    together, alone = converted(replace(made, scores=both), made)
    assert (together["member_models"], together["member_scores"][0]) == (["m", "n"], [2.5, 1.5])
    assert together["member_scores"][1][0] == -1.0
    assert np.isnan(together["member_scores"][1][1])
    assert (alone["member_models"], alone["member_scores"]) == ([], [])


def two_backends() -> Answer:
    """Three documents in the order c, a, b, of which b's list lacks one and has a NaN."""
    rules = mix("a", "b")
    replies = (
        reply("a", hits(["a", "b"], [9.5, 8.25], numbers={"year": [1, 2]}, texts={"title": ["A", "B"]})),
        reply("b", hits(["c", "a"], [0.1, NAN], version="w7"), detail=""),
    )
    made = answer(request("q", query_id="id1", context={"plan": "free", "age": 31.5}))
    return replace(
        made,
        replies=replies,
        candidates=merged(rules, replies),
        features=features(one=[1, 2, 3], two=[0.1, NAN, 1 / 3]),
        scores=scores([0.5, 0.25, 0.75]),
        page=Page(np.array([2, 0, 1]), 1, 2),
    )


def test_a_row_holds_the_request() -> None:
    """Who asked what when, and which model and features answered."""
    [row] = converted(two_backends())
    assert row["time"].isoformat() == "2023-11-14T22:13:20.123456+00:00"
    expected = {
        "query_id": "id1",
        "trace_id": "ab" * 16,
        "mix": "default",
        "arm": "",
        "query": "q",
        "context": [("plan", "free"), ("age", "31.5")],
        "model_name": MODEL.name,
        "model_version": MODEL.version,
        "model_sha256": MODEL.sha256,
        "schema_sha256": schema_hash(forest.FEATURES),
        "ranker": "model",
        "scorer": "",
        "fallback_reason": "",
        "degraded": False,
        "backends": ["a", "b"],
        "backend_outcomes": ["ok", "ok"],
        "index_versions": ["v1", "w7"],
        "feature_names": ["one", "two"],
        "page_offset": 1,
        "page_size": 2,
    }
    assert {name: row[name] for name in expected} == expected


def test_hits_stand_in_the_order_of_the_ranking() -> None:
    """All candidates, not the page's alone, column by column the same document; doubles are exact."""
    made = two_backends()
    [row] = converted(made)
    order = made.page.order
    assert row["ids"] == ["c", "a", "b"]
    assert row["scores"] == [0.75, 0.5, 0.25]
    assert row["fused"] == made.candidates.fused[order].tolist()
    assert row["fused_ranks"] == [2, 1, 3]
    assert row["propensities"] == [1.0, 1.0, 1.0]
    assert row["ranks"] == [[0, 1], [1, 2], [2, 0]]
    np.testing.assert_array_equal(row["backend_scores"], [[NAN, 0.1], [9.5, NAN], [8.25, NAN]])
    np.testing.assert_array_equal(row["features"], [[3, 1 / 3], [1, 0.1], [2, NAN]])


def test_many_answers_of_unlike_sizes_keep_apart() -> None:
    """One batch of a long, an empty and a fused answer: every row holds its own hits and no more."""
    empty = replace(
        answer(),
        candidates=merged(mix("a"), (reply("a", hits()),)),
        features=Features((), np.empty((0, 0)), np.empty(0, np.intp), np.empty(0, np.intp)),
        scores=Scores(np.empty(0), Ranker.FUSED),
        page=Page(np.empty(0, np.intp), 0, 10),
    )
    fused = answer(scores=Scores(np.array([1.0, 2.0]), Ranker.FUSED, None, "scoring_failed"), arm="b")
    long, none, other = converted(two_backends(), empty, fused)
    assert (len(long["ids"]), none["ids"], other["ids"]) == (3, [], ["y", "x"])
    assert (none["features"], none["ranks"], none["model_name"]) == ([], [], "")
    np.testing.assert_array_equal(other["features"], [[2, 4], [1, NAN]])
    assert (other["ranker"], other["fallback_reason"], other["arm"]) == ("fused", "scoring_failed", "b")
    assert other["degraded"]


def test_a_row_names_its_slices_whatever_is_kept_of_the_query() -> None:
    """The values are those of metrics: by the query's words, the context, and who answered."""
    declared = TypeAdapter(tuple[Slice, ...]).validate_python(
        [
            {"name": "length", "by": "query_length", "bounds": [1]},
            {"name": "plan", "by": "context", "key": "plan", "values": ["free"]},
            {"name": "answered", "by": "backends"},
        ]
    )
    sliced = Declared("s", frozenset(), Slices(declared, ["a", "b"]))
    convert = Conversion({"default": sliced}, lambda query: None)
    [row] = convert([Entry(two_backends(), "", 0)]).to_pylist()
    assert (row["query"], row["slices"]) == (
        None,
        [("length", "0-1"), ("plan", "free"), ("answered", "all")],
    )
    [none] = converted(two_backends())
    assert none["slices"] == []


def test_a_late_backend_is_named() -> None:
    """A backend that did not answer has its column, without ranks, and its outcome."""
    rules = mix("a", "b")
    replies = (reply("a", hits(["x", "y"])), reply("b", None, Outcome.TIMEOUT))
    [row] = converted(answer(replies=replies, candidates=merged(rules, replies)))
    assert (row["backend_outcomes"], row["index_versions"]) == (["ok", "timeout"], ["v1", ""])
    assert row["ranks"] == [[2, 0], [1, 0]]
    assert row["degraded"]


def test_propensities_follow_their_rows() -> None:
    """Where chance had a part, every hit's share of it stands beside it."""
    made = two_backends()
    explored = replace(made, page=replace(made.page, propensities=np.array([0.5, 0.25, 1.0])))
    [row] = converted(explored)
    assert row["propensities"] == [1.0, 0.5, 0.25]


def test_a_query_is_kept_as_it_may_be() -> None:
    """A query that is not to be kept is null, not empty."""
    assert converted(answer(), shown=lambda query: None)[0]["query"] is None
    assert converted(answer(), shown=lambda query: f"h({query})")[0]["query"] == "h(read csv)"


def test_inputs_are_those_that_features_read() -> None:
    """Fields that no feature reads are not kept; values stand in the order of the ranking, missing ones too."""
    replies = (
        reply(
            "a",
            hits(
                ["x", "y"],
                numbers={"year": [1999, NAN], "uses": [1, 2]},
                texts={"title": ["the x", ""], "body": ["long", "long"]},
            ),
        ),
    )
    asked = request(context={"plan": "free", "age": 31.0})
    share = {"name": "share", "source": "backend", "backend": "a", "value": "normalized"}
    rules = mix("a", features=[share])
    [row] = converted(answer(asked, replies=replies, candidates=merged(rules, replies)), inputs=True)
    assert row["context_numbers"] == [("age", 31.0)]
    assert (row["number_fields"], row["text_fields"]) == (["year"], ["title"])
    np.testing.assert_array_equal(row["numbers"], [[NAN, 1999]])
    assert row["texts"] == [["", "the x"]]
    np.testing.assert_array_equal(row["normalized"], [[0.5], [1.0]])
    [unread] = converted(answer(asked, replies=replies, candidates=merged(mix("a"), replies)), inputs=True)
    np.testing.assert_array_equal(unread["normalized"], [[NAN], [NAN]])


def test_what_stores_held_follows_the_ranking() -> None:
    """How each store ended stands in every row; its values only where inputs are kept, in the order of the hits."""
    clicks = Stored("clicks", Outcome.OK, 0.0, {"ctr": np.array([0.1, 0.2]), "sales": np.array([1, NAN])})
    users = Stored("users", Outcome.TIMEOUT, 0.0, {"age": np.broadcast_to(np.array([NAN]), 2)})
    made = answer()
    made = replace(made, candidates=replace(made.candidates, stores=(clicks, users)))
    [row] = converted(made, inputs=True)
    assert (row["stores"], row["store_outcomes"], row["degraded"]) == (
        ["clicks", "users"],
        ["ok", "timeout"],
        True,
    )
    assert row["store_fields"] == ["clicks.ctr", "clicks.sales", "users.age"]
    np.testing.assert_array_equal(row["stored"], [[0.2, 0.1], [NAN, 1], [NAN, NAN]])
    [without] = converted(answer())
    assert (without["stores"], without["store_outcomes"], "stored" in without) == ([], [], False)


def test_columns_are_plain() -> None:
    """Any reader knows them: texts, numbers, lists, maps, times in microseconds UTC; no dictionary of any type."""
    kinds = {str(field.type) for field in [*SCHEMA, *INPUTS]}
    assert kinds == {
        "string",
        "timestamp[us, tz=UTC]",
        "map<string, string>",
        "map<string, double>",
        "bool",
        "int32",
        "list<item: string>",
        "list<item: double>",
        "list<item: int32>",
        "list<item: list<item: int32>>",
        "list<item: list<item: double>>",
        "list<item: list<item: string>>",
    }


def test_a_text_that_is_no_unicode_is_refused() -> None:
    """It cannot be written down."""
    with pytest.raises(ValueError, match="surrogates"):
        converted(answer(request("\ud800")))


def test_conversion_leaves_the_answer_alone() -> None:
    """The request path reads the same arrays: none is written to, and rows of them are copies."""
    made = two_backends()
    for array in (made.features.matrix, made.scores.values, made.page.order, made.candidates.ranks):
        array.setflags(write=False)
    batch = Conversion({"default": DECLARED}, str)([Entry(made, "", 0)])
    column = batch.column("features").flatten().flatten()
    made.features.matrix.setflags(write=True)
    made.features.matrix[:] = 0
    assert pa.compute.sum(column).as_py() != 0
