"""The server's certificate, which may be replaced while it serves: new connections get the new one, the others stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from backends.reloading import OUTCOMES, Reloading
from backends.tls import authorities, check_pair
from mixer import catalogue
from mixer.access_settings import ServerTlsSettings
from mixer.metrics import Metrics


@dataclass(frozen=True, slots=True)
class _Pair:
    configuration: Any
    ends_s: float
    """Unix time."""


class ServerCertificate:
    """The certificate that connections are answered with."""

    def __init__(self, settings: ServerTlsSettings, metrics: Metrics) -> None:
        """Raises: OSError, ValueError where the files hold none that can be used."""
        counts = metrics.by_outcome(catalogue.TLS_RELOADS, OUTCOMES)
        paths = [path for path in (settings.certificate, settings.key, settings.client_ca) if path]
        self._expires = metrics.gauge(catalogue.TLS_EXPIRES)
        self._requires_client = settings.require_client
        self._files = Reloading("server.tls", paths, _pair, lambda outcome: counts[outcome].inc())
        self._expires.set(self._files.value.ends_s)

    @property
    def credentials(self) -> grpc.ServerCredentials:
        """For a port. gRPC asks for the configuration at every handshake: it is held ready."""
        return grpc.dynamic_ssl_server_credentials(
            self._files.value.configuration,
            lambda: self._files.value.configuration,
            self._requires_client,
        )

    async def follow(self) -> None:
        """Look for other files for as long as the loop runs."""
        await self._files.follow(lambda: self._expires.set(self._files.value.ends_s))


def _pair(contents: Sequence[bytes]) -> _Pair:
    certificate, key, *client_ca = contents
    ends = check_pair(certificate, key)
    for ca in client_ca:
        authorities(ca)
    configuration = grpc.ssl_server_certificate_configuration(
        [(key, certificate)], client_ca[0] if client_ca else None
    )
    return _Pair(configuration, ends.timestamp())
