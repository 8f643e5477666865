"""Bearer tokens that somebody else signed (JWT), checked with the issuer's public keys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from mixer.access_settings import Algorithm, JwtSettings
from mixer.caller import Caller, Scope
from mixer.errors import Unauthenticated

Check = Callable[[str], Caller]
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_SCOPES = {scope.value: scope for scope in Scope}
_REASONS = {
    "ExpiredSignatureError": ("token_expired", "the token is over; ask the issuer for another"),
    "ImmatureSignatureError": (
        "token_too_soon",
        "the token does not count yet; is the issuer's clock right?",
    ),
    "InvalidAudienceError": ("token_for_others", "the token is for another audience"),
    "InvalidIssuerError": ("token_for_others", "the token is of another issuer"),
}
"""What callers are told of PyJWT's errors; of all others, that the token is not good."""


class PublicKey(NamedTuple):
    """As PyJWT takes it, and the algorithms that it is used with: the token's own word is not enough."""

    key: Any
    algorithms: list[str]


class Tokens:
    """Checks tokens by the keys that a file holds."""

    def __init__(self, settings: JwtSettings, keys: Mapping[str, PublicKey]) -> None:
        """`keys` by their ids; a single one without an id by the empty one."""
        self._settings, self._keys = settings, keys

    def caller(self, token: str) -> Caller:
        """Whose token it is. Raises: Unauthenticated."""
        import jwt

        settings = self._settings
        try:
            public = self._key(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                public.key,
                algorithms=public.algorithms,
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_s,
                options={"require": ["exp", "aud", "iss"]},
            )
        except jwt.PyJWTError as error:
            told = _REASONS.get(
                type(error).__name__, ("bad_token", "the token is not one that this server takes")
            )
            raise Unauthenticated(*told) from None
        return self._caller(claims)

    def _key(self, kid: object) -> PublicKey:
        import jwt

        if isinstance(kid, str) and kid in self._keys:
            return self._keys[kid]
        if len(self._keys) == 1 and (kid is None or "" in self._keys):
            return next(iter(self._keys.values()))
        raise jwt.InvalidKeyError("no such key")

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        tenant, scopes = claims.get(self._settings.tenant_claim), claims.get(self._settings.scopes_claim, ())
        if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
            raise Unauthenticated(
                "bad_token", f"the token's claim {self._settings.tenant_claim!r} names no tenant"
            )
        words = scopes.split() if isinstance(scopes, str) else scopes if isinstance(scopes, list) else ()
        known = frozenset(_SCOPES[word] for word in words if isinstance(word, str) and word in _SCOPES)
        return Caller(tenant, known or frozenset({Scope.SEARCH}))


def reader(settings: JwtSettings) -> Callable[[Sequence[bytes]], Tokens]:
    """What reads the keys' file; that raises ValueError where it holds none. Raises: ValueError without the extra."""
    try:
        import jwt  # noqa: F401
    except ImportError as error:
        raise ValueError("jwt: needs the extra `jwt`: pip install '.[jwt]' in Mixer's checkout") from error
    return lambda contents: Tokens(settings, _keys(contents[0], settings))


def _keys(content: bytes, settings: JwtSettings) -> Mapping[str, PublicKey]:
    found = _pem(content) if content.lstrip().startswith(b"-----BEGIN") else _key_set(content)
    usable = {
        id_: PublicKey(key, [name for name in names if name in settings.algorithms])
        for id_, (key, names) in found.items()
    }
    usable = {id_: public for id_, public in usable.items() if public.algorithms}
    if not usable:
        raise ValueError(f"jwks: holds no public key for {', '.join(settings.algorithms)}")
    return usable


def _key_set(content: bytes) -> Mapping[str, PublicKey]:
    import jwt

    try:
        found = jwt.PyJWKSet.from_dict(json.loads(content)).keys
    except (ValueError, AttributeError, KeyError, TypeError, jwt.PyJWTError):
        raise ValueError("jwks: is neither a JSON Web Key Set nor a PEM public key") from None
    return {key.key_id or "": PublicKey(key, [key.algorithm_name]) for key in found}


def _pem(content: bytes) -> Mapping[str, PublicKey]:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(content)
    except ValueError:
        raise ValueError("jwks: holds no PEM public key") from None
    family = (
        "RP" if isinstance(key, RSAPublicKey) else "E" if isinstance(key, EllipticCurvePublicKey) else "Ed"
    )
    return {"": PublicKey(key, [name for name in get_args(Algorithm) if _is_of(name, family)])}


def _is_of(algorithm: str, family: str) -> bool:
    return algorithm == "EdDSA" if family == "Ed" else algorithm != "EdDSA" and algorithm[0] in family
