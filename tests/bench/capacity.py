"""What a load needs: cores, pods, memory, bytes and money, from figures that were measured and kept in a file.

`python -m tests.bench.capacity RECORD` takes the CPU out of a record of `make bench`, measures the sizes on the demo,
and writes docs/capacity.json; `make docs` makes the tables of docs/scale.md of it.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pyarrow.parquet as pq
import yaml
from rich.console import Console

from mixer.client import MixerClient
from mixer.demo.experiment import FOLDER as DEMO
from mixer.demo.experiment import JUDGEMENTS
from mixer.demo.processes import mixer
from mixer.demo.show import Stage, backends, prepare
from mixer.manifest import Record
from models import judgements
from tests.bench import history
from tests.bench.history import Crowd, Run
from tests.doubles import collectors

PATH = Path(__file__).parents[2] / "docs" / "capacity.json"
COURSES = ("model", "sampled", "traced")


class Rounds(Record):
    """CPU of one scene, as its record tells it."""

    requests: tuple[int, ...]
    cpu_s: tuple[float, ...]

    @property
    def each_s(self) -> float:
        """CPU of one request, the median of the rounds."""
        return float(np.median(np.array(self.cpu_s) / np.array(self.requests)))


class Sizes(Record):
    """Of the demo, its three backends in processes of their own."""

    searches: int
    features: int
    candidates: float
    """An answer, the mean."""
    resident_bytes: int
    """Of the serving process, after those searches."""
    log_bytes: float
    """Of the feature log, as Parquet, a search."""
    trace_bytes: float
    """Of OTLP, before any compression, a traced search."""


class Measured(Record):
    """docs/capacity.json."""

    record: str
    """The file's name, under .build/bench/records where it was made."""
    commit: str
    machine: history.Machine
    courses: dict[str, Rounds]
    """Three backends of 100 hits over the network, a forest of 300 trees x 63 leaves; one caller."""
    crowds: dict[int, tuple[Crowd, ...]]
    """The same with the backends in Mixer's own process, and 16 callers, by workers."""
    sizes: Sizes

    def crowd_s(self, workers: int) -> float:
        """CPU an answer, the median of the rounds."""
        each = [crowd.mixer_cpu_s / (crowd.answers + crowd.callers) for crowd in self.crowds[workers]]
        return float(np.median(each))

    def rate(self, workers: int) -> float:
        """Answers a second, the median of the rounds."""
        return float(np.median([crowd.answers / crowd.elapsed_s for crowd in self.crowds[workers]]))


class Assumed(Record):
    """What is not measured: change it, and the tables follow."""

    utilization: float = 0.65
    """Of a core, at the busiest minute: beyond, waiting grows faster than work."""
    zones: int = 3
    """One of which may be lost, the others staying below `utilization`."""
    usd_per_core_hour: float = 0.04


class Needs(Record):
    """What so many searches a second need."""

    searches_per_s: float
    cores: float
    pods: int
    """Of one worker, that keep below the utilization."""
    pods_and_a_zone: int
    """The same when a zone is lost."""
    memory_bytes: float
    log_bytes_per_day: float
    usd_per_million: float
    """Searches, on `pods_and_a_zone`."""


def needs(rate: float, cpu_s: float, sizes: Sizes, assumed: Assumed) -> Needs:
    """For `rate` searches a second that cost `cpu_s` each."""
    cores = rate * cpu_s
    pods = ceil(cores / assumed.utilization)
    in_zone = ceil(pods / (assumed.zones - 1))
    all_pods = in_zone * assumed.zones
    return Needs(
        searches_per_s=rate,
        cores=cores,
        pods=pods,
        pods_and_a_zone=all_pods,
        memory_bytes=all_pods * sizes.resident_bytes,
        log_bytes_per_day=rate * 86_400 * sizes.log_bytes,
        usd_per_million=all_pods * assumed.usd_per_core_hour / 3600 / rate * 1e6,
    )


def courses_of(run: Run) -> dict[str, Rounds]:
    """The CPU that a record tells of."""
    return {
        key: Rounds(
            requests=tuple(taken.requests for taken in run.courses[key].rounds),
            cpu_s=tuple(taken.cpu_s for taken in run.courses[key].rounds),
        )
        for key in COURSES
    }


def measure_sizes(folder: Path) -> Sizes:
    """Ask the demo its judged queries, twice. Raises: NotReady, MixerError, OSError."""
    stage = prepare(DEMO, 50_951, Console(stderr=True))
    settings = yaml.safe_load(stage.settings.read_text(encoding="utf-8"))
    settings["feature_log"] = {"sinks": [{"kind": "parquet", "folder": str(folder / "served")}]}
    stage.settings.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    with collectors.over_http() as collector:
        searches, resident = _asked(stage, collector.endpoint)
    tables = [pq.read_table(path) for path in (folder / "served").rglob("*.parquet")]
    rows = sum(table.num_rows for table in tables)
    if rows != searches:
        raise ValueError(f"{rows} rows were logged of {searches} searches")
    return Sizes(
        searches=searches,
        features=len(tables[0]["feature_names"][0]),
        candidates=sum(len(ids) for table in tables for ids in table["ids"]) / rows,
        resident_bytes=resident,
        log_bytes=sum(path.stat().st_size for path in (folder / "served").rglob("*.parquet")) / rows,
        trace_bytes=sum(map(len, collector.messages)) / searches,
    )


def _asked(stage: Stage, endpoint: str) -> tuple[int, int]:
    """How many searches were made, and what Mixer's process held in memory after them."""
    queries = [judged.query for judged in judgements.read(JUDGEMENTS).queries] * 2
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    with ExitStack() as stack:
        for process in backends(stage, {}):
            stack.enter_context(process)
        before = set(psutil.Process().children())
        stack.enter_context(mixer(stage.settings, stage.ports["mixer"], stage.folder, traced))
        (serving,) = set(psutil.Process().children()) - before
        with MixerClient(f"127.0.0.1:{stage.ports['mixer']}", timeout_s=10.0) as client:
            for query in queries:
                client.search(query)
        return len(queries), int(serving.memory_info().rss)


def main(record: Path) -> None:
    """Write the figures."""
    run = history.read(record)
    with TemporaryDirectory() as folder:
        sizes = measure_sizes(Path(folder))
    made = Measured(
        record=record.name,
        commit=run.commit,
        machine=run.machine,
        courses=courses_of(run),
        crowds=run.crowds,
        sizes=sizes,
    )
    PATH.write_text(made.model_dump_json(indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
