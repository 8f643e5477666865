from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mixer.log_settings import ShipSettings
from mixer.metrics import Metrics
from mixer.remote_store import RemoteStore
from mixer.ship import Shipper
from mixer.store import StoreFailed
from tests.doubles import logs
from tests.doubles.buckets import Shaky, shaky
from tests.doubles.supervised import until

FAR = "shaky://served"
LONG_S = 30.0


@pytest.fixture
def storage() -> Iterator[type[Shaky]]:
    with shaky() as made:
        yield made


class Shipping:
    """A shipper, its folder, and what was counted."""

    def __init__(self, folder: Path, to: str = FAR, **rules: Any) -> None:
        self.folder, self.metrics, self.lost = folder, Metrics(), list[int]()
        declared = ShipSettings.model_validate({"to": to, "retry_max_s": 0.01, **rules})
        self.shipper = Shipper(folder, declared, self.metrics, "searches", self.lost.append)

    def count(self, outcome: str) -> float:
        return self.value("mixer_ship_files_total", outcome=outcome)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"log": "searches", **labels}) or 0.0

    def publish(self, *ids: str) -> Path:
        path = written(self.folder, *ids)
        self.shipper.published(path)
        return path


def written(folder: Path, *ids: str) -> Path:
    """One more file of the log."""
    scratch = folder.with_name(f"{folder.name}-scratch")
    logs.write_searches(scratch, [logs.search(id_) for id_ in ids])
    (made,) = scratch.rglob("*.parquet")
    path = folder / made.relative_to(scratch)
    path.parent.mkdir(parents=True, exist_ok=True)
    return made.rename(path)


def there(storage: type[Shaky]) -> set[str]:
    return {path.removeprefix("/served/") for path in storage.store}


@pytest.mark.parametrize("kind", ["shaky", "folder", "file"])
def test_files_go_under_their_own_names(tmp_path: Path, storage: type[Shaky], kind: str) -> None:
    """They are there byte for byte, and here no more; what lies there is of no other name."""
    far = tmp_path / "far"
    to = {"shaky": FAR, "folder": str(far), "file": f"file://{far}"}[kind]
    made = Shipping(tmp_path / "log", to)
    paths = [made.publish("a"), made.publish("b", "c")]
    held = {path.relative_to(made.folder).as_posix(): path.read_bytes() for path in paths if path.exists()}
    made.shipper.close(LONG_S)
    system, root = fsspec.core.url_to_fs(to)
    found = {path.removeprefix(f"{root}/"): system.cat_file(path) for path in system.find(root)}
    assert held.items() <= found.items()
    assert found.keys() == {path.relative_to(made.folder).as_posix() for path in paths}
    assert not list(made.folder.rglob("*.parquet"))
    assert (made.count("shipped"), made.count("failed"), made.value("mixer_ship_waiting_files")) == (2, 0, 0)


def test_no_reader_sees_half_a_file(tmp_path: Path, storage: type[Shaky]) -> None:
    """While its bytes are on their way there is no file that a reader of Parquet would open."""
    made = Shipping(tmp_path)
    name = made.publish("a").relative_to(tmp_path).as_posix()
    made.shipper.close(LONG_S)
    assert (storage.seen_midway, there(storage)) == ([], {name})


def test_what_a_killed_process_left_is_shipped(tmp_path: Path, storage: type[Shaky]) -> None:
    """Nobody tells the next one of it; what had arrived is not sent again."""
    paths = [written(tmp_path, "a"), written(tmp_path, "b")]
    first, second = (path.relative_to(tmp_path).as_posix() for path in paths)
    fsspec.filesystem("shaky").pipe_file(f"/served/{first}", paths[0].read_bytes())
    made = Shipping(tmp_path)
    until(lambda: made.count("shipped") == 2)
    made.shipper.close(LONG_S)
    assert there(storage) == {first, second}
    assert len(storage.puts) == 1


