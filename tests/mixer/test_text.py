from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mixer.text import (
    MAX_QUERY_WORDS,
    Overlap,
    QueryWords,
    any_of,
    coverage,
    field_coverage,
    weighted_coverage,
)
from mixer.words import MAX_TEXT_CHARS


def naive_words(text: str) -> list[str]:
    """The words of a text, one character at a time."""
    folded = unicodedata.normalize("NFKD", text).lower().replace("'", "").replace("’", "")
    bare = [c for c in folded if not 0x300 <= ord(c) <= 0x36F]
    kept = (c.isalnum() or (unicodedata.category(c)[0] == "M" and ord(c) < 0x10000) for c in bare)
    return "".join(c if keep else " " for c, keep in zip(bare, kept, strict=True)).split()


def singular(word: str) -> str:
    """A word without its plural's s."""
    return word[:-1] if len(word.encode()) > 3 and word.endswith("s") and not word.endswith("ss") else word


def runs_of(words: list[str]) -> list[list[str]]:
    return [words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1)]


COLUMNS = (
    "present",
    "matched",
    "words",
    "phrase",
    "starts",
    "exact",
    "inside",
    "matched_pairs",
    "last_word_prefix",
)


def naive_overlap(query: str, texts: Sequence[str]) -> dict[str, list[object]]:
    """Every column of an overlap, one text and one word at a time."""
    typed = naive_words(query)[:MAX_QUERY_WORDS]
    asked = [singular(word) for word in typed]
    found: dict[str, list[object]] = {name: [] for name in COLUMNS}
    for text in texts:
        read = naive_words(text)
        words = [singular(word) for word in read]
        runs = [words[i : i + len(asked)] == asked for i in range(len(words))] if asked else []
        found["present"].append({word for word in asked if word in words})
        found["matched"].append(sum(word in asked for word in words))
        found["words"].append(len(words))
        found["phrase"].append(any(runs))
        found["starts"].append(bool(runs) and runs[0])
        found["exact"].append(bool(asked) and words == asked)
        found["inside"].append(words in runs_of(asked))
        found["matched_pairs"].append(sum(pair in set(pairwise(asked)) for pair in pairwise(words)))
        found["last_word_prefix"].append(bool(typed) and any(w.startswith(typed[-1]) for w in read))
    return found


def check(query: str, texts: Sequence[str]) -> None:
    words = QueryWords(query)
    made, expected = words.overlap(texts), naive_overlap(query, texts)
    asked = naive_words(query)[:MAX_QUERY_WORDS]
    assert words.words == asked
    assert made.present.shape == (len({singular(word) for word in asked}), len(texts))
    assert made.present.sum(axis=0).tolist() == [len(present) for present in expected.pop("present")]  # type: ignore[arg-type]
    for name, column in expected.items():
        assert getattr(made, name).tolist() == column, name


WORDS = st.sampled_from(
    [
        "a",
        "b",
        "ab",
        "abc",
        "csv",
        "files",
        "file",
        "class",
        "it's",
        "Ünïcode",
        "unicode",
        "straße",
        "naïve",
        "ﬁne",
        "数据",
        "x1",
        "١٢",
        "İ",
        "e\u0301",
    ]
)
GLUE = st.sampled_from([" ", "  ", "_", "-", "\0", "\n", "\x1f", "\x85", "\u2028", "…", "", "😀", "\u0301"])
TEXTS = st.one_of(
    st.lists(st.tuples(WORDS, GLUE), max_size=6).map(lambda pairs: "".join(w + g for w, g in pairs)),
    st.text(max_size=12),
    st.just(""),
)


@given(TEXTS, st.lists(TEXTS, max_size=5))
@example("", [])
@example("", ["", "a"])
@example("a", ["", "", "a"])
@example("a b", ["a", "b"])
@example("b a", ["a b", "a b a"])
@example("x\0y", ["x\0y", "x y", "x", "y"])
@example("\ud800", ["\ud800 a", "a"])
def test_overlap_is_what_a_plain_reading_finds(query: str, texts: list[str]) -> None:
    """Every column equals that of a reference that reads one text and one word at a time."""
    check(query, texts)


@given(st.data())
def test_a_run_of_words_is_found_wherever_it_stands(data: st.DataObject) -> None:
    """Queries cut from the texts themselves agree with the reference too: phrases, starts and exact matches."""
    texts = data.draw(st.lists(st.lists(WORDS, max_size=8).map(" ".join), min_size=1, max_size=4))
    words = data.draw(st.sampled_from(texts)).split()
    first = data.draw(st.integers(0, len(words)))
    last = data.draw(st.integers(first, len(words)))
    check(" ".join(words[first:last]), texts)


def test_words_do_not_run_from_one_text_into_the_next() -> None:
    """A phrase that is split between two texts stands in neither."""
    made = QueryWords("read csv").overlap(["how to read", "csv files", "read csv"])
    assert made.phrase.tolist() == [False, False, True]


