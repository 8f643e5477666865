"""Arms that were taken back: each verdict is a file, so that it holds for other processes and after a restart.

A verdict is on a model in an arm; another version there is tried anew. Who deletes the file gives the arm its share
back.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

log = logging.getLogger(__name__)


class Verdict(BaseModel):
    """What was found, when (UTC, ISO 8601), and the figures behind it."""

    model_config = ConfigDict(frozen=True)

    mix: str
    arm: str
    model: str = ""
    version: str = ""
    sha256: str = ""
    """Of the model's file; empty for the fused order."""
    reason: str
    figure: float
    control: float
    bound: float
    requests: int
    control_requests: int
    why: str
    at: str

    @property
    def on(self) -> tuple[str, str]:
        """The arm, and the model in it."""
        return self.arm, self.sha256


class Verdicts:
    """The verdicts on one mix's arms; without a folder they hold for this process alone."""

    def __init__(self, mix: str, folder: Path | None) -> None:
        """The folder need not exist yet."""
        self._mix, self._folder = mix, folder
        self._unwritten: dict[tuple[str, str], Verdict] = {}
        self._known: dict[tuple[str, str], Verdict] = {}

    def keep(self, verdict: Verdict) -> None:
        """It holds from now on; for this process also where it cannot be written."""
        self._known = {**self._known, verdict.on: verdict}
        if self._folder is None:
            return
        try:
            self._write(self._folder, verdict)
        except OSError as error:
            self._unwritten[verdict.on] = verdict
            log.warning("verdict not written: it holds for this process", extra={"why": str(error)})

    def standing(self) -> dict[tuple[str, str], Verdict]:
        """Those that hold now, by arm and model. Reads files: call it off the event loop."""
        if self._folder is not None:
            try:
                self._known = self._read(self._folder)
            except OSError as error:
                log.warning("verdicts cannot be read: those known hold", extra={"why": str(error)})
        return {**self._known, **self._unwritten}

    def _write(self, folder: Path, verdict: Verdict) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{quote(verdict.mix, safe='')}.{verdict.arm}.{verdict.sha256[:16] or 'fused'}.json"
        descriptor, draft = tempfile.mkstemp(prefix=".", dir=folder)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(verdict.model_dump_json(indent=1) + "\n")
        Path(draft).rename(folder / name)

    def _read(self, folder: Path) -> dict[tuple[str, str], Verdict]:
        if not folder.is_dir():
            return {}
        found = (self._parsed(path) for path in sorted(folder.glob("[!.]*.json")))
        return {verdict.on: verdict for verdict in found if verdict and verdict.mix == self._mix}

    def _parsed(self, path: Path) -> Verdict | None:
        try:
            return Verdict.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
