"""Fails where generated Python is not what the .proto files give: `python -m tests.check.generated FILE...`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory


def stale(protos: list[str]) -> list[str]:
    """The generated files that differ from what the compiler writes now."""
    with TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *protos], check=True)
        written = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        names = [str(path.relative_to(folder)) for path in written]
        return [
            name
            for name, path in zip(names, written, strict=True)
            if not Path(name).is_file() or Path(name).read_bytes() != path.read_bytes()
        ]


if __name__ == "__main__":
    found = stale(sys.argv[1:])
    for name in found:
        print(f"{name} is stale; run `make protos`", file=sys.stderr)
    sys.exit(1 if found else 0)
