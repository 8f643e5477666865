"""The base of all settings, and what their values are checked by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
)


class Frozen(BaseModel):
    """Base of the tree: frozen; an unknown key is a fault, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def beside_the_file(path: Path, info: ValidationInfo) -> Path:
    """A relative path starts at the settings file's folder."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / path


def url_beside_the_file(url: str, info: ValidationInfo) -> str:
    """A URL as it is; a path as any other path."""
    return url if "://" in url or "::" in url else str(beside_the_file(Path(url), info))


def beside_the_file_if_any(path: Path | None, info: ValidationInfo) -> Path | None:
    """The same, of a path that need not be given."""
    return beside_the_file(path, info) if path else None


def named_once(names: Iterable[str]) -> None:
    """Raises: ValueError where a name stands twice."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{', '.join(map(repr, repeated))} stands twice")


Share = Annotated[float, Field(ge=0, le=1)]
