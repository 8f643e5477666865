from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Equals, Filter, Range, Terms
from mixer.arguments import Unreadable, filter_from, pair_from

NAMES = st.text(min_size=1).filter(lambda text: "=" not in text)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("f=class", Equals("class")),
        ("f=1999", Equals(1999.0)),
        ("f=-1.5e3", Equals(-1500.0)),
        ("f=a=b", Equals("a=b")),
        ("f=class|function", Terms(("class", "function"))),
        ("f=1|2", Terms((1.0, 2.0))),
        ("f=1990..1999", Range(1990.0, 1999.0)),
        ("f=..2000", Range(None, 2000.0)),
        ("f=2000..", Range(2000.0, None)),
        ("f=0..0", Range(0.0, 0.0)),
        ("f=-2..-1.5", Range(-2.0, -1.5)),
    ],
)
def test_filters(text: str, condition: Equals | Terms | Range) -> None:
    """One value, values with bars between, and ranges open at either end each have their form; 0 is an end."""
    assert filter_from(text) == Filter("f", condition)


@pytest.mark.parametrize("word", ["nan", "inf", "-Infinity", "NaN"])
def test_words_that_float_would_take(word: str) -> None:
    """What names no finite number is a word: no field holds such a number, and keywords are spelled so."""
    assert filter_from(f"name={word}") == Filter("name", Equals(word))
    assert pair_from(f"name={word}") == ("name", word)


@pytest.mark.parametrize("read", [filter_from, pair_from])
@pytest.mark.parametrize("text", ["", "=", "name", "name=", "=value"])
def test_half_a_pair(read: object, text: str) -> None:
    """A name and a value are both needed, and the message quotes what was typed and says how to write it."""
    assert callable(read)
    with pytest.raises(Unreadable, match="write name=value") as refused:
        read(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("text", ["year=a..b", "year=1990..z", "year=inf..", "year=1..2..3"])
def test_range_of_words(text: str) -> None:
    """A range has numbers for ends."""
    with pytest.raises(Unreadable, match="is not a number"):
        filter_from(text)


@given(name=NAMES, value=st.floats(allow_nan=False, allow_infinity=False))
def test_any_number(name: str, value: float) -> None:
    """A finite number is read as itself, whatever its name."""
    assert pair_from(f"{name}={value!r}") == (name, value)


@given(text=st.text())
def test_any_text(text: str) -> None:
    """Whatever is typed is read, or refused as unreadable; nothing else happens."""
    for read in (filter_from, pair_from):
        try:
            read(text)
        except Unreadable:
            assert "=" not in text or not all(text.partition("=")) or ".." in text


@pytest.mark.parametrize("text", ["id='7'", 'id="7"'])
def test_quotes_make_a_word_of_a_number(text: str) -> None:
    """An id that looks like a number can be asked for as the word it is."""
    assert filter_from(text) == Filter("id", Equals("7"))
