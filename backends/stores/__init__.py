"""Feature stores behind Mixer: one file a store, and the table of them.

Importing this is cheap: a store imports its library when it is opened.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from backends.stores.base import Store
from backends.stores.postgres import Postgres, PostgresSettings
from backends.stores.redis import Redis, RedisSettings
from backends.stores.sqlite import SqliteStore, SqliteStoreSettings

__all__ = ["STORES", "AnyStoreSettings", "open_store"]

AnyStoreSettings = Annotated[
    RedisSettings | PostgresSettings | SqliteStoreSettings,
    Field(discriminator="kind"),
]

STORES: dict[str, Any] = {
    "redis": Redis,
    "postgres": Postgres,
    "sqlite": SqliteStore,
}
"""A class by kind: called with its settings it opens."""


def open_store(settings: AnyStoreSettings) -> Store:
    """The store that these settings describe. It connects when it is first asked.

    Raises: StoreFault where its library is not installed, its password is not set, or its file is not there.
    """
    store: Store = STORES[settings.kind](settings)
    return store
