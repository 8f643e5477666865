from collections import Counter, defaultdict
from pathlib import Path

import pytest

from mixer.demo import corpus
from models import judgements
from models.judgements import Judged

DEMO = Path(__file__).parents[2] / "models" / "demo" / "judgements.jsonl"
# Python moves on: ids of one version that a later one dropped are tolerated up to this share.
ABSENT_SHARE = 0.02


@pytest.fixture(scope="module")
def demo() -> tuple[Judged, ...]:
    return judgements.read(DEMO).queries


def _words(query: str) -> tuple[str, ...]:
    return tuple(sorted(query.lower().split()))


def _answers(judged: Judged) -> frozenset[str]:
    return frozenset(id_ for id_, grade in judged.grades.items() if grade == 3)


def test_the_demo_has_enough_to_learn_from(demo: tuple[Judged, ...]) -> None:
    """At least 200 queries over 140 needs, with all four grades, and zeros enough to tell right from near."""
    grades = Counter(grade for judged in demo for grade in judged.grades.values())
    assert len(demo) >= 200
    assert len({judged.need for judged in demo}) >= 140
    assert all(grades[grade] > 500 for grade in range(4))


def test_every_query_has_an_answer_and_a_pool(demo: tuple[Judged, ...]) -> None:
    """Each query has something useful to find, and was judged over more than its answers."""
    for judged in demo:
        assert max(judged.grades.values()) >= 2, judged.query
        assert min(judged.grades.values()) == 0, judged.query
        assert len(judged.grades) >= 10, judged.query


def test_no_query_is_judged_twice(demo: tuple[Judged, ...]) -> None:
    """The same words, in any case or order, are one query."""
    assert not [
        words for words, count in Counter(_words(judged.query) for judged in demo).items() if count > 1
    ]


def test_needs_do_not_leak(demo: tuple[Judged, ...]) -> None:
    """Queries with the very same answers are one need: a split by need must not part them."""
    needs: dict[frozenset[str], set[str]] = defaultdict(set)
    for judged in demo:
        needs[_answers(judged)].add(judged.need)
    assert not [sorted(names) for names in needs.values() if len(names) > 1]


def test_rewordings_never_part(demo: tuple[Judged, ...]) -> None:
    """All wordings of a need fall into one fold and one split, and every split has some."""
    for need in {judged.need for judged in demo}:
        wordings = [judged for judged in demo if judged.need == need]
        assert (
            len({judged.fold(5) for judged in wordings}) == len({judged.assigned for judged in wordings}) == 1
        )
    assert {judged.assigned for judged in demo} == {"train", "valid", "test"}


def test_judged_documents_are_in_the_corpus(demo: tuple[Judged, ...]) -> None:
    """Judgements are about documents that the running interpreter's library has, but for a few it dropped."""
    known = corpus.ids()
    judged_ids = [id_ for judged in demo for id_ in judged.grades]
    absent = [id_ for id_ in judged_ids if id_ not in known]
    assert len(absent) <= ABSENT_SHARE * len(judged_ids), sorted(set(absent))


def test_the_whole_library_is_asked_about(demo: tuple[Judged, ...]) -> None:
    """The answers come from many corners, not from a few favorite modules."""
    assert len({id_.split(".")[0] for judged in demo for id_ in _answers(judged)}) > 80
