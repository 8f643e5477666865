from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from backends.stores.key import KeyTemplate


@pytest.mark.parametrize(
    ("template", "context", "keys"),
    [
        ("{id}", {}, ["x", "{id}"]),
        ("doc:{id}", {}, ["doc:x", "doc:{id}"]),
        ("{id}/{id}!", {}, ["x/x!", "{id}/{id}!"]),
        ("user:{context.user}", {"user": "ann"}, ["user:ann"]),
        ("u:{context.user}:{id}", {"user": "{id}"}, ["u:{id}:x", "u:{id}:{id}"]),
        ("{context.a.b}-{context.c}", {"a.b": 42.0, "c": 0.5}, ["42-0.5"]),
    ],
)
def test_keys(template: str, context: Mapping[str, str | float], keys: Sequence[str]) -> None:
    """Places are filled once: what callers and documents are called is never read as a place itself."""
    assert list(KeyTemplate.parse(template).keys(["x", "{id}"], context)) == keys


def test_what_a_key_hangs_on() -> None:
    """One a document or one for all, and what the caller has to send."""
    both, user = KeyTemplate.parse("{context.user}{id}"), KeyTemplate.parse("{context.user}{context.shop}")
    assert (both.per_document, both.context_keys) == (True, ("user",))
    assert (user.per_document, user.context_keys) == (False, ("user", "shop"))
    assert user.lacking({"user": "ann"}) == "shop"
    assert user.lacking({"user": "", "shop": "s"}) == "user"
    assert user.lacking({"user": 0.0, "shop": "s"}) == ""


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("doc", "the same for all"),
        ("", "the same for all"),
        ("{ID}", "knows no {ID}"),
        ("{user}", "knows no {user}"),
        ("{context.}", "names no context key"),
        ("{}", "names no context key"),
        ("{id", "without its other half"),
        ("{{id}}", "without its other half"),
    ],
)
def test_a_template_that_cannot_be(template: str, why: str) -> None:
    """Its fault is named."""
    with pytest.raises(ValueError, match=why):
        KeyTemplate.parse(template)
