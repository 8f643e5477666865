"""`mixer replay` and `mixer diff`: logged searches ranked again, by one model or by two side by side."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from mixer.cli_inputs import read_from
from mixer.cli_looks import MODEL, Json, Name, Part, Registry, model_meant, searches, told
from mixer.cli_words import console, failure, say

NOTHING_COMPARED, DIFFERS = 3, 2

Log = Annotated[
    Path,
    typer.Option(
        "--log", "-l", help="Folder or fsspec URL of a feature log.", parser=read_from, metavar="LOG"
    ),
]
QueryId = Annotated[str, typer.Option(help="Only the search of this query id.")]
TraceId = Annotated[str, typer.Option(help="Only the search of this trace.")]
Mix = Annotated[str, typer.Option(help="Only searches of this mix.")]
Arm = Annotated[str, typer.Option(help="Only searches of this arm.")]
Since = Annotated[datetime | None, typer.Option(help="Only searches from this time on (UTC).")]
Until = Annotated[datetime | None, typer.Option(help="Only searches before this time (UTC).")]
Limit = Annotated[int, typer.Option(min=0, help="Only so many, the first of the log; 0 for all.")]


def replay(
    log: Log,
    model: Annotated[str, typer.Option("--model", help=MODEL)],
    registry: Registry = "",
    name: Name = "",
    query_id: QueryId = "",
    trace_id: TraceId = "",
    mix: Mix = "",
    arm: Arm = "",
    since: Since = None,
    until: Until = None,
    limit: Limit = 0,
    show: Annotated[int, typer.Option(min=0, help="Show the new order of so many searches.")] = 0,
) -> None:
    """Rank logged searches again by a model: the same bit for bit where it is the model that ranked them.

    Status 2 where one came out otherwise; 3 where the model had ranked none of them, so that nothing was compared.
    """
    from models.replay import Report, Verdict, Wanted, ranking
    from models.replay import replay as rank_again

    wanted = Wanted(query_id, trace_id, mix, arm)
    report = Report()
    with told():
        loaded = model_meant(model, registry, name)
        for served in searches(log, Part(wanted, since, until, limit)):
            replayed = rank_again(served, loaded, loaded.manifest.schema_sha256)
            report.add(replayed)
            if (
                report.searches <= (show or bool(query_id or trace_id))
                and replayed.verdict is not Verdict.FEATURES
            ):
                console.print(ranking(replayed))
    if not report.searches:
        raise failure(f"{log} holds no such search")
    console.print(report.table(f"{loaded.ref.name} {loaded.ref.version}: {report.candidates} candidates"))
    for line in report.lines():
        say(line)
    if not report.same:
        raise typer.Exit(DIFFERS)
    if not report.compared:
        raise failure("none of them was ranked by this model: nothing was compared", NOTHING_COMPARED)


def diff(
    model_a: Annotated[str, typer.Argument(help=MODEL)],
    model_b: Annotated[str, typer.Argument(help=MODEL)],
    log: Log,
    registry: Registry = "",
    name: Name = "",
    query_id: QueryId = "",
    trace_id: TraceId = "",
    mix: Mix = "",
    arm: Arm = "",
    since: Since = None,
    until: Until = None,
    limit: Limit = 0,
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg or .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Show what would change, query by query, if model B ranked logged searches instead of model A."""
    from models.differences import Differences
    from models.replay import Wanted

    with told():
        before, after = (model_meant(text, registry, name) for text in (model_a, model_b))
        schema = before.manifest.schema_sha256
        if after.manifest.schema_sha256 != schema:
            raise ValueError("the two models are of different features: no logged search is fit for both")
        part = Part(Wanted(query_id, trace_id, mix, arm), since, until, limit)
        found = Differences.of(searches(log, part), before, after, schema)
        if not found.changed:
            raise ValueError(
                f"{log} holds no such search of these models' features ({found.left_out} of others)"
            )
        if plot:
            from models import difference_plot

            difference_plot.plot(found, plot)
    if as_json:
        return console.print_json(json.dumps(found.plain()))
    for table in found.tables():
        console.print(table)
    return None
