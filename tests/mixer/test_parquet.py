from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer import parquet
from mixer.parquet import Rotating

SCHEMA = pa.schema([("time", pa.timestamp("us", "UTC")), ("n", pa.int64())])
HOUR_US = 3_600_000_000


def rows(*numbers: int, time_us: int = 0) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"time": [time_us] * len(numbers), "n": list(numbers)}, SCHEMA)


def visible(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def numbers(folder: Path) -> list[int]:
    return sorted(n for path in visible(folder) for n in pq.read_table(path)["n"].to_pylist())


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.is_file()]


def leave_behind(folder: Path, torn_bytes: int) -> None:
    """What a process that was killed leaves: rows 1, 2 and 3, less some bytes of the end."""
    writer = Rotating(folder, SCHEMA)
    for number in (1, 2, 3):
        writer.append(rows(number))
    [spool] = writer._open.values()
    spool.close()
    with spool.path.open("r+b") as file:
        file.truncate(max(spool.path.stat().st_size - torn_bytes, 0))


def test_rows_appear_when_their_file_ends(tmp_path: Path) -> None:
    """Rows wait in a spool that readers skip; a file of so many rows appears at once, and nothing is left beside it."""
    writer = Rotating(tmp_path, SCHEMA, rows=3)
    writer.write(rows(1, 2))
    assert visible(tmp_path) == []
    assert len(hidden(tmp_path)) == 1
    writer.write(rows(3))
    assert numbers(tmp_path) == [1, 2, 3]
    assert hidden(tmp_path) == []


def test_a_file_ends_by_bytes_too(tmp_path: Path) -> None:
    """Few but large rows make a file as well."""
    writer = Rotating(tmp_path, SCHEMA, size_bytes=1000)
    writer.write(rows(*range(200)))
    assert len(numbers(tmp_path)) == 200


def test_a_file_ends_by_age_though_no_row_comes(tmp_path: Path) -> None:
    """A turn is enough: the last rows of the day can be read the same day."""
    writer = Rotating(tmp_path, SCHEMA, seconds=1e-9)
    writer.append(rows(1))
    assert visible(tmp_path) == []
    writer.turn()
    assert numbers(tmp_path) == [1]


def test_files_stand_under_the_hour_of_their_rows(tmp_path: Path) -> None:
    """A batch over midnight is parted; every row stands in the folder of its own hour."""
    writer = Rotating(tmp_path, SCHEMA)
    late = 23 * HOUR_US + 1
    batch = pa.RecordBatch.from_pydict({"time": [late, late + HOUR_US, late], "n": [1, 2, 3]}, SCHEMA)
    writer.write(batch)
    writer.close()
    found = {
        str(path.parent.relative_to(tmp_path)): pq.read_table(path)["n"].to_pylist()
        for path in visible(tmp_path)
    }
    assert found == {"date=1970-01-01/hour=23": [1, 3], "date=1970-01-02/hour=00": [2]}


def test_few_hours_are_open_at_once(tmp_path: Path) -> None:
    """Rows of many hours at once do not hold many files open: the first hour's ends."""
    writer = Rotating(tmp_path, SCHEMA)
    for hour in range(6):
        writer.write(rows(hour, time_us=hour * HOUR_US))
    assert numbers(tmp_path) == [0, 1]
    writer.close()
    assert numbers(tmp_path) == [0, 1, 2, 3, 4, 5]


@given(torn_bytes=st.integers(0, 2000))
def test_a_torn_spool_gives_its_whole_rows(tmp_path_factory: pytest.TempPathFactory, torn_bytes: int) -> None:
    """Wherever a spool was cut off, the next start makes a file of the batches before, and leaves no trace of it."""
    folder = tmp_path_factory.mktemp("torn")
    leave_behind(folder, torn_bytes)
    files = Rotating(folder, SCHEMA).recover()
    found = numbers(folder)
    assert found == [1, 2, 3][: len(found)]
    assert files == (1 if found else 0)
    assert hidden(folder) == []
    if not torn_bytes:
        assert found == [1, 2, 3]


def test_what_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    """Only spools of processes that ended are taken."""
    living = Rotating(tmp_path, SCHEMA)
    living.append(rows(1))
    assert Rotating(tmp_path, SCHEMA).recover() == 0
    living.append(rows(2))
    living.close()
    assert numbers(tmp_path) == [1, 2]


def test_a_file_is_never_made_twice(tmp_path: Path) -> None:
    """A process killed after its file appeared, and before its spool was gone, leaves no rows to count twice."""
    leave_behind(tmp_path, 0)
    [spool] = tmp_path.rglob(".*.arrows")
    copy = spool.read_bytes()
    Rotating(tmp_path, SCHEMA).recover()
    spool.write_bytes(copy)
    assert Rotating(tmp_path, SCHEMA).recover() == 0
    assert numbers(tmp_path) == [1, 2, 3]
    assert hidden(tmp_path) == []


def test_a_failed_write_leaves_the_rows_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk costs the rows that did not fit; those before it are found at the next start, later ones go on."""
    writer = Rotating(tmp_path, SCHEMA)
    writer.append(rows(1))

    def full(spool: object, batch: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parquet._Spool, "append", full)
        with pytest.raises(OSError, match="No space"):
            writer.append(rows(2))
    writer.append(rows(3))
    writer.close()
    assert numbers(tmp_path) == [3]
    Rotating(tmp_path, SCHEMA).recover()
    assert numbers(tmp_path) == [1, 3]


def test_a_failed_file_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file cannot be made of a spool, the spool stays and the next start makes it."""
    writer = Rotating(tmp_path, SCHEMA, rows=1)

    def full(*inputs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "_write_row_groups", full)
        with pytest.raises(OSError, match="No space"):
            writer.write(rows(1))
    assert visible(tmp_path) == []
    Rotating(tmp_path, SCHEMA).recover()
    assert numbers(tmp_path) == [1]
    assert hidden(tmp_path) == []


