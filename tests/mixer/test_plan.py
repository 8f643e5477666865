from __future__ import annotations

from dataclasses import replace

import pytest

from backends.base import Query
from mixer.cursor import CursorSigner, request_digest
from mixer.errors import DeadlineTooShort, InvalidRequest
from mixer.plan import MakePlan
from mixer.values import Bookmark, Effort, Request
from tests.samples import SIGNER, mix, only, plan, request


def test_every_backend_is_asked_in_the_mix_s_order() -> None:
    """One call a backend, with the caller's words and filters and the backend's own limit."""
    asked = request("find it", filters=(only("x"),))
    made = plan(mix(members={"b": {"limit": 7}, "a": {"limit": 3}}), asked)
    assert [call.backend for call in made.calls] == ["b", "a"]
    assert [call.query for call in made.calls] == [
        Query("find it", 7, asked.filters),
        Query("find it", 3, asked.filters),
    ]


def test_the_fields_asked_for_are_those_that_are_used() -> None:
    """What is shown, what features read and what diversity groups by: each once, sorted."""
    rules = mix(
        "a",
        fields=["title", "url"],
        features=[
            {"name": "year", "source": "number", "field": "year"},
            {"name": "title", "source": "text", "fields": ["title", "body"], "measure": "exact"},
        ],
        diversity={"field": "site", "max": 2},
    )
    assert plan(rules).calls[0].query.fields == ("body", "site", "title", "url", "year")


def test_a_backend_gets_its_own_time_or_what_is_left() -> None:
    """The timeout of a call is the lesser of the backend's own and the deadline less the reserve for ranking."""
    rules = mix(members={"a": {"timeout_s": 0.3}, "b": {"timeout_s": 5.0}}, rank_reserve_s=0.1)
    assert [call.timeout_s for call in plan(rules, request(time_left_s=1.0)).calls] == [0.3, 0.9]
    shorter = plan(rules, request(time_left_s=0.25)).calls
    assert [call.timeout_s for call in shorter] == pytest.approx([0.15, 0.15])


@pytest.mark.parametrize(("left_s", "expected_s"), [(5.1, 2.0), (1.1, 0.75), (0.3, 0.1), (0.14, 0.02)])
def test_stores_keep_time_for_themselves(left_s: float, expected_s: float) -> None:
    """They are asked after the backends: those leave them the longest of their timeouts, but never more than half."""
    rules = mix(
        members={"a": {"timeout_s": 2.0}},
        rank_reserve_s=0.1,
        stores={"p": {"timeout_s": 0.25}, "q": {"timeout_s": 0.05}},
    )
    assert plan(rules, request(time_left_s=left_s)).calls[0].timeout_s == pytest.approx(expected_s)


@pytest.mark.parametrize("left_s", [0.1, 0.05, 0.0, -3.0])
def test_a_deadline_within_the_reserve_asks_nobody(left_s: float) -> None:
    """Where nothing is left beside the reserve, the request fails at once and says how much is kept."""
    with pytest.raises(DeadlineTooShort, match="100 ms"):
        plan(mix("a", rank_reserve_s=0.1), request(time_left_s=left_s))


def test_without_a_cursor_the_page_begins_at_the_offset() -> None:
    """No bookmark; the offset is the caller's."""
    made = plan(asked=request(offset=20))
    assert (made.offset, made.bookmark) == (20, None)


def bookmark(asked: Request, offset: int = 10) -> Bookmark:
    return Bookmark(request_digest(asked), (("a", "v1"),), "fused", "digest", offset)


def test_a_cursor_says_where_the_page_begins() -> None:
    """The bookmark sealed in the cursor comes back, and its offset is the page's."""
    kept = bookmark(request(), 10)
    made = plan(asked=request(cursor=SIGNER.seal(kept)))
    assert (made.offset, made.bookmark) == (10, kept)


@pytest.mark.parametrize(
    "other",
    [
        {"query": "other words"},
        {"mix": "other"},
        {"filters": (only("x"),)},
        {"context": {"age": 31.0}},
        {"context": {"plan": "free"}},
    ],
)
def test_a_cursor_of_another_request_is_refused(other: dict[str, object]) -> None:
    """What shapes the list must be as in the first request; the field named is the cursor."""
    cursor = SIGNER.seal(bookmark(request()))
    with pytest.raises(InvalidRequest) as refused:
        plan(asked=replace(request(), cursor=cursor, **other))  # type: ignore[arg-type]
    assert [violation.field for violation in refused.value.violations] == ["cursor"]


@pytest.mark.parametrize("free", [{"page_size": 3}, {"debug": True}, {"query_id": "q"}, {"time_left_s": 0.5}])
def test_what_does_not_shape_the_list_may_change(free: dict[str, object]) -> None:
    """Page size, debug, id and deadline may differ from page to page."""
    cursor = SIGNER.seal(bookmark(request()))
    assert plan(asked=replace(request(), cursor=cursor, **free)).offset == 10  # type: ignore[arg-type]


def test_another_server_s_cursor_is_refused() -> None:
    """A cursor sealed with another key is not opened."""
    cursor = CursorSigner(b"another key").seal(bookmark(request()))
    with pytest.raises(InvalidRequest):
        MakePlan(mix("a"), SIGNER)(request(cursor=cursor))


def test_under_load_optional_backends_are_skipped() -> None:
    """Their calls stay in their place and say why they are not put; the plan says what is lacking."""
    rules = mix(members={"a": {}, "b": {"optional": True}, "c": {}})
    made = plan(rules, request(effort=Effort(optional=False)))
    assert [(call.backend, bool(call.skipped)) for call in made.calls] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]
    assert made.lacking == ("load: optional backends skipped",)
    assert not any(call.skipped for call in plan(rules).calls)


def test_under_load_fewer_candidates_are_asked_for() -> None:
    """The same share of every backend's limit, one at least; a mix without optional backends lacks none."""
    rules = mix(members={"a": {"limit": 100}, "b": {"limit": 1}})
    made = plan(rules, request(effort=Effort(optional=False, limit_share=0.25)))
    assert [call.query.limit for call in made.calls] == [25, 1]
    assert made.lacking == ("load: candidate limits lowered",)
    assert plan(rules).lacking == ()


def test_a_call_knows_what_the_mix_would_give_it() -> None:
    """Whatever the caller's deadline leaves."""
    rules = mix(members={"a": {"timeout_s": 0.5}}, rank_reserve_s=0.1)
    (call,) = plan(rules, request(time_left_s=0.2)).calls
    assert [call.timeout_s, call.most_s] == pytest.approx([0.1, 0.5])
