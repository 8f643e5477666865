from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from backends.base import Equals, Filter
from mixer import describe
from mixer.describe import OfRank, Redactor, describers
from mixer.values import Effort, Features, Outcome, Page, Ranker, Scores, Stored
from tests.samples import MODEL, answer, candidates, features, hits, merged, mix, plan, reply, request, scores

KEY = b"key"


def natives(value: object) -> Iterator[type]:
    """The types of a value and of what is in it; a column of numbers is written as the tuple of its values."""
    if isinstance(value, np.ndarray):
        value = tuple(value.tolist())
    yield type(value)
    if isinstance(value, tuple):
        for item in value:
            yield from natives(item)


def assert_native(attributes: dict[str, Any]) -> None:
    kinds = {kind for value in attributes.values() for kind in natives(value)}
    assert kinds <= {bool, int, float, str, tuple}


@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        ("hash", {"mixer.query.chars", "mixer.query.hash"}),
        ("raw", {"mixer.query.chars", "mixer.query.raw"}),
        ("drop", {"mixer.query.chars"}),
    ],
)
def test_the_user_s_words_appear_as_told(mode: Literal["hash", "raw", "drop"], keys: set[str]) -> None:
    """Hashed, raw or not at all; their length always."""
    attributes = Redactor(mode, KEY).query("my secret illness")
    assert attributes.keys() == keys
    assert attributes["mixer.query.chars"] == 17
    assert ("my secret illness" in attributes.values()) == (mode == "raw")


def test_a_hash_is_keyed() -> None:
    """The same words have the same hash under one key and another under another: no table can be made of it."""
    one, other = Redactor("hash", b"one"), Redactor("hash", b"other")
    assert one.query("words") == one.query("words")
    assert one.query("words") != one.query("word s")
    assert one.query("words") != other.query("words")
    assert one.query("\ud800")["mixer.query.hash"]


def test_a_request_s_values_are_not_told() -> None:
    """Of filters only the number; of context nothing."""
    asked = request(filters=(Filter("diagnosis", Equals("flu")),), context={"name": "Ada"}, query_id="q1")
    attributes = describe.of_request(asked, Redactor("drop", KEY))
    assert attributes["mixer.filters"] == 1
    assert attributes["mixer.query_id"] == "q1"
    assert not {"flu", "Ada", "diagnosis", "name"} & set(map(str, attributes.values()))
    assert_native(attributes)


def test_a_backend_s_answer_is_told_by_its_name() -> None:
    """Outcome, time and hits, under keys that hold the backend's name."""
    assert describe.of_backend(reply("a", hits(["x", "y"]))) == {
        "mixer.backend.a.outcome": "ok",
        "mixer.backend.a.elapsed_ms": 10.0,
        "mixer.backend.a.hits": 2,
    }
    late = describe.of_backend(reply("b", None, Outcome.TIMEOUT))
    assert (late["mixer.backend.b.outcome"], late["mixer.backend.b.hits"]) == ("timeout", 0)
    assert_native(late)


def test_an_answer_says_what_was_lacking() -> None:
    """How many were asked and answered, what came out, who ranked, and why it is degraded."""
    rules = mix("a", "b")
    replies = (reply("a", hits(["x", "y"])), reply("b", None, Outcome.TIMEOUT))
    fallback = Scores(answer().candidates.fused, Ranker.FUSED, MODEL, "scoring_failed")
    made = answer(replies=replies, candidates=merged(rules, replies), scores=fallback)
    attributes = describe.of_answer(made, 0.012, 0.002)
    expected = {
        "mixer.backends.asked": 2,
        "mixer.backends.ok": 1,
        "mixer.candidates": 2,
        "mixer.hits": 2,
        "mixer.latency_bucket": "<25ms",
        "mixer.added_ms": 2.0,
        "mixer.degraded": True,
        "mixer.degraded_reasons": ("b: timeout", "ranker: scoring_failed"),
        "mixer.ranker": "fused",
        "mixer.fallback_reason": "scoring_failed",
        "mixer.model.sha256": MODEL.sha256,
    }
    assert {key: attributes[key] for key in expected} == expected
    assert_native(attributes)


def test_a_whole_answer_names_no_reason() -> None:
    """Absent is not empty: keys of what did not happen are left out."""
    attributes = describe.of_answer(answer(), 0.5, 0.1)
    assert attributes["mixer.degraded"] is False
    assert not {"mixer.degraded_reasons", "mixer.fallback_reason"} & attributes.keys()


def test_a_backend_s_own_words_are_cut() -> None:
    """What a backend says of its version is not ours: no more than a bounded piece of it is kept."""
    attributes = describe.of_reply(reply("a", hits(["x"], version="v" * 10_000)))
    assert len(attributes["mixer.backend.index_version"]) < 1000


def test_a_reply_names_its_index_where_it_has_one() -> None:
    """A backend that did not answer has no version."""
    assert describe.of_reply(reply("a", hits(["x"], version="v7"))) == {
        "mixer.backend.outcome": "ok",
        "mixer.backend.hits": 1,
        "mixer.backend.index_version": "v7",
    }
    assert describe.of_reply(reply("a", None, Outcome.ERROR)) == {
        "mixer.backend.outcome": "error",
        "mixer.backend.hits": 0,
    }


def test_who_ranked_comes_last_on_the_root() -> None:
    """Past its limit a span loses its oldest attributes: who answered and who ranked must not be among them."""
    assert list(describe.of_answer(answer(), 0.1, 0.0))[-1] == "mixer.model.sha256"
    assert list(OfRank(2, ["one"])(inputs(), scores([1, 2, 3])))[-1] == "mixer.model.sha256"


def inputs() -> tuple[Any, Features]:
    return candidates([0.5, 0.25, 0.75]), features(one=[1, 2, 3], two=[np.nan, 5, 6])


