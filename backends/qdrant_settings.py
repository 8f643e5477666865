"""How a collection of Qdrant is searched; `backends/qdrant.py` shows it as it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, PositiveInt, field_validator, model_validator

from backends.base import EngineSettings
from backends.index import beside_settings
from backends.schema import Field as Declared
from backends.schema import Schema


class QdrantField(Declared):
    """A field and the payload key that holds it, of the same name where none is given."""

    key: str = ""


class QdrantSettings(EngineSettings):
    """Where the collection is and how it is searched, see the top of the file."""

    kind: Literal["qdrant"]
    url: str = ""
    path: Annotated[Path, AfterValidator(beside_settings)] | None = None
    api_key_env: str = ""
    collection: str
    vector: str = ""
    embedder: Annotated[Path, AfterValidator(beside_settings)]
    id: str = ""
    fields: dict[str, QdrantField]
    least: float | None = None
    exact: bool = False
    ef: PositiveInt | None = None
    updated_at: str = ""
    connections: PositiveInt = 16

    @field_validator("url")
    @classmethod
    def _holds_no_secret(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "holds more than an address: name the key's environment variable in `api_key_env`"
            )
        if url and parts.scheme not in ("http", "https"):
            raise ValueError("begins with neither http:// nor https://")
        return url

    @model_validator(mode="after")
    def _is_sound(self) -> QdrantSettings:
        _ = self.declared
        if bool(self.url) == (self.path is not None):
            raise ValueError("give either `url`, of a server, or `path`, a folder of the local mode")
        return self

    @property
    def declared(self) -> Schema:
        """The fields without their keys."""
        return Schema(fields={name: Declared(type=field.type) for name, field in self.fields.items()})
