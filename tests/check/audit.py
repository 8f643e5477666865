"""Audits what Mixer depends on: pins and hashes, licenses, and known vulnerabilities by pip-audit.

A vulnerability is a failure. So is a package that no advisory service knows anything of, which may mean that the
service cannot be reached: `--offline-ok` lets that pass, and says so.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHIPPED = "requirements-image.lock"
AUDITED = (SHIPPED, "requirements-dev.lock")
ACCEPTED: Mapping[str, str] = {}
"""Vulnerabilities that do not concern Mixer, by their ids, and why they do not."""
_PIN = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)(?:\[[\w,-]+\])?==(?P<version>[^\s;\\]+)(?: *;[^\\]*)?\s*")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
_FREE = re.compile(
    r"(MIT|0?BSD|\d-Clause BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla Public|LGPL|GNU Lesser|Zlib|CC0|"
    r"Unlicense)\b",
    re.IGNORECASE,
)
"""Licenses that ask of those who ship Mixer no more than to name them, and to share changes of the package itself."""


@dataclass(frozen=True, slots=True)
class Report:
    """What pip-audit found: vulnerabilities, a line each, and packages that it could not look up."""

    vulnerable: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def pins(text: str) -> Iterator[str]:
    """What is wrong with a lock file: each entry is one version of the index's, with the hashes of its files."""
    for entry in _entries(text):
        head, *rest = [part.strip() for part in entry.split("\\")]
        hashes = " ".join(rest).split()
        if head.startswith("-"):
            yield f"{head}: options have no place in a lock file"
        elif not _PIN.fullmatch(head):
            yield f"{head}: is not one version of a package of the index"
        elif not hashes or not all(_HASH.fullmatch(each) for each in hashes):
            yield f"{head}: has no SHA-256 of its files"


def names(text: str) -> list[str]:
    """The packages that a lock file names."""
    return [found["name"] for entry in _entries(text) if (found := _PIN.match(entry))]


def _entries(text: str) -> Iterator[str]:
    """Lines that go on with a backslash as one; comments left out."""
    joined = re.sub(r"\\\n", r"\\", text)
    lines = (line.split(" #")[0].strip() for line in joined.splitlines())
    return (line for line in lines if line and not line.startswith("#"))


def licenses(packages: Sequence[str]) -> Iterator[str]:
    """The packages, of those that are installed, whose license is none of those that are taken."""
    for name in packages:
        try:
            declared = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue  # of another platform
        text = license_of(declared)
        if not is_free(text):
            yield f"{name}: is under {text or 'no license that it tells'}"


def license_of(declared: Any) -> str:
    """What a package's metadata say of its license, in the newest of the three ways that they use."""
    classified = [
        line.rpartition(" :: ")[2]
        for line in declared.get_all("Classifier") or ()
        if line.startswith("License")
    ]
    own = str(declared.get("License") or "").strip().partition("\n")[0]
    return str(declared.get("License-Expression") or " AND ".join(classified) or own)


def is_free(text: str) -> bool:
    """Whether every license that applies is one of those that are taken; of alternatives one."""
    parts = re.split(r"\s+AND\s+", text.replace("(", " ").replace(")", " "))
    return all(any(_FREE.match(choice.strip()) for choice in part.split(" OR ")) for part in parts)


def report_of(found: Mapping[str, Any]) -> Report:
    """Out of pip-audit's JSON."""
    vulnerable, unknown = [], []
    for package in found["dependencies"]:
        if "skip_reason" in package:
            unknown.append(package["name"])
        for each in package.get("vulns", ()):
            if each["id"] not in ACCEPTED:
                mend = f"; mended in {', '.join(each['fix_versions'])}" if each.get("fix_versions") else ""
                vulnerable.append(f"{package['name']} {package['version']}: {each['id']}{mend}")
    return Report(tuple(vulnerable), tuple(unknown))


def advisories(lock: Path, service: str) -> Report:
    """What the service knows of a lock file's packages; where it cannot be reached, nothing of any."""
    words = ("-m", "pip_audit", "--require-hashes", "--disable-pip", "--progress-spinner", "off")
    asked = ("--format", "json", "-s", service, "-r", str(lock))
    done = subprocess.run([sys.executable, *words, *asked], capture_output=True, text=True, check=False)
    try:
        return report_of(json.loads(done.stdout))
    except json.JSONDecodeError:
        print(done.stderr.strip().rpartition("\n")[2], file=sys.stderr)
        return Report(unknown=tuple(names(lock.read_text(encoding="utf-8"))))


def main(argv: Sequence[str]) -> int:
    """0 where there is nothing to mend."""
    parser = argparse.ArgumentParser(prog="audit", description=__doc__)
    parser.add_argument("--offline-ok", action="store_true", help="pass where advisories cannot be looked up")
    parser.add_argument("--service", choices=["pypi", "osv"], default="pypi", help="whose advisories")
    asked = parser.parse_args(argv)
    faults = [
        f"{path.relative_to(ROOT)}: {fault}" for path in _locks() for fault in pins(path.read_text("utf-8"))
    ]
    faults += licenses(names((ROOT / SHIPPED).read_text("utf-8")))
    unknown: set[str] = set()
    for lock in AUDITED:
        report = advisories(ROOT / lock, asked.service)
        faults += [f"{lock}: {each}" for each in report.vulnerable]
        unknown |= set(report.unknown)
    return _told(faults, sorted(unknown), asked.offline_ok)


def _locks() -> list[Path]:
    return sorted(path for path in ROOT.rglob("requirements*.lock") if ".venv" not in str(path.parent))


def _told(faults: Sequence[str], unknown: Sequence[str], offline_ok: bool) -> int:
    for fault in faults:
        print(fault, file=sys.stderr)
    if unknown:
        print(
            f"NOT AUDITED FOR VULNERABILITIES: {len(unknown)} packages, of which the advisory service",
            end=" ",
        )
        print(f"tells nothing or cannot be reached: {', '.join(unknown[:5])}{' …' if unknown[5:] else ''}")
    if unknown and not offline_ok:
        print("reach it, or pass --offline-ok to go on without", file=sys.stderr)
    if not faults:
        print("pins, hashes and licenses are sound" + ("" if unknown else "; no known vulnerability"))
    return 1 if faults or (unknown and not offline_ok) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
