"""Judged queries: JSON Lines, one query a line.

    {"query": "read a csv file", "need": "csv-read", "grades": {"csv.reader": 3, "csv.writer": 0}}

`need` names what the person wanted; re-wordings share it and never part between splits. `split` (train, valid or
test) may be given; where it is not, the need's hash decides.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Split = Literal["train", "valid", "test"]


class Judged(BaseModel):
    """One query with the grades (0 to 3) of the documents that were judged for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: Annotated[str, Field(min_length=1)]
    need: Annotated[str, Field(min_length=1)]
    grades: Annotated[dict[str, Annotated[int, Field(ge=0, le=3)]], Field(min_length=1)]
    split: Split | None = None
    day: str | None = None
    """When it was judged (ISO 8601)."""

    def fold(self, folds: int) -> int:
        """The fold of this query's need, from 0."""
        digest = hashlib.sha256(self.need.encode()).digest()
        return int.from_bytes(digest[:8], "big") % folds

    @property
    def digest(self) -> str:
        """Orders queries as if at random, but the same each time."""
        return hashlib.sha256(f"{self.need}\n{self.query}".encode()).hexdigest()

    @property
    def assigned(self) -> Split:
        """The split it belongs to: its own, or 70, 10 and 20 % by need."""
        if self.split:
            return self.split
        tenth = self.fold(10)
        return "train" if tenth < 7 else "valid" if tenth == 7 else "test"


@dataclass(frozen=True, slots=True)
class Judgements:
    """A file of judged queries."""

    source: str
    sha256: str
    queries: tuple[Judged, ...]

    def of(self, split: Split) -> tuple[Judged, ...]:
        """The queries of one split."""
        return tuple(judged for judged in self.queries if judged.assigned == split)


class JudgementsError(ValueError):
    """Lines of a judgements file that make no sense; all of them are named."""


def read(path: Path) -> Judgements:
    """Judgements from a `.jsonl` or `.jsonl.gz` file. Raises: JudgementsError, OSError."""
    data = path.read_bytes()
    queries: list[Judged] = []
    faults: list[str] = []
    # Not splitlines: a text may hold Unicode's other line separators.
    for number, line in enumerate(_text(path, data).split("\n"), 1):
        if not line.strip():
            continue
        try:
            queries.append(Judged.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            faults.append(f"{path}:{number}: {'.'.join(map(str, first['loc']))}: {first['msg']}")
    if faults or not queries:
        raise JudgementsError("\n".join(faults) or f"{path}: no judged query")
    return Judgements(path.name, hashlib.sha256(data).hexdigest(), tuple(queries))


def _text(path: Path, data: bytes) -> str:
    try:
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise JudgementsError(f"{path}: is neither UTF-8 nor gzipped UTF-8: {error}") from error


def write(path: Path, queries: Iterable[Judged]) -> None:
    """Write judged queries as JSON Lines."""
    lines = (json.dumps(judged.model_dump(exclude_none=True), ensure_ascii=False) for judged in queries)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def window(queries: Iterable[Judged]) -> tuple[str | None, str | None]:
    """First and last day of the judgements; None where they are not dated."""
    days = sorted(judged.day for judged in queries if judged.day)
    return (days[0], days[-1]) if days else (None, None)


def counts(queries: Iterable[Judged]) -> dict[str, int]:
    """Queries by split."""
    return dict(Counter(judged.assigned for judged in queries))
