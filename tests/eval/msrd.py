"""Mixer on the Movie Search Ranking Dataset, end to end through the running service.

    make eval-msrd

Needs the set beside the repository (`../shared/data/msrd`, or MSRD in the environment). Indexes the movies into
backends of three kinds, each a process of its own before Mixer's; tunes the weights of the fusion on the valid split;
trains on train, stops by valid; and reports the test split, asked through the service:

P1: order only the judged documents of a query (a filter on ids). P2: search everything, what is not judged is worth 0.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.text import Text

from backends import build
from mixer.demo.processes import backend, free_port, mixer
from mixer.settings import parse
from models import evaluation, judgements, training, work
from models.collection import Listing, Pool
from models.judgements import Judged

HERE = Path(__file__).parent
SOURCE = Path(os.environ.get("MSRD", HERE.parents[2] / "shared" / "data" / "msrd"))
FOLDER = Path(".build/msrd")
POOLS: Mapping[Pool, str] = {"judged": "P1", "open": "P2"}
SERVE: dict[str, dict[str, Any]] = {
    "lexical": {
        "kind": "tantivy",
        "boosts": {
            "title": 3.0,
            "overview": 0.85,
            "tags": 1.0,
            "actors": 1.7,
            "characters": 1.0,
            "director": 1.0,
            "genres": 0.2,
            "released": 0.5,
        },
    },
    "surface": {"kind": "vectors", "least": 0.01},
    "symbols": {
        "kind": "sqlite",
        "words": {"title": 3.0, "people": 1.0, "tags": 1.0},
        "exact": 3.0,
        "prefix": 1.0,
        "popularity": 1.0,
    },
}
RECIPE = training.Recipe(
    parameters={
        "learning_rate": 0.06,
        "num_leaves": 15,
        "min_data_in_leaf": 300,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambdarank_truncation_level": 20,
        "lambdarank_norm": False,
    },
    rounds=400,
    patience=60,
    open_depth=20,
)
_WEIGHTS = (0.3, 0.5, 0.7, 1.0)

console = Console(width=150)


@dataclass(frozen=True, slots=True)
class Service:
    """Where Mixer listens, and the job it is asked to do."""

    job: work.Job
    target: str

    def listings(self, queries: Sequence[Judged], title: str) -> tuple[Listing, ...]:
        """The queries' listings in both pools."""
        return asyncio.run(work.listings(self.job, self.target, queries, title, console))


def main() -> None:
    """Do it all, and print the tables."""
    if not (SOURCE / "docs.jsonl.gz").is_file():
        sys.exit(f"{SOURCE} does not hold the movie set; name its folder in MSRD")
    judged = prepare()
    with backends() as targets:
        with serving(targets, judged, {}) as service:
            weights = tuned(service.listings(judged.of("valid"), "valid"))
        with serving(targets, judged, weights) as service:
            learned = service.listings(judged.of("train"), "train")
            held = service.listings(judged.of("valid"), "valid")
            job = service.job
        with console.status("training"):
            trained = training.fit(learned, held, job.rules.features, RECIPE)
        manifest = work.publish(trained, "movies", job, FOLDER / "model")
        console.print(f"{manifest.name} {manifest.version}: {manifest.trees} trees, {manifest.metrics}")
        with serving(targets, judged, weights, model=True) as service:
            report(service.listings(judged.of("test"), "test"))


