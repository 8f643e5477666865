"""How a table of PostgreSQL is searched; `backends/postgres.py` shows it as it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PositiveInt, field_validator, model_validator

from backends.base import EngineSettings
from backends.index import beside_settings
from backends.schema import Field as Declared
from backends.schema import Schema

_PASSWORD = re.compile(r"(^|[\s?&])(ssl)?password\s*=", re.IGNORECASE)
_TABLE = re.compile(r"[^.\0]+(\.[^.\0]+)?")


class Weights(EngineSettings):
    """What a word of each class of a tsvector counts."""

    A: float = 1.0
    B: float = 0.4
    C: float = 0.2
    D: float = 0.1


class WordSearch(EngineSettings):
    """Full text search."""

    mode: Literal["words"]
    column: str = ""
    expression: str = ""
    language: str = "english"
    match: Literal["any", "all", "web"] = "any"
    weights: Weights = Weights()
    normalization: Annotated[int, Field(ge=0, lt=64)] = 0
    parameters: Mapping[str, str | float] = {}

    @model_validator(mode="after")
    def _one_source(self) -> WordSearch:
        if bool(self.column) == bool(self.expression):
            raise ValueError("give either `column`, a tsvector, or `expression`, SQL that makes one")
        return self


class VectorSearch(EngineSettings):
    """Nearness of vectors."""

    mode: Literal["vectors"]
    column: str
    metric: Literal["cosine", "l2", "inner_product"] = "cosine"
    embedder: Annotated[Path, AfterValidator(beside_settings)]
    least: float | None = None
    parameters: Mapping[str, str | float] = {}


class PostgresField(Declared):
    """A field and the column that holds it, of the same name where none is given."""

    column: str = ""


class PostgresSettings(EngineSettings):
    """Where the table is and how it is searched, see the top of the file."""

    kind: Literal["postgres"]
    dsn: str
    password_env: str = ""
    table: str
    id: str = "id"
    fields: dict[str, PostgresField]
    search: Annotated[WordSearch | VectorSearch, Field(discriminator="mode")]
    version: Literal["writes", "wal", "updated_at"] = "writes"
    updated_at: str = ""
    connections: PositiveInt = 8
    connect_timeout_s: PositiveInt = 3
    prepared: bool = True

    @field_validator("dsn")
    @classmethod
    def _holds_no_password(cls, dsn: str) -> str:
        if _PASSWORD.search(dsn) or ("://" in dsn and urlsplit(dsn).password):
            raise ValueError("holds a password; name the environment variable with it in `password_env`")
        return dsn

    @model_validator(mode="after")
    def _is_sound(self) -> PostgresSettings:
        _ = self.declared
        if not _TABLE.fullmatch(self.table):
            raise ValueError("`table` is a table's name, or a schema's and a table's with a dot between")
        if self.version == "updated_at" and not self.updated_at:
            raise ValueError("`version: updated_at` needs the column's name in `updated_at`")
        return self

    @property
    def declared(self) -> Schema:
        """The fields without their columns."""
        return Schema(fields={name: Declared(type=field.type) for name, field in self.fields.items()})
