"""What is on which dashboard: what people look at first by hand, and a panel for every other metric of the catalogue.

A metric that no panel here reads gets one by its kind, on the dashboard that its labels belong to: what is added to
the catalogue is on a dashboard without a line of code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from mixer import catalogue as metrics
from mixer.catalogue import METRICS, Metric
from models.panels import Panel, Query, Row, latest, legend_of, of, quantile, rate, series, share
from models.rules import FAILURES

_ANSWERS = rate(metrics.CANDIDATES, suffix="_count")
_OURS = 'grpc_service="mixer.v1.MixerService"'
_FAULTS = f'grpc_code=~"{FAILURES}"'
_BY_RULES = "Recorded by the rules that `mixer rules` writes."
_SLICE = ("mix", "slice", "value")


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard, by the name of its file."""

    name: str
    title: str
    rows: tuple[Row, ...]


def overview() -> Board:
    """What callers see: calls, errors, time, and what the answers lack."""
    headline = Row("At a glance", (
        _stat("Searches a second", metrics.CANDIDATES, _ANSWERS, "reqps"),
        _stat("Calls failed", metrics.SERVER_HANDLED, share(rate(metrics.SERVER_HANDLED, matchers=[_OURS, _FAULTS]),
                    rate(metrics.SERVER_HANDLED, matchers=[_OURS]))),
        _stat("Degraded", metrics.DEGRADED, share(rate(metrics.DEGRADED), _ANSWERS)),
        _stat("Without the model", metrics.FALLBACKS, share(rate(metrics.FALLBACKS), _ANSWERS)),
        _stat("Added latency, p99", metrics.ADDED_SECONDS, quantile(0.99, metrics.ADDED_SECONDS), "s"),
        Panel("Alerts firing", "Alerts of `mixer rules` that are raised now.",
              (Query('count(ALERTS{alertname=~"Mixer.+",alertstate="firing"}) or vector(0)'),),
              style="stat", width=4),
    ))  # fmt: skip
    calls = Row("Calls", (
        of(metrics.SERVER_STARTED, "grpc_method", title="Begun"),
        of(metrics.SERVER_HANDLED, "grpc_method", "grpc_code", title="Ended, by status"),
        of(metrics.SERVER_SECONDS, "grpc_method", title="Duration"),
        Panel("Duration of searches", metrics.SERVER_SECONDS.help,
              (Query(rate(metrics.SERVER_SECONDS, "le", matchers=['grpc_method="Search"'], suffix="_bucket"),
                     "{{le}}"),), style="heatmap"),
        of(metrics.SERVER_IN_FLIGHT, title="In flight"),
        of(metrics.STAGE_FAILURES, "mix", "stage", "error", title="Ended in a stage"),
    ))  # fmt: skip
    answers = Row("Answers", (
        of(metrics.DEGRADED, "mix", title="Degraded"),
        of(metrics.FALLBACKS, "mix", "reason", title="Without the model, by reason"),
        of(metrics.DROPPED, "mix", "backend", "reason", title="Left out, by reason"),
        of(metrics.ADDED_SECONDS, "mix", title="Added latency"),
        Panel("Stages, p99", metrics.STAGE_SECONDS.help,
              (Query(quantile(0.99, metrics.STAGE_SECONDS, "stage"), "{{stage}}"),), "s"),
        of(metrics.CANDIDATES, "mix"),
    ))  # fmt: skip
    slices = Row("Slices", (
        of(metrics.SLICE_SECONDS, *_SLICE),
        of(metrics.SLICE_DEGRADED, *_SLICE),
        of(metrics.SLICE_FALLBACKS, *_SLICE),
    ))  # fmt: skip
    return Board("mixer-overview", "Mixer / Overview", (headline, calls, answers, slices))


def backends() -> Board:
    """What is asked, and how that ends."""
    failing = 'outcome!~"ok|skipped"'
    asked = Row("Asking", (
        Panel("Failing", f"Share of the calls to a backend that did not end in an answer. {_BY_RULES}",
              (Query('mix_backend:mixer_backend_failures:ratio5m{mix=~"$mix"}', "{{mix}} {{backend}}"),),
              "percentunit"),
        Panel("Asked, by outcome", metrics.BACKEND_SECONDS.help,
              (Query(rate(metrics.BACKEND_SECONDS, "backend", "outcome", suffix="_count"),
                     "{{backend}} {{outcome}}"),), "reqps"),
        Panel("Not answered", metrics.BACKEND_SECONDS.help,
              (Query(rate(metrics.BACKEND_SECONDS, "backend", "outcome", matchers=[failing], suffix="_count"),
                     "{{backend}} {{outcome}}"),), "reqps"),
        of(metrics.BACKEND_SECONDS, "backend", title="Duration"),
        Panel("Duration, p99 by outcome", metrics.BACKEND_SECONDS.help,
              (Query(quantile(0.99, metrics.BACKEND_SECONDS, "backend", "outcome"),
                     "{{backend}} {{outcome}}"),), "s"),
        of(metrics.BACKEND_CANDIDATES, "backend", title="Documents in an answer"),
    ))  # fmt: skip
    held = Row("What they hold", (
        Panel("Age of the documents", metrics.BACKEND_FRESH_AT.help,
              (Query(f"time() - {latest(metrics.BACKEND_FRESH_AT, 'mix', 'backend')}",
                     "{{mix}} {{backend}}"),), "s"),
        of(metrics.BACKEND_CHANGES, "mix", "backend", "what", title="Became another"),
        of(metrics.DROPPED, "backend", "reason", title="Left out of their answers"),
    ))  # fmt: skip
    return Board("mixer-backends", "Mixer / Backends", (asked, held))


