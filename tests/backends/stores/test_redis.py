"""What needs no server; how a real one is read is in tests/integration."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from backends.base import BackendTimeout, BackendUnreachable
from backends.stores.base import StoreFault
from backends.stores.redis import RedisSettings
from tests.doubles import sockets
from tests.doubles.stores import opened


@pytest.mark.parametrize("settings", [{}, {"script": False}, {"layout": "json"}])
async def test_nobody_listens(settings: dict[str, Any]) -> None:
    """A server that is not there is unreachable, at once; one that says nothing is late."""
    with sockets.refusing() as target:
        async with opened({"kind": "redis", "url": f"redis://{target}", **settings}) as store:
            with pytest.raises(BackendUnreachable):
                await store.fetch(["a"], 20.0)
    with sockets.black_hole() as target:
        async with opened({"kind": "redis", "url": f"redis://{target}", **settings}) as store:
            with pytest.raises(BackendTimeout):
                await store.fetch(["a"], 0.05)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://me:secret@host", "password_env"),
        ("redis://host?password=secret", "password_env"),
        ("http://host", "redis://"),
    ],
)
def test_a_url_that_cannot_be(url: str, why: str) -> None:
    """No password in it, and no other protocol; the fault repeats neither."""
    with pytest.raises(ValidationError) as refused:
        RedisSettings.model_validate({"kind": "redis", "url": url, "fields": ["f"]})
    [fault] = refused.value.errors(include_url=False, include_input=False)
    assert why in fault["msg"]
    assert "secret" not in fault["msg"]


async def test_a_password_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found at the start, by the variable's name."""
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(StoreFault, match="NOWHERE is not set"):
        async with opened({"kind": "redis", "url": "redis://host", "password_env": "NOWHERE"}):
            pass
