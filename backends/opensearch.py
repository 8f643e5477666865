"""OpenSearch and Elasticsearch: an index of your own, by its words, its vectors, or a query of its own language.

    kind: opensearch
    flavor: opensearch           # or elasticsearch (8.12 or newer)
    urls: ["https://search-1:9200", "https://search-2:9200"]   # asked in turn; one that is down is passed over
    index: products              # an index, an alias, or several by commas and *
    id: _id                      # or a keyword field
    fields:
      title: {type: text}
      overview: {type: text}
      genres: {type: keyword, field: genres.raw}    # the index's name, where it is another
      year: {type: number, field: release_year}
    search:
      mode: words
      match: any                 # or `all`: every word of the query, in whichever field
      boosts: {title: 3, overview: 1}   # of the text fields searched; all of them at 1 where none are given
    least: 0.5                   # scores below it are not found; all are where none is given
    scores:                      # can be asked for as number fields: a query's score of its own, 0 where it misses
      title_bm25: {match: {title: "{query}"}}
      title_phrase: {match_phrase: {title: "{query}"}}
    user: mixer                  # or, in place of these two, `api_key_env`
    password_env: SEARCH_PASSWORD
    ca_file: ca.pem              # in place of the system's certificates
    connections: 64              # the most at once to a server
    max_hits: 10000              # the index's max_result_window
    version: segments            # or none, where the index never changes or its segments may not be read
    version_every_s: 1
    updated_at: changed_at       # a date field: its latest value is how fresh the index is

In place of `search`, for vectors (OpenSearch's k-NN plugin, Elasticsearch's dense_vector):

    search:
      mode: vectors
      field: embedding
      embedder: indexes/semantic # an index of kind vectors: what embeds the query; see backends/embedding.py
      # model: abc123            # or, in place of it, a model on the server (`neural`, `text_embedding`)
      candidates: 100            # asked of each shard's graph at least (`k`, `num_candidates`): more find more surely
      exact: false               # true compares with every document that passes the filters
      metric: cosine             # of `exact`: or l2, inner_product

or anything else, where every value that is `{query}` becomes the user's words:

    search:
      mode: template
      query: {multi_match: {query: "{query}", fields: [title, doc], type: best_fields}}

A score is the server's; in mode words the sum over fields of boost * BM25, or with `all` that of `cross_fields`. The
first 64 words of a query count. Where a search asks for `scores`, OpenSearch 2.12 or Elasticsearch 8.8 is needed.

The server is given the time that is left (`timeout`). An answer of a part of the shards, or of those that were done
in time, is an error: the rest might hold the best. The version changes with the segments of the primaries, and is read
once a second: the user needs `read`, `view_index_metadata` and `monitor` of the index. `fields` are held against
the index when it is first asked, and again whenever another index takes its name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson
from opentelemetry import propagate

from backends import opensearch_query
from backends.base import BackendError, BackendGarbage, BackendTimeout, BackendUnreachable, Hits, Query
from backends.index import IndexFault
from backends.opensearch_index import Reader
from backends.opensearch_query import Held
from backends.opensearch_settings import Dsl, OpenSearchSettings, Vectors
from backends.served import Live, refused, secret, tls
from backends.web import NONSENSE, State, WebBackend, Where

if TYPE_CHECKING:
    from opensearchpy import AsyncOpenSearch


class OpenSearch(WebBackend[Held]):
    """A backend over an index on a cluster. Connects when first asked, on the loop that asks."""

    Settings = OpenSearchSettings

    def __init__(self, settings: OpenSearchSettings) -> None:
        """Raises: IndexFault where the library, a secret or the embedder is missing."""
        self._settings = settings
        super().__init__(
            Where(settings.flavor, settings.index, settings.urls[0], port=9200),
            settings.declared,
            settings.search.embedder if isinstance(settings.search, Vectors) else None,
            Live(Reader(settings, self._ask).read, settings.version_every_s),
        )
        self._client = _client(settings)
        self._path = f"/{quote(settings.index, safe=',*')}/_search"

    async def _disconnect(self) -> None:
        await self._client.close()
        opened: list[Any] = list(self._client.transport.seed_connections)
        for connection in opened:
            await connection.close()  # the client forgets those that it took for dead

    async def _searched(
        self, query: Query, vector: list[float] | None, state: State[Held], left_s: float
    ) -> Hits:
        body = opensearch_query.body(self._settings, state.held, query, vector, left_s)
        wants_scores = any(name in self._settings.scores for name in query.fields)
        parameters = {"include_named_queries_score": "true"} if wants_scores else {}
        answer = await self._ask("POST", self._path, parameters, body)
        try:
            _hold_whole(answer)
            return opensearch_query.read(answer, self._settings, state.held, query)
        except NONSENSE as error:
            raise BackendGarbage("the answer is not one of a search") from error

    async def _ask(self, method: str, path: str, parameters: Mapping[str, Any], body: Dsl | None) -> Any:
        """One request, answered. Raises: BackendError."""
        from opensearchpy import exceptions

        if self._closed:
            raise BackendUnreachable("the backend is closed")
        headers: dict[str, str] = {}
        propagate.inject(headers)
        try:
            return await self._client.transport.perform_request(
                method, path, params=dict(parameters), body=body, headers=headers
            )
        except exceptions.ConnectionTimeout as error:
            raise BackendTimeout("the server did not answer in time") from error
        except exceptions.ConnectionError as error:
            raise BackendUnreachable("no connection, or the server is down") from error
        except exceptions.TransportError as error:
            raise refused(int(error.status_code), f"index {self._settings.index}") from error
        except (exceptions.SerializationError, *NONSENSE) as error:
            raise BackendGarbage("the answer cannot be decoded") from error


def _hold_whole(answer: Any) -> None:
    """Raises: BackendError where a part of the index did not answer."""
    if answer["timed_out"]:
        raise BackendTimeout("the server ran out of time and answered in part")
    shards, clusters = answer["_shards"], answer.get("_clusters", {})
    if shards["failed"]:
        raise BackendError(f"{int(shards['failed'])} of {int(shards['total'])} shards failed")
    if clusters and clusters["successful"] < clusters["total"]:
        raise BackendError(
            f"{int(clusters['successful'])} of {int(clusters['total'])} clusters answered whole"
        )


def _client(settings: OpenSearchSettings) -> AsyncOpenSearch:
    try:
        from opensearchpy import AsyncOpenSearch, JSONSerializer
    except ImportError as error:
        raise IndexFault(
            "the opensearch engine is not installed: pip install '.[opensearch]' in Mixer's checkout"
        ) from error

    class Json(JSONSerializer):
        """The library's, several times as fast."""

        def loads(self, s: str) -> Any:
            return orjson.loads(s)

    # It logs each call, and, where debugging, the user's words; what fails is told by its outcome.
    logging.getLogger("opensearch").setLevel(logging.CRITICAL)
    key = secret("api_key_env", settings.api_key_env)
    password = secret("password_env", settings.password_env)
    return AsyncOpenSearch(
        hosts=list(settings.urls),
        http_auth=(settings.user, password) if settings.user else None,
        headers={"authorization": f"ApiKey {key}"} if key else None,
        ssl_context=tls(settings),
        pool_maxsize=settings.connections,
        serializer=Json(),
        timeout=None,  # each call's time is kept by its caller
        max_retries=len(settings.urls) - 1,
        retry_on_status=(),
    )
