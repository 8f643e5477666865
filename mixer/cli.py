"""The command line: `mixer --help` shows the way from documents to a served, trained mix.

A command imports what it alone needs when it runs, so that the light ones start at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from backends import build
from backends.index import IndexFault
from mixer import (
    arguments,
    cli_dashboards,
    cli_drift,
    cli_experiment,
    cli_explain,
    cli_keys,
    cli_models,
    cli_replay,
    cli_vectors,
    settings,
    terminal,
)
from mixer.cli_inputs import (
    Asked,
    Config,
    EventLog,
    FeatureLog,
    Judged,
    Mix,
    RecipeFile,
    job_of,
    learner,
    mix_of,
    read_from,
    read_of,
    recipe_of,
    settings_of,
)
from mixer.cli_server import HERE, Reach, client_of, reaches_a_server
from mixer.cli_words import console, errors, failure, say
from mixer.client import MixerError
from mixer.settings import MixSettings, Settings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # they may be secrets
    help="A re-ranking mixer for search.\n\n"
    "The way: [bold]index[/] documents, [bold]check-config[/] a settings file, [bold]serve[/] it, "
    "[bold]search[/] it, [bold]explain[/] an answer, [bold]train[/] a model from judged queries, [bold]evaluate[/] it, "
    "[bold]models[/] publishes it, promotes it through a gate, and rolls it back; "
    "[bold]replay[/] and [bold]diff[/] rank logged searches again. "
    "[bold]demo[/] does all of it on the documentation of Python's standard library.",
)

app.add_typer(cli_models.app, name="models")
app.add_typer(cli_experiment.app, name="experiment")
app.add_typer(cli_keys.app, name="keys")

Target = Annotated[str, typer.Option(help="host:port of a running Mixer.")]
Window = Annotated[float, typer.Option(help="How long after its search an event counts.")]


class SeenBy(Enum):
    """Which searches count online."""

    IMPRESSIONS, SERVED = "impressions", "served"


class Splits(Enum):
    """Which judged queries to ask."""

    TRAIN, VALID, TEST, ALL = "train", "valid", "test", "all"


def main() -> None:
    """Entry point of `mixer`."""
    app()


@app.command()
def serve(
    config: Config,
    workers: Annotated[
        int,
        typer.Option(min=0, max=64, help="Processes that share the port; 0 for the settings' own number."),
    ] = 0,
) -> None:
    """Serve the mixes of a settings file until SIGTERM. One JSON line a call goes to standard output."""
    from mixer import server, supervise, telemetry
    from mixer.serving import run_loop

    loaded = _with_workers(settings_of(config), workers)
    told = loaded.telemetry
    telemetry.start_logging(told.log_level, raw_messages=told.query == "raw")
    try:
        run_loop(supervise.serve(loaded) if loaded.server.workers > 1 else server.serve(loaded))
    except supervise.WorkersFailed as error:
        raise failure(str(error), error.status) from error
    except (OSError, ValueError, IndexFault) as error:
        raise failure(str(error)) from error


@app.command()
@reaches_a_server
def search(
    query: Annotated[str, typer.Argument(help="What to search for.")],
    target: Target = "localhost:50051",
    mix: Mix = "",
    size: Annotated[int, typer.Option(help="Hits to show; 0 for the mix's own number.")] = 0,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Filter, repeatable: kind=class, kind=class|function, year=1990..1999, year=..2000, id='7'"
        ),
    ] = None,
    context: Annotated[list[str] | None, typer.Option(help="Context, repeatable: age=31, plan=free")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer as JSON, with what the model saw.")
    ] = False,
    timeout_s: Annotated[float, typer.Option(help="Deadline.")] = 2.0,
    reach: Reach = HERE,
) -> None:
    """Search a running Mixer, and show each hit's place in every backend; `explain` tells why it stands there."""
    with client_of(target, reach, timeout_s) as client:
        try:
            result = client.search(
                query,
                mix=mix,
                page_size=size,
                filters=[arguments.filter_from(text) for text in where or ()],
                context=dict(arguments.pair_from(text) for text in context or ()),
                features=as_json,
            )
        except arguments.Unreadable as error:
            raise failure(str(error)) from error
        except MixerError as error:
            raise failure(f"{target} says {error}") from error
    if as_json:
        console.print_json(json.dumps(terminal.plain(result)))
        return
    for part in terminal.ranking(query, result):
        console.print(part)