def ranking() -> Board:
    """Which model ranks, how it came there, and whether it still knows the world."""
    loaded = Row("Loaded", (
        Panel("Models at work", metrics.MODEL_INFO.help,
              (Query(f"count by (mix, model, version, sha256) ({series(metrics.MODEL_INFO)} == 1)"),),
              style="table", width=12),
        of(metrics.MODEL_AGE, "mix", title="Age", width=6),
        of(metrics.MODEL_SCORER, "mix", "scorer", "reason", title="Evaluated by", width=6),
        of(metrics.MODEL_SWAPS, "mix", "outcome", title="Swaps", width=12),
        of(metrics.MODEL_REFUSED, "mix", "check", title="Refused", width=12),
    ))  # fmt: skip
    scores = Row("Scores", (
        _recorded("PSI against training", "mix_version:mixer_score:psi1h", ("mix", "version")),
        _recorded("Share of scores by bin", "mix_version_bin:mixer_score_bin:share1h", ("version", "bin"),
                  "percentunit"),
        of(metrics.SCORE_BIN_REFERENCE, "version", "bin", title="The same in training"),
        of(metrics.SCORE_BIN, "mix", "version", title="Scores counted"),
        of(metrics.SLICE_SCORE_BIN, *_SLICE, title="Scores counted, by slice"),
        _recorded("PSI of slices against yesterday", "mix_version_slice_value:mixer_slice_score:psi1h_1d", _SLICE),
    ))  # fmt: skip
    features = Row("Features", (
        _recorded("PSI against training", "mix_version_feature:mixer_feature:psi1h", ("feature",)),
        _recorded("Share missing", "mix_feature:mixer_feature_missing:ratio1h", ("feature",), "percentunit"),
        _recorded("Share out of range", "mix_feature:mixer_feature_out_of_range:ratio1h", ("feature",),
                  "percentunit"),
        Panel("Farthest from training, bin by bin", f"Shares of bins that moved most. {_BY_RULES} "
              f"`{metrics.FEATURE_BIN.name}` beside `{metrics.FEATURE_BIN_REFERENCE.name}`",
              (Query(f"topk(10, abs({_shares('share1h')} - {_shares('trained')}))", "{{feature}} {{bin}}"),),
              "percentunit"),
        of(metrics.FEATURE_MISSING, "feature", title="Missing"),
        of(metrics.FEATURE_OUT_OF_RANGE, "feature", title="Out of range"),
        of(metrics.FEATURE_ROWS, "mix", title="Rows made"),
        of(metrics.FEATURE_BIN, "mix", "version", title="Values counted"),
        Panel("Bins that the manifest gives", metrics.FEATURE_BIN_REFERENCE.help,
              (Query(f"count by (mix, version) ({series(metrics.FEATURE_BIN_REFERENCE)})",
                     "{{mix}} {{version}}"),)),
    ))  # fmt: skip
    return Board("mixer-models", "Mixer / Models", (loaded, scores, features))


