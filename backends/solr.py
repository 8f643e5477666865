"""Solr: a core or collection of your own, by its words (edismax) or its vectors.

    kind: solr
    url: http://solr.example.org:8983/solr    # Solr's root
    collection: products
    handler: select
    id: id                       # the schema's unique key
    fields:
      title: {type: text}
      overview: {type: text}
      genres: {type: keyword, field: genres_ss}     # the schema's name, where it is another
      year: {type: number, field: release_year_i}
    search:
      mode: words
      match: any                 # or `all`: every word of the query, in whichever field
      boosts: {title: 3, overview: 1}   # of the text fields searched; all of them at 1 where none are given
      parameters: {pf: title, boost: "log(popularity)"}   # of edismax, and any others of the handler
    least: 0.5                   # scores below it are not found; all are where none is given
    scores:                      # can be asked for as number fields: what a query of its own scores, 0 where it misses
      title_bm25: "{!edismax qf=title v=$text}"     # `$text` is the user's words, without operators
    user: mixer
    password_env: SEARCH_PASSWORD
    ca_file: ca.pem              # in place of the system's certificates
    connections: 64              # the most at once
    max_hits: 10000
    version: luke                # or documents, or none; see below
    version_every_s: 1
    updated_at: changed_at       # a date field: its latest value is how fresh the collection is

In place of `search`, for vectors:

    search:
      mode: vectors
      field: embedding           # a DenseVectorField
      embedder: indexes/semantic # an index of kind vectors: what embeds the query; see backends/embedding.py
      candidates: 100            # asked of the graph at least (`topK`): more find more surely

A score is Solr's; by words the sum over fields of boost * BM25, unless `parameters` say otherwise. Words are words:
signs and AND, OR, NOT are no operators. The first 64 words of a query count.

Solr is given the time that is left (`timeAllowed`). An answer of what was found in time is an error: the rest might
hold the best. The version is read once a second. `luke` is exact, for one core, and also tells when it was last
committed. `documents` is the newest `_version_` and the count of documents, on SolrCloud too; it does not see a merge,
which may change scores by a trifle. `fields` are held against the schema when it is first asked and when the version
changes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from opentelemetry import propagate

from backends import solr_query
from backends.base import BackendGarbage, BackendTimeout, BackendUnreachable, Hits, Query
from backends.index import IndexFault
from backends.served import Live, refused, secret, tls
from backends.solr_index import Reader
from backends.solr_query import Held
from backends.solr_settings import SolrSettings, Vectors
from backends.web import NONSENSE, State, WebBackend, Where

if TYPE_CHECKING:
    import aiohttp


class Solr(WebBackend[Held]):
    """A backend over a collection on a server. Connects when first asked, on the loop that asks."""

    Settings = SolrSettings

    def __init__(self, settings: SolrSettings) -> None:
        """Raises: IndexFault where the library, a secret, the certificates or the embedder is missing."""
        try:
            import aiohttp  # noqa: F401
        except ImportError as error:
            raise IndexFault(
                "the solr engine is not installed: pip install '.[solr]' in Mixer's checkout"
            ) from error
        self._settings = settings
        super().__init__(
            Where("solr", settings.collection, settings.url, port=80),
            settings.declared,
            settings.search.embedder if isinstance(settings.search, Vectors) else None,
            Live(Reader(settings, self._read).read, settings.version_every_s),
        )
        self._headers = _credentials(settings)
        self._tls = tls(settings)
        self._session: aiohttp.ClientSession | None = None

    async def _disconnect(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _searched(
        self, query: Query, vector: list[float] | None, state: State[Held], left_s: float
    ) -> Hits:
        settings = self._settings
        asked = solr_query.parameters(settings, state.held, query, vector, left_s)
        answer = await self._ask("POST", f"{settings.collection}/{settings.handler}", asked)
        try:
            if answer["responseHeader"].get("partialResults"):
                raise BackendTimeout("the server ran out of time and answered in part")
            return solr_query.read(answer, settings, state.held, query)
        except NONSENSE as error:
            raise BackendGarbage("the answer is not one of a search") from error

    async def _read(self, path: str, parameters: Mapping[str, str]) -> Any:
        return await self._ask("GET", path, list(parameters.items()))

    async def _ask(self, method: str, path: str, parameters: solr_query.Parameters) -> Any:
        """One request, answered. Raises: BackendError."""
        import aiohttp

        headers: dict[str, str] = {}
        propagate.inject(headers)
        # In a body, since filters may be longer than a URL.
        sent: dict[str, Any] = {"data": parameters} if method == "POST" else {"params": parameters}
        url = f"{self._settings.url}/{path}"
        try:
            async with self._opened().request(
                method, url, headers=headers, allow_redirects=False, **sent
            ) as answer:
                if answer.status != 200:
                    raise refused(answer.status, f"collection {self._settings.collection}")
                return orjson.loads(await answer.read())
        except aiohttp.ClientError as error:
            raise BackendUnreachable("no connection, or the server is down") from error
        except NONSENSE as error:
            raise BackendGarbage("the answer cannot be decoded") from error

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._closed:
            raise BackendUnreachable("the backend is closed")
        if self._session is None:
            settings = self._settings
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=settings.connections, ssl=self._tls or True),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None),  # each call's time is kept by its caller
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _credentials(settings: SolrSettings) -> dict[str, str]:
    """Raises: IndexFault where the password is not there."""
    password = secret("password_env", settings.password_env)
    pair = base64.b64encode(f"{settings.user}:{password}".encode()).decode()
    return {"authorization": f"Basic {pair}"} if settings.user else {}
