from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.line import MESSAGE_BYTES, Assignment, Word
from mixer.serving import State
from tests.doubles import engines, mixers


def test_a_worker_reads_what_was_written(tmp_path: Path) -> None:
    """Settings arrive as they are, documents that lack a field and all."""
    documents = [*engines.DOCUMENTS, {"id": "5", "title": None}]
    memory = {"kind": "memory", "fields": engines.FIELDS, "documents": documents}
    assignment = Assignment(mixers.settings({"a": memory}), tmp_path, 1.0, 10.0)
    assert Assignment.read(assignment.write()) == assignment


@given(state=st.sampled_from(State), why=st.text())
def test_words_arrive(state: State, why: str) -> None:
    """What is said is heard, line breaks and all."""
    assert Word.unpacked(Word(state, why).packed()) == Word(state, why)


@pytest.mark.parametrize("letter", ["x", "\U0001f600"])
def test_words_fit_a_message(letter: str) -> None:
    """However much there is to say: the rest is cut."""
    packed = Word(State.FAILED, letter * 10**6).packed()
    assert len(packed) <= MESSAGE_BYTES
    assert Word.unpacked(packed).why.startswith(letter * 1000)
