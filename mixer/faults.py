"""What can be wrong with a settings file, found and placed: paths, lines, references to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: where (dotted path and line, 0 where not known yet) and what."""

    path: str
    message: str
    line: int = 0

    def at(self, line: int) -> Fault:
        """The same fault, placed."""
        return replace(self, line=line)


class FileFault(ValueError):
    """A YAML file that does not hold what it should: every fault, one a line."""


def read_as(kind: type[M], path: Path) -> M:
    """What a YAML file holds. Raises: FileFault; OSError where the file cannot be read."""
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        lines = [f"{path}: {fault.path}: {fault.message}" for fault in describe(error)]
        raise FileFault("\n".join(lines)) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise FileFault(f"{path}: {error}") from error


def describe(error: ValidationError) -> Iterator[Fault]:
    """The faults pydantic found, in the file's own terms."""
    for item in error.errors(include_url=False, include_input=False):
        message = (
            "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        )
        # What stands in brackets names a form of settings, no key of the file.
        parts = [str(part) for part in item["loc"] if not str(part).startswith("(")]
        yield Fault(".".join(parts) or "(file)", message)


def line_of(root: yaml.Node | None, path: str) -> int:
    """Line of the deepest part of a dotted path that stands in the file.

    A part that names no key (pydantic adds the tag of a union) is passed over.
    """
    node, line = root, 1
    for part in path.split("."):
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == part), None)
            if found is not None:
                line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
    return line


def repeated_keys(node: yaml.Node | None, path: str = "") -> Iterator[Fault]:
    """Keys that stand twice in one mapping, of which YAML would keep the last in silence."""
    if isinstance(node, yaml.SequenceNode):
        for place, child in enumerate(node.value):
            yield from repeated_keys(child, f"{path}{place}.")
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, child in node.value:
        if key.value in seen:
            yield Fault(f"{path}{key.value}", "stands twice", key.start_mark.line + 1)
        seen.add(key.value)
        yield from repeated_keys(child, f"{path}{key.value}.")


def dangling_references(raw: dict[str, Any]) -> Iterator[Fault]:
    """Names that refer to nothing. Reads the raw tree, so that other faults do not hide these."""
    backends, models, mixes = (_mapping(raw.get(key)) for key in ("backends", "models", "mixes"))
    stores = _mapping(raw.get("stores"))
    default = _mapping(raw.get("server")).get("default_mix", "default")
    if mixes and _dangles(default, mixes):
        yield Fault("server.default_mix", _unknown("mix", default, mixes))
    yield from _dangling_members(models)
    for guarded in _mapping(raw.get("guards")):
        if guarded not in backends:
            yield Fault(f"guards.{guarded}", _unknown("backend", guarded, backends))
    for name, mix in ((name, _mapping(mix)) for name, mix in mixes.items()):
        where, members = f"mixes.{name}", _mapping(mix.get("backends"))
        for member in members:
            if member not in backends:
                yield Fault(f"{where}.backends.{member}", _unknown("backend", member, backends))
        if mix.get("model") and _dangles(mix["model"], models):
            yield Fault(f"{where}.model", _unknown("model", mix["model"], models))
        arms = _mapping(mix.get("experiment")).get("arms")
        yield from _dangling_models(arms, f"{where}.experiment.arms", models)
        yield from _dangling_models(mix.get("shadows"), f"{where}.shadows", models)
        yield from _dangling_features(mix.get("features"), f"{where}.features", members)
        yield from _dangling_stores(mix, where, stores)


def _dangling_members(models: dict[str, Any]) -> Iterator[Fault]:
    """Of ensembles: members that are no model, and those that are ensembles themselves."""
    ensembles = {name for name, declared in models.items() if "members" in _mapping(declared)}
    for name in ensembles:
        members = _mapping(models[name]).get("members")
        yield from _dangling_models(members, f"models.{name}.members", models)
        for place, member in enumerate(members if isinstance(members, list) else []):
            named = _mapping(member).get("model")
            if isinstance(named, str) and named in ensembles:
                yield Fault(f"models.{name}.members.{place}.model", f"{named!r} is an ensemble itself")


def _dangling_models(listed: object, where: str, models: dict[str, Any]) -> Iterator[Fault]:
    """Of a list of parts that each name a model."""
    for place, part in enumerate(listed if isinstance(listed, list) else []):
        name = _mapping(part).get("model")
        if name and _dangles(name, models):
            yield Fault(f"{where}.{place}.model", _unknown("model", name, models))


def _dangling_features(features: object, where: str, members: dict[str, Any]) -> Iterator[Fault]:
    seen: set[object] = set()
    for place, feature in enumerate(features if isinstance(features, list) else []):
        declared = _mapping(feature)
        backend, name = declared.get("backend"), declared.get("name")
        if _dangles(backend, members):
            yield Fault(f"{where}.{place}.backend", _unknown("backend of this mix", backend, members))
        if isinstance(name, str) and name in seen:
            yield Fault(f"{where}.{place}.name", f"{name!r} is declared twice")
        seen.add(name if isinstance(name, str) else None)


def _dangling_stores(mix: dict[str, Any], where: str, stores: dict[str, Any]) -> Iterator[Fault]:
    """Stores of a mix that are not declared, and features of stores or fields that it does not have."""
    asked = _mapping(mix.get("stores"))
    for name in asked:
        if name not in stores:
            yield Fault(f"{where}.stores.{name}", _unknown("store", name, stores))
    features = mix.get("features")
    for place, feature in enumerate(features if isinstance(features, list) else []):
        declared = _mapping(feature)
        store, field = declared.get("store"), declared.get("field")
        if _dangles(store, asked):
            yield Fault(f"{where}.features.{place}.store", _unknown("store of this mix", store, asked))
            continue
        fields = _mapping(stores.get(store) if isinstance(store, str) else None).get("fields")
        if isinstance(fields, list) and isinstance(field, str) and field not in fields:
            known = {name: None for name in fields if isinstance(name, str)}
            yield Fault(
                f"{where}.features.{place}.field", _unknown(f"field of store {store!r}", field, known)
            )


def _dangles(name: object, known: dict[str, Any]) -> bool:
    """Whether this is a name that refers to nothing; what is no text at all is another fault."""
    return isinstance(name, str) and name not in known


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _unknown(kind: str, name: object, known: dict[str, Any]) -> str:
    close = get_close_matches(str(name), list(map(str, known)), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(map(str, known)) or 'none'}"
    return f"no {kind} is called {name!r}; {hint}"
