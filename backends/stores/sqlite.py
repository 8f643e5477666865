"""A table of a SQLite file, read on threads: needs no server.

kind: sqlite
file: features.db              # may be replaced by a newer one while it is served
table: sales
id_column: sku                 # texts or whole numbers
key: "{id}"                    # or "{context.user}"
fields: [sales_7d, price]      # columns
threads: 4
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Annotated, Literal

from pydantic import AfterValidator, PositiveInt

from backends.base import BackendError, BackendTimeout
from backends.index import beside_settings
from backends.spans import db_span
from backends.stores.base import Rows, StoreFault, StoreSettings
from backends.stores.tables import rows_of, whole_numbers
from backends.threads import Threads

_INTERRUPT_STEPS = 4000


class SqliteStoreSettings(StoreSettings):
    """See the top of the file."""

    kind: Literal["sqlite"]
    file: Annotated[Path, AfterValidator(beside_settings)]
    table: str
    id_column: str = "id"
    threads: PositiveInt = 4


class SqliteStore:
    """A store in a file."""

    Settings = SqliteStoreSettings

    def __init__(self, settings: SqliteStoreSettings) -> None:
        """Raises: StoreFault where there is no such file, table or column."""
        self._settings, self._width = settings, len(settings.fields)
        # Qualified: SQLite takes a quoted name that it does not know for a text.
        columns = [f"held.{_quoted(name)}" for name in (settings.id_column, *settings.fields)]
        self._select = (
            f"SELECT {', '.join(columns)} FROM {_quoted(settings.table)} AS held "  # noqa: S608
            f"WHERE {columns[0]} IN (SELECT value FROM json_each(?))"
        )
        try:
            self._read([], monotonic() + _OPENING_S)
        except (sqlite3.Error, BackendTimeout) as error:
            raise StoreFault(f"{settings.file}: {error}") from error
        self._threads = Threads(settings.threads, "store")

    async def fetch(self, keys: Sequence[str], timeout_s: float) -> Rows:
        """See `Store`. A statement is interrupted when its time is up."""
        with db_span("sqlite", "SELECT", self._settings.table, str(self._settings.file)):
            return await self._threads.run(partial(self._fetch, keys, monotonic() + timeout_s), timeout_s)

    async def close(self) -> None:
        """See `Store`."""
        await self._threads.close()

    def _fetch(self, keys: Sequence[str], until_s: float) -> Rows:
        try:
            return rows_of(keys, self._read(keys, until_s), self._width)
        except sqlite3.Error as error:
            raise BackendError(f"SQLite failed with {type(error).__name__}") from error

    def _read(self, keys: Sequence[str], until_s: float) -> list[tuple[object, ...]]:
        """Opened for each read, some 50 microseconds: so a file that was put in its place is seen."""
        uri = f"{self._settings.file.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.set_progress_handler(lambda: monotonic() > until_s, _INTERRUPT_STEPS)
            try:
                # A column without a type holds texts and numbers apart.
                asked = json.dumps([*keys, *whole_numbers(keys)])
                return connection.execute(self._select, [asked]).fetchall()
            except sqlite3.OperationalError as error:
                if monotonic() > until_s:
                    raise BackendTimeout("interrupted when its time was up") from error
                raise


_OPENING_S = 5.0


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
