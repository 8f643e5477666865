"""`make stack`, real: a fault, and what the Collector, Jaeger and Prometheus tell of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from mixer import metrics_page
from mixer.catalogue import METRICS, Metric
from mixer.client import MixerClient, SearchResult
from mixer.demo.collector import SpanSeen
from mixer.demo.stack import traces
from mixer.manifest import MANIFEST, Manifest
from models.boards import boards, panels_of, reads
from tests.doubles import collectors
from tests.doubles.collectors import Collector
from tests.integration.chart import ROOT, TOOLS, tool
from tests.integration.programs import free_port
from tests.integration.test_dashboards import resolved

SEARCH, RETRIEVE = "mixer.v1.MixerService/Search", "backends.v1.BackendService/Retrieve"
STAGES = {"plan", "fan_out", "merge", "make_features", "rank", "arrange"}
BROKEN, WHOLE = "semantic", {"lexical", "symbols"}
ALERTS = {("MixerBackendFails", BROKEN), ("MixerDegraded", None)}
PLAIN, DEGRADED = 60, 15
HONEYCOMB = "hcaik_01"
PATIENCE_S = 180.0
TAKEN = {
    # No search is slow here, however busy the machine is: what is kept is kept for what it tells.
    "COLLECTOR_SLOW_MS": "600000",
    "COLLECTOR_SHARE_PERCENT": "10",
    "COLLECTOR_DECISION_WAIT": "4s",
}


@dataclass
class Stack:
    """What `make stack` started, what it was asked, and what came of it."""

    honeycomb: Collector
    mixer: str
    metrics: str
    otlp: str
    spans: str
    jaeger: str
    prometheus: str
    answers: list[SearchResult] = field(default_factory=list)
    before: set[tuple[str, str | None]] = field(default_factory=set)
    firing: set[tuple[str, str | None]] = field(default_factory=set)

    def search(self, times: int = 1) -> None:
        with MixerClient(self.mixer, timeout_s=10.0) as client:
            self.answers += [client.search("read a csv file into dicts") for _ in range(times)]

    def query(self, expr: str) -> list[dict[str, Any]]:
        asked = urlencode({"query": expr})
        found: list[dict[str, Any]] = traces.answer(f"{self.prometheus}/api/v1/query?{asked}")["data"][
            "result"
        ]
        return found

    def alerts(self) -> set[tuple[str, str | None]]:
        told = traces.answer(f"{self.prometheus}/api/v1/alerts")["data"]["alerts"]
        firing = [each["labels"] for each in told if each["state"] == "firing"]
        return {(labels["alertname"], labels.get("backend")) for labels in firing}

    def ids(self, degraded: bool) -> set[str]:
        return {answer.trace_id for answer in self.answers if answer.degraded is degraded}

    def kept(self, **tags: str) -> dict[str, list[SpanSeen]]:
        """Jaeger's traces with these tags by the id that the caller was told."""
        told = {key.replace("_", "."): value for key, value in tags.items()}
        by_query = {answer.query_id: answer.trace_id for answer in self.answers}
        return {
            by_query[root_of(trace).attributes["mixer.query_id"]]: trace
            for trace in traces.find(self.jaeger, told)
            if any(span.name == SEARCH for span in trace)
        }


def root_of(trace: list[SpanSeen]) -> SpanSeen:
    (root,) = (span for span in trace if span.name == SEARCH)
    return root


