"""The order of the rounds."""

from __future__ import annotations

from typing import cast

from tests.bench.measure import Act, in_turns
from tests.bench.processes import Service
from tests.bench.scenes import SCENES, Scene


def act(scene: Scene) -> Act:
    return Act(scene, cast(Service, None))


def test_two_trees_take_turns_scene_by_scene() -> None:
    """The floor, which is both's, is played once; then each scene of the one and of the other."""
    floor = act(SCENES[0])
    ours, theirs = [[floor, *map(act, SCENES[1:])] for _ in range(2)]
    played = in_turns([ours, theirs])
    assert played[0] is floor
    assert len(played) == 2 * len(SCENES) - 1
    assert [played[1::2], played[2::2]] == [ours[1:], theirs[1:]]


def test_scenes_have_names_of_their_own() -> None:
    """The collector, the record and the lines know them by these."""
    assert len({scene.key for scene in SCENES}) == len({scene.title for scene in SCENES}) == len(SCENES)


def test_the_floor_alone_tells_of_no_candidates() -> None:
    """It merges nothing; every other scene's answers tell how many they are made from."""
    assert [scene.candidates for scene in SCENES[-3:]] == [300, 3000, 1600]
    assert [scene.key for scene in SCENES if not scene.candidates] == ["floor"]
