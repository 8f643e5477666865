"""The chart's words: what values.yaml says of each value, put into values.schema.json for editors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

Path = tuple[str, ...]
Schema = dict[str, Any]
WIDTH = 110


def words(text: str) -> dict[Path, str]:
    """What stands above every key of a values file, without the marks of comments."""
    lines = text.splitlines()
    return {
        path: said
        for path, line in _keys(yaml.compose(text, yaml.SafeLoader))
        if (said := _above(lines, line))
    }


def _keys(node: yaml.Node | None, path: Path = ()) -> Iterator[tuple[Path, int]]:
    for key, child in node.value if isinstance(node, yaml.MappingNode) else ():
        yield (*path, key.value), key.start_mark.line
        yield from _keys(child, (*path, key.value))


def _above(lines: list[str], line: int) -> str:
    first = line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(each.strip().lstrip("#").strip().removeprefix("-- ") for each in lines[first:line])


def described(schema: Schema, said: dict[Path, str]) -> Schema:
    """The schema with these descriptions; where several values share a definition, the first one's words stand."""
    made: Schema = json.loads(json.dumps(schema))
    seen: set[int] = set()
    for path, text in said.items():
        place = found(made, path)
        if place is not None and id(place) not in seen:
            seen.add(id(place))
            rest = {key: value for key, value in place.items() if key != "description"}
            place.clear()
            place.update({"description": text, **rest})
    return made


def found(schema: Schema, path: Path) -> Schema | None:
    """The schema of a value, None where it is one of a free mapping."""
    place: Schema = schema
    for name in path:
        named = place.get("$ref", "").rpartition("/")[2]
        inside = (schema["definitions"][named] if named else place).get("properties", {})
        if not isinstance(inside.get(name), dict):
            return None
        place = inside[name]
    return place


def properties(schema: Any, path: Path = ()) -> Iterator[tuple[Path, Schema]]:
    """Every property that it declares, wherever, by the path of its names."""
    if isinstance(schema, dict):
        for name, inside in schema.get("properties", {}).items() if "if" not in path[-1:] else ():
            if isinstance(inside, dict):
                yield (*path, name), inside
                yield from properties(inside, (*path, name))
        for name, inside in schema.get("definitions", {}).items():
            yield from properties(inside, (*path, name))


def written(value: Any, indent: int = 0, room: int = 0) -> str:
    """JSON, a mapping or list on one line where it fits; `room` is what stands before it on its line."""
    line = _line(value)
    if isinstance(value, dict | list) and value:
        nested = isinstance(value, dict) and sum(isinstance(each, dict) for each in value.values()) > 1
        if nested or "description" in value or indent + room + len(line) > WIDTH:
            return _parted(value, indent)
    return line


def _line(value: Any) -> str:
    if isinstance(value, dict) and value:
        return f"{{ {', '.join(f'{json.dumps(key)}: {_line(each)}' for key, each in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_line, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _parted(value: Any, indent: int) -> str:
    pad = " " * (indent + 2)
    if isinstance(value, list):
        parts = [written(each, indent + 2) for each in value]
    else:
        named = ((json.dumps(key) + ": ", each) for key, each in value.items())
        parts = [key + written(each, indent + 2, len(key)) for key, each in named]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{pad}" + f",\n{pad}".join(parts) + f"\n{' ' * indent}{last}"