@app.command()
def index(
    definition: Annotated[Path, typer.Argument(help="YAML: schema and engine.")],
    documents: Annotated[Path, typer.Argument(help="JSON Lines, may be gzipped (.jsonl.gz).")],
    folder: Annotated[Path, typer.Argument(help="Where the index goes; replaced as a whole.")],
    allow_bad_lines: Annotated[int, typer.Option(help="Publish in spite of this many bad lines.")] = 0,
) -> None:
    """Build a backend's index from JSON Lines. Every bad line is named; none is dropped in silence."""
    defined = read_of(build.Definition, definition)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors) as progress:
        bar = progress.add_task(f"{defined.engine.kind}", total=None)
        try:
            report = build.build(
                defined,
                documents,
                folder,
                lambda read, total: progress.update(bar, completed=read, total=total),
                allow_bad_lines,
            )
        except (OSError, IndexFault) as error:
            raise failure(str(error)) from error
    for bad in report.bad_lines:
        line = f"{documents}:{bad.number}: {bad.reason}"
        errors.print(line, markup=False, highlight=False, soft_wrap=True)
    if not report.published:
        many = len(report.bad_lines)
        raise failure(f"{many} bad lines, nothing written; mend them or pass --allow-bad-lines {many}")
    say(f"{folder}: {report.indexed} documents, version {report.version}")


@app.command()
@reaches_a_server
def train(
    config: Config,
    out: Annotated[Path, typer.Option(help="Model folder to write; replaced as a whole.")],
    judgements: Annotated[
        Path | None, typer.Option("--judgements", "-j", help="Judged queries (JSON Lines).")
    ] = None,
    from_log: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--from-log",
            metavar="LOG EVENTS",
            help="Learn from clicks on what was served instead; folders or fsspec URLs.",
        ),
    ] = None,
    mix: Mix = "",
    name: Annotated[str, typer.Option(help="Name of the model; the folder's where not given.")] = "",
    pools: Annotated[
        str, typer.Option(help="Candidates to learn from: open, judged, or open,judged.")
    ] = "open",
    recipe: RecipeFile = None,
    target: Asked = "",
    window_s: Window = 3600.0,
    eta: Annotated[
        float, typer.Option(min=0, help="People look at (1/place)^eta; 0 takes clicks as they are.")
    ] = 1.0,
    explore: Annotated[
        str, typer.Option(help="Arm with places at random: measure how far people look.")
    ] = "",
    clip: Annotated[float, typer.Option(min=1, help="The most that one click may weigh.")] = 20.0,
    dask: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS|N",
            help="Learn on a Dask cluster: its scheduler (tcp://host:8786), or so many processes started here.",
        ),
    ] = "",
    reach: Reach = HERE,
) -> None:
    """Train a model for a mix: from judged queries, asked through Mixer itself, or from clicks on what was served.

    A click weighs more the less its place is looked at.
    """
    from models import work

    if (judgements is None) == (from_log is None):
        raise failure("name --judgements or --from-log, one of the two")
    how = recipe_of(recipe)
    try:
        with learner(dask) as learn:
            if judgements:
                job = job_of(config, mix, judgements, pools, target, reach)
                manifest = asyncio.run(work.train(job, name or out.name, how, out, errors, learn))
            elif from_log:
                searches, events = map(read_from, from_log)
                logs = work.Logs(searches, events, window_s, eta, explore, clip)
                loaded = settings_of(config)
                manifest, clicked = work.train_from_log(
                    loaded, mix_of(loaded, mix), name or out.name, logs, how, out, errors, learn
                )
                for why, many in clicked.left_out.items():
                    say(f"left out: {many} searches {why}")
    except (MixerError, ValueError, OSError, IndexFault) as error:
        raise failure(str(error)) from error
    say(f"{out}: {manifest.name} {manifest.version}, {manifest.trees} trees")
    for measure, value in manifest.metrics.items():
        say(f"  {measure} {value:.4f}")