def prepare() -> judgements.Judgements:
    """The set in Mixer's own formats, and the indexes; what is there is kept."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    documents = FOLDER / "docs.jsonl"
    with documents.open("w", encoding="utf-8") as file:
        for movie in map(json.loads, _lines("docs.jsonl.gz")):
            file.write(json.dumps(_document(movie)) + "\n")
    for name in SERVE:
        definition = build.Definition.load(HERE / f"msrd-{name}.yaml")
        with console.status(f"indexing {name}"):
            made = build.build(definition, documents, FOLDER / name)
        if not made.published:
            sys.exit(f"{name}: {made.bad_lines[:3]}")
        console.print(f"{name}: {made.indexed} movies, {definition.engine.kind}, version {made.version}")
    judgements.write(FOLDER / "judgements.jsonl", _judged())
    return judgements.read(FOLDER / "judgements.jsonl")


def _lines(name: str) -> Iterator[str]:
    with gzip.open(SOURCE / name, "rt", encoding="utf-8") as file:
        yield from file


def _document(movie: dict[str, Any]) -> dict[str, Any]:
    """A movie with its people together and its year as a word too; 0 means unknown."""
    for name in ("year", "votes", "rating", "budget"):
        movie[name] = movie[name] or None
    people = [movie["director"], *movie["actors"], *movie["characters"]]
    known = {name: value for name, value in movie.items() if value not in (None, "", [])}
    released = {"released": str(int(movie["year"]))} if movie["year"] else {}
    return {**known, **released, "people": [person for person in people if person]}


def _judged() -> Iterator[Judged]:
    grades: dict[str, dict[str, int]] = {}
    for line in itertools.islice(_lines("qrels.tsv.gz"), 1, None):
        query, document, grade = line.rstrip("\n").split("\t")
        grades.setdefault(query, {})[document] = int(grade)
    for line in itertools.islice(_lines("queries.tsv.gz"), 1, None):
        number, query, split, seed, *_ = line.rstrip("\n").split("\t")
        yield Judged.model_validate({"query": query, "need": seed, "split": split, "grades": grades[number]})


@contextmanager
def backends() -> Iterator[dict[str, str]]:
    """Every backend as a process of its own; their addresses."""
    with ExitStack() as stack:
        targets = {}
        for name, serve in SERVE.items():
            config, port = FOLDER / f"{name}.yaml", free_port()
            config.write_text(yaml.safe_dump({**serve, "index": name}), encoding="utf-8")
            stack.enter_context(backend(name, config, port, FOLDER, {}))
            targets[name] = f"127.0.0.1:{port}"
        yield targets


@contextmanager
def serving(
    targets: Mapping[str, str],
    judged: judgements.Judgements,
    weights: Mapping[str, float],
    model: bool = False,
) -> Iterator[Service]:
    """Mixer as a process of its own before the backends, with these weights."""
    raw = yaml.safe_load((HERE / "msrd.yaml").read_text(encoding="utf-8"))
    port, mix = free_port(), raw["mixes"]["default"]
    raw["server"]["listen"] = f"127.0.0.1:{port}"
    for name, target in targets.items():
        raw["backends"][name]["target"] = target
        mix["backends"][name]["weight"] = weights.get(name, 1.0)
    raw["models"]["movies"]["path"] = "model"
    mix["model"] = "movies" if model else ""
    config = FOLDER / "mixer.yaml"
    config.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    job = work.Job(
        parse(config.read_text(encoding="utf-8"), str(config), FOLDER), "default", judged, tuple(POOLS)
    )
    with mixer(config, port, FOLDER, {}):
        yield Service(job, f"127.0.0.1:{port}")


def tuned(listings: Sequence[Listing]) -> dict[str, float]:
    """The weights whose fused order is best on these listings, by the mean of both pools."""
    names = listings[0].backends
    grid = itertools.product(_WEIGHTS, repeat=len(names))
    features = _feature_names()
    columns = [features.index(f"{name}_share") for name in names]
    scored = {weights: _fused_ndcg(listings, columns, weights) for weights in grid if max(weights) == 1.0}
    best = max(scored, key=scored.__getitem__)
    console.print(f"weights on valid: {dict(zip(names, best, strict=True))}, mean NDCG@10 {scored[best]:.4f}")
    return dict(zip(names, best, strict=True))


def _fused_ndcg(listings: Sequence[Listing], columns: list[int], weights: Sequence[float]) -> float:
    """Mean over the pools of the NDCG that a weighted sum of the normalized scores gives."""
    order = evaluation.by_scores(lambda matrix: np.nan_to_num(matrix[:, columns]) @ np.array(weights))
    means = [
        evaluation.values([ls for ls in listings if ls.pool == pool], order, evaluation.ndcg).mean()
        for pool in POOLS
    ]
    return float(np.mean(means))


def _feature_names() -> list[str]:
    raw = yaml.safe_load((HERE / "msrd.yaml").read_text(encoding="utf-8"))
    return [feature["name"] for feature in raw["mixes"]["default"]["features"]]


def report(listings: Sequence[Listing]) -> None:
    """A table a protocol: every backend alone, the fused order, and the model as served."""
    for pool, name in POOLS.items():
        listed = [ls for ls in listings if ls.pool == pool]
        for part in work.report(listed, f"test, {name}"):
            console.print(part)
        fused, best = _best_member(listed)
        console.print(Text(f"{name}: fused less its best member, NDCG@10: {fused - best:+.4f}"))


def _best_member(listed: Sequence[Listing]) -> tuple[float, float]:
    members = [
        evaluation.values(listed, evaluation.by_backend(name), evaluation.ndcg).mean()
        for name in listed[0].backends
    ]
    return float(evaluation.values(listed, evaluation.fused, evaluation.ndcg).mean()), float(max(members))


if __name__ == "__main__":
    main()
