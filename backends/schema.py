"""What a document holds, declared, and the reader that holds every line of a file against it.

id: id                      # the JSON key with the document's id: text or a whole number, never twice
unknown: refuse             # a key that is not declared makes a line bad; `ignore` skips the key
fields:
  title: {type: text}       # words to search; a list of strings is shown joined by ", "
  genres: {type: keyword}   # exact values to filter by, one or a list
  year: {type: number}      # to filter by range, and to rank by
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from pydantic import field_validator, model_validator

from backends.base import EngineSettings

FieldType = Literal["text", "keyword", "number"]
Progress = Callable[[int, int], None]
"""Called with the bytes of the source file read so far and the bytes it has."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_ID_BYTES = 512
_KEYWORD_BYTES = 4096


class Field(EngineSettings):
    """One declared field."""

    type: FieldType


class Schema(EngineSettings):
    """The declared fields of a document; filters call the id `id`, whatever its JSON key."""

    id: str = "id"
    unknown: Literal["refuse", "ignore"] = "refuse"
    fields: dict[str, Field]

    @field_validator("fields")
    @classmethod
    def _names_are_plain(cls, fields: dict[str, Field]) -> dict[str, Field]:
        wrong = [name for name in fields if not _NAME.fullmatch(name) or name == "id"]
        if wrong:
            raise ValueError(f"field names are letters, digits and _, and `id` is taken: {wrong}")
        return fields

    @model_validator(mode="after")
    def _id_is_no_field(self) -> Schema:
        if self.id in self.fields:
            raise ValueError(f"`{self.id}` is the id and a field at once")
        return self

    @property
    def digest(self) -> str:
        """Hash of the fields' names and types."""
        declared = json.dumps({name: field.type for name, field in self.fields.items()}, sort_keys=True)
        return hashlib.sha256(declared.encode()).hexdigest()[:16]

    def names(self, *types: FieldType) -> list[str]:
        """The fields of these types, as declared."""
        return [name for name, field in self.fields.items() if field.type in types]

    def type_of(self, name: str) -> FieldType | None:
        """How a filter sees a field: `id` is a keyword; None where there is no such field."""
        if name == "id":
            return "keyword"
        return self.fields[name].type if name in self.fields else None


@dataclass(frozen=True, slots=True)
class Document:
    """One document. A field that is missing, null or empty is in neither mapping."""

    id: str
    texts: dict[str, tuple[str, ...]]
    numbers: dict[str, float]

    def shown(self, field: str) -> str:
        """The values of a text or keyword field joined by ", "; empty where it has none."""
        return ", ".join(self.texts.get(field, ()))

    def words(self, fields: Iterable[str]) -> str:
        """The values of several fields, one a line: the document as one text."""
        return "\n".join(value for field in fields for value in self.texts.get(field, ()))


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that made no document; `number` counts from 1."""

    number: int
    reason: str


class _Bad(Exception):
    """Why a line makes no document."""


def parse(raw: object, schema: Schema) -> Document:
    """A decoded JSON object as a document. Raises: ValueError with the reason."""
    try:
        return _document(raw, schema)
    except _Bad as bad:
        raise ValueError(str(bad)) from None


def read(source: Path, schema: Schema, progress: Progress | None = None) -> Iterator[Document | BadLine]:
    """Every line of a `.jsonl` or `.jsonl.gz` file as what it is; blank lines are passed over.

    Raises: OSError where the file cannot be read or its compression is broken.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(source, progress), start=1):
        if not line.strip():
            continue
        try:
            document = _document(_decoded(line), schema)
            if document.id in seen:
                raise _Bad(f"repeats the id of line {seen[document.id]}")
        except _Bad as bad:
            yield BadLine(number, str(bad))
            continue
        seen[document.id] = number
        yield document


def _lines(source: Path, progress: Progress | None) -> Iterator[bytes]:
    total = source.stat().st_size
    with source.open("rb") as raw, _unpacked(raw, source) as lines:
        try:
            for count, line in enumerate(lines):
                yield line
                if progress and count % 256 == 0:
                    progress(raw.tell(), total)
        except (EOFError, zlib.error) as error:
            raise OSError(f"{source} is not whole: its compression is broken") from error
    if progress:
        progress(total, total)


def _unpacked(raw: BinaryIO, source: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if source.suffix == ".gz" else raw


def _decoded(line: bytes) -> object:
    try:
        return json.loads(line)
    except UnicodeDecodeError:
        raise _Bad("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _Bad(f"is not JSON: {error.msg} at column {error.colno}") from None
    except (RecursionError, ValueError):
        raise _Bad("is not JSON that can be read") from None


def _document(raw: object, schema: Schema) -> Document:
    if not isinstance(raw, dict):
        raise _Bad("is not an object")
    document = Document(_id(raw.get(schema.id), schema.id), {}, {})
    for name, value in raw.items():
        if name == schema.id or value is None:
            continue
        if name in schema.fields:
            _put(document, name, schema.fields[name].type, value)
        elif schema.unknown == "refuse":
            raise _Bad(f"`{name}` is not declared")
    return document


def _put(document: Document, name: str, declared: FieldType, value: object) -> None:
    if declared == "number":
        document.numbers[name] = _number(value, name)
    elif texts := _texts(value, name, declared):
        document.texts[name] = texts


def _id(value: object, key: str) -> str:
    if value is None:
        raise _Bad(f"has no `{key}`")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _Bad(f"`{key}` is neither text nor a whole number")
    text = str(value)
    if not 0 < _size(text, key) <= _ID_BYTES:
        raise _Bad(f"`{key}` is empty or longer than {_ID_BYTES} bytes")
    return text


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Bad(f"`{name}` is not a number")
    try:
        number = float(value)
    except OverflowError:
        raise _Bad(f"`{name}` is too large") from None
    if not math.isfinite(number):
        raise _Bad(f"`{name}` is not finite")
    return number


def _texts(value: object, name: str, declared: FieldType) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    values = tuple(item for item in listed if isinstance(item, str))
    if len(values) != len(listed):
        raise _Bad(f"`{name}` is neither text nor a list of texts")
    longest = max((_size(item, name) for item in values), default=0)
    if declared == "keyword" and longest > _KEYWORD_BYTES:
        raise _Bad(f"a keyword of `{name}` is longer than {_KEYWORD_BYTES} bytes")
    return tuple(item for item in values if item)


def _size(text: str, name: str) -> int:
    if "\0" in text:
        raise _Bad(f"`{name}` holds a NUL")
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise _Bad(f"`{name}` is not valid Unicode") from None
