"""The audit of what Mixer depends on: what it lets pass, and what it does not."""

from __future__ import annotations

import json
import subprocess
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from tests.check import audit

HASH = f"--hash=sha256:{'0' * 64}"
SOUND = {"dependencies": [{"name": "a", "version": "1", "vulns": []}]}
SKIPPED = {"dependencies": [{"name": "a", "skip_reason": "Dependency not found on PyPI"}]}
BAD = {
    "dependencies": [
        {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": []}]}
    ]
}


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        (f"a==1 \\\n    {HASH} \\\n    {HASH}\n    # via b", False),
        (f"a[x,y]==1.2.post1 ; sys_platform == 'win32' \\\n    {HASH}", False),
        ("# a comment", False),
        ("a==1", True),
        (f"a>=1 \\\n    {HASH}", True),
        ("a==1 \\\n    --hash=md5:00", True),
        (f"a==1 \\\n    {HASH} \\\n    --hash=sha256:00", True),
        (f"a @ https://example.com/a.whl \\\n    {HASH}", True),
        (f"git+https://example.com/a \\\n    {HASH}", True),
        ("-e .", True),
        ("--extra-index-url https://example.com", True),
        ("--find-links .", True),
    ],
)
def test_pins(entry: str, wrong: bool) -> None:
    """An entry is one version of one package of the index, with the hashes of its files."""
    assert bool(list(audit.pins(f"b==2 \\\n    {HASH}\n{entry}\n"))) is wrong


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("MIT", True),
        ("BSD License", True),
        ("3-Clause BSD License", True),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0-or-later OR MIT", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("GPL-3.0-only", False),
        ("MIT AND AGPL-3.0", False),
        ("GNU Lesser General Public License v3 or later (LGPLv3+)", True),
        ("Other/Proprietary License", False),
        ("", False),
    ],
)
def test_licenses(text: str, free: bool) -> None:
    """All that apply must be taken, of alternatives one."""
    assert audit.is_free(text) is free


def test_where_a_license_is_told() -> None:
    """The expression first, then classifiers, then the old field."""
    told = Message()
    told["License"] = "MIT\nand its text"
    assert audit.license_of(told) == "MIT"
    told["Classifier"] = "License :: OSI Approved :: BSD License"
    assert audit.license_of(told) == "BSD License"
    told["License-Expression"] = "Apache-2.0"
    assert audit.license_of(told) == "Apache-2.0"


@pytest.mark.parametrize(
    ("output", "options", "status", "said"),
    [
        (json.dumps(SOUND), [], 0, "no known vulnerability"),
        (json.dumps(SOUND), ["--offline-ok"], 0, "no known vulnerability"),
        (json.dumps(BAD), [], 1, "a 1: PYSEC-1; mended in 1.1"),
        (json.dumps(BAD), ["--offline-ok"], 1, "a 1: PYSEC-1; mended in 1.1"),
        (json.dumps(SKIPPED), [], 1, "pass --offline-ok"),
        (json.dumps(SKIPPED), ["--offline-ok"], 0, "NOT AUDITED FOR VULNERABILITIES: 1 packages"),
        ("", [], 1, "NOT AUDITED FOR VULNERABILITIES"),
        ("", ["--offline-ok"], 0, "NOT AUDITED FOR VULNERABILITIES"),
    ],
)
def test_what_pip_audit_says(
    output: str,
    options: list[str],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A vulnerability never passes; what could not be looked up passes where that is allowed, and is said loudly."""

    def run(command: list[str], **rest: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "pip_audit"]
        return subprocess.CompletedProcess(command, 1, output, "no route")

    monkeypatch.setattr(subprocess, "run", run)
    assert audit.main(options) == status
    told = capsys.readouterr()
    assert said in told.out + told.err


def test_an_accepted_vulnerability(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was looked into, and does not concern Mixer, is left out; another is not."""
    monkeypatch.setattr(audit, "ACCEPTED", {"PYSEC-1": "its parser is not used"})
    assert audit.report_of(BAD) == audit.Report()


def test_a_wrong_lock_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By file and entry."""
    for name in audit.AUDITED:
        (tmp_path / name).write_text("a==1\n")
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    monkeypatch.setattr(audit, "advisories", lambda lock, service: audit.Report())
    assert audit.main([]) == 1
    assert "requirements-image.lock: a==1: has no SHA-256 of its files" in capsys.readouterr().err