def test_it_tries_until_the_storage_is_back(
    tmp_path: Path, storage: type[Shaky], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is taken away here in the meantime; what waits is counted, and the log says why, once."""
    storage.failing = True
    made = Shipping(tmp_path)
    path = made.publish("a")
    until(lambda: made.count("failed") >= 3)
    assert path.exists()
    assert made.value("mixer_ship_waiting_files") == 1
    assert made.value("mixer_ship_waiting_bytes") == path.stat().st_size
    assert [record.message for record in caplog.records].count(
        "log files cannot be shipped; trying again"
    ) == 1
    storage.failing = False
    until(lambda: made.count("shipped") == 1)
    made.shipper.close(LONG_S)
    assert not path.exists()


def test_a_file_stays_until_it_was_seen_there(
    tmp_path: Path, storage: type[Shaky], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that takes bytes and has nothing afterwards has not got the file."""
    monkeypatch.setattr(RemoteStore, "put", lambda *_: None)
    made = Shipping(tmp_path)
    path = made.publish("a")
    until(lambda: made.count("failed") >= 2)
    made.shipper.close(LONG_S)
    assert path.exists()
    assert made.count("shipped") == 0


def test_a_storage_that_hangs_holds_nobody_up(tmp_path: Path, storage: type[Shaky]) -> None:
    """Neither who writes nor the end of the process: files stay and are counted, and the next process ships them."""
    storage.passing.clear()
    made = Shipping(tmp_path)
    first = made.publish("a")
    until(storage.asked.is_set)
    second = made.publish("b")
    assert made.value("mixer_ship_waiting_files") == 2
    made.shipper.close(0.05)
    assert first.exists()
    assert second.exists()


def test_the_oldest_are_dropped_where_too_much_waits(tmp_path: Path, storage: type[Shaky]) -> None:
    """This machine's disk is bounded; files and rows that are lost so are counted."""
    storage.failing = True
    size = written(tmp_path / "scale", "a", "b").stat().st_size
    made = Shipping(tmp_path / "log", max_bytes=int(size * 2.5))
    paths = []
    for number, ids in enumerate((("a", "b"), ("c", "d"), ("e", "f"))):
        paths.append(written(made.folder, *ids))
        os.utime(paths[-1], (number, number))
        made.shipper.published(paths[-1])
    assert [path.exists() for path in paths] == [False, True, True]
    assert (made.count("dropped"), made.lost) == (1, [2])
    made.shipper.close(0.0)


def test_a_shipped_file_may_stay_for_a_while(tmp_path: Path, storage: type[Shaky]) -> None:
    """It is not shipped again, by another process neither, and goes when its time is over."""
    first = Shipping(tmp_path, keep_s=3600)
    path = first.publish("a")
    until(lambda: first.count("shipped") == 1)
    first.shipper.close(LONG_S)
    second = Shipping(tmp_path, keep_s=3600)
    second.shipper.close(LONG_S)
    assert path.exists()
    assert (len(storage.puts), second.count("shipped")) == (1, 0)
    [mark] = path.parent.glob(".*.shipped")
    os.utime(mark, (time.time() - 3601,) * 2)
    Shipping(tmp_path, keep_s=3600).shipper.close(LONG_S)
    assert not path.exists()
    assert not mark.exists()


def test_room_is_made_of_what_was_shipped_first(tmp_path: Path, storage: type[Shaky]) -> None:
    """A file that is safe elsewhere goes before one that is not, however new it is; nothing is lost."""
    made = Shipping(tmp_path, keep_s=3600, max_bytes=1)
    kept = written(tmp_path, "a")
    until(lambda: made.count("shipped") == 1)
    made.shipper.close(LONG_S)
    made.shipper.published(kept)
    assert not kept.exists()
    assert (made.count("dropped"), made.lost) == (0, [])


def test_one_of_several_processes_ships_a_folder(tmp_path: Path, storage: type[Shaky]) -> None:
    """The others wait for its end, and at their own ship what it left."""
    first = Shipping(tmp_path)
    first.publish("a")
    until(lambda: first.count("shipped") == 1)
    second = Shipping(tmp_path)
    second.publish("b")
    until(lambda: first.count("shipped") == 2)
    assert second.count("shipped") == 0
    first.shipper.close(LONG_S)
    second.publish("c")
    second.shipper.close(LONG_S)
    assert (second.count("shipped"), len(storage.puts)) == (1, 3)


@pytest.mark.parametrize("to", ["nonsense://x", "sftp://host/x"])
def test_what_nothing_can_open_is_said_at_start(tmp_path: Path, to: str) -> None:
    """Not when the first file is done."""
    with pytest.raises(StoreFailed, match=to):
        Shipping(tmp_path, to)
