from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.judgements import Judged, JudgementsError, counts, read, window, write

WORDS = st.text(min_size=1, max_size=12)
QUERIES = st.lists(
    st.builds(
        Judged,
        query=WORDS,
        need=WORDS,
        grades=st.dictionaries(st.text(max_size=8), st.integers(0, 3), min_size=1, max_size=4),
        split=st.sampled_from([None, "train", "valid", "test"]),
        day=st.sampled_from([None, "2024-01-31"]),
    ),
    min_size=1,
    max_size=5,
)


def judged(need: str = "n", split: str | None = None, day: str | None = None) -> Judged:
    return Judged.model_validate({"query": "q", "need": need, "grades": {"x": 1}, "split": split, "day": day})


@given(QUERIES)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, queries: list[Judged]) -> None:
    """Any words, line separators of Unicode too, come back as they were, one query a line."""
    path = tmp_path_factory.mktemp("judged") / "judged.jsonl"
    write(path, queries)
    assert path.read_bytes().count(b"\n") == len(queries)
    assert list(read(path).queries) == queries


def test_a_gzipped_file_says_the_same(tmp_path: Path) -> None:
    """Compressed or not, the queries are the same; the hash is of the file as it is."""
    plain, packed = tmp_path / "judged.jsonl", tmp_path / "judged.jsonl.gz"
    write(plain, [judged("a"), judged("b")])
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read(packed).queries == read(plain).queries
    assert read(plain).sha256 == hashlib.sha256(plain.read_bytes()).hexdigest()
    assert read(packed).sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert (read(packed).source, read(plain).source) == (packed.name, plain.name)


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    """One error, with the number and the fault of each line that makes no sense."""
    path = tmp_path / "judged.jsonl"
    path.write_text(
        '{"query": "q", "need": "n", "grades": {"x": 1}}\n'
        '{"query": "", "need": "n", "grades": {"x": 1}}\n'
        '{"query": "q", "need": "n", "grades": {"x": 4}}\n'
        '{"query": "q", "need": "n", "grades": {}}\n'
        '{"query": "q", "need": "n", "grades": {"x": 1}, "user": "u"}\n'
        '{"query": "q", "grades": {"x": 1}}\n'
        "words\n",
        encoding="utf-8",
    )
    with pytest.raises(JudgementsError) as refused:
        read(path)
    lines = str(refused.value).splitlines()
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in lines] == ["2", "3", "4", "5", "6", "7"]
    assert "query" in lines[0]
    assert "grades.x" in lines[1]
    assert "user" in lines[3]
    assert "need" in lines[4]


def test_blank_lines_are_passed_over(tmp_path: Path) -> None:
    """They judge nothing and move no line's number."""
    path = tmp_path / "judged.jsonl"
    path.write_text('\n{"query": "q", "need": "n", "grades": {"x": 1}}\r\n \n', encoding="utf-8")
    assert [query.need for query in read(path).queries] == ["n"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("j.jsonl", b"\xff\xfe"),
        ("j.jsonl.gz", b"plain"),
        ("j.jsonl.gz", gzip.compress(b"x" * 99, mtime=0)[:-9]),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    """Bytes that are no text, and compression that is broken or cut short, are faults of the file."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(JudgementsError, match=name):
        read(path)


def test_an_empty_file_judges_nothing(tmp_path: Path) -> None:
    """No query is a fault, not an empty success."""
    path = tmp_path / "judged.jsonl"
    path.write_text("", encoding="utf-8")
    with pytest.raises(JudgementsError, match="no judged query"):
        read(path)


def test_rewordings_of_a_need_stay_together() -> None:
    """The split is the need's: two queries of one need are never parted, whatever their words and grades."""
    for number in range(50):
        one = Judged(query="a", need=f"n{number}", grades={"x": 1})
        other = Judged(query="b", need=f"n{number}", grades={"y": 3})
        assert one.assigned == other.assigned
        assert one.fold(5) == other.fold(5)


def test_the_split_is_seventy_ten_twenty() -> None:
    """Over many needs the shares are near 70, 10 and 20 %, and the same on every machine."""
    found = counts(judged(f"need {number}") for number in range(2000))
    assert found["train"] / 2000 == pytest.approx(0.7, abs=0.04)
    assert found["valid"] / 2000 == pytest.approx(0.1, abs=0.03)
    assert found["test"] / 2000 == pytest.approx(0.2, abs=0.04)
    assert [judged(need).assigned for need in ("csv-read", "json-write", "regex")] == [
        Judged(query="other", need=need, grades={"z": 0}).assigned
        for need in ("csv-read", "json-write", "regex")
    ]
    digest = hashlib.sha256(b"csv-read").digest()
    assert judged("csv-read").fold(10) == int.from_bytes(digest[:8], "big") % 10


def test_a_split_that_is_given_stands(tmp_path: Path) -> None:
    """A file that names its splits keeps them, and `of` gives each its own."""
    path = tmp_path / "judged.jsonl"
    write(path, [judged("a", "test"), judged("b", "train"), judged("c", "test")])
    made = read(path)
    assert [query.need for query in made.of("test")] == ["a", "c"]
    assert [query.need for query in made.of("train")] == ["b"]
    assert made.of("valid") == ()


def test_the_window_of_the_days() -> None:
    """First and last day; none where nothing is dated."""
    assert window([judged(day="2024-03-01"), judged(), judged(day="2023-12-31")]) == (
        "2023-12-31",
        "2024-03-01",
    )
    assert window([judged()]) == (None, None)
