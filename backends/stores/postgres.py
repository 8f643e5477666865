"""A table or view of PostgreSQL, or of what speaks its protocol. Extra: `postgres`.

    kind: postgres
    dsn: postgresql://mixer@db:5432/shop?sslmode=verify-full   # as libpq takes it, without a password
    password_env: SHOP_PASSWORD    # the environment variable that holds it; leave out where none is needed
    table: public.sales            # or a view: what is joined or aggregated there is read here
    id_column: sku
    id_type: text                  # or `integer`: keys that are no whole number are missing then
    key: "{id}"                    # or "{context.user}"
    fields: [sales_7d, price]      # columns
    connections: 8
    connect_timeout_s: 2

    SELECT sku, sales_7d, price FROM public.sales WHERE sku = ANY($1)

One round trip a request. What is late is canceled at the server too, beside the request. A connection that broke is
opened again within the time of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from backends.base import BackendUnreachable
from backends.postgres_dsn import address_of
from backends.postgres_pool import Pool, translated
from backends.spans import db_span
from backends.stores.base import Rows, StoreFault, StoreSettings, password_from
from backends.stores.tables import rows_of, whole_numbers

if TYPE_CHECKING:
    from psycopg.sql import Composed


class PostgresSettings(StoreSettings):
    """See the top of the file."""

    kind: Literal["postgres"]
    dsn: str
    password_env: str = ""
    table: str
    id_column: str = "id"
    id_type: Literal["text", "integer"] = "text"
    connections: PositiveInt = 8
    connect_timeout_s: PositiveInt = 2


class Postgres:
    """A store in a table."""

    Settings = PostgresSettings

    def __init__(self, settings: PostgresSettings) -> None:
        """Connects when first asked. Raises: StoreFault."""
        self._settings, self._width = settings, len(settings.fields)
        self._server = _address(settings.dsn)
        password = password_from(settings.password_env) or ""
        size, connect_timeout_s = settings.connections, settings.connect_timeout_s
        self._pool = Pool(settings.dsn, password, size, connect_timeout_s, prepared=False)
        self._select = _select(settings)

    async def fetch(self, keys: Sequence[str], timeout_s: float) -> Rows:
        """See `Store`."""
        with db_span("postgresql", "SELECT", self._settings.table, *self._server):
            return rows_of(keys, await self._pool.run(self._ask(keys, timeout_s), timeout_s), self._width)

    async def close(self) -> None:
        """See `Store`."""
        await self._pool.close()

    async def _ask(self, keys: Sequence[str], timeout_s: float) -> list[tuple[Any, ...]]:
        """A connection that broke, as all do where a server restarts, is no reason to fail: others are opened."""
        wanted = whole_numbers(keys) if self._settings.id_type == "integer" else list(keys)
        ask = partial(self._rows, wanted, timeout_s)
        try:
            return await ask()
        except BackendUnreachable:
            await self._pool.renew()
            return await ask()

    async def _rows(self, wanted: list[Any], timeout_s: float) -> list[tuple[Any, ...]]:
        import psycopg

        async with self._pool.connection(timeout_s) as connection:
            try:
                await connection.set_autocommit(True)  # a transaction would be one more round trip
                answer = await connection.execute(self._select, [wanted], binary=True)
                return await answer.fetchall()
            except psycopg.Error as error:
                raise translated(error, connection) from error


def _address(dsn: str) -> tuple[str, int | None]:
    """Of the server. Raises: StoreFault, without the words of the dsn."""
    try:
        return address_of(dsn)
    except ImportError as error:
        raise StoreFault(
            "kind postgres is not installed: pip install '.[postgres]' in Mixer's checkout"
        ) from error
    except ValueError as fault:
        raise StoreFault(str(fault)) from None


def _select(settings: PostgresSettings) -> Composed:
    from psycopg.sql import SQL, Identifier

    columns = SQL(", ").join(map(Identifier, (settings.id_column, *settings.fields)))
    kind = SQL("bigint[]" if settings.id_type == "integer" else "text[]")
    source, column = Identifier(*settings.table.split(".")), Identifier(settings.id_column)
    return SQL("SELECT {} FROM {} WHERE {} = ANY(%s::{})").format(columns, source, column, kind)
