"""Who calls: API keys and tokens, checked before anything else is done for a caller.

An API key is sent as metadata `x-api-key`, or as `authorization: Bearer`; a token as the latter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import grpc

from backends.reloading import OUTCOMES, Reloading
from mixer import catalogue, keys, tokens
from mixer.access_settings import AuthSettings
from mixer.caller import Caller, Scope, closed, opened
from mixer.errors import Forbidden, RequestError, Unauthenticated
from mixer.interceptors import BYSTANDERS, Handler, around
from mixer.metrics import Metrics
from mixer.record import current

API_KEY, AUTHORIZATION = "x-api-key", "authorization"
REASONS = (
    *("no_credential", "unknown_key", "bad_token", "token_expired", "token_too_soon", "token_for_others"),
    "scope_lacking",
)
"""Why a caller was turned away."""
_SCOPES = {"Search": Scope.SEARCH, "Feedback": Scope.FEEDBACK, "Explain": Scope.EXPLAIN}
_HOW = f"send an API key as metadata {API_KEY}, or a key or token as {AUTHORIZATION}: Bearer"

Metadata = Mapping[str, str | bytes]


class Authenticate:
    """Finds out who calls, and turns away whoever does not prove it or may not call this method."""

    def __init__(self, settings: AuthSettings, metrics: Metrics) -> None:
        """Reads the files of keys. Raises: OSError, ValueError."""
        counts = metrics.by_outcome(catalogue.AUTH_RELOADS, OUTCOMES)

        def count(outcome: str) -> None:
            counts[outcome].inc()

        self._keys = self._tokens = None
        if settings.keys:
            self._keys = Reloading("auth.keys", [settings.keys], keys.read, count)
        if settings.jwt:
            self._tokens = Reloading("auth.jwt.jwks", [settings.jwt.jwks], tokens.reader(settings.jwt), count)
        self._refused = {reason: metrics.counter(catalogue.AUTH_REFUSED, reason=reason) for reason in REASONS}

    @property
    def files(self) -> Iterator[Reloading[Any]]:
        """What is to be followed beside the calls."""
        yield from filter(None, (self._keys, self._tokens))

    def caller(self, metadata: Metadata) -> Caller:
        """Who calls with this metadata. Raises: Unauthenticated."""
        if key := metadata.get(API_KEY):
            return self._of_key(str(key))
        kind, _, credential = str(metadata.get(AUTHORIZATION, "")).partition(" ")
        if kind.lower() != "bearer" or not credential.strip():
            raise Unauthenticated("no_credential", f"no credential; {_HOW}")
        credential = credential.strip()
        if self._tokens and credential.count(".") == 2:
            return self._tokens.value.caller(credential)
        return self._of_key(credential)

    def may_force(self, metadata: Metadata) -> bool:
        """Whether this caller may have a call traced, whatever the ratio."""
        try:
            return Scope.FORCE_SAMPLE in self.caller(metadata).scopes
        except Unauthenticated:
            return False

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """See `Around`; health is open to all."""
        if method.startswith(BYSTANDERS):
            return handler
        behavior, scope = handler.unary_unary, _SCOPES.get(method.rpartition("/")[2])

        async def authenticated(request: Any, context: grpc.aio.ServicerContext) -> Any:
            try:
                who = self._admitted(context, scope)
            except RequestError as error:
                self._count(error)
                raise
            current().facts["mixer.tenant"] = who.tenant
            token = opened(who)
            try:
                return await behavior(request, context)
            except Forbidden as error:
                self._count(error)
                raise
            finally:
                closed(token)

        return around(handler, authenticated)

    def _admitted(self, context: grpc.aio.ServicerContext, scope: Scope | None) -> Caller:
        metadata = context.invocation_metadata() or ()
        who = self.caller({pair[0]: pair[1] for pair in metadata})
        if scope:
            who.require(scope)
        return who

    def _of_key(self, key: str) -> Caller:
        found = self._keys.value.caller(key) if self._keys else None
        if found is None:
            raise Unauthenticated("unknown_key", "the API key is none of this server's")
        return found

    def _count(self, error: RequestError) -> None:
        word = error.reason.word if error.reason else ""
        self._refused[word].inc()
        current().facts["mixer.refused"] = word
