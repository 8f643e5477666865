"""The jobs of this package, from start to end: train a model for a mix, and measure a mix."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from backends.base import FloatColumn
from backends.folders import swap
from mixer.client import AsyncMixerClient
from mixer.manifest import Manifest
from mixer.server import running
from mixer.settings import MixSettings, Settings
from mixer.slices import Slices
from models import card, clicks, evaluation, slicing, training
from models import decay as aging
from models import online as measuring
from models.clicked import Clicked, Weighing, listings_of
from models.collection import Asking, Listing, Pool, collect
from models.feedback import WINDOW_S, Joined
from models.judgements import Judged, Judgements, Split
from models.learn import Learn, here
from models.listings import QUERIES
from models.online import Seen


@dataclass(frozen=True, slots=True)
class Job:
    """What a job works on: one mix of some settings, judged queries, and the pools of candidates to take."""

    settings: Settings
    mix: str
    judgements: Judgements
    pools: tuple[Pool, ...] = ("open",)
    target: str = ""
    """A running Mixer to ask; empty starts one for the job."""
    reach: Mapping[str, Any] = field(default_factory=dict)
    """What the client is given besides the target."""

    @property
    def rules(self) -> MixSettings:
        """The settings of the mix."""
        return self.settings.mixes[self.mix]


def online(
    log: Path, events: Path, by: Sequence[str], seen: Seen, window_s: float, console: Console
) -> list[RenderableType]:
    """Tables for people: what was served, measured by its events. Raises: ValueError where the logs do not fit."""
    slices = [measuring.slice_of(name) for name in by]
    with Joined(log, events, window_s) as joined, _progress(console) as progress:
        bar = progress.add_task("searches", total=joined.total)
        parts = measuring.measure(joined, slices, seen, lambda: progress.advance(bar))
        return list(measuring.report(parts, slices, joined.counts))


async def train(
    job: Job, name: str, recipe: training.Recipe, folder: Path, console: Console, learn: Learn = here
) -> Manifest:
    """Train a model into a folder, which is replaced as a whole.

    Raises: MixerError where a query fails; ValueError where there is nothing to learn from.
    """
    async with answering(job, with_model=False) as target:
        learned = await listings(job, target, job.judgements.of("train"), "train", console)
        held = await listings(job, target, job.judgements.of("valid"), "valid", console)
        held_out = await listings(job, target, _few(job.judgements.of("test")), "test", console)
    with console.status("training"):
        trained = await asyncio.to_thread(training.fit, learned, held, job.rules.features, recipe, learn)
    return publish(trained, name, job, folder, held_out)


def _few(queries: Sequence[Judged]) -> Sequence[Judged]:
    """As many as are kept beside the model, the same ones each time."""
    return sorted(queries, key=lambda judged: judged.digest)[:QUERIES]


@dataclass(frozen=True, slots=True)
class Logs:
    """What was served and what people did with it, and how clicks are weighed."""

    searches: Path
    events: Path
    window_s: float = WINDOW_S
    eta: float = 1.0
    """Places are taken to be looked at as (1/place)^eta; 0 takes clicks as they are."""
    explore: str = ""
    """Arm whose random places tell how far people look, instead of `eta`."""
    clip: float = 20.0


def train_from_log(
    settings: Settings,
    mix: str,
    name: str,
    logs: Logs,
    recipe: training.Recipe,
    folder: Path,
    console: Console,
    learn: Learn = here,
) -> tuple[Manifest, Clicked]:
    """Train a model into a folder from clicks on what was served; also what was learned from.

    Raises: ValueError where the logs do not fit or hold nothing to learn from.
    """
    features = settings.mixes[mix].features
    with Joined(logs.searches, logs.events, logs.window_s) as joined, _progress(console) as progress:
        bar = progress.add_task("searches", total=joined.total)
        weighing = Weighing(_examination(joined, logs), logs.clip)
        clicked = listings_of(joined, mix, features, weighing, lambda: progress.advance(bar))
    with console.status("training"):
        trained = training.fit(clicked.of("train"), clicked.of("valid"), features, recipe, learn)
    looked = f"explored by {logs.explore}" if logs.explore else f"(1/place)^{logs.eta:g}"
    source = f"{logs.searches.name}: {len(clicked.listings)} clicks, examination {looked}, clip {logs.clip:g}"
    job = Job(settings, mix, clicked.judgements(source))
    return publish(trained, name, job, folder, clicked.of("test")), clicked


def _examination(joined: Joined, logs: Logs) -> FloatColumn:
    if not logs.explore:
        return clicks.by_power(logs.eta)
    columns = ("arm", "page_offset", "page_size", "propensities")
    return clicks.estimated(s for s in joined.searches(columns) if s.row["arm"] == logs.explore)


def publish(
    trained: training.Trained, name: str, job: Job, folder: Path, held_out: Sequence[Listing] = ()
) -> Manifest:
    """Write a trained model and its card where nothing half-written is ever seen."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        made = scratch / folder.name
        manifest = training.write(trained, name, job.rules.features, job.judgements, made, held_out)
        card.write(manifest, made)
        swap(made, folder, scratch / "before")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest


