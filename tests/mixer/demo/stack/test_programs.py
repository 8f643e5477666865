from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mixer.demo.processes import NotReady
from mixer.demo.stack import programs


def test_a_port_in_use_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that listens gets a port: the one that people expect, or a free one where somebody has it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port: int = taken.getsockname()[1]
        monkeypatch.setattr(programs, "USUAL", {"jaeger": port})
        assert programs.ports()["jaeger"] != port
    assert programs.ports() == {"jaeger": port}


def test_programs_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of tools goes before the path; one that is nowhere is an error that says how to get it."""
    own, other = tmp_path / "tools", tmp_path / "bin"
    for folder in (own, other):
        folder.mkdir()
        (folder / "jaeger").write_text("#!/bin/sh\n")
        (folder / "jaeger").chmod(0o755)
    monkeypatch.setenv("MIXER_TOOLS", str(own))
    monkeypatch.setenv("PATH", str(other))
    assert programs.found("jaeger") == str(own / "jaeger")
    (own / "jaeger").unlink()
    assert programs.found("jaeger") == str(other / "jaeger")
    with pytest.raises(
        NotReady, match=r"prometheus is neither in .*tools nor on the path; `make stack` builds"
    ):
        programs.found("prometheus")
