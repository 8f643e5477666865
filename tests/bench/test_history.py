"""Records of runs: what is kept, and which of them is a commit's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import history
from tests.bench.history import Machine, Unreadable
from tests.bench.records import MACHINE, crowd, run

OTHER = "a" * 7 + "b" * 33


def test_a_record_is_read_as_it_was_kept(tmp_path: Path) -> None:
    """Every raw value, to the bit."""
    made = run(crowds={1: (crowd(3),), 2: (crowd(5),)})
    assert history.read(history.keep(made, tmp_path / "records")) == made


def test_a_commits_record_is_its_newest_whole_one(tmp_path: Path) -> None:
    """Neither changed files, nor a short run, nor another commit of the same beginning pass for it."""
    wanted = run(hour=2)
    for kept in (
        run(hour=1),
        wanted,
        run(hour=3, dirty=True),
        run(hour=4, short=True),
        run(hour=5, commit=OTHER),
    ):
        history.keep(kept, tmp_path)
    assert history.latest(wanted.commit, tmp_path) == wanted
    assert history.latest("c" * 40, tmp_path) is None


def test_two_runs_are_told_apart_by_their_files(tmp_path: Path) -> None:
    """Those of two trees that were measured together, too."""
    paths = {history.keep(kept, tmp_path) for kept in (run(), run(dirty=True), run(commit="c" * 40))}
    assert len(paths) == 3


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_what_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    """So that a typed path is found."""
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(Unreadable, match=r"other\.json"):
        history.read(path)


def test_machines_are_alike_whatever_their_load() -> None:
    """Another core count is another machine."""
    assert MACHINE.is_like(MACHINE.model_copy(update={"load_1m": 9.0}))
    assert not MACHINE.is_like(MACHINE.model_copy(update={"cores": 1}))


def test_this_machine_can_be_told() -> None:
    """Cores, processor, and a version of every package."""
    told = Machine.this()
    assert told.cores >= 1
    assert told.cpu
    assert all(told.packages.values())
