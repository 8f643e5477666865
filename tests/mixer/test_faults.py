from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from mixer.faults import Fault, FileFault, dangling_references, line_of, read_as, repeated_keys

TEXT = """server:
  listen: a

mixes:
  default:
    features:
      - name: one
        source: query
      - name: two
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("server", 1),
        ("server.listen", 2),
        ("server.nowhere", 1),
        ("mixes.default.features", 6),
        ("mixes.default.features.0.name", 7),
        ("mixes.default.features.0.query.source", 8),
        ("mixes.default.features.1.name", 9),
        ("mixes.default.features.7.name", 6),
        ("nowhere.at.all", 1),
    ],
)
def test_the_line_of_a_path(path: str, line: int) -> None:
    """The line of the deepest part that stands in the file; tags of a union are passed over."""
    assert line_of(yaml.compose(TEXT, yaml.SafeLoader), path) == line


def test_an_empty_file_has_a_first_line() -> None:
    """Where there is no tree at all, every path is on line 1."""
    assert line_of(None, "server.listen") == 1


def twice(text: str) -> list[Fault]:
    return list(repeated_keys(yaml.compose(text, yaml.SafeLoader)))


def test_repeated_keys_are_found_at_every_depth() -> None:
    """In mappings within mappings and within lists; the second one's line is told."""
    text = "a: {b: 1, b: 2}\nc:\n  - d: 1\n    d: 2\na: 3\n"
    assert twice(text) == [
        Fault("a.b", "stands twice", 1),
        Fault("c.0.d", "stands twice", 4),
        Fault("a", "stands twice", 5),
    ]


def test_the_same_key_in_two_places_is_no_repeat() -> None:
    """Keys are told apart by the mapping that they stand in."""
    assert twice("a: {x: 1}\nb: {x: 1}\nc: [{x: 1}, {x: 2}]\n") == []


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"mixes": None},
        {"mixes": []},
        {"mixes": {"default": None}},
        {"mixes": {"default": {"backends": [], "features": 3}}},
        {"mixes": {"default": {"features": [None, 3, {"name": []}, {"backend": {}}]}}},
        {"mixes": {"default": {"model": {}}}, "server": [], "models": 3},
        {"mixes": {"default": {"stores": [], "features": [{"store": {}, "field": 3}]}}, "stores": 3},
        {
            "mixes": {"default": {"stores": {"s": 3}, "features": [{"store": "s", "field": []}]}},
            "stores": {"s": []},
        },
        {"mixes": {"default": {"stores": {"s": {}}}}, "stores": {"s": {"fields": [{}, 3]}}},
    ],
)
def test_a_tree_of_the_wrong_form_breaks_nothing(raw: dict[str, Any]) -> None:
    """References are looked for in the raw tree: what has the wrong form is passed over, not stumbled on."""
    assert list(dangling_references(raw)) == []


class Size(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int
    height: int


def test_a_file_is_what_it_holds(tmp_path: Path) -> None:
    """A file that fits is the model that it was read as."""
    path = tmp_path / "size.yaml"
    path.write_text("{width: 3, height: 4}", encoding="utf-8")
    assert read_as(Size, path) == Size(width=3, height=4)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{width: three, depth: 1}", ["width: ", "height: ", "depth: unknown key"]),
        (b"{width: [", ["while parsing"]),
        (b"\xff", ["utf-8"]),
    ],
)
def test_every_fault_of_a_file_is_a_line_that_names_it(
    tmp_path: Path, content: bytes, told: list[str]
) -> None:
    """What a field lacks or should not hold, text that is no YAML, bytes that are no text."""
    path = tmp_path / "size.yaml"
    path.write_bytes(content)
    with pytest.raises(FileFault) as caught:
        read_as(Size, path)
    for part in told:
        assert any(line.startswith(f"{path}: ") and part in line for line in str(caught.value).splitlines())


def test_a_file_that_is_not_there_is_no_fault_of_its_content(tmp_path: Path) -> None:
    """Whoever reads it says what to do then."""
    with pytest.raises(FileNotFoundError):
        read_as(Size, tmp_path / "size.yaml")
