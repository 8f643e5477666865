"""API keys: made, hashed, looked up without telling by time, and files that are wrong."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mixer import keys
from mixer.caller import Caller, Scope

PLANTED = "zqplanted7secret"


def text_of(*made: keys.NewKey) -> bytes:
    return "\n".join(each.line for each in made).encode()


def test_a_new_key_lets_its_holder_in() -> None:
    """By the line that is printed with it, which holds no part of the key; no two keys are the same."""
    one, other = keys.new("acme", [Scope.DEBUG, Scope.SEARCH]), keys.new("other", [Scope.SEARCH])
    read = keys.read([text_of(one, other)])
    assert read.caller(one.key) == Caller("acme", frozenset({Scope.SEARCH, Scope.DEBUG}))
    assert read.caller(other.key) == Caller("other", frozenset({Scope.SEARCH}))
    assert read.caller(one.key + "x") is None
    assert one.key not in one.line
    assert len(one.key) >= len(keys.PREFIX) + 43
    assert yaml.safe_load(text_of(one)) == {
        keys.hash_of(one.key): {"tenant": "acme", "scopes": ["search", "debug"]}
    }


def test_who_says_no_scopes_may_search() -> None:
    """A line without scopes allows the least."""
    line = f"{keys.hash_of('k')}: {{tenant: acme}}".encode()
    assert keys.read([line]).caller("k") == Caller("acme", frozenset({Scope.SEARCH}))


@pytest.mark.parametrize("place", [0, 1, 2, None])
def test_every_entry_is_compared(place: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the key stands, or nowhere: as many comparisons, each in constant time."""
    made = [keys.new("acme", [Scope.SEARCH]) for _ in range(3)]
    read = keys.read([text_of(*made)])
    compared: list[bool] = []

    def compare(one: Any, other: Any) -> bool:
        compared.append(real(one, other))
        return compared[-1]

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    found = read.caller("none" if place is None else made[place].key)
    assert compared == [number == place for number in range(3)]
    assert (found is not None) == (place is not None)


@given(st.text(max_size=200))
def test_no_text_is_a_key_by_chance(text: str) -> None:
    """Whatever is sent is a key or not, and never an error."""
    assert keys.Keys({keys.hash_of("k"): keys.Grant(tenant="t")}).caller(text) is (
        None if text != "k" else keys.Keys({}).caller("k")
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{PLANTED}: {{tenant: acme}}", "entry 1: is not the SHA-256 of a key"),
        (f"{'a' * 64}: {{tenant: a}}\n{PLANTED}: {{tenant: acme}}", "entry 2: is not the SHA-256"),
        (f"{'a' * 64}: {{tenant: acme, scopes: [{PLANTED}]}}", "entry 1: scopes"),
        (f"{'a' * 64}: {{tenant: '{PLANTED} {{}}'}}", "entry 1: tenant"),
        (f"{'a' * 64}: {{tenant: acme, scopes: []}}", "entry 1: scopes"),
        (f"{'a' * 64}: {{tenant: acme, {PLANTED}: 1}}", "entry 1"),
        (f"{'a' * 64}: {PLANTED}", "entry 1"),
        (f"{'a' * 64}: {{tenant: a}}\n{'a' * 64}: {{tenant: b}}", "line 2: stands twice"),
        (f"[{PLANTED}", "is not YAML, line"),
        (f"- {PLANTED}", "is not a mapping"),
        (PLANTED, "is not a mapping"),
        ("\xff", "is not"),
    ],
)
def test_faults_do_not_show_the_file(text: str, why: str) -> None:
    """A file of keys that is wrong is told of by place: what stands in it may be a key."""
    with pytest.raises(ValueError, match=why) as caught:
        keys.read([text.encode("latin-1")])
    assert PLANTED not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("tenant", ["", "a b", "-a", "a" * 65, "a\n"])
def test_names_of_tenants(tenant: str) -> None:
    """A tenant's name is one word that logs and metrics can hold."""
    with pytest.raises(ValidationError):
        keys.new(tenant, [Scope.SEARCH])
