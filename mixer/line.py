"""What a supervisor and its workers tell each other."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

from mixer.serving import State
from mixer.settings import Settings

MESSAGE_BYTES = 64 * 1024
SHUTDOWN_S = 8.0
"""What a worker may take beyond its drain: the last spans, its backends' end."""
_WHY_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is told at its start; `folder` is the supervisor's own."""

    settings: Settings
    folder: Path
    beat_s: float
    silence_s: float
    """Without a beat for so long it is taken for sick."""

    def write(self) -> Path:
        """Leave it in the folder for every worker to read."""
        path = self.folder / "assignment.pickle"
        path.write_bytes(pickle.dumps(self))
        return path

    @classmethod
    def read(cls, path: Path) -> Assignment:
        """The one that was written; only ever from a folder that nobody else may write to."""
        assignment: Assignment = pickle.loads(path.read_bytes())  # noqa: S301
        return assignment


@dataclass(frozen=True, slots=True)
class Word:
    """What a worker says: how far it is, and why it failed where it did."""

    state: State
    why: str = ""

    def packed(self) -> bytes:
        """As one message."""
        return json.dumps([self.state, self.why[:_WHY_CHARS]]).encode()

    @classmethod
    def unpacked(cls, message: bytes) -> Word:
        """Out of one message."""
        state, why = json.loads(message)
        return cls(State(state), why)