def until(held: Callable[[], bool], words: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not held():
        assert time.monotonic() < deadline_s, words
        time.sleep(0.5)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, searched while it was whole, and after a backend was killed until alerts fired."""
    for name in ("jaeger", "otelcol", "prometheus"):
        tool(name)
    folder = tmp_path_factory.mktemp("stack")
    with collectors.over_http(HONEYCOMB) as honeycomb, started(folder, honeycomb) as made:
        made.search(PLAIN)
        until(lambda: len(made.query('up{job="mixer"} == 1')) == 1, "Mixer is not scraped")
        made.before = made.alerts()
        os.kill(int((folder / f"{BROKEN}.pid").read_text()), signal.SIGKILL)
        made.search(DEGRADED)
        until(lambda: watched(made) >= ALERTS, f"the alerts {ALERTS} do not fire: {made.firing}")
        yield made


def watched(stack: Stack) -> set[tuple[str, str | None]]:
    """The alerts that fire, as searches go on."""
    stack.search()
    stack.firing |= stack.alerts()
    return stack.firing


@contextmanager
def started(folder: Path, honeycomb: Collector) -> Iterator[Stack]:
    """`python -m mixer.demo.stack`, which ends when told to and leaves no process."""
    log, told = folder / "stack.log", folder / "addresses.json"
    options = ["--questions=0", "--rate=0", "--alert-after-s=5", f"--port={free_port()}"]
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mixer.demo.stack", f"--folder={folder}", *options],
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={
                **os.environ,
                **TAKEN,
                "MIXER_TOOLS": str(TOOLS.resolve()),
                "HONEYCOMB_ENDPOINT": honeycomb.endpoint,
                "HONEYCOMB_API_KEY": HONEYCOMB,
            },
        )
    try:
        until(lambda: told.exists() or process.poll() is not None, "the stack does not start")
        assert told.exists(), log.read_text()
        yield Stack(honeycomb, **json.loads(told.read_text(encoding="utf-8")))
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.wait(120)
    assert [child for child in children if child.is_running()] == []
    assert "everything is stopped" in log.read_text()


def test_a_degraded_trace_is_found_and_whole(stack: Stack) -> None:
    """Every degraded answer's trace is found by `mixer.degraded`, with all stages and the spans of other processes."""
    asked = stack.ids(degraded=True)
    assert len(asked) >= DEGRADED
    until(lambda: stack.kept(mixer_degraded="true").keys() >= asked, "degraded traces are lost")
    trace = stack.kept(mixer_degraded="true")[sorted(asked)[-1]]
    own = {span.name for span in trace if span.service == "mixer"}
    assert own == {SEARCH, *STAGES, *(f"retrieve {name}" for name in (BROKEN, *WHOLE))}
    by_id = {span.id: span for span in trace}
    served = {span.service: by_id[span.parent].name for span in trace if span.name == RETRIEVE}
    assert served == {name: f"retrieve {name}" for name in WHOLE}
    (broken,) = (span for span in trace if span.name == f"retrieve {BROKEN}")
    assert broken.failed
    assert broken.attributes["mixer.backend.outcome"] != "ok"


def test_a_trace_is_found_by_its_model(stack: Stack) -> None:
    """Jaeger finds traces by model version; the rank span tells scores and features, place by place, gaps as null."""
    folder = ROOT / "models" / "demo" / "ranker"
    version = Manifest.model_validate_json((folder / MANIFEST).read_bytes()).version
    until(lambda: bool(stack.kept(mixer_model_version=version)), "no trace has the model's version")
    assert stack.kept(mixer_model_version="another") == {}
    found = stack.kept(mixer_model_version=version, mixer_degraded="true")
    trace = found[sorted(found)[0]]
    (rank,) = (span for span in trace if span.name == "rank")
    top = {key: json.loads(value) for key, value in rank.attributes.items() if key.startswith("mixer.top.")}
    features = [key for key in top if key.startswith("mixer.top.feature.")]
    assert len(features) >= 5
    assert {len(values) for values in top.values()} == {len(top["mixer.top.ids"])} != {0}
    assert top["mixer.top.scores"] == sorted(top["mixer.top.scores"], reverse=True)
    answer = next(each for each in stack.answers if each.trace_id == sorted(found)[0])
    assert top["mixer.top.ids"][: len(answer.hits)] == [hit.id for hit in answer.hits]


def test_the_same_trace_as_otlp(stack: Stack) -> None:
    """Jaeger's newer API has it too, by its id."""
    wanted = sorted(stack.ids(degraded=True))[0]
    until(lambda: wanted in stack.kept(mixer_degraded="true"), "the trace is lost")
    told = traces.answer(f"{stack.jaeger}/api/v3/traces/{wanted}")["result"]["resourceSpans"]
    spans = [span["name"] for each in told for scope in each["scopeSpans"] for span in scope["spans"]]
    assert {SEARCH, RETRIEVE, *STAGES} <= set(spans)


def test_of_plain_traces_a_share_is_kept(stack: Stack) -> None:
    """Most answers that lack nothing leave no trace, but all are counted before any is dropped."""
    plain, total = stack.ids(degraded=False), len(stack.answers)
    assert len(plain) > PLAIN / 2
    counted = f'sum(traces_span_metrics_calls_total{{span_name="{SEARCH}"}})'
    until(lambda: value(stack.query(counted)) == total, f"not all of {total} searches are counted")
    until(lambda: stack.kept(mixer_degraded="true").keys() >= stack.ids(degraded=True), "traces are lost")
    kept = stack.kept(mixer_degraded="false").keys()
    assert kept <= plain
    assert len(kept) < len(plain) / 2


def value(found: list[dict[str, Any]]) -> float:
    return float(found[0]["value"][1]) if found else 0.0


def test_alerts_fire(stack: Stack) -> None:
    """Prometheus has the rules of `mixer rules`, evaluates them without a fault, and raises those of this fault."""
    assert stack.firing >= ALERTS
    assert ("MixerBackendFails", BROKEN) not in stack.before
    groups = traces.answer(f"{stack.prometheus}/api/v1/rules")["data"]["groups"]
    assert {"mixer-service", "mixer-drift"} <= {group["name"] for group in groups}
    until(lambda: unhealthy(stack) == [], "rules that cannot be evaluated")


def unhealthy(stack: Stack) -> list[str]:
    groups = traces.answer(f"{stack.prometheus}/api/v1/rules")["data"]["groups"]
    return [rule["name"] for group in groups for rule in group["rules"] if rule["health"] != "ok"]


def test_every_target_is_scraped(stack: Stack) -> None:
    """Mixer, the Collector, and its metrics of spans."""
    up = {each["metric"]["job"]: each["value"][1] for each in stack.query("up")}
    assert up == {"mixer": "1", "spans": "1", "collector": "1"}


@pytest.mark.parametrize("board", boards(), ids=lambda board: str(board.name))
def test_panels_show_what_there_is(stack: Stack, board: Any) -> None:
    """Every expression of a dashboard is answered, and holds data where the series that it reads do."""
    empty = []
    for panel in panels_of(board):
        for query in panel.queries:
            expr = resolved(query.expr)
            if not stack.query(expr) and all(stack.query(f"{name} offset 15s") for name in read_by(expr)):
                empty.append(f"{panel.title}: {expr}")
    assert empty == []


def test_everything_that_mixer_tells_is_drawn(stack: Stack) -> None:
    """Of each metric that the running server has samples of, some panel shows data."""
    told = {sample.name for sample in metrics_page.read(stack.metrics)}
    found = [metric for metric in METRICS if {metric.name, f"{metric.name}_count"} & told]
    assert len(found) > 20
    exprs = [query.expr for board in boards() for panel in panels_of(board) for query in panel.queries]

    def drawn(metric: Metric) -> bool:
        return any(reads(expr, metric) and stack.query(resolved(expr)) for expr in exprs)

    until(lambda: all(map(drawn, found)), f"of {found} not all are drawn")


def read_by(expr: str) -> set[str]:
    """The selectors of an expression."""
    return set(re.findall(r"[a-zA-Z_:][\w:]*\{[^}]*\}", expr))


def test_a_page_counts_what_the_collector_kept(stack: Stack) -> None:
    """The Collector says how many traces each policy decided on."""
    with urllib.request.urlopen(stack.spans, timeout=10) as said:
        assert b"traces_span_metrics_duration_seconds_bucket" in said.read()
    decided = stack.query(
        'sum by (policy) (otelcol_processor_tail_sampling_count_traces_sampled_total{sampled="true"})'
    )
    by_policy = {each["metric"]["policy"]: float(each["value"][1]) for each in decided}
    assert by_policy["degraded"] >= DEGRADED


def test_what_is_kept_goes_to_honeycomb_too(stack: Stack) -> None:
    """With a key in the environment the Collector sends the same traces there, with the header, refused by nobody."""
    asked = stack.ids(degraded=True)
    until(lambda: asked <= {span.trace_id.hex() for span in stack.honeycomb.spans}, "Honeycomb lacks traces")
    assert {headers[collectors.KEY] for headers in stack.honeycomb.headers} == {HONEYCOMB}
    assert {headers["path"] for headers in stack.honeycomb.headers} == {"/v1/traces"}
    assert stack.honeycomb.refused == 0
    plain = {span.trace_id.hex() for span in stack.honeycomb.spans} & stack.ids(degraded=False)
    assert len(plain) < len(stack.ids(degraded=False)) / 2
