"""Keys of rows: text in which places stand for a document's id and for what the caller sent in the context."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PLACE = re.compile(r"\{([^{}]*)\}")
_CONTEXT = "context."


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """Literal texts, and the names between them: `id`, or `context.` and a key."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def parse(cls, template: str) -> KeyTemplate:
        """Raises: ValueError where it names no place, or one that there is not."""
        parts = _PLACE.split(template)
        texts, names = tuple(parts[::2]), tuple(parts[1::2])
        if any(set(text) & set("{}") for text in texts):
            raise ValueError("has a brace without its other half")
        if wrong := [name for name in names if name != "id" and not name.removeprefix(_CONTEXT).strip()]:
            raise ValueError(f"{{{wrong[0]}}} names no context key; write {{context.NAME}}")
        if wrong := [name for name in names if name != "id" and not name.startswith(_CONTEXT)]:
            raise ValueError(f"knows no {{{wrong[0]}}}; use {{id}} or {{context.NAME}}")
        if not names:
            raise ValueError("is the same for all; use {id} or {context.NAME} in it")
        return cls(texts, names)

    @property
    def per_document(self) -> bool:
        """Whether each document has a row of its own, rather than all of a request the same."""
        return "id" in self.names

    @property
    def context_keys(self) -> tuple[str, ...]:
        """What the caller has to send: rows that hang on it are facts about a user."""
        return tuple(name.removeprefix(_CONTEXT) for name in self.names if name != "id")

    def lacking(self, context: Mapping[str, str | float]) -> str:
        """The first context key that the caller did not send; empty where all are there."""
        return next((key for key in self.context_keys if context.get(key, "") == ""), "")

    def keys(self, ids: Sequence[str], context: Mapping[str, str | float]) -> Sequence[str]:
        """A key an id; or one for all. The context lacks nothing."""
        pieces = [self.texts[0]]
        for name, text in zip(self.names, self.texts[1:], strict=True):
            if name == "id":
                pieces.append(text)
            else:
                pieces[-1] += _written(context[name.removeprefix(_CONTEXT)]) + text
        if pieces == ["", ""]:
            return ids
        return [id_.join(pieces) for id_ in ids] if self.per_document else pieces


def _written(value: str | float) -> str:
    """Whole numbers without a point: callers who send 42 mean the key 42."""
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else repr(value)
