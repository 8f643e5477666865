from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mixer import cli
from mixer.events import Event, EventKind
from mixer.far_folder import folder_at, system_of
from mixer.store import StoreFailed
from models import logs as readers
from models.feedback import Joined
from tests.doubles import buckets, engines, mixers

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
FEATURE = {"name": "score", "source": "backend", "backend": "a", "value": "score"}


@pytest.mark.parametrize("text", ["served", "/var/served", "file:///var/served"])
def test_folders_of_this_machine_are_paths(text: str) -> None:
    """With a URL of their own or without."""
    assert folder_at(text) == Path(text.removeprefix("file://"))
    assert system_of(folder_at(text)) is None


def test_what_nothing_can_open_is_said(tmp_path: Path) -> None:
    """A URL of no known kind, by its name, from the command line too."""
    with pytest.raises(StoreFailed, match="nonsense://x"):
        folder_at("nonsense://x")
    done = CliRunner().invoke(cli.app, ["online", "nonsense://x", str(tmp_path)])
    assert done.exit_code == 2
    assert "nonsense://x" in done.stderr


def parquet(folder: Path) -> list[Path]:
    return list(folder.rglob("*.parquet"))


async def test_logs_are_shipped_to_s3_and_read_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's searches and events go to a real S3 API; all readers, DuckDB too, find them there."""
    with buckets.s3(monkeypatch) as bucket:
        sink = {"kind": "parquet", "folder": tmp_path / "served", "ship": {"to": f"{bucket}/served"}}
        settings = mixers.settings(
            {"a": MEMORY},
            {"features": [FEATURE]},
            feature_log={"sinks": [sink], "drain_s": 30.0},
            feedback={"folder": tmp_path / "events", "ship": {"to": f"{bucket}/events"}},
        )
        async with mixers.running(settings) as mixer:
            results = [await mixer.search("csv file") for _ in range(3)]
            events = [Event(result.query_id, EventKind.CLICK, result.hits[0].id, 1) for result in results]
            await mixer.client.feedback(events)
        for log in ("searches", "events"):
            assert mixer.value("mixer_ship_files_total", log=log, outcome="shipped")
        assert not [name for folder in ("served", "events") for name in parquet(tmp_path / folder)]
        served, clicked = folder_at(f"{bucket}/served"), folder_at(f"{bucket}/events")
        found = readers.searches(readers.read(readers.files(served).sound))
        assert {search.query_id for search in found} == {result.query_id for result in results}
        with Joined(served, clicked) as joined:
            assert joined.counts == {("click", "joined"): 3}
        done = CliRunner().invoke(
            cli.app, ["online", f"{bucket}/served", f"{bucket}/events", "--seen", "served"]
        )
        assert done.exit_code == 0, done.stderr
        assert "(3 of 3)" in done.stdout
