from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixer.manifest import JUDGED, sha256_of
from mixer.schema import schema_hash
from models import listings
from models.collection import Listing
from models.listings import Held, ListingsError
from tests import forest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / JUDGED


def kept(path: Path, made: list[Listing]) -> Held:
    listings.write(path, made, forest.FEATURES, "test")
    return listings.read(path)


def test_they_come_back_to_the_last_bit(path: Path) -> None:
    """Queries, ids, grades, ranks and features, missing ones too; and what the features are."""
    made = [*forest.listings(range(4), "test"), *forest.listings(range(2, 6), "test", "judged")]
    made[0] = replace(made[0], weight=1 / 3, slices={"tier": "paid"})
    held = kept(path, made)
    assert held.feature_names == tuple(feature.name for feature in forest.FEATURES)
    assert held.schema_sha256 == schema_hash(forest.FEATURES)
    assert (held.split, held.left_out, held.sha256) == ("test", 0, sha256_of(path))
    by_query = {(ls.pool, ls.judged.query): ls for ls in made}
    assert len(held.listings) == 8
    for found in held.listings:
        was = by_query.pop((found.pool, found.judged.query))
        for name in ("judged", "ids", "backends", "weight", "slices"):
            assert getattr(found, name) == getattr(was, name)
        for name in ("features", "ranks", "fused_ranks", "grades"):
            ours, theirs = getattr(found, name), getattr(was, name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def test_the_same_listings_make_the_same_file(path: Path, tmp_path: Path) -> None:
    """Whatever the order in which they were collected."""
    made = forest.listings(range(6), "test")
    kept(path, made)
    kept(tmp_path / "again.npz", made[::-1])
    assert sha256_of(path) == sha256_of(tmp_path / "again.npz")


def test_only_sound_ones_are_kept_and_the_rest_is_counted(path: Path) -> None:
    """A degraded listing lacks what a backend would have said; an empty one says nothing."""
    made = forest.listings(range(4), "test")
    empty = replace(
        made[1],
        ids=(),
        features=made[1].features[:0],
        ranks=made[1].ranks[:, :0],
        fused_ranks=made[1].fused_ranks[:0],
        grades=made[1].grades[:0],
    )
    held = kept(path, [replace(made[0], degraded=True), empty, *made[2:]])
    assert {ls.judged.query for ls in held.listings} == {"query 2", "query 3"}
    assert held.left_out == 2
    with pytest.raises(ValueError, match="degraded or empty"):
        kept(path, [replace(made[0], degraded=True)])


def test_a_sample_is_small_and_always_the_same() -> None:
    """So many a pool, chosen by what the query is and not by its place."""
    made = [*forest.listings(range(20), "test"), *forest.listings(range(20), "test", "judged")]
    few = listings.sample(made, 5)
    assert [ls.pool for ls in few] == ["judged"] * 5 + ["open"] * 5
    assert few == listings.sample(made[::-1], 5)
    assert {ls.judged.query for ls in few[:5]} == {ls.judged.query for ls in few[5:]}


def test_a_query_with_many_listings_leaves_room_for_others() -> None:
    """Of clicks: the first of every query, then the second."""
    made = forest.listings(range(4), "test")
    few = listings.sample([ls for ls in made for _ in range(9)], 6)
    assert Counter(ls.judged.query for ls in few[:4]) == Counter(ls.judged.query for ls in made)
    assert len({ls.judged.query for ls in few[4:]}) == 2


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_cut_short_is_no_file_of_listings(path: Path, share: float) -> None:
    """Half a file is refused, and named."""
    kept(path, forest.listings(range(4), "test"))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ListingsError, match=JUDGED):
        listings.read(path)


def test_python_objects_are_not_read(path: Path) -> None:
    """An archive that would run code when unpickled is refused."""
    np.savez(path, told=np.array([{"a": 1}], object))
    with pytest.raises(ListingsError):
        listings.read(path)


def test_rows_must_be_those_of_the_ids(path: Path) -> None:
    """A file whose parts do not fit together is refused."""
    kept(path, forest.listings(range(4), "test"))
    with np.load(path) as arrays:
        parts = dict(arrays)
    parts["features"] = parts["features"][:-1]
    np.savez(path, **parts)
    with pytest.raises(ListingsError, match="shape"):
        listings.read(path)
