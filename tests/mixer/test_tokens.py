"""Tokens: those of the issuer are taken, and none of the known ways to forge one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mixer import tokens
from mixer.access_settings import JwtSettings
from mixer.caller import Caller, Scope
from mixer.errors import Unauthenticated

RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
EC, ED = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
RULES: dict[str, Any] = {"issuer": "https://issuer", "audience": "mixer", "jwks": "jwks.json"}


def pem(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))


def jwk(key: Any, algorithm: str, kid: str) -> dict[str, Any]:
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, "alg": algorithm, "use": "sig"}


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


SET = key_set(jwk(RSA, "RS256", "r"), jwk(EC, "ES256", "e"))


def claims(**other: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {"iss": "https://issuer", "aud": "mixer", "exp": now + 600, "tenant": "acme", "scope": "search"}
    return {name: value for name, value in {**made, **other}.items() if value is not None}


def checking(content: bytes = SET, **rules: Any) -> Callable[[str], Caller]:
    return tokens.reader(JwtSettings.model_validate({**RULES, **rules}))([content]).caller


def refused(token: str, content: bytes = SET, **rules: Any) -> str:
    with pytest.raises(Unauthenticated) as caught:
        checking(content, **rules)(token)
    assert not token or token not in str(caught.value)
    assert caught.value.reason
    return caught.value.reason.word


def by_hand(header: dict[str, Any], payload: dict[str, Any], secret: bytes = b"") -> str:
    """A token as a forger writes it."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    signed = hmac.new(secret, b".".join(parts), hashlib.sha256).digest() if secret else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signed).rstrip(b"=")]).decode()


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA, "RS256", "r"), (EC, "ES256", "e")], ids=["RS256", "ES256"]
)
def test_the_issuers_tokens(key: Any, algorithm: str, kid: str) -> None:
    """By the key that the token names, of a set."""
    token = jwt.encode(claims(), key, algorithm, {"kid": kid})
    assert checking()(token) == Caller("acme", frozenset({Scope.SEARCH}))


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (RSA, "PS512"), (EC, "ES256"), (ED, "EdDSA")],
    ids=["RS256", "PS512", "ES256", "EdDSA"],
)
def test_one_public_key_as_pem(key: Any, algorithm: str) -> None:
    """The file may be the key itself, for whichever algorithms are of its kind."""
    token = jwt.encode(claims(), key, algorithm)
    every = ["RS256", "PS512", "ES256", "EdDSA"]
    assert checking(pem(key), algorithms=every)(token).tenant == "acme"


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("search debug", {"search", "debug"}),
        (["feedback", "explain"], {"feedback", "explain"}),
        ("admin debug", {"debug"}),
        ("admin", {"search"}),
        (7, {"search"}),
        ([7, "debug"], {"debug"}),
        (None, {"search"}),
    ],
)
def test_scopes(scope: Any, scopes: set[str]) -> None:
    """Words or a list; those that are not Mixer's are passed over, and none of ours allows the least."""
    token = jwt.encode(claims(scope=scope), RSA, "RS256", {"kid": "r"})
    assert checking()(token).scopes == {Scope(scope) for scope in scopes}


def test_claims_of_other_names() -> None:
    """Issuers call them what they will."""
    token = jwt.encode(claims(org="o1", perms=["debug"]), RSA, "RS256", {"kid": "r"})
    asked = checking(tenant_claim="org", scopes_claim="perms")
    assert asked(token) == Caller("o1", frozenset({Scope.DEBUG}))


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"exp": 1}, "token_expired"),
        ({"exp": None}, "bad_token"),
        ({"nbf": 4_000_000_000}, "token_too_soon"),
        ({"aud": "others"}, "token_for_others"),
        ({"aud": None}, "bad_token"),
        ({"iss": "https://elsewhere"}, "token_for_others"),
        ({"iss": None}, "bad_token"),
        ({"tenant": None}, "bad_token"),
        ({"tenant": 7}, "bad_token"),
        ({"tenant": "a b"}, "bad_token"),
        ({"tenant": "acme\n"}, "bad_token"),
    ],
)
def test_claims_that_do_not_fit(other: dict[str, Any], word: str) -> None:
    """An end, the audience, the issuer and a tenant are required; metrics say which was wrong."""
    assert refused(jwt.encode(claims(**other), RSA, "RS256", {"kid": "r"})) == word


