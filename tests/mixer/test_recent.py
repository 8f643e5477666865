from __future__ import annotations

from mixer.recent import Recent


def test_what_is_kept_is_the_newest() -> None:
    """A key that is put again is as good as new."""
    kept: Recent[int] = Recent(2)
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        kept.put(key, value)
    assert (kept.get("a"), kept.get("b"), kept.get("c"), len(kept)) == (3, None, 4, 2)
