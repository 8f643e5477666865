"""Search engines behind Mixer: one file an engine, and the table of them.

Importing this is cheap: an engine imports its library when it opens or builds an index.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from backends.base import Backend
from backends.memory import Memory, MemorySettings
from backends.opensearch import OpenSearch
from backends.opensearch_settings import OpenSearchSettings
from backends.postgres import Postgres
from backends.postgres_settings import PostgresSettings
from backends.qdrant import Qdrant
from backends.qdrant_settings import QdrantSettings
from backends.remote import Remote, RemoteSettings
from backends.solr import Solr
from backends.solr_settings import SolrSettings
from backends.sqlite import Sqlite, SqliteSettings
from backends.tantivy import Tantivy, TantivySettings
from backends.vectors import Vectors, VectorsSettings

__all__ = ["ENGINES", "BackendSettings", "open_backend"]

BackendSettings = Annotated[
    TantivySettings
    | VectorsSettings
    | SqliteSettings
    | PostgresSettings
    | QdrantSettings
    | OpenSearchSettings
    | SolrSettings
    | RemoteSettings
    | MemorySettings,
    Field(discriminator="kind"),
]

ENGINES: dict[str, Any] = {
    "tantivy": Tantivy,
    "vectors": Vectors,
    "sqlite": Sqlite,
    "postgres": Postgres,
    "qdrant": Qdrant,
    "opensearch": OpenSearch,
    "solr": Solr,
    "remote": Remote,
    "memory": Memory,
}
"""A class by kind: called with its settings it opens; those with `build` can write an index."""


def open_backend(settings: BackendSettings) -> Backend:
    """The backend that these settings describe. Raises: IndexFault where its index cannot be opened."""
    backend: Backend = ENGINES[settings.kind](settings)
    return backend