@app.command()
@reaches_a_server
def evaluate(
    config: Config,
    judgements: Judged,
    mix: Mix = "",
    split: Annotated[Splits, typer.Option(help="Queries to ask.")] = Splits.TEST,
    pools: Annotated[
        str, typer.Option(help="Search everything (open), only judged documents, or both.")
    ] = "open",
    target: Asked = "",
    reach: Reach = HERE,
) -> None:
    """Measure every backend alone, the fused order and the model over the same candidates."""
    from models import work

    job = job_of(config, mix, judgements, pools, target, reach)
    try:
        for table in asyncio.run(work.evaluate(job, split.value, errors)):
            console.print(table)
    except (MixerError, ValueError, OSError, IndexFault) as error:
        raise failure(str(error)) from error


@app.command()
def online(
    log: FeatureLog,
    events: EventLog,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Part the searches, repeatable: arm, mix, model_version, ranker, degraded, slice.NAME of those that "
            "the mix declares; by mix and arm where not given."
        ),
    ] = None,
    seen: Annotated[SeenBy, typer.Option(help="Searches that count.")] = SeenBy.IMPRESSIONS,
    window_s: Window = 3600.0,
) -> None:
    """Measure what was served by what people did with it: CTR, MRR and NDCG by arm and slice, with intervals."""
    from models import work

    try:
        for part in work.online(log, events, by or ["mix", "arm"], seen.value, window_s, errors):
            console.print(part)
    except ValueError as error:
        raise failure(str(error)) from error


@app.command()
def check_config(config: Config) -> None:
    """Check a settings file and the models it names; every fault is listed, with its line."""
    from mixer import access

    loaded = settings_of(config)
    faults = [fault for name, mix in loaded.mixes.items() for fault in _refused(name, mix, loaded)]
    faults += access.unusable(loaded)
    if faults:
        raise failure("\n".join(faults))
    say(f"{config}: sound; mixes: {', '.join(loaded.mixes)}; backends: {', '.join(loaded.backends)}")


@app.command()
def schema() -> None:
    """Print the JSON schema of the settings file, for editors."""
    console.print_json(json.dumps(settings.json_schema()))


@app.command()
def catalogue() -> None:
    """Print every metric, span and attribute as Markdown tables."""
    typer.echo(terminal.catalogue_markdown())


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where indexes and settings go.")] = Path(".build/demo"),
    query: Annotated[list[str] | None, typer.Option(help="Ask this, repeatable.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Ask, show, and stop; do not go on serving.")] = False,
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 50051,
) -> None:
    """Index the standard library's documentation, start three backends and Mixer, search, show the trace, serve."""
    from mixer.demo import processes, show

    try:
        show.run(folder, query or [], once, port, console)
    except (OSError, MixerError, processes.NotReady) as error:
        raise failure(str(error)) from error


app.command()(reaches_a_server(cli_explain.explain))
app.command()(cli_replay.replay)
app.command()(cli_replay.diff)
app.command("golden-vectors")(cli_vectors.golden_vectors)
app.command()(cli_drift.rules)
app.command()(cli_dashboards.dashboards)


def _with_workers(loaded: Settings, workers: int) -> Settings:
    """The settings with this number of workers, or their own for 0."""
    server = loaded.server.model_copy(update={"workers": workers or loaded.server.workers})
    return loaded.model_copy(update={"server": server})


def _refused(name: str, mix: MixSettings, loaded: Settings) -> Iterator[str]:
    """Why models of the mix cannot be used."""
    from mixer import ensemble, model

    arms = mix.experiment.arms if mix.experiment else ()
    named = {
        "model": mix.model,
        **{f"experiment.arms.{n}.model": arm.model for n, arm in enumerate(arms)},
        **{f"shadows.{n}.model": shadow.model for n, shadow in enumerate(mix.shadows)},
    }
    for place, key in named.items():
        if key:
            try:
                ensemble.load(key, loaded.models, mix.features)
            except model.ModelRefused as refusal:
                yield f"mixes.{name}.{place}: {refusal.check} check: {refusal}"