async def evaluate(job: Job, split: Split | Literal["all"], console: Console) -> list[RenderableType]:
    """Tables for people, one a pool: every backend alone, the fused order, and what the mix serves.

    Raises: MixerError where a query fails; ValueError where no query is of the split.
    """
    queries = job.judgements.queries if split == "all" else job.judgements.of(split)
    if not queries:
        raise ValueError(f"no judged query is of the split {split!r}")
    async with answering(job, with_model=True) as target:
        taken = await listings(job, target, queries, split, console)
    pools = {pool: [listing for listing in taken if listing.pool == pool] for pool in job.pools}
    slices = Slices(job.rules.slices, list(job.rules.backends)) if job.rules.slices else None
    return [
        part for pool, listed in pools.items() for part in report(listed, f"{split}, {pool} pool", slices)
    ]


async def decay(
    job: Job, recipe: training.Recipe, windows: aging.Windows, console: Console
) -> list[RenderableType]:
    """A table for people: NDCG by the age of what was learned from, and the recommended greatest age.

    Raises: MixerError where a query fails; ValueError where the judgements are not dated, or too few.
    """
    async with answering(job, with_model=False) as target:
        taken = await listings(job, target, job.judgements.queries, "asking", console)
    with _progress(console) as progress:
        bar = progress.add_task("training", total=windows.number)
        step: Callable[[], None] = lambda: progress.advance(bar)  # noqa: E731
        return aging.report(aging.measure(taken, job.rules.features, recipe, windows, step))


def report(listed: Sequence[Listing], title: str, slices: Slices | None = None) -> list[RenderableType]:
    """A table of every ranking over these listings, the model's gain over the fused order, and that by slice."""
    rankings = evaluation.orders(listed, "served")
    gain = evaluation.difference(listed, evaluation.served, evaluation.fused)
    degraded = sum(listing.degraded for listing in listed)
    lines = f"{len(listed)} queries; served less fused, NDCG@{evaluation.DEPTH}: {gain}"
    warning = f"\n{degraded} answers were degraded: the figures say little" if degraded else ""
    parts: list[RenderableType] = [
        evaluation.table(evaluation.evaluate(listed, rankings), title),
        Text(lines + warning),
    ]
    if slices is None:
        return parts
    compared = {"fused": evaluation.fused, "served": evaluation.served}
    return [*parts, slicing.table(listed, compared, slices, f"{title}, by slice")]


async def listings(
    job: Job, target: str, queries: Sequence[Judged], title: str, console: Console
) -> tuple[Listing, ...]:
    """The queries' listings in every pool of the job, with a progress bar."""
    whole = sum(backend.limit for backend in job.rules.backends.values())
    asking = Asking(job.mix, min(whole, job.settings.limits.page_size) if job.target else whole)
    async with AsyncMixerClient(target, timeout_s=asking.timeout_s, **job.reach) as client:
        with _progress(console) as progress:
            bar = progress.add_task(title, total=len(queries) * len(job.pools))
            step: Callable[[], None] = lambda: progress.advance(bar)  # noqa: E731
            taken = [await collect(client, queries, pool, asking, step) for pool in job.pools]
    return tuple(listing for pool in taken for listing in pool)


@asynccontextmanager
async def answering(job: Job, with_model: bool) -> AsyncIterator[str]:
    """The address of a Mixer that answers for the job. Raises: ValueError where it would never be ready."""
    if job.target:
        yield job.target
        return
    async with running(for_work(job.settings, job.mix, with_model)) as (server, app):
        if fault := app.faults.get(job.mix):
            raise ValueError(f"the model of mix {job.mix!r} is refused: {fault}")
        yield f"127.0.0.1:{server.port}"


def for_work(settings: Settings, mix: str, with_model: bool) -> Settings:
    """The settings for a private server that serves whole lists of one mix, as patiently as judging needs."""
    rules = settings.mixes[mix]
    asked = sum(backend.limit for backend in rules.backends.values())
    patient = {
        name: backend.model_copy(update={"timeout_s": 5.0}) for name, backend in rules.backends.items()
    }
    alone = {
        "backends": patient,
        "model": rules.model if with_model else "",
        "experiment": None,
        "shadows": (),
    }
    return settings.model_copy(
        update={
            "server": settings.server.model_copy(
                update={
                    "listen": "127.0.0.1:0",
                    "admin_listen": "",
                    "health_listen": "",
                    "tls": None,
                    "default_mix": mix,
                    "drain_s": 1.0,
                }
            ),
            "auth": None,
            "tenants": {},
            "limits": settings.limits.model_copy(update={"page_size": asked}),
            "feature_log": None,
            "feedback": None,
            "mixes": {mix: rules.model_copy(update=alone)},
        }
    )


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)
