"""Custom resources held against the schemas that their own projects publish, fetched by tools.sh."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from tests.integration.chart import TOOLS

Manifest = dict[str, Any]


@cache
def schemas() -> dict[tuple[str, str], Manifest]:
    """By apiVersion and kind, strict: a key that a schema does not name is a fault."""
    return {
        key: schema
        for path in sorted((TOOLS / "crds").glob("*.yaml"))
        for key, schema in _read(path.read_text())
    }


def _read(text: str) -> Iterator[tuple[tuple[str, str], Manifest]]:
    spec = yaml.safe_load(text)["spec"]
    for version in spec["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        for part in ("metadata", "status"):
            schema["properties"].pop(part, None)
        yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), _strict(schema)


def _strict(schema: Any) -> Any:
    """Of OpenAPI: what is declared is all there may be, integers may stand for texts where it says so."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if isinstance(made.get("pattern"), str):
        made["pattern"] = made["pattern"].replace(
            "^(?i)", "(?i)^"
        )  # Go takes flags anywhere, Python at the start
    open_ended = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if isinstance(made.get("properties"), dict) and made.get("type") == "object" and not open_ended:
        made["additionalProperties"] = False
    return made


def validate(manifest: Manifest) -> None:
    """Raises: jsonschema.ValidationError. Fails where nothing was fetched for such a kind."""
    key = (manifest["apiVersion"], manifest["kind"])
    if key not in schemas():
        pytest.fail(f"no schema of {key}; fetch it with tests/integration/tools.sh", pytrace=False)
    jsonschema.validate({k: v for k, v in manifest.items() if k != "metadata"}, schemas()[key])
