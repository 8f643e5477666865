"""`mixer explain`: why hits stand where they stand, told by a running server or from the feature log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixer import arguments
from mixer.cli_inputs import read_from
from mixer.cli_looks import Json, Name, Part, Registry, model_meant, searches, told
from mixer.cli_server import HERE, Reach, client_of
from mixer.cli_words import console, failure
from mixer.client import ExplainResult, MixerError

if TYPE_CHECKING:
    from mixer.model import LightGbmModel


def explain(
    query_id: Annotated[
        str,
        typer.Argument(
            help="Of an answer that the server remembers, or that a log holds.", show_default=False
        ),
    ] = "",
    search: Annotated[str, typer.Option("--search", "-s", help="Ask this anew instead.")] = "",
    target: Annotated[str, typer.Option(help="host:port of a running Mixer.")] = "localhost:50051",
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            "-l",
            help="Folder or fsspec URL of a feature log, to be read instead.",
            parser=read_from,
            metavar="LOG",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Of the server's settings: how it would rank the same candidates. With --log: folder, or version of a "
            "registry, of the model that ranked, for the features' parts."
        ),
    ] = "",
    registry: Registry = "",
    name: Name = "",
    mix: Annotated[str, typer.Option(help="Mix to search; the default one if empty.")] = "",
    where: Annotated[list[str] | None, typer.Option(help="Filter of the search; see `search`.")] = None,
    context: Annotated[list[str] | None, typer.Option(help="Context of the search; see `search`.")] = None,
    hits: Annotated[int, typer.Option(min=0, help="So many from the top; 0 for the page.")] = 0,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="This document, wherever it stands; repeatable.")
    ] = None,
    features: Annotated[int, typer.Option(min=0, help="Features to show a hit; 0 for all.")] = 8,
    as_json: Json = False,
    timeout_s: Annotated[float, typer.Option(help="Deadline.")] = 10.0,
    reach: Reach = HERE,
) -> None:
    """Tell why hits stand where they stand: each backend's vote, every step's order, each feature's part in the score.

    [bold]mixer explain QUERY_ID[/] of an answer that was served, [bold]mixer explain --search "words"[/] of one asked
    anew, [bold]mixer explain QUERY_ID --log FOLDER --model FOLDER[/] of one that was logged.
    [bold]--model NAME[/] tells how another model of the server's settings would rank the same candidates, and why.
    """
    from mixer import terminal, terminal_explain

    if bool(query_id) == bool(search) or (log and search):
        raise failure("pass a QUERY_ID, with --log or without, or --search WORDS")
    if log:
        with told():
            ranked_by = model_meant(model, registry, name) if model else None
            title, result = _explained_log(log, ranked_by, query_id, hits, ids or ())
    else:
        asked = _Asked(query_id, search, mix, where or (), context or (), hits, ids or (), model)
        title, result = search or query_id, _explained(target, reach, asked, timeout_s)
    if as_json:
        return console.print_json(json.dumps(terminal.plain(result)))
    for part in terminal_explain.explanation(title, result, features):
        console.print(part)
    return None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What to explain, as typed."""

    query_id: str
    search: str
    mix: str
    where: Sequence[str]
    context: Sequence[str]
    hits: int
    ids: Sequence[str]
    model: str

    def options(self) -> dict[str, Any]:
        """For the client. Raises: Unreadable."""
        which = {"hits": self.hits, "ids": self.ids, "model": self.model}
        if not self.search:
            return {"query_id": self.query_id, **which}
        return {
            "search": self.search,
            "mix": self.mix,
            "filters": [arguments.filter_from(text) for text in self.where],
            "context": dict(arguments.pair_from(text) for text in self.context),
            **which,
        }


def _explained(target: str, reach: Reach, asked: _Asked, timeout_s: float) -> ExplainResult:
    with client_of(target, reach, timeout_s) as client:
        try:
            return client.explain(**asked.options())
        except arguments.Unreadable as error:
            raise failure(str(error)) from error
        except MixerError as error:
            raise failure(f"{target} says {error}") from error


def _explained_log(
    log: Path, model: LightGbmModel | None, query_id: str, hits: int, ids: Sequence[str]
) -> tuple[str, ExplainResult]:
    from models.explained import explained
    from models.replay import Wanted

    served = next(searches(log, Part(Wanted(query_id), limit=1)), None)
    if served is None:
        raise ValueError(f"{log} holds no search {query_id!r}")
    return served.query or query_id, explained(served, model, hits, ids)