def test_nobody_waits_for_files_that_others_make(tmp_path: Path) -> None:
    """With a thread for files rows are taken while one is made; what went wrong there is told at a later turn."""
    gate = threading.Event()
    with ThreadPoolExecutor(1) as aside:
        aside.submit(gate.wait, 10)
        writer = Rotating(tmp_path, SCHEMA, rows=1, files_on=aside)
        writer.write(rows(1))
        writer.write(rows(2))
        assert visible(tmp_path) == []
        gate.set()
        writer.close()
        assert numbers(tmp_path) == [1, 2]
        shutil.rmtree(tmp_path / "date=1970-01-01")
        writer.append(rows(3))
        shutil.rmtree(tmp_path / "date=1970-01-01")
        with pytest.raises(OSError, match="No such file"):
            writer.close()


def test_duckdb_reads_the_folder_as_it_is(tmp_path: Path) -> None:
    """Hours are columns by hive partitioning, times are UTC, and an open spool is not seen."""
    writer = Rotating(tmp_path, SCHEMA)
    for hour in (5, 30):
        writer.write(rows(hour, time_us=hour * HOUR_US))
    writer.close()
    writer.append(rows(7))
    query = (
        "select n, date::varchar, hour::int, epoch_us(time) from read_parquet(?, hive_partitioning = true)"
    )
    found = duckdb.execute(f"{query} order by n", [f"{tmp_path}/**/*.parquet"]).fetchall()
    assert found == [(5, "1970-01-01", 5, 5 * HOUR_US), (30, "1970-01-02", 6, 30 * HOUR_US)]
    assert duckdb.execute("select count(*) from glob(?)", [f"{tmp_path}/**/*.parquet"]).fetchall() == [(2,)]
    assert ds.dataset(tmp_path, format="parquet", partitioning="hive").count_rows() == 2


def test_files_are_of_types_that_every_reader_knows(tmp_path: Path) -> None:
    """Lists by the standard's names, times in UTC microseconds, texts packed by repeats and numbers not."""
    kinds = {
        "time": pa.timestamp("us", "UTC"),
        "text": pa.string(),
        "texts": pa.list_(pa.list_(pa.string())),
        "map": pa.map_(pa.string(), pa.string()),
        "doubles": pa.list_(pa.float64()),
    }
    row = {"time": 0, "text": "a", "texts": [["a"]], "map": [("k", "v")], "doubles": [0.1]}
    writer = Rotating(tmp_path, pa.schema(list(kinds.items())))
    writer.write(pa.RecordBatch.from_pylist([row] * 3, pa.schema(list(kinds.items()))))
    writer.close()
    [path] = visible(tmp_path)
    group = pq.ParquetFile(path).metadata.row_group(0)
    leaves = [group.column(place) for place in range(group.num_columns)]
    packed = {leaf.path_in_schema: leaf.has_dictionary_page for leaf in leaves}
    assert packed == {
        "time": False,
        "text": True,
        "texts.list.element.list.element": True,
        "map.key_value.key": True,
        "map.key_value.value": True,
        "doubles.list.element": False,
    }
    logical = pq.ParquetFile(path).schema.column(0).logical_type.to_json()
    assert '"isAdjustedToUTC":true' in logical.replace(" ", "")
    assert '"timeUnit":"microseconds"' in logical.replace(" ", "")


WRITER = """
import os, sys, time
from pathlib import Path
import pyarrow as pa
from mixer.parquet import Rotating
schema = pa.schema([("time", pa.timestamp("us", "UTC")), ("n", pa.int64()), ("payload", pa.list_(pa.float64()))])
writer = Rotating(Path(sys.argv[1]), schema, rows=500)
payload, n = [float(i) for i in range(400)], 0
while True:
    some = list(range(n, n + 10))
    now = time.time_ns() // 1000
    columns = {"time": [now] * 10, "n": some, "payload": [payload] * 10}
    writer.write(pa.RecordBatch.from_pydict(columns, schema))
    n += 10
    os.write(1, b"%d\\n" % n)
"""


@pytest.mark.parametrize("after_rows", [1, 2003, 5501])
def test_sigkill_loses_no_row_that_was_taken(tmp_path: Path, after_rows: int) -> None:
    """Killed while it writes under load: every visible file is whole, and with the next start every row is there."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout
    taken = 0
    with process.stdout as told:
        while taken < after_rows:
            taken = int(told.readline())
        process.send_signal(signal.SIGKILL)
        rest = told.read().split()
    assert process.wait() == -signal.SIGKILL
    taken = int(rest[-1]) if rest else taken
    before = numbers(tmp_path)
    assert before == list(range(len(before)))
    assert taken - len(before) <= 510
    Rotating(tmp_path, SCHEMA).recover()
    found = numbers(tmp_path)
    assert found == list(range(len(found)))
    assert taken <= len(found) <= taken + 10
    assert hidden(tmp_path) == []
    assert len(os.listdir(tmp_path)) <= 2