def test_an_empty_text_keeps_its_place() -> None:
    """Empty texts at the start, in the middle and at the end shift nothing."""
    made = QueryWords("a").overlap(["", "a", "", "b a", ""])
    assert made.matched.tolist() == [0, 1, 0, 1, 0]
    assert made.words.tolist() == [0, 1, 0, 2, 0]


def test_a_nul_is_a_space() -> None:
    """A NUL inside a text, the separator of the joined buffer, parts two words and not two texts."""
    made = QueryWords("a b").overlap(["a\0b", "b\0"])
    assert made.phrase.tolist() == [True, False]
    assert made.words.tolist() == [2, 1]


def test_case_accents_and_punctuation_are_folded() -> None:
    """Texts are compared in lower case, without accents; punctuation and underscores part words."""
    made = QueryWords("CAFÉ-crème").overlap(["cafe creme", "Café_Crème!", "cafecreme"])
    assert made.exact.tolist() == [True, True, False]


@pytest.mark.parametrize("count", [MAX_QUERY_WORDS - 1, MAX_QUERY_WORDS, MAX_QUERY_WORDS + 5, 500])
def test_long_queries_are_cut(count: int) -> None:
    """Words beyond the 64th are left out of everything, and what is left is still exact."""
    asked = [f"w{place}" for place in range(count)]
    words = QueryWords(" ".join(asked))
    kept = asked[:MAX_QUERY_WORDS]
    assert words.words == kept
    made = words.overlap([" ".join(asked), " ".join(kept), " ".join(kept[:-1]), f"w{count + 7}"])
    assert made.phrase.tolist() == [True, True, False, False]
    assert made.exact.tolist() == [count <= MAX_QUERY_WORDS, True, False, False]
    assert made.matched.tolist() == [len(kept), len(kept), len(kept) - 1, 0]


def test_long_texts_do_not_change_a_word_s_number() -> None:
    """A word is found behind a megabyte of others as before it."""
    filler = ["lorem ipsum " * 150] * 600
    made = QueryWords("needle").overlap(["needle", *filler, "a needle", "needle"])
    assert made.matched.tolist() == [1, *[0] * 600, 1, 1]
    assert made.starts.tolist() == [True, *[False] * 600, False, True]


def test_a_repeated_query_word_counts_once() -> None:
    """Coverage is of distinct words: asking for a word twice does not make it weigh twice."""
    made = [QueryWords("csv csv read").overlap(["csv"])]
    assert coverage(made).tolist() == [0.5]


def overlaps(query: str, *columns: Sequence[str]) -> list[Overlap]:
    words = QueryWords(query)
    return [words.overlap(column) for column in columns]


def test_coverage_takes_the_fields_together() -> None:
    """A query word counts where any of the fields has it; NaN where all fields are empty."""
    made = coverage(overlaps("read csv file", ["read", "", "a"], ["csv", "", ""]))
    np.testing.assert_allclose(made, [2 / 3, np.nan, 0])


def test_rare_words_weigh_more() -> None:
    """Weighted coverage: log(1 + n / (1 + document frequency)) a word, checked by hand."""
    made = weighted_coverage(overlaps("csv rare", ["csv", "csv", "csv rare", "", "rare csv x"]))
    common, rare = np.log1p(5 / 5), np.log1p(5 / 3)
    share = common / (common + rare)
    np.testing.assert_allclose(made, [share, share, 1, np.nan, 1])


def test_field_coverage_is_the_share_of_the_field() -> None:
    """Every word of the fields counts, repeats too; NaN where all are empty."""
    made = field_coverage(overlaps("csv", ["csv csv x", "", "x"], ["y", "", ""]))
    np.testing.assert_allclose(made, [0.5, np.nan, 0])


def test_a_flag_of_any_field_is_set() -> None:
    """`any_of` is 1 where the flag is set for one of the fields; NaN where all are empty."""
    made = overlaps("csv", ["csv", "x", ""], ["", "csv", ""])
    np.testing.assert_equal(any_of(made, [o.exact for o in made]), [1, 1, np.nan])


def test_a_query_without_words_covers_nothing() -> None:
    """A query of punctuation has no words: every share is 0 where there is text, NaN where there is none."""
    for measure in (coverage, weighted_coverage, field_coverage):
        np.testing.assert_equal(measure(overlaps("?!", ["a", ""])), [0, np.nan])


def test_long_texts_are_read_to_a_bound() -> None:
    """Of a long text the first MAX_TEXT_CHARS count, and the texts after it are read as ever."""
    long = "a " * (MAX_TEXT_CHARS // 2) + "needle"
    made = QueryWords("needle").overlap([long, "needle"])
    assert made.present.tolist() == [[False, True]]
    assert made.words.tolist() == [MAX_TEXT_CHARS // 2, 1]
