"""The small HTTP port for machines: /metrics for Prometheus, /livez and /readyz for the orchestrator."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

_POLL_S = 0.1
"""How often the thread looks whether it shall stop."""

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class _Threaded(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _ThreadedV6(_Threaded):
    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Scrapes are not logged."""


class Admin:
    """Serves on a thread of its own, so that it answers while the event loop is busy."""

    def __init__(self, metrics: CollectorRegistry) -> None:
        """Not ready until told so."""
        self.ready = False
        self._metrics = make_wsgi_app(metrics)
        self._server: WSGIServer | None = None

    def start(self, address: str) -> int:
        """Listen on `host:port`, an IPv6 host in brackets; returns the port. Raises: OSError."""
        host, _, port = address.rpartition(":")
        server = _ThreadedV6 if host.startswith("[") else _Threaded
        self._server = make_server(host.strip("[]"), int(port), self._answer, server, _Silent)
        threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), daemon=True).start()
        return self._server.server_port

    def stop(self) -> None:
        """Close the port."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            metrics: Iterable[bytes] = self._metrics(environ, start)
            return metrics
        known = {"/livez": True, "/readyz": self.ready}
        status = (
            "404 Not Found" if path not in known else "200 OK" if known[path] else "503 Service Unavailable"
        )
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{status}\n".encode()]
