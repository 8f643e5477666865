"""What it takes to tell drift of what is served from what was trained on; the index itself is `mixer.stability`."""

from __future__ import annotations

import math

from mixer.manifest import Manifest, Profile


def shares_of(profile: Profile) -> list[float]:
    """The trained shares of a profile's bins, and last of what was missing."""
    return [*profile.shares, profile.missing]


def answers_needed(manifest: Manifest, bound: float) -> int | None:
    """How many answers it takes until chance makes up at most half of this bound; None where none are enough.

    Rows of one answer are alike, so an answer counts as one observation, and so does a training query.
    """
    profiles = (manifest.score_profile, *manifest.profiles.values())
    bins = max(len(shares_of(profile)) for profile in profiles)
    left = bound / 2 / (bins - 1) - 1 / max(1, manifest.data.queries.get("train", 0))
    return math.ceil(1 / left) if left > 0 else None


def weighty(manifest: Manifest, share: float = 0.9) -> tuple[str, ...]:
    """The fewest features that hold this share of the gain, the weightiest first."""
    held, taken = 0.0, []
    for name, gain in sorted(manifest.importance.items(), key=lambda item: -item[1]):
        if held >= share:
            break
        held += gain
        taken.append(name)
    return tuple(taken)
