"""What scoring costs: `python -m tests.bench.rank`.

The same rows through the same forests, by Mixer's own scorer, by LightGBM, and by ONNX Runtime and lleaves where they
work, one thread each, in rounds that take turns. Each call of a round has rows of its own, because a processor learns
the branches of rows that it sees again. Times are medians; the ratio is the median of the rounds' own ratios, which a
busy machine disturbs least. Mixer's scores are compared bit for bit before anything is timed; what another's differ by
is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Shape:
    """A forest to grow; the first features are categories."""

    trees: int
    leaves: int
    categorical: int = 0
    categories: int = 0
    one_hot: bool = False

    def __str__(self) -> str:
        if not self.categorical:
            return ""
        return f"{self.categorical} of {self.categories}" + (", one-hot" if self.one_hot else "")


SHAPES = [
    Shape(300, 63),
    Shape(100, 31),
    Shape(1000, 63),
    Shape(300, 255),
    Shape(50, 1000),
    Shape(1000, 4),
    Shape(300, 63, 3, 8),
    Shape(300, 63, 18, 50),
    Shape(300, 63, 18, 1000),
    Shape(300, 63, 18, 30, one_hot=True),
]
ROWS = (1, 8, 50, 200, 1000)
WIDTH = 20
ROUNDS, CALLS = 7, 24

Score = Callable[[FloatColumn], Any]


def main() -> None:
    """Measure and print."""
    began_s = time.perf_counter()
    warm()
    console = Console(width=max(Console().width, 110))
    console.print(f"loops ready in {time.perf_counter() - began_s:.2f} s")
    drawn = Table(title=f"{WIDTH} features, one thread")
    for heading in (
        "rows",
        "trees",
        "leaves",
        "categorical",
        "scorer",
        "us",
        "LightGBM to it",
        "memory to file",
        "off by",
    ):
        drawn.add_column(heading, justify="left" if heading in ("categorical", "scorer") else "right")
    absent: set[str] = set()
    with TemporaryDirectory() as folder:
        for shape in track(SHAPES, "forests", console=Console(stderr=True)):
            booster = grown(shape)
            peers, failures = peers_of(booster, Path(folder))
            absent.update(failures)
            for cells in rows_of(booster, shape, peers):
                drawn.add_row(*cells)
            drawn.add_section()
    console.print(drawn)
    for line in sorted(absent):
        console.print(line, soft_wrap=True)


def table(rows: int, seed: int, shape: Shape) -> FloatColumn:
    """Made-up features, a tenth of them missing."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(rows, WIDTH))
    matrix[:, : shape.categorical] = random.integers(0, max(shape.categories, 1), (rows, shape.categorical))
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix


def grown(shape: Shape) -> lightgbm.Booster:
    """A forest of this shape."""
    matrix, random = table(4000, 0, shape), np.random.default_rng(1)
    worth, known = random.normal(size=(WIDTH, max(shape.categories, 1))), np.nan_to_num(matrix)
    target = known[:, shape.categorical :][:, :5].sum(axis=1) + random.normal(size=len(matrix))
    for feature in range(shape.categorical):
        target += worth[feature][known[:, feature].astype(np.intp)]
    chosen = {"num_leaves": shape.leaves, "min_data_in_leaf": 3, "learning_rate": 0.05, "verbose": -1}
    chosen |= {"num_threads": 1, "min_data_per_group": 3, "cat_smooth": 1.0}
    chosen |= {"max_cat_to_onehot": 100} if shape.one_hot else {}
    told = list(range(shape.categorical))
    data = lightgbm.Dataset(matrix, target, categorical_feature=told, params=chosen)
    booster = lightgbm.train(chosen, data, shape.trees)
    assert booster.num_trees() == shape.trees, "the forest is not of the size that the table tells"
    return booster


def rows_of(booster: lightgbm.Booster, shape: Shape, peers: dict[str, Score]) -> Iterator[tuple[str, ...]]:
    """The lines of one forest."""
    forest = Forest.compile(booster)
    memory = {"Mixer": f"{forest.nbytes / len(booster.model_to_string().encode()):.2f}"}
    scorers = {"LightGBM": by_lightgbm(booster), "Mixer": forest.score, **peers}
    for rows in ROWS:
        calls = [table(rows, seed, shape) for seed in range(2, 2 + CALLS)]
        theirs = np.asarray(booster.predict(calls[0], raw_score=True, num_threads=1))
        assert np.array_equal(forest.score(calls[0]).view(np.int64), theirs.view(np.int64)), "other scores"
        off = {name: np.abs(np.ravel(score(calls[0])) - theirs).max() for name, score in scorers.items()}
        times_s = timed(scorers, calls)
        for name, taken_s in times_s.items():
            ratio = f"{np.median(times_s['LightGBM'] / taken_s):.1f}x"
            told = (str(rows), str(shape.trees), str(shape.leaves), str(shape), name)
            yield *told, f"{np.median(taken_s) * 1e6:.0f}", ratio, memory.get(name, ""), f"{off[name]:.0e}"


def by_lightgbm(booster: lightgbm.Booster) -> Score:
    """LightGBM's own raw scores."""
    return lambda matrix: booster.predict(matrix, raw_score=True, num_threads=1)


def peers_of(booster: lightgbm.Booster, folder: Path) -> tuple[dict[str, Score], list[str]]:
    """Other scorers of LightGBM forests that work here, and a line for each that does not."""
    makers: dict[str, Callable[[], Score]] = {
        "ONNX Runtime": lambda: by_onnx(booster),
        "lleaves": lambda: by_lleaves(booster, folder),
    }
    made: dict[str, Score] = {}
    failures: list[str] = []
    for name, make in makers.items():
        try:
            made[name] = make()
        except Exception as error:  # whatever another project may raise
            failures.append(f"{name} does not work here: {type(error).__name__}: {error}")
    return made, failures


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
