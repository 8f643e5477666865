"""A Mixer that runs in this process, with everything that it says of itself at hand."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from backends import spans
from backends.base import Backend
from mixer import interceptors, server
from mixer.app import App
from mixer.client import AsyncMixerClient
from mixer.metrics import Metrics
from mixer.record import current
from mixer.serving import Server
from mixer.settings import Settings
from mixer.telemetry import Call, Telemetry, start

ADMIN = {"admin_listen": "127.0.0.1:0"}
"""Server settings with an admin port."""
ROOT = "mixer.v1.MixerService/Search"


def settings(backends: Mapping[str, Any], mix: Mapping[str, Any] | None = None, **sections: Any) -> Settings:
    """Settings over backends, each a target of a remote one or a mapping.

    `members` of the mix set the backends' part in it; the others wait long, so that a busy machine changes nothing.
    """
    rules = dict(mix or {})
    members = {**{name: {"timeout_s": 15.0} for name in backends}, **rules.pop("members", {})}
    declared = {
        name: {"kind": "remote", "target": backend} if isinstance(backend, str) else backend
        for name, backend in backends.items()
    }
    listening: dict[str, Any] = {"listen": "127.0.0.1:0", "admin_listen": "", "drain_s": 0.2}
    return Settings.model_validate(
        {
            "backends": declared,
            "mixes": {"default": {"fields": ["title", "year"], "backends": members, **rules}},
            **sections,
            "server": {**listening, **sections.get("server", {})},
        }
    )


class Mixer:
    """One that runs, and a client of it."""

    def __init__(self, running: Server, app: App, client: AsyncMixerClient) -> None:
        self.server, self.app, self.client = running, app, client
        self.target = f"127.0.0.1:{running.port}"
        self.search = client.search

    @property
    def registry(self) -> CollectorRegistry:
        """Its metrics."""
        return self.app.metrics.registry

    def value(self, name: str, **labels: str) -> float | None:
        """One sample."""
        return self.registry.get_sample_value(name, labels)

    async def get(self, path: str, accept: str = "text/plain") -> tuple[int, str, str]:
        """Status, content type and text from the admin port."""
        return await asyncio.to_thread(get, f"http://127.0.0.1:{self.server.admin_port}{path}", accept)

    @property
    def samples(self) -> list[Sample]:
        """All that its metrics say."""
        text = generate_latest(self.registry).decode()
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def get(url: str, accept: str = "text/plain") -> tuple[int, str, str]:
    """Status, content type and text of an HTTP answer."""
    request = urllib.request.Request(url, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


@asynccontextmanager
async def running(
    settings: Settings,
    backends: Mapping[str, Backend] | None = None,
    metrics: Metrics | None = None,
    timeout_s: float = 20.0,
) -> AsyncIterator[Mixer]:
    """A Mixer of these settings; its client gives up after `timeout_s` and tries once."""
    async with server.running(settings, metrics or Metrics(), backends) as (served, app):
        client = AsyncMixerClient(f"127.0.0.1:{served.port}", timeout_s=timeout_s, attempts=1)
        async with client:
            yield Mixer(served, app, client)


class _Open(SpanProcessor):
    """The spans that have not ended."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.names.append(span.name)

    def on_end(self, span: ReadableSpan) -> None:
        self.names.remove(span.name)


class _Kept(SpanProcessor):
    """Exports every call at once, whole."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        if span.context and span.context.trace_flags.sampled:
            self._exporter.export(Call(span, current()).spans())


class Tracing:
    """Every span that ended, and the names of those that have not."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter, self._open = InMemorySpanExporter(), _Open()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(self._open)
        self.provider.add_span_processor(_Kept(self._exporter))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """Those that ended, in order."""
        return self._exporter.get_finished_spans()

    @property
    def open(self) -> list[str]:
        """Names of those that did not."""
        return list(self._open.names)

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of one name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only span of this name."""
        (span,) = self.named(name)
        return span


@contextmanager
def traced_by(tracer: Tracer) -> Iterator[None]:
    """Within it, Mixer's spans and those of its engines are this tracer's."""
    with patch.object(interceptors, "tracer", tracer), patch.object(spans, "tracer", tracer):
        yield


@contextmanager
def tracing(sampler: Sampler | None = None) -> Iterator[Tracing]:
    """Within it, every span is kept."""
    kept = Tracing(sampler)
    with traced_by(kept.provider.get_tracer("mixer")):
        yield kept


@contextmanager
def exporting(metrics: Metrics) -> Iterator[Telemetry]:
    """Within it, spans go where the environment says, though a process has one provider for good."""
    providers: list[TracerProvider] = []
    with patch.object(trace, "set_tracer_provider", providers.append):
        telemetry = start("mixer", metrics)
    tracer = providers[0].get_tracer("mixer") if providers else trace.NoOpTracer()
    with traced_by(tracer):
        yield telemetry


def call_lines(text: str) -> list[dict[str, Any]]:
    """The lines that tell of a call, out of a log."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line["event"] == "call"]


async def until(condition: Callable[[], Any], within_s: float = 60.0) -> None:
    """Wait until a condition holds; fails where it does not in time."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
