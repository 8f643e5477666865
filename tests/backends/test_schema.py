"""Declared fields, and every line of a file held against them."""

import gzip
from pathlib import Path

import pytest
from pydantic import ValidationError

from backends.schema import BadLine, Document, Schema, parse, read

FIELDS = {"title": {"type": "text"}, "kind": {"type": "keyword"}, "year": {"type": "number"}}
SCHEMA = Schema.model_validate({"fields": FIELDS})


def lines_of(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        (b'{"id": "\xff"}', "is not UTF-8"),
        ("[1]", "is not an object"),
        ("{}", "has no `id`"),
        ('{"id": null}', "has no `id`"),
        ('{"id": ""}', "empty"),
        ('{"id": true}', "neither text nor a whole number"),
        ('{"id": 1.5}', "neither text nor a whole number"),
        (f'{{"id": "{"x" * 513}"}}', "longer than 512 bytes"),
        ('{"id": "a"}', "repeats the id of line 1"),
        ('{"id": "b", "colour": 1}', "`colour` is not declared"),
        ('{"id": "b", "title": 1}', "`title` is neither text nor a list of texts"),
        ('{"id": "b", "title": ["x", 1]}', "`title` is neither text nor a list of texts"),
        ('{"id": "b", "title": "\\ud800"}', "`title` is not valid Unicode"),
        ('{"id": "b", "kind": "x\\u0000"}', "`kind` holds a NUL"),
        (f'{{"id": "b", "kind": "{"x" * 4097}"}}', "longer than 4096 bytes"),
        ('{"id": "b", "year": "2001"}', "`year` is not a number"),
        ('{"id": "b", "year": true}', "`year` is not a number"),
        ('{"id": "b", "year": NaN}', "`year` is not finite"),
        ('{"id": "b", "year": 1e999}', "`year` is not finite"),
        (f'{{"id": "b", "year": 1{"0" * 400}}}', "`year` is too large"),
        ("[" * 100_000, "is not JSON that can be read"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, line: str | bytes, reason: str) -> None:
    """A bad line is reported by its number and why; the lines around it are kept."""
    source = lines_of(tmp_path / "d.jsonl", '{"id": "a"}', "", line, '{"id": "last"}')
    first, bad, last = read(source, SCHEMA)
    assert isinstance(first, Document)
    assert isinstance(last, Document)
    assert isinstance(bad, BadLine)
    assert bad.number == 3
    assert reason in bad.reason


def test_values() -> None:
    """Lists and single texts are kept alike; null and empty are as good as missing; a number id is text."""
    raw = {"id": 7, "title": ["a", "", "b"], "kind": "", "year": None}
    document = parse(raw, SCHEMA)
    assert document == Document("7", {"title": ("a", "b")}, {})
    assert (document.shown("title"), document.shown("kind")) == ("a, b", "")


def test_undeclared_key_can_be_ignored() -> None:
    """`unknown: ignore` passes over keys that are not declared."""
    schema = Schema.model_validate({"fields": FIELDS, "unknown": "ignore"})
    assert parse({"id": "a", "colour": 1, "year": 1}, schema) == Document("a", {}, {"year": 1.0})


def test_id_under_another_key() -> None:
    """The id can stand under any key; a document key called `id` is then no field."""
    schema = Schema.model_validate({"id": "isbn", "fields": FIELDS})
    assert parse({"isbn": "a"}, schema).id == "a"
    with pytest.raises(ValueError, match="`id` is not declared"):
        parse({"isbn": "a", "id": "b"}, schema)


def test_compressed_file_and_progress(tmp_path: Path) -> None:
    """A `.jsonl.gz` file reads as a plain one; progress ends at the file's size on disk."""
    plain = b"".join(b'{"id": "%d"}\n' % i for i in range(1000))
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(plain))
    calls: list[tuple[int, int]] = []
    documents = list(read(tmp_path / "d.jsonl.gz", SCHEMA, lambda done, total: calls.append((done, total))))
    size = (tmp_path / "d.jsonl.gz").stat().st_size
    assert len(documents) == 1000
    assert calls == sorted(calls)
    assert calls[-1] == (size, size)


@pytest.mark.parametrize("cut", [30, -1])
def test_broken_compression(tmp_path: Path, cut: int) -> None:
    """A compressed file that ends early, or is damaged, is an OSError and never a short index."""
    whole = gzip.compress(b"".join(b'{"id": "%d"}\n' % i for i in range(1000)))
    for broken in (whole[:cut], whole[:100] + b"\xff\xff\xff" + whole[103:]):
        (tmp_path / "d.jsonl.gz").write_bytes(broken)
        with pytest.raises(OSError, match=r"not whole|CRC|Not a gzipped"):
            list(read(tmp_path / "d.jsonl.gz", SCHEMA))


@pytest.mark.parametrize(
    "schema",
    [
        {"fields": {"id": {"type": "text"}}},
        {"fields": {"_row": {"type": "text"}}},
        {"fields": {'x"; DROP TABLE documents': {"type": "number"}}},
        {"fields": {"title": {"type": "vector"}}},
        {"id": "title", "fields": {"title": {"type": "text"}}},
        {"fields": {}, "colour": 1},
    ],
)
def test_bad_schema_is_refused(schema: dict[str, object]) -> None:
    """Field names are plain, types known, and the id is no field."""
    with pytest.raises(ValidationError):
        Schema.model_validate(schema)
