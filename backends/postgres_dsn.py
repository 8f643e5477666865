"""Where PostgreSQL is, as a connection string of libpq tells it; a string that holds a password is none of ours."""

from __future__ import annotations


def address_of(dsn: str) -> tuple[str, int | None]:
    """The server's host and port. Raises: ImportError without psycopg; ValueError, without the words of the string."""
    from psycopg import Error, conninfo

    try:
        parts = conninfo.conninfo_to_dict(dsn)
    except Error:
        raise ValueError("dsn is no connection string that libpq understands") from None
    if parts.get("password"):
        raise ValueError("dsn holds a password; name the environment variable with it in `password_env`")
    host, port = parts.get("host") or parts.get("hostaddr") or "localhost", str(parts.get("port") or 5432)
    return str(host), int(port) if port.isdecimal() else None