def test_the_rank_span_s_arrays_are_of_the_same_documents() -> None:
    """Index by index: id, score, prior place, sources and features of the best, by the final scores."""
    attributes = OfRank(2, ["two", "one"])(inputs(), scores([0.1, 0.2, 0.3]))
    assert attributes["mixer.top.ids"] == ("d02", "d01")
    assert attributes["mixer.top.scores"].tolist() == [0.3, 0.2]
    assert attributes["mixer.top.prior_ranks"] == (1, 3)
    assert attributes["mixer.top.sources"] == ("a", "a")
    assert attributes["mixer.top.feature.one"].tolist() == [3, 2]
    assert attributes["mixer.top.feature.two"].tolist() == [6, 5]
    assert attributes["mixer.ranker"] == "model"
    assert_native(attributes)


@pytest.mark.parametrize("top_k", [0, 3, 20])
def test_the_rank_span_s_arrays_have_one_length(top_k: int) -> None:
    """At most `top_k`, and no more than there are candidates."""
    attributes = OfRank(top_k, ["one", "unknown"])(inputs(), scores([1, 2, 3]))
    arrays = {len(value) for value in attributes.values() if isinstance(value, tuple | np.ndarray)}
    assert arrays == {min(top_k, 3)}
    assert "mixer.top.feature.unknown" not in attributes


def test_sources_name_every_backend_that_returned_it() -> None:
    """Backends of one document are joined in the mix's order."""
    found = merged(mix("a", "b"), [reply("a", hits(["x"])), reply("b", hits(["y", "x"]))])
    attributes = OfRank(5, [])((found, features(one=[1, 2])), Scores(found.fused, Ranker.FUSED))
    assert dict(zip(attributes["mixer.top.ids"], attributes["mixer.top.sources"], strict=True)) == {
        "x": "a,b",
        "y": "b",
    }


STORES = (
    Stored("clicks", Outcome.OK, 0.002, {}, asked=4, cached=1, found=3, unreadable=2),
    Stored("users", Outcome.TIMEOUT, 0.02, {}, asked=1, lost=1, detail="no answer within 20 ms"),
)


def test_a_store_is_described() -> None:
    """On the root what became of it, on its own span what was looked up; never a key, nor a value."""
    told = describe.of_store(STORES[0])
    assert told == {
        "mixer.store.clicks.outcome": "ok",
        "mixer.store.clicks.elapsed_ms": 2.0,
        "mixer.store.clicks.found": 3,
    }
    own = describe.of_stored(STORES[0])
    assert own == {
        "mixer.store.outcome": "ok",
        "mixer.store.asked": 4,
        "mixer.store.cached": 1,
        "mixer.store.found": 3,
        "mixer.store.unreadable": 2,
    }
    assert describe.of_look_up("clicks", -1.0) == {
        "mixer.store.name": "clicks",
        "mixer.store.timeout_ms": 0.0,
    }


def test_each_stage_is_described() -> None:
    """Counts in and out of every stage, in native types."""
    told = describers(3, ["one"])
    made = replace(answer(), page=Page(np.array([1, 0]), 1, 10, frozenset({1})))
    results: dict[str, tuple[tuple[Any, ...], Any]] = {
        "plan": ((), plan(mix("a", "b"))),
        "fan_out": ((), made.replies),
        "merge": ((), made.candidates),
        "hydrate": ((), replace(made.candidates, stores=STORES)),
        "make_features": ((), made.features),
        "rank": ((made.candidates, made.features), made.scores),
        "arrange": ((), made.page),
    }
    assert told.keys() == results.keys()
    attributes = {name: dict(told[name](*results[name])) for name in told}
    for described in attributes.values():
        assert_native(described)
    assert attributes["plan"] == {"mixer.backends.asked": 2}
    assert attributes["merge"] == {"mixer.candidates": 2, "mixer.dropped": 0}
    assert attributes["hydrate"] == {"mixer.stores.asked": 2, "mixer.stores.ok": 1}
    assert attributes["make_features"]["mixer.features.missing"] == 1
    assert attributes["arrange"] == {"mixer.hits": 1, "mixer.pinned": 1}


def test_what_guards_did_is_told_where_they_did_something() -> None:
    """Attempts other than one, a hedge, a breaker's state; nothing of them on any other span."""
    plain = describe.of_reply(reply("a", hits(["x"])))
    guarded = replace(reply("a", hits(["x"])), attempts=2, hedged=True, breaker="half_open")
    assert describe.of_reply(guarded) == {
        **plain,
        "mixer.backend.attempts": 2,
        "mixer.backend.hedged": True,
        "mixer.backend.breaker": "half_open",
    }
    assert not [key for key in plain if key.endswith(("attempts", "hedged", "breaker"))]


def test_quality_is_told_where_something_was_left_out() -> None:
    """On the root, as the answer says it."""
    assert "mixer.quality" not in describe.of_answer(answer(), 0.1, 0.0)
    less = answer(request(effort=Effort(1, 0.8, beside=False)))
    assert describe.of_answer(less, 0.1, 0.0)["mixer.quality"] == 0.8


def test_who_was_skipped_was_not_asked() -> None:
    """The counts of backends asked leave them out."""
    skipped = replace(reply("b", None, Outcome.SKIPPED), attempts=0)
    made = describers(3, [])["fan_out"]((), (reply("a", hits(["x"])), skipped))
    assert made == {"mixer.backends.asked": 1, "mixer.backends.ok": 1}
    rules = mix(members={"a": {}, "b": {"optional": True}})
    planned = plan(rules, request(effort=Effort(optional=False)))
    assert describers(3, [])["plan"]((), planned) == {"mixer.backends.asked": 1}