def test_leeway() -> None:
    """Clocks differ by a little."""
    token = jwt.encode(claims(exp=int(time.time()) - 60), RSA, "RS256", {"kid": "r"})
    assert refused(token, leeway_s=10) == "token_expired"
    assert checking(leeway_s=300)(token).tenant == "acme"


def test_forged_tokens() -> None:
    """No signature; the public key as a secret; another's key; another's key named as ours; an algorithm not listed."""
    forged = [
        by_hand({"alg": "none", "kid": "r"}, claims()),
        by_hand({"alg": "None"}, claims()),
        by_hand({"alg": "HS256", "kid": "r"}, claims(), pem(RSA)),
        by_hand({"alg": "HS256", "kid": "r"}, claims(), SET),
        by_hand({"alg": "RS256", "kid": "r"}, claims(), pem(RSA)),
        jwt.encode(claims(), OTHER_RSA, "RS256", {"kid": "r"}),
        jwt.encode(claims(), OTHER_RSA, "RS256", {"kid": "other"}),
        jwt.encode(claims(), RSA, "RS256", {"kid": "e"}),
        jwt.encode(claims(), RSA, "PS256", {"kid": "r"}),
        jwt.encode(claims(), RSA, "RS256"),
        jwt.encode(claims(), OTHER_RSA, "RS256", {"jwk": jwk(OTHER_RSA, "RS256", "r"), "kid": "r"}),
    ]
    assert {refused(token) for token in forged} == {"bad_token"}
    as_pem = [token for place, token in enumerate(forged) if place not in (7, 9)]
    assert {refused(token, pem(RSA)) for token in as_pem} == {"bad_token"}
    assert refused(by_hand({"alg": "HS256"}, claims(), pem(RSA)), pem(RSA)) == "bad_token"
    assert refused(jwt.encode(claims(), RSA, "RS256"), pem(EC)) == "bad_token"


@pytest.mark.parametrize("token", ["", "..", "a.b.c", "x" * 10_000, "\x00.\xff.é", "e30.e30.e30"])
def test_what_is_no_token(token: str) -> None:
    """Any text may be sent as one."""
    assert refused(token) == "bad_token"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "neither"),
        (b"[]", "neither"),
        (b"{}", "neither"),
        (b'{"keys": []}', "neither"),
        (b"-----BEGIN PUBLIC KEY-----\nnone", "no PEM public key"),
        (
            key_set({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "s"}),
            "no public key for",
        ),
        (key_set(jwk(RSA, "RS512", "r")), "no public key for RS256, ES256"),
    ],
    ids=["empty", "list", "mapping", "no_keys", "torn", "shared_secret", "other_algorithm"],
)
def test_files_without_a_key(content: bytes, why: str) -> None:
    """Is a fault of the file; a shared secret is none of the keys that are taken."""
    with pytest.raises(ValueError, match=why) as caught:
        checking(content)
    assert "c2VjcmV0" not in str(caught.value)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at start what to install."""
    monkeypatch.setitem(__import__("sys").modules, "jwt", None)
    with pytest.raises(ValueError, match=r"\.\[jwt\]"):
        checking()


def test_only_public_keys_check_tokens() -> None:
    """An algorithm with a shared secret is a fault of the settings."""
    with pytest.raises(ValueError, match="algorithms"):
        JwtSettings.model_validate({**RULES, "algorithms": ["RS256", "HS256"]})
