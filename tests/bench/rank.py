"""What scoring costs: `python -m tests.bench.rank`.

The same rows through the same forests, by Mixer's own scorer, by LightGBM, and by ONNX Runtime and lleaves where they
can be imported, one thread each, in rounds that take turns. Each call of a round has rows of its own, because a
processor learns the branches of rows that it sees again. Times are medians; the ratio is the median of the rounds'
own ratios, which a busy machine disturbs least. Scores are compared bit for bit before anything is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from backends.base import FloatColumn
from mixer.forest import Forest, warm

SHAPES = [(300, 63), (100, 31), (1000, 63), (300, 255)]
ROWS = (1, 8, 50, 200, 1000)
WIDTH = 20
ROUNDS, CALLS = 7, 24

Score = Callable[[FloatColumn], Any]


def main() -> None:
    """Measure and print."""
    began_s = time.perf_counter()
    warm()
    console = Console()
    console.print(f"loops ready in {time.perf_counter() - began_s:.2f} s")
    drawn = Table(title=f"{WIDTH} features, one thread")
    for heading in ("rows", "trees", "leaves", "scorer", "us", "LightGBM to it", "memory to file"):
        drawn.add_column(heading, justify="left" if heading == "scorer" else "right")
    with TemporaryDirectory() as folder:
        for trees, leaves in track(SHAPES, "forests", console=Console(stderr=True)):
            for cells in rows_of(grown(trees, leaves), trees, leaves, Path(folder)):
                drawn.add_row(*cells)
            drawn.add_section()
    console.print(drawn)


def table(rows: int, seed: int) -> FloatColumn:
    """Made-up features, a tenth of them missing."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(rows, WIDTH))
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix


def grown(trees: int, leaves: int) -> lightgbm.Booster:
    """A forest of this shape."""
    matrix = table(4000, 0)
    target = np.nan_to_num(matrix)[:, :5].sum(axis=1) + np.random.default_rng(1).normal(size=len(matrix))
    chosen = {"num_leaves": leaves, "min_data_in_leaf": 3, "learning_rate": 0.05, "verbose": -1}
    chosen |= {"num_threads": 1}
    booster = lightgbm.train(chosen, lightgbm.Dataset(matrix, target, params=chosen), trees)
    assert booster.num_trees() == trees, "the forest is not of the size that the table tells"
    return booster


def rows_of(booster: lightgbm.Booster, trees: int, leaves: int, folder: Path) -> Iterator[tuple[str, ...]]:
    """The lines of one forest."""
    forest = Forest.compile(booster)
    memory = f"{forest.nbytes / len(booster.model_to_string().encode()):.2f}"
    peers = dict(peers_of(booster, folder))
    for rows in ROWS:
        matrix = table(rows, 2)
        theirs = np.asarray(booster.predict(matrix, raw_score=True, num_threads=1))
        assert np.array_equal(forest.score(matrix).view(np.int64), theirs.view(np.int64)), "other scores"
        scorers = {"LightGBM": by_lightgbm(booster), "Mixer": forest.score, **peers}
        times_s = timed(scorers, [table(rows, seed) for seed in range(2, 2 + CALLS)])
        for name, taken_s in times_s.items():
            ratio = f"{np.median(times_s['LightGBM'] / taken_s):.1f}x"
            shape = (str(rows), str(trees), str(leaves))
            yield *shape, name, f"{np.median(taken_s) * 1e6:.0f}", ratio, memory if name == "Mixer" else ""


def by_lightgbm(booster: lightgbm.Booster) -> Score:
    """LightGBM's own raw scores."""
    return lambda matrix: booster.predict(matrix, raw_score=True, num_threads=1)


def peers_of(booster: lightgbm.Booster, folder: Path) -> Iterator[tuple[str, Score]]:
    """Other scorers of LightGBM forests that happen to be installed."""
    with suppress(ImportError):
        yield "ONNX Runtime", by_onnx(booster)
    with suppress(ImportError):
        yield "lleaves", by_lleaves(booster, folder)


def by_onnx(booster: lightgbm.Booster) -> Score:
    """ONNX Runtime, on floats of 32 bits as its operator takes them."""
    runtime, convert = import_module("onnxruntime"), import_module("onnxmltools").convert_lightgbm
    kinds = import_module("onnxmltools.convert.common.data_types")
    model = convert(booster, initial_types=[("rows", kinds.FloatTensorType([None, WIDTH]))])
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options)
    return lambda matrix: session.run(None, {"rows": matrix.astype(np.float32)})[0]


def by_lleaves(booster: lightgbm.Booster, folder: Path) -> Score:
    """lleaves, which compiles the forest itself."""
    lleaves = import_module("lleaves")
    path = folder / "model.txt"
    booster.save_model(path)
    model = lleaves.Model(model_file=str(path))
    model.compile()
    return lambda matrix: model.predict(matrix, n_jobs=1)


def timed(scorers: dict[str, Score], calls: list[FloatColumn]) -> dict[str, FloatColumn]:
    """Seconds a call (rounds,) of each, the rounds taking turns."""
    for score in scorers.values():
        score(calls[0])
    rounds = [{name: mean_s(score, calls) for name, score in scorers.items()} for _ in range(ROUNDS)]
    return {name: np.array([taken[name] for taken in rounds]) for name in scorers}


def mean_s(score: Score, calls: list[FloatColumn]) -> float:
    """Seconds a call over all of them."""
    began_s = time.perf_counter()
    for matrix in calls:
        score(matrix)
    return (time.perf_counter() - began_s) / len(calls)


if __name__ == "__main__":
    main()
