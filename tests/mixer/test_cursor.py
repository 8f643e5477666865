from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Equals, Filter, Range, Terms
from mixer.cursor import (
    CursorSigner,
    check_inputs,
    check_served,
    indexes_read,
    ranker_used,
    request_digest,
    served_digest,
)
from mixer.errors import InvalidRequest, PageUnavailable, StaleCursor
from mixer.values import Bookmark, Outcome, Ranker, Reply, Scores
from tests.samples import MODEL, SIGNER, candidates, hits, reply, request, scores

BOOKMARKS = st.builds(
    Bookmark,
    st.text(max_size=8),
    st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), max_size=3).map(tuple),
    st.text(max_size=8),
    st.text(max_size=8),
    st.integers(0, 10_000),
    st.sampled_from(("", "arm")),
    st.sampled_from(("", "seed")),
    st.sampled_from((0, 3)),
)


@given(BOOKMARKS)
def test_what_is_sealed_opens_as_it_was(bookmark: Bookmark) -> None:
    """Seal and open are each other's inverse, and the text fits in a URL."""
    sealed = SIGNER.seal(bookmark)
    assert SIGNER.open(sealed) == bookmark
    assert sealed.replace("-", "").replace("_", "").isalnum()


@given(BOOKMARKS, st.data())
def test_one_changed_bit_is_refused(bookmark: Bookmark, data: st.DataObject) -> None:
    """Whatever bit of tag or body is flipped, the cursor is not this server's."""
    sealed = SIGNER.seal(bookmark)
    raw = bytearray(base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4)))
    place = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[place // 8] ^= 1 << place % 8
    with pytest.raises(InvalidRequest):
        SIGNER.open(base64.urlsafe_b64encode(bytes(raw)).decode())


@given(st.text(max_size=80))
def test_what_was_never_sealed_is_refused(text: str) -> None:
    """Any text at all is refused as a wrong cursor, never with another error."""
    with pytest.raises(InvalidRequest, match="cursor"):
        SIGNER.open(text)


def test_a_truncated_cursor_is_refused() -> None:
    """Every prefix of a cursor is refused."""
    sealed = SIGNER.seal(Bookmark("r", (("a", "1"),), "fused", "s", 10))
    for end in range(len(sealed)):
        with pytest.raises(InvalidRequest):
            SIGNER.open(sealed[:end])


def test_the_key_is_the_server_s() -> None:
    """Servers that share a key open each other's cursors; one with another key does not."""
    bookmark = Bookmark("r", (), "fused", "s", 10)
    for made in (bookmark, replace(bookmark, arm="duel"), replace(bookmark, arm="duel", seed="5eed")):
        assert CursorSigner(b"shared").open(CursorSigner(b"shared").seal(made)) == made
    with pytest.raises(InvalidRequest):
        CursorSigner(b"own").open(CursorSigner(b"shared").seal(bookmark))


def test_the_digest_of_a_request_is_of_what_shapes_the_list() -> None:
    """Query, mix, filters and context are told apart, each condition too; the context's order is not."""
    shapes = [
        request(),
        request("csv read"),
        request(mix="other"),
        request(filters=(Filter("year", Equals(1.0)),)),
        request(filters=(Filter("year", Equals("1.0")),)),
        request(filters=(Filter("year", Terms((1.0,))),)),
        request(filters=(Filter("year", Range(1.0)),)),
        request(filters=(Filter("year", Range(None, 1.0)),)),
        request(context={"a": 1.0, "b": "x"}),
        request(context={"a": "1.0", "b": "x"}),
    ]
    assert len(set(map(request_digest, shapes))) == len(shapes)
    turned = request(context={"b": "x", "a": 1.0})
    assert request_digest(turned) == request_digest(shapes[8])


def test_the_digest_of_what_was_served_is_of_the_order() -> None:
    """Another order, other ids or ids cut elsewhere have other digests; odd Unicode has one."""
    served = [["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], [], ["\ud800"]]
    assert len({served_digest(ids) for ids in served}) == len(served)


def test_indexes_are_those_that_answered() -> None:
    """Only backends that answered count, with the version they read."""
    replies = [
        reply("a", hits(version="7")),
        reply("b", None, Outcome.TIMEOUT),
        reply("c", hits(version="")),
    ]
    assert indexes_read(replies) == (("a", "7"), ("c", ""))


def test_who_ranked() -> None:
    """The model's hash where it ranked; the fusion where it did not, whatever model should have."""
    fallback = Scores(candidates([1]).fused, Ranker.FUSED, MODEL, "scoring_failed")
    assert ranker_used(scores([1])) == MODEL.sha256
    assert ranker_used(fallback) == "fused"
    assert ranker_used(Scores(candidates([1]).fused, Ranker.FUSED)) == "fused"


THEN = Bookmark("r", (("a", "1"), ("b", "1")), "fused", served_digest(["x", "y"]), 2)
FUSED = Scores(candidates([1]).fused, Ranker.FUSED)


def now(a: str | None = "1", b: str | None = "1", c: str | None = None) -> list[Reply]:
    versions = {"a": a, "b": b, "c": c}
    return [
        reply(name, None, Outcome.ERROR) if version is None else reply(name, hits(version=version))
        for name, version in versions.items()
    ]


def test_unchanged_inputs_pass() -> None:
    """The same backends with the same versions and the same ranker: the page can be cut."""
    check_inputs(THEN, now(), FUSED)


def test_a_backend_missing_now_is_worth_another_try() -> None:
    """The error names the backend and says to try again; it comes before a changed index is looked at."""
    with pytest.raises(PageUnavailable, match="b answered for the page before"):
        check_inputs(THEN, now(a="2", b=None), FUSED)


def test_a_changed_index_is_the_end_of_the_cursor() -> None:
    """Another version of an index, or a backend that was missing and is back: start again."""
    with pytest.raises(StaleCursor, match="index of b"):
        check_inputs(THEN, now(b="2"), FUSED)
    with pytest.raises(StaleCursor, match="index of c"):
        check_inputs(THEN, now(c="1"), FUSED)


def test_another_ranker_is_the_end_of_the_cursor() -> None:
    """A model in place of the fusion, or the other way about: start again."""
    with pytest.raises(StaleCursor, match="model"):
        check_inputs(THEN, now(), scores([1]))


def test_another_order_is_the_end_of_the_cursor() -> None:
    """Where the head of the list is not what was served, the next page would repeat or lose hits."""
    check_served(THEN, ["x", "y"])
    for other in (["y", "x"], ["x"], ["x", "z"], ["x", "y", "z"]):
        with pytest.raises(StaleCursor, match="ranked list changed"):
            check_served(THEN, other)
