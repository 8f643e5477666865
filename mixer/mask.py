"""Takes secrets out of what people read: error messages of libraries may quote a URL, a header or a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_NAMED = r"passw(?:or)?d|secret|token|api[-_]?key|authorization|credential|x-honeycomb-team"
_QUOTED = r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\""
# Nothing before a name, and no two ways to read one text: a long line must not take long.
_SECRETS = re.compile(
    r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY-----.*?(?:-----END (?:[A-Z]+ ){0,3}PRIVATE KEY-----|\Z)"
    r"|\bmixer_[\w-]{20,}"  # our own keys
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]*"  # tokens
    r"|(?P<scheme>://)[^\s/@'\"]+(?=@)"
    r"|(?P<bearer>\b(?:bearer|basic)\s{1,4})[\w.~+/=-]{8,}"
    rf"|(?P<named>(?:{_NAMED})[\w-]{{0,40}}['\"]?\s{{0,4}}(?:=>|=|:)\s{{0,4}})"
    rf"(?:{_QUOTED}|(?:(?:bearer|basic)\s{{1,4}})?['\"]?[^\s,;&'\"}}\])]+)",
    re.IGNORECASE | re.DOTALL,
)


def masked(text: str) -> str:
    """The text, without passwords of URLs, private keys, API keys, tokens, and what is named like a secret."""
    return _SECRETS.sub(_replacement, text)


def masked_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same of every text among values by name, also within lists."""
    return {name: _masked(value) for name, value in values.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return masked_values(value)
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


def _replacement(found: re.Match[str]) -> str:
    return (found["scheme"] or found["bearer"] or found["named"] or "") + MASK
