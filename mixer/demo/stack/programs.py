"""The Collector, Jaeger and Prometheus as processes on the loopback."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from mixer.demo.processes import NotReady, free_port, is_taken, program

HERE = Path(__file__).parent
USUAL = {
    "otlp": 4317,
    "otlp_http": 4318,
    "collector": 8888,
    "health": 13133,
    "spans": 8889,
    "jaeger": 16686,
    "jaeger_grpc": 16685,
    "jaeger_otlp": 14317,
    "prometheus": 9090,
}
"""The ports that people expect; those in use give way to free ones."""


def ports() -> dict[str, int]:
    """A port that is free now for everything that listens."""
    return {name: free_port() if is_taken(port) else port for name, port in USUAL.items()}


def found(name: str) -> str:
    """A program in $MIXER_TOOLS, else .tools, else on the path. Raises: NotReady."""
    folder = Path(os.environ.get("MIXER_TOOLS", ".tools"))
    path = shutil.which(name, path=folder) or shutil.which(name)
    if path is None:
        raise NotReady(f"{name} is neither in {folder} nor on the path; `make stack` builds it")
    return path


def collector(at: Mapping[str, int], folder: Path) -> AbstractContextManager[None]:
    """The Collector's configuration at work; with $HONEYCOMB_API_KEY what it keeps goes there too."""
    files = [HERE / "collector.yaml"]
    if os.environ.get("HONEYCOMB_API_KEY"):
        files.append(HERE / "honeycomb.yaml")
    told = {
        "COLLECTOR_GRPC_PORT": at["otlp"],
        "COLLECTOR_HTTP_PORT": at["otlp_http"],
        "COLLECTOR_HEALTH_PORT": at["health"],
        "COLLECTOR_OWN_PORT": at["collector"],
        "COLLECTOR_SPANS_PORT": at["spans"],
        "JAEGER_ENDPOINT": f"127.0.0.1:{at['jaeger_otlp']}",
    }
    command = [found("otelcol"), *(f"--config={path}" for path in files)]
    taken = [at[name] for name in ("otlp", "otlp_http", "health", "collector", "spans")]
    return _watched("collector", command, taken, f"127.0.0.1:{at['health']}/", folder, told)


def jaeger(at: Mapping[str, int], folder: Path) -> AbstractContextManager[None]:
    """Jaeger, which keeps traces in memory."""
    told = {
        "JAEGER_PORT": at["jaeger"],
        "JAEGER_GRPC_PORT": at["jaeger_grpc"],
        "JAEGER_OTLP_PORT": at["jaeger_otlp"],
    }
    command = [found("jaeger"), f"--config={HERE / 'jaeger.yaml'}"]
    taken = [at[name] for name in ("jaeger", "jaeger_grpc", "jaeger_otlp")]
    return _watched("jaeger", command, taken, f"127.0.0.1:{at['jaeger']}/api/services", folder, told)


def prometheus(at: Mapping[str, int], folder: Path, config: Path) -> AbstractContextManager[None]:
    """Prometheus, whose data begin anew."""
    data = folder / "prometheus"
    shutil.rmtree(data, ignore_errors=True)
    address = f"127.0.0.1:{at['prometheus']}"
    command = [
        found("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={address}",
    ]
    return _watched("prometheus", command, [at["prometheus"]], f"{address}/-/ready", folder, {})


@contextmanager
def _watched(
    name: str, command: list[str], taken: list[int], ready: str, folder: Path, told: Mapping[str, Any]
) -> Iterator[None]:
    environment = {key: str(value) for key, value in told.items()}
    with program(name, command, taken, _answers(f"http://{ready}"), folder / f"{name}.log", environment):
        yield


def _answers(url: str) -> Callable[[], bool]:
    def asked() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=1.0) as said:  # noqa: S310
                return bool(said.status == 200)
        except OSError:
            return False

    return asked
