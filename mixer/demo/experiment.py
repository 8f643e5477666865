"""Trains the model that the demo ships, and measures it honestly: folds by need, intervals, every backend beside it.

python -m mixer.demo.experiment train
python -m mixer.demo.experiment evaluate
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer
import yaml
from rich.console import Console
from rich.text import Text

from mixer.demo.show import BACKENDS, MODEL, Stage, prepare
from mixer.settings import Settings, parse
from models import evaluation, judgements, training, work
from models.collection import Listing

JUDGEMENTS = MODEL.parent / "judgements.jsonl"
RECIPE = training.Recipe(
    parameters={
        "learning_rate": 0.05,
        "num_leaves": 7,
        "min_data_in_leaf": 20,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "lambdarank_truncation_level": 20,
    },
    rounds=400,
    patience=150,
)
FOLDS = 5

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The demo's model: train it, measure it.")
console = Console()
FOLDER = Path(".build/demo")


@app.command()
def train() -> None:
    """Train the shipped model on the train and valid splits, and measure it on the test split."""
    job = _job()
    manifest = asyncio.run(work.train(job, "stdlib", RECIPE, MODEL, console))
    console.print(f"{MODEL}: {manifest.version}, {manifest.trees} trees", highlight=False)
    for part in asyncio.run(work.evaluate(job, "test", console)):
        console.print(part)


@app.command()
def evaluate() -> None:
    """Five folds by need: every query is ranked by a model that saw no query of its need."""
    job = _job()
    listings = asyncio.run(_listings(job))
    orders = {
        **{name: evaluation.by_backend(name) for name in listings[0].backends},
        "fused": evaluation.fused,
        "model": _by_fold(listings, job),
    }
    results = evaluation.evaluate(listings, orders)
    console.print(evaluation.table(results, f"{len(listings)} queries, {FOLDS} folds by need"))
    for name in ("fused", *BACKENDS):
        gain = evaluation.difference(listings, orders["model"], orders[name])
        console.print(Text(f"model less {name}, NDCG@{evaluation.DEPTH}: {gain}"))


def _job() -> work.Job:
    stage = prepare(FOLDER, 50051, console)
    return work.Job(_embedded(stage), "default", judgements.read(JUDGEMENTS))


def _embedded(stage: Stage) -> Settings:
    """The demo's settings with its engines in the same process: what they answer is the same."""
    raw = yaml.safe_load(stage.settings.read_text(encoding="utf-8"))
    raw["backends"] = {
        name: {"kind": kind, "index": stage.index(name).name} for name, kind in BACKENDS.items()
    }
    return parse(yaml.safe_dump(raw, sort_keys=False), str(stage.settings), stage.folder)


async def _listings(job: work.Job) -> tuple[Listing, ...]:
    async with work.answering(job, with_model=False) as target:
        return await work.listings(job, target, job.judgements.queries, "asking", console)


def _by_fold(listings: tuple[Listing, ...], job: work.Job) -> evaluation.Order:
    """Each listing in the order of the model of the other folds; its stop is chosen on the next fold."""
    models = [_fold_order(listings, job, fold) for fold in range(FOLDS)]
    return lambda listing: models[listing.judged.fold(FOLDS)](listing)


def _fold_order(listings: tuple[Listing, ...], job: work.Job, fold: int) -> evaluation.Order:
    held = (fold + 1) % FOLDS
    learned = [ls for ls in listings if ls.judged.fold(FOLDS) not in (fold, held)]
    stopping = [ls for ls in listings if ls.judged.fold(FOLDS) == held]
    return training.fit(learned, stopping, job.rules.features, RECIPE).order()


if __name__ == "__main__":
    app()
