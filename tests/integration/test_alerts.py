"""What goes wrong before a running server, its metrics of it, and the alerts that the rules raise, by promtool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from mixer.manifest import MANIFEST, Manifest
from models import rule_files
from models.rule_tests import changing, constant
from protos.backends.v1 import backend_pb2 as pb
from tests import forest
from tests.doubles import engines, mixers
from tests.doubles.engines import Answer, answering
from tests.doubles.mixers import Mixer
from tests.integration.chart import run

MIX = {
    "model": "forest",
    "features": [feature.model_dump() for feature in forest.FEATURES],
    "slices": [{"name": "length", "by": "query_length", "bounds": [1]}],
}
FIRST = "csv"
"""What every server is asked before its metrics are looked at."""
TIMES_A_MINUTE, AT = 100, "100m"

MISSING, OUT_OF_RANGE = "MixerFeatureMissing", "MixerFeatureOutOfRange"
FAILS, DEGRADED, CHANGED = "MixerBackendFails", "MixerDegraded", "MixerBackendChanged"
SLICE_DEGRADED = "MixerSliceDegraded"
WATCHED = (MISSING, OUT_OF_RANGE, FAILS, DEGRADED, CHANGED, SLICE_DEGRADED)

NAN, INF = float("nan"), float("inf")
IDS, SCORES, YEARS = ["1", "2", "3", "4"], [4.0, 3.0, 2.0, 1.0], [1960.0, 1970.0, 1980.0, 1990.0]


@dataclass(frozen=True, slots=True)
class Scene:
    """What a backend answers to which queries, and the alerts of it: name, and the label by which it tells what."""

    answer: Answer
    alerts: tuple[tuple[str, str, str], ...] = ()
    queries: tuple[str, ...] = ("csv file",)


def message(scores: list[float], years: list[float]) -> pb.RetrieveResponse:
    made = engines.columns(IDS, scores, titles=["csv file", "file", "csv", "rows"])
    made.numbers.append(pb.NumberColumn(name="year", values=years))
    return made


async def another(request: pb.RetrieveRequest, context: object) -> bytes:
    """An index rebuilt under another schema, by another program, after the first query."""
    made, which = message(SCORES, YEARS), "1" if request.query == FIRST else "2"
    made.index.version, made.index.schema, made.server_version = f"v{which}", f"s{which}", f"raw/{which}"
    return made.SerializeToString()


async def only_short(request: pb.RetrieveRequest, context: grpc.aio.ServicerContext) -> bytes:
    """Fails queries of several words."""
    if " " in request.query:
        await context.abort(grpc.StatusCode.INTERNAL, "too long")
    return message(SCORES, YEARS).SerializeToString()


SCENES = {
    "sound": Scene(answering(message(SCORES, YEARS))),
    "scores that are no numbers": Scene(
        answering(message([NAN, INF, -INF, 1], YEARS)), ((MISSING, "feature", "a_score"),)
    ),
    "numbers that are none": Scene(
        answering(message(SCORES, [NAN, INF, -INF, NAN])), ((MISSING, "feature", "year"),)
    ),
    # The model gets them as missing ones.
    "numbers out of range": Scene(
        answering(message(SCORES, [3000, 1000, 0, 1990])),
        ((OUT_OF_RANGE, "feature", "year"), (MISSING, "feature", "year")),
    ),
    "a column that is not there": Scene(
        answering(engines.columns(IDS, titles=IDS)), ((MISSING, "feature", "year"),)
    ),
    "a column too short": Scene(
        answering(message(SCORES, YEARS[:1])),
        ((FAILS, "backend", "a"), (DEGRADED, "mix", "default"), (SLICE_DEGRADED, "value", "2+")),
    ),
    "another index, schema and program": Scene(
        another, ((CHANGED, "what", "index"), (CHANGED, "what", "schema"), (CHANGED, "what", "server"))
    ),
    # One answer of thirty, within what is borne of the whole.
    "a slice that fails": Scene(
        only_short, ((SLICE_DEGRADED, "value", "2+"),), (FIRST,) * 30 + ("read a csv file",)
    ),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_what_goes_wrong_raises_its_alerts(tmp_path: Path, model_folder: Path, scene: Scene) -> None:
    """A server's own metrics raise the alerts that name what is wrong, and no other of those looked at."""
    manifest = Manifest.model_validate_json((model_folder / MANIFEST).read_bytes())
    rule_files.write({"default": manifest}, tmp_path, sliced=True)
    async with AsyncExitStack() as stack:
        mixer = await served(stack, scene.answer, model_folder)
        series = await asked(mixer, scene.queries)
    check = {"interval": "1m", "input_series": series, "promql_expr_test": list(checks(scene))}
    tests = {"rule_files": [rule_files.RULES], "evaluation_interval": "1m", "tests": [check]}
    (tmp_path / "scene.yaml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    run("promtool", "test", "rules", str(tmp_path / "scene.yaml"))


async def served(stack: AsyncExitStack, answer: Answer, folder: Path) -> Mixer:
    """A server with a model before a backend that answers so, and one that finds nothing."""
    odd = await stack.enter_async_context(engines.engine(answer))
    silent = await stack.enter_async_context(engines.engine(answering(b"")))
    backends = {"a": odd.target, "silent": silent.target}
    settings = mixers.settings(backends, MIX, models={"forest": {"path": folder}})
    return await stack.enter_async_context(mixers.running(settings))


async def asked(mixer: Mixer, queries: tuple[str, ...]) -> list[dict[str, str]]:
    """The series of a server that is asked these many times a minute, in promtool's notation."""
    await mixer.search(FIRST, context={"plan": "free"})
    before = scraped(mixer)
    for query in queries:
        await mixer.search(query, context={"plan": "free"})
    return [
        {
            "series": name,
            "values": changing(TIMES_A_MINUTE * (value - before[name][0])) if grows else constant(value),
        }
        for name, (value, grows) in scraped(mixer).items()
    ]


def scraped(mixer: Mixer) -> Mapping[str, tuple[float, bool]]:
    """Every sample, and whether it can only grow."""
    text = generate_latest(mixer.registry).decode()
    return {
        named(sample): (sample.value, family.type in ("counter", "histogram"))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def named(sample: Sample) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
    return f"{sample.name}{{{labels}}}"


def checks(scene: Scene) -> Iterator[dict[str, Any]]:
    """Each alert looked at, by what it tells of."""
    for name in WATCHED:
        told = [(label, value) for alert, label, value in scene.alerts if alert == name]
        by = told[0][0] if told else "mix"
        yield {
            "expr": f'count by ({by}) (ALERTS{{alertname="{name}",alertstate="firing"}})',
            "eval_time": AT,
            "exp_samples": [{"labels": f'{{{label}="{value}"}}', "value": 1} for label, value in told],
        }
