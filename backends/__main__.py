"""Runs one engine as a backend of its own: `python -m backends serve --config lexical.yaml`."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import TypeAdapter, ValidationError

from backends import BackendSettings, open_backend, service
from backends.index import IndexFault
from mixer import telemetry
from mixer.access_settings import ServerTlsSettings
from mixer.faults import describe
from mixer.mask import masked
from mixer.metrics import Metrics
from mixer.serving import Listening, Server, run_loop, stop_signal

log = logging.getLogger("backends")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Search engines for Mixer.",
)


@app.callback()
def _group() -> None:
    """Search engines for Mixer."""


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="YAML of one engine: kind, index …")] = None,
    kind: Annotated[str, typer.Option(help="In place of a file: the engine, with its defaults.")] = "",
    index: Annotated[Path | None, typer.Option(help="In place of a file: the index folder.")] = None,
    listen: Annotated[
        str, typer.Option(help="host:port for gRPC; port 0 takes a free one.")
    ] = "0.0.0.0:50061",
    admin: Annotated[str, typer.Option(help="host:port for /metrics, /livez, /readyz; empty for none.")] = "",
    name: Annotated[str, typer.Option(help="Service name in traces.")] = "backend",
    drain_s: Annotated[float, typer.Option(help="Time for calls in flight after SIGTERM.")] = 10.0,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM; may be replaced while serving.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM, of the certificate.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM: turn away callers without a certificate signed by it.")
    ] = None,
    health_listen: Annotated[
        str, typer.Option(help="host:port for health without TLS; empty for none.")
    ] = "",
) -> None:
    """Serve one engine over gRPC until SIGTERM."""
    telemetry.start_logging("info")
    settings = _settings(config) if config else _read({"kind": kind, "index": index}, "options", Path())
    tls = _tls(tls_certificate, tls_key, tls_client_ca)
    listening = Listening(listen, admin, 256, drain_s=drain_s, tls=tls, health=health_listen)
    try:
        run_loop(_serve(settings, listening, name))
    except (OSError, ValueError, IndexFault) as error:
        raise SystemExit(masked(str(error))) from error


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> ServerTlsSettings | None:
    if certificate and key:
        return ServerTlsSettings(
            certificate=certificate, key=key, client_ca=client_ca, require_client=client_ca is not None
        )
    if certificate or key or client_ca:
        raise SystemExit("TLS needs both: --tls-certificate and --tls-key")
    return None


def _settings(config: Path) -> BackendSettings:
    try:
        raw = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SystemExit(f"{config}: {error}") from error
    return _read(raw, str(config), config.parent)


def _read(raw: object, source: str, folder: Path) -> BackendSettings:
    """Settings of one engine; a relative index starts at the folder."""
    adapter: TypeAdapter[BackendSettings] = TypeAdapter(BackendSettings)
    try:
        return adapter.validate_python(raw, context={"folder": folder})
    except ValidationError as error:
        lines = [f"{source}: {fault.path}: {fault.message}" for fault in describe(error)]
        raise SystemExit("\n".join(lines)) from error


async def _serve(settings: BackendSettings, listening: Listening, name: str) -> None:
    told, metrics = stop_signal(), Metrics()
    tracing = telemetry.start(name, metrics)
    backend = open_backend(settings)
    server = Server(listening, metrics, [service.SERVICE])
    service.add_to(server.grpc, backend)
    try:
        await server.start()
        await server.ready()
        log.info("serving", extra={"port": server.port, "kind": settings.kind})
        await told.wait()
    finally:
        await server.stop()
        await backend.close()
        await asyncio.to_thread(tracing.shutdown)


if __name__ == "__main__":
    app()
