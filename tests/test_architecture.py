from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("mixer", "backends", "models")
STAGES = (
    "plan",
    "fanout",
    "merge",
    "hydrate",
    "features",
    "rank",
    "arrange",
    "text",
    "pipeline",
    "cursor",
    "values",
    "schema",
)


def files(package: str) -> list[Path]:
    found = sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    assert found, f"{package} is not where it was"
    return found


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file, by its full name."""
    package = ".".join(path.with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def breaches(package: str, *forbidden: str, but: tuple[str, ...] = ()) -> list[str]:
    """Imports that a package must not have, outside the files that may."""
    return [
        f"{path} imports {name}"
        for path in files(package)
        if not str(path).startswith(but or ("\0",))
        for name in imported(path)
        if within(name, *forbidden)
    ]


def test_the_reader_of_imports_sees_them_all() -> None:
    """The rules below rest on it: plain and from-imports, those inside functions, and nothing else."""
    assert "backends.base.Query" in set(imported(Path("mixer/plan.py")))
    assert "models.work" in set(imported(Path("mixer/cli.py")))
    assert within("opentelemetry.sdk.trace", "opentelemetry.sdk")
    assert not within("opentelemetry.sdkother", "opentelemetry.sdk")


def test_backends_know_nothing_of_mixer() -> None:
    """An engine can be served, tested and replaced alone; only its command line puts it together with a server."""
    assert breaches("backends", "mixer", "models", but=("backends/__main__.py",)) == []
    assert not [name for name in imported(Path("backends/__main__.py")) if within(name, "models")]


def test_mixer_knows_nothing_of_training() -> None:
    """Serving loads no training code; only the command line and the demo reach for it."""
    assert breaches("mixer", "models", but=("mixer/cli", "mixer/demo/")) == []


@pytest.mark.parametrize("path", sorted((ROOT / "mixer").glob("cli*.py")), ids=lambda path: path.name)
def test_only_the_command_line_reaches_training_when_asked(path: Path) -> None:
    """`mixer serve` does not import what trains: in the command line those imports stand inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_start = [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert not [name for name in at_start if within(name, "models", "mixer.demo")]


def test_only_telemetry_and_its_spans_know_the_sdk() -> None:
    """Everything else speaks OpenTelemetry's API: exporters can be replaced in one file."""
    forbidden = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto")
    known = ("mixer/telemetry.py", "mixer/spans.py", "mixer/otlp_logs.py", "mixer/demo/")
    assert breaches("mixer", *forbidden, but=known) == []
    assert breaches("mixer/demo", *forbidden[:2]) == []
    for package in ("backends", "models"):
        assert breaches(package, *forbidden) == []


@pytest.mark.parametrize("stage", STAGES)
def test_stages_hold_no_telemetry(stage: str) -> None:
    """A stage has one verb: what is told of it is the wrapper's business."""
    telling = (
        "opentelemetry",
        "prometheus_client",
        "structlog",
        "mixer.metrics",
        "mixer.observe",
        "mixer.telemetry",
    )
    assert not [name for name in imported(Path(f"mixer/{stage}.py")) if within(name, *telling)]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("fanout", "hydrate")])
def test_only_those_who_ask_others_wait(stage: str) -> None:
    """Backends and feature stores are waited for; every other stage is a plain function of its inputs: no socket, no
    clock, no event loop."""
    waiting = ("asyncio", "grpc", "socket", "time", "threading", "subprocess", "random", "secrets")
    assert not [name for name in imported(Path(f"mixer/{stage}.py")) if within(name, *waiting)]


def test_protocol_buffers_stay_at_the_edge() -> None:
    """Messages become values in the wire modules; inside there are none."""
    edges = (
        "wire",
        "wire_events",
        "wire_explain",
        "client",
        "results",
        "server",
        "interceptors",
        "serving",
        "service",
        "remote",
        "demo",
    )
    named = [
        f"{path} imports {name}"
        for package in OURS
        for path in files(package)
        if not any(part in edges for part in path.with_suffix("").parts)
        for name in imported(path)
        if within(name, "protos", "google.protobuf")
    ]
    assert named == []


def test_generated_code_imports_none_of_ours() -> None:
    """The protos stand alone."""
    assert breaches("protos", *OURS) == []


@pytest.mark.parametrize("package", OURS)
def test_no_module_is_a_drawer(package: str) -> None:
    """A module is named after what it does; there is no place for odds and ends."""
    drawers = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "tools"}
    assert not [path for path in files(package) if drawers & set(path.with_suffix("").parts)]


def test_only_the_app_and_the_table_name_engines() -> None:
    """Mixer knows backends by their protocol and their settings; concrete engines are named in one table."""
    names = ("memory", "opensearch", "postgres", "qdrant", "remote", "solr", "sqlite", "tantivy", "vectors")
    engines = [f"backends.{name}" for name in names]
    engines += [f"backends.stores.{name}" for name in ("redis", "postgres", "sqlite")]
    assert breaches("mixer", *engines, but=("mixer/demo/",)) == []
    assert breaches("models", *engines) == []
