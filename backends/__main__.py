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
from mixer import telemetry
from mixer.faults import describe
from mixer.metrics import Metrics
from mixer.server import run_loop
from mixer.serving import Listening, Server, until_signal

log = logging.getLogger("backends")

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Search engines for Mixer.")


@app.callback()
def _group() -> None:
    """Search engines for Mixer."""


@app.command()
def serve(
    config: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="YAML of one engine: kind, index …")
    ],
    listen: Annotated[
        str, typer.Option(help="host:port for gRPC; port 0 takes a free one.")
    ] = "0.0.0.0:50061",
    admin: Annotated[str, typer.Option(help="host:port for /metrics, /livez, /readyz; empty for none.")] = "",
    name: Annotated[str, typer.Option(help="Service name in traces.")] = "backend",
    drain_s: Annotated[float, typer.Option(help="Time for calls in flight after SIGTERM.")] = 10.0,
) -> None:
    """Serve one engine over gRPC until SIGTERM."""
    telemetry.start_logging("info")
    try:
        raw = yaml.safe_load(config.read_text(encoding="utf-8"))
        adapter: TypeAdapter[BackendSettings] = TypeAdapter(BackendSettings)
        settings = adapter.validate_python(raw, context={"folder": config.parent})
    except (ValidationError, yaml.YAMLError) as error:
        faults = describe(error) if isinstance(error, ValidationError) else ()
        lines = [f"{config}: {fault.path}: {fault.message}" for fault in faults] or [f"{config}: is not YAML"]
        raise SystemExit("\n".join(lines)) from error
    listening = Listening(address=listen, admin=admin, concurrent_calls=256, drain_s=drain_s)
    run_loop(_serve(settings, listening, name))


async def _serve(settings: BackendSettings, listening: Listening, name: str) -> None:
    metrics = Metrics()
    tracing = telemetry.start(name, metrics)
    backend = open_backend(settings)
    server = Server(listening, metrics, [service.SERVICE])
    service.add_to(server.grpc, backend)
    try:
        await server.start()
        await server.ready()
        log.info("serving", extra={"port": server.port, "kind": settings.kind})
        await until_signal()
    finally:
        await server.stop()
        await backend.close()
        await asyncio.to_thread(tracing.shutdown)


if __name__ == "__main__":
    app()