def experiments() -> Board:
    """Arms and what they are held by, drafts of two models, shadows."""
    arm = ("mix", "arm")
    arms = Row("Arms", (
        of(metrics.ARM_REQUESTS, *arm, "outcome", title="Requests"),
        of(metrics.ARM_SECONDS, *arm, title="Duration"),
        of(metrics.ARM_FALLBACKS, *arm, title="Without the model"),
        of(metrics.ARM_SHARE, *arm, title="Share now"),
        of(metrics.ARM_KEYS, *arm, title="Keys"),
        of(metrics.SAMPLE_RATIO_P, "mix", title="Sample ratio, p-value", more="Below 0.001 the draw is not even."),
        of(metrics.ARM_TAKEN_BACK, *arm, title="Taken back"),
        of(metrics.ROLLBACKS, *arm, "reason", title="Taken back, by the bound"),
        of(metrics.OUTSIDE, "mix", title="Outside the experiment"),
    ))  # fmt: skip
    duels = Row("Two models in one list", (
        of(metrics.INTERLEAVED_LISTS, *arm, "preferred", title="Whose hits readers prefer", width=12),
        of(metrics.INTERLEAVED_EVIDENCE, *arm, title="Evidence", width=12, more="Above 3, a case at the 5 % level."),
    ))  # fmt: skip
    whole = ('slice="all"',)
    kept = ("mix", "shadow")
    far = (metrics.SHADOW_OVERLAP, metrics.SHADOW_TAU, metrics.SHADOW_CHURN, metrics.SHADOW_SHIFT)
    shadows = Row("Shadows", (
        *(_mean(metric, kept, whole) for metric in far),
        of(metrics.SHADOW_CPU_SECONDS, *kept, title="CPU"),
        of(metrics.SHADOW_DROPPED, *kept, "reason", title="Not compared"),
        of(metrics.SHADOW_ACTIVE, *kept, title="At work"),
    ))  # fmt: skip
    return Board("mixer-experiments", "Mixer / Experiments", (arms, duels, shadows))


def process() -> Board:
    """The server's processes, and what they write beside the answers."""
    server = Row("Processes", (
        of(metrics.WORKERS),
        of(metrics.WORKER_RESTARTS, "reason"),
        of(metrics.SPANS_DROPPED, "reason"),
        Panel("Scraped", "1 where Prometheus reaches the server.", (Query('up{job=~"$job"}', "{{instance}}"),)),
    ))  # fmt: skip
    logs = Row("Feature log and feedback", (
        of(metrics.FEATURE_LOG_ROWS, "sink"),
        of(metrics.FEATURE_LOG_DROPPED, "reason"),
        of(metrics.FEATURE_LOG_QUEUE),
        of(metrics.FEATURE_LOG_FILES),
        of(metrics.FEEDBACK_EVENTS, "kind", "outcome"),
    ))  # fmt: skip
    return Board("mixer-process", "Mixer / Process", (server, logs))


@cache
def boards() -> tuple[Board, ...]:
    """All dashboards, with every metric of the catalogue on one of them."""
    made = (overview(), backends(), ranking(), experiments(), process())
    read = [query.expr for board in made for panel in panels_of(board) for query in panel.queries]
    left = [metric for metric in METRICS if not any(reads(expr, metric) for expr in read)]
    return tuple(_completed(board, [each for each in left if home(each) == board.name]) for board in made)


def _completed(board: Board, left: Sequence[Metric]) -> Board:
    more = Row("More", tuple(of(metric, *metric.labels) for metric in left))
    return Board(board.name, board.title, (*board.rows, *([more] if left else [])))


def home(metric: Metric) -> str:
    """The dashboard that a metric belongs to, by what it tells apart."""
    homes = {
        "mixer-experiments": {"arm", "shadow"},
        "mixer-backends": {"backend"},
        "mixer-models": {"model", "version", "feature", "check", "scorer"},
        "mixer-overview": {"mix", "grpc_method"},
    }
    return next((name for name, labels in homes.items() if labels & set(metric.labels)), "mixer-process")


def reads(expr: str, metric: Metric) -> bool:
    """Whether an expression asks for the metric, or for what the rules record of it."""
    return bool(re.search(rf"\b{metric.name}(?:_count|_sum|_bucket)?(?![\w:])", expr))


def panels_of(board: Board) -> Iterator[Panel]:
    """Every panel of a dashboard."""
    return (panel for row in board.rows for panel in row.panels)


def _stat(title: str, metric: Metric, expr: str, unit: str = "percentunit") -> Panel:
    return Panel(title, metric.help, (Query(expr, title),), unit, "stat", 4)


def _recorded(title: str, name: str, told: Sequence[str], unit: str = "short") -> Panel:
    """What the rules record under this name, of which the labels before its first colon tell the level."""
    level = name.split(":")[0]
    scopes = [f'{label}=~"${label}"' for label in ("mix", "version") if label in level]
    query = Query(f"{name}{{{','.join(scopes)}}}", legend_of(told))
    return Panel(title, f"`{name}`. {_BY_RULES}", (query,), unit)


def _shares(what: str) -> str:
    return f'mix_version_feature_bin:mixer_feature_bin:{what}{{mix=~"$mix",version=~"$version"}}'


def _mean(metric: Metric, by: Sequence[str], matchers: Sequence[str]) -> Panel:
    """A mean, not a quantile: values may be negative, and buckets are uneven."""
    parts = (rate(metric, *by, matchers=matchers, suffix=suffix) for suffix in ("_sum", "_count"))
    panel = of(metric, *by)
    told = Query(" / ".join(parts), legend_of(by))
    return Panel(f"{panel.title}, mean", panel.says, (told,), panel.unit, width=6)
