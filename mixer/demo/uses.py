"""How often the standard library's own source refers to each of its public things."""

from __future__ import annotations

import ast
import builtins
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

_NO_SOURCE = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages", "encodings"}
_LITERALS = {ast.JoinedStr: "str", ast.List: "list", ast.Dict: "dict", ast.Set: "set"}


def count(
    spellings: dict[str, str], methods: Mapping[str, Sequence[str]], files: Iterable[Path]
) -> Counter[str]:
    """References to each id. `spellings` lead from every dotted name to its id, `methods` from a name to the ids.

    Counted: imports, dotted names that lead through an import, built-in names, methods called on literals,
    and method names that only one class has. A method name that several classes share counts for none.
    """
    lone = {name: ids[0] for name, ids in methods.items() if len(ids) == 1}
    return Counter(id_ for path in files for id_ in references(path, spellings, lone))


def sources() -> list[Path]:
    """The library's own source files, without tests and the like."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(path for path in root.rglob("*.py") if _NO_SOURCE.isdisjoint(path.relative_to(root).parts))


def references(path: Path, spellings: dict[str, str], lone: dict[str, str]) -> Iterator[str]:
    """The ids that one file refers to, once for each time."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):
        return
    names = _bindings(nodes)
    for node in nodes:
        for spelling in _named(node, names):
            if spelling in spellings:
                yield spellings[spelling]
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr in lone and _dotted(called, names) is None:
            yield lone[called.attr]


def _bindings(nodes: list[ast.AST]) -> dict[str, str]:
    """What each name of a file stands for, by its imports; built-ins unless the file defines the name."""
    names = {name: name for name in vars(builtins) if not name.startswith("_")}
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.pop(node.name, None)
        elif isinstance(node, ast.Import):
            names.update(_bound(alias) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def _bound(alias: ast.alias) -> tuple[str, str]:
    """`import os.path` binds `os`; `import os.path as p` binds `p` to the whole."""
    top = alias.name.partition(".")[0]
    return (alias.asname, alias.name) if alias.asname else (top, top)


def _named(node: ast.AST, names: dict[str, str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    dotted = _dotted(node, names) if isinstance(node, ast.Attribute | ast.Name) else None
    return [dotted] if dotted else []


def _dotted(node: ast.AST, names: dict[str, str]) -> str | None:
    """The full dotted name of a reference; None when it begins at no import, built-in or literal."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        prefix = _dotted(node.value, names)
        return f"{prefix}.{node.attr}" if prefix else None
    return type(node.value).__name__ if isinstance(node, ast.Constant) else _LITERALS.get(type(node))
