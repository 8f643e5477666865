"""API keys: long random texts, of which a file holds hashes only.

"5f2c…": {tenant: acme, scopes: [search, feedback]}      # by the SHA-256 of the key, hex; YAML or JSON
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from mixer.access_settings import TenantName
from mixer.caller import Caller, Scope
from mixer.faults import Fault, describe, repeated_keys
from mixer.frozen import Frozen

PREFIX = "mixer_"
"""Of every key, so that scanners of source code find one that was committed."""
_BYTES = 32


class Grant(Frozen):
    """What a key's holder may do, and for whom."""

    tenant: TenantName
    scopes: Annotated[frozenset[Scope], Field(min_length=1)] = frozenset({Scope.SEARCH})


_Grants = TypeAdapter(dict[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], Grant])


def hash_of(key: str) -> str:
    """What the file holds of a key. Plain SHA-256 is enough for 256 random bits; for words it would not be."""
    return sha256(key.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and the line of the file that lets its holder in."""

    key: str
    line: str


def new(tenant: str, scopes: Sequence[Scope]) -> NewKey:
    """A key of 256 random bits. Raises: ValidationError where the tenant's name is none."""
    grant = Grant(tenant=tenant, scopes=frozenset(scopes))
    key = PREFIX + secrets.token_urlsafe(_BYTES)
    named = {"tenant": grant.tenant, "scopes": [scope.value for scope in Scope if scope in grant.scopes]}
    return NewKey(key, f"{json.dumps(hash_of(key))}: {json.dumps(named)}")


class Keys:
    """Whoever the file lets in, by their keys."""

    def __init__(self, grants: Mapping[str, Grant]) -> None:
        """`grants` by the hash of their keys."""
        self._callers = [
            (digest.encode(), Caller(grant.tenant, grant.scopes)) for digest, grant in grants.items()
        ]

    def __len__(self) -> int:
        return len(self._callers)

    def caller(self, key: str) -> Caller | None:
        """Whose key it is. Takes as long whether it is the first of all, the last, or none."""
        asked, found = hash_of(key).encode(), None
        for digest, caller in self._callers:
            if hmac.compare_digest(asked, digest):
                found = caller
        return found


def read(contents: Sequence[bytes]) -> Keys:
    """The keys that one file holds. Raises: ValueError with every fault; no fault shows what stands in the file."""
    try:
        text = contents[0].decode("utf-8")
        tree, raw = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"keys: is not YAML{f', line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(raw, dict):
        raise ValueError("keys: is not a mapping of the hashes of keys")
    if repeated := [fault.line for fault in repeated_keys(tree)]:
        raise ValueError(f"keys: line {repeated[0]}: stands twice")
    try:
        return Keys(_Grants.validate_python(raw))
    except ValidationError as error:
        places = {str(key): place for place, key in enumerate(raw, 1)}
        raise ValueError("; ".join(_told(fault, places) for fault in describe(error))) from None


def _told(fault: Fault, places: Mapping[str, int]) -> str:
    """By the entry's place: what stands where a hash should may be the key itself."""
    entry, _, rest = fault.path.partition(".")
    field = rest.partition(".")[0]
    if field in Grant.model_fields:
        return f"keys: entry {places[entry]}: {rest}: {fault.message}"
    told = {"": fault.message, "[key]": _NO_HASH}.get(rest, f"takes {', '.join(Grant.model_fields)}, no more")
    return f"keys: entry {places[entry]}: {told}"


_NO_HASH = "is not the SHA-256 of a key, 64 hex digits; `mixer keys new` prints such a line"
