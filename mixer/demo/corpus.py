"""The demo corpus: one document for each public thing in the standard library of the running interpreter.

Ids are spelled as docs.python.org spells them (`os.path.join`, `csv.DictReader`, `str.split`, `open`):
built-ins carry no `builtins.` prefix, and every alias or re-export collapses into its one public spelling.
"""

import importlib
import inspect
import json
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from types import GetSetDescriptorType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, TypedDict

from rich.console import Console
from rich.progress import track

from mixer.demo.uses import count, sources

DOC_CHARS = 4_000
SUMMARY_CHARS = 300

# Not imported: easter eggs, GUI toolkits, modules that change the terminal or only rename public ones, and
# modules that Python 3.12 and 3.13 removed (importing them warns).
_LEFT_OUT = """
    aifc antigravity asynchat asyncore audioop cgi cgitb chunk crypt distutils ensurepip genericpath
    idlelib imghdr imp lib2to3 mailcap msilib msvcrt nis nntplib nt ntpath nturl2path opcode ossaudiodev
    pipes posix posixpath pydoc_data pyexpat readline rlcompleter smtpd sndhdr spwd sre_compile
    sre_constants sre_parse sunau telnetlib test this tkinter turtle turtledemo uu winreg winsound xdrlib
"""
# Submodules have no `sys.stdlib_module_names`: these are the ones documented under their own name.
_SUBMODULES = """
    asyncio.subprocess collections.abc compression.zstd concurrent.futures concurrent.interpreters
    ctypes.util curses.ascii curses.panel curses.textpad dbm.dumb dbm.gnu dbm.ndbm dbm.sqlite3
    email.charset email.contentmanager email.encoders email.errors email.generator email.header
    email.headerregistry email.iterators email.message email.mime.application email.mime.audio
    email.mime.base email.mime.image email.mime.message email.mime.multipart email.mime.nonmultipart
    email.mime.text email.parser email.policy email.utils html.entities html.parser http.client
    http.cookiejar http.cookies http.server importlib.abc importlib.machinery importlib.metadata
    importlib.resources importlib.resources.abc importlib.util json.tool logging.config logging.handlers
    multiprocessing.connection multiprocessing.dummy multiprocessing.managers multiprocessing.pool
    multiprocessing.shared_memory multiprocessing.sharedctypes os.path string.templatelib unittest.mock
    urllib.error urllib.parse urllib.request urllib.response urllib.robotparser wsgiref.handlers
    wsgiref.headers wsgiref.simple_server wsgiref.types wsgiref.util wsgiref.validate xml.dom
    xml.dom.minidom xml.dom.pulldom xml.etree.ElementInclude xml.etree.ElementTree xml.parsers.expat
    xml.sax xml.sax.handler xml.sax.saxutils xml.sax.xmlreader xmlrpc.client xmlrpc.server
"""
# Documented, yet in no `__all__`; then spellings better known than those that the rules below would choose.
_UNLISTED = {
    "asyncio": ("TaskGroup",),
    "asyncio.subprocess": ("Process",),
    "hmac": ("compare_digest",),
    "unittest.mock": ("patch.dict", "patch.multiple", "patch.object"),
}
_SPELLED = {
    "asyncio.create_subprocess_exec",
    "asyncio.create_subprocess_shell",
    "weakref.ref",
    "xml.etree.ElementTree.fromstring",
}
# Bases whose members people, and the docs, name through the subclass in use.
_STAND_BEHIND = {"socket.SocketType", "configparser.RawConfigParser", "unittest.mock.NonCallableMock"}
_FOREIGN_HOMES = {"_frozen_importlib", "_frozen_importlib_external", "pyexpat"}
_STATED = re.compile(r"(?P<signature>[\w.]+\(.*?\))[ ]*(?:-+>?[ ]*(?P<told>.*))?(?:\n|$)")


class Document(TypedDict):
    """One thing of the standard library; every value is JSON, `uses` is a count of references."""

    id: str
    name: str
    module: str
    kind: str
    signature: str
    summary: str
    doc: str
    uses: int


@dataclass(frozen=True, slots=True)
class _Thing:
    """A spelling of an object: `path` inside `module`, under class `owner` if it is a member."""

    path: str
    module: str
    kind: str
    target: Any
    owner: type | None = None

    @property
    def id(self) -> str:
        bare = self.kind == "module" or self.module == "builtins"
        return self.path if bare else f"{self.module}.{self.path}"

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def identity(self) -> int:
        return id(_unbound(self.target, self.name))


def documents() -> Iterator[Document]:
    """Every document, ordered by id: the same content at each call under one interpreter. Takes seconds."""
    things, spellings = _collapsed(_things(_modules()))
    uses = count(spellings, _methods(things), sources())
    return (_document(thing, uses[thing.id]) for thing in things)


def ids() -> frozenset[str]:
    """Every document's id, without the reading of sources that `documents` does."""
    return frozenset(thing.id for thing in _collapsed(_things(_modules()))[0])


def write(path: Path) -> int:
    """Write the corpus to `path` as JSON Lines, with progress on stderr; returns the number of documents."""
    console = Console(stderr=True)
    things, spellings = _collapsed(_things(_modules()))
    uses = count(spellings, _methods(things), track(sources(), "Counting uses", console=console))
    with path.open("w", encoding="utf-8") as lines:
        for thing in track(things, "Writing documents", console=console):
            lines.write(json.dumps(_document(thing, uses[thing.id]), ensure_ascii=False) + "\n")
    return len(things)


def _methods(things: Iterable[_Thing]) -> dict[str, list[str]]:
    """Ids of the methods of each name."""
    named: dict[str, list[str]] = defaultdict(list)
    for thing in things:
        if thing.kind == "method":
            named[thing.name].append(thing.id)
    return named


def _modules() -> dict[str, ModuleType]:
    tops = {name for name in sys.stdlib_module_names if not name.startswith("_")} - set(_LEFT_OUT.split())
    found = {name: _imported(name) for name in sorted(tops.union(_SUBMODULES.split()))}
    return {name: module for name, module in found.items() if module is not None}


def _imported(name: str) -> ModuleType | None:
    """The module, or None where this platform or build has no such module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            return None


def _things(modules: dict[str, ModuleType]) -> list[_Thing]:
    """Every spelling; members only under the best spelling of their class, so that they share it."""
    listed = [thing for name, module in modules.items() for thing in _listed(name, module)]
    classes = [thing for thing in _best(listed).values() if isinstance(thing.target, type)]
    public = {thing.target for thing in classes}
    return [
        *(_Thing(name, name, "module", module) for name, module in modules.items() if name != "builtins"),
        *listed,
        *(member for thing in classes for member in _members(thing, public)),
    ]


def _listed(name: str, module: ModuleType) -> Iterator[_Thing]:
    for path in _public_names(name, module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target = attrgetter(path)(module) if hasattr(module, path.partition(".")[0]) else None
        if (kind := _kind(target)) and f"{name}.{path}" not in _STAND_BEHIND:
            yield _Thing(path, name, kind, target)


def _public_names(name: str, module: ModuleType) -> list[str]:
    """The names a module offers: its `__all__`, or what it or its C half defines; never a private name."""
    at_home = (n for n, value in vars(module).items() if name == "builtins" or _is_home(name, value))
    names = getattr(module, "__all__", None) or at_home
    return sorted({n for n in names if not n.startswith("_")} | set(_UNLISTED.get(name, ())))


def _is_home(name: str, target: object) -> bool:
    home = getattr(target, "__module__", None) or ""
    return home in _FOREIGN_HOMES or home.lstrip("_").partition(".")[0] == name.partition(".")[0]


def _kind(target: object) -> str | None:
    if isinstance(target, type):
        return "exception" if issubclass(target, BaseException) else "class"
    if inspect.isroutine(target):
        return "function"
    # `typing.Optional` and its like are instances, yet people use them as the classes they stand for.
    return "class" if type(target).__module__ == "typing" and isinstance(target.__doc__, str) else None


def _members(thing: _Thing, public: set[type]) -> Iterator[_Thing]:
    """Public methods and properties of a class, with those of its hidden bases, which nobody can name."""
    seen: set[str] = set()
    for base in (thing.target, *_hidden_bases(thing, public)):
        for name, raw in vars(base).items():
            kind = None if name.startswith("_") or name in seen else _member_kind(raw)
            if kind and not _repeats(thing.target, name, raw, public):
                seen.add(name)
                yield _Thing(f"{thing.path}.{name}", thing.module, kind, _function(raw), thing.target)


def _hidden_bases(thing: _Thing, public: set[type]) -> Iterator[type]:
    """The bases that only this class stands for: hidden themselves, and behind no public base."""
    bases = thing.target.__mro__[1:]
    shown = [base for base in bases if base in public and base is not object]
    for base in bases:
        hidden = base not in public and _is_home(thing.module, base)
        if hidden and not any(issubclass(other, base) for other in shown):
            yield base


def _member_kind(raw: object) -> str | None:
    if isinstance(raw, property | cached_property | GetSetDescriptorType | MemberDescriptorType):
        return "property" if raw.__doc__ and not raw.__doc__.startswith("Alias for field number") else None
    return "method" if inspect.isroutine(_function(raw)) else None


def _repeats(cls: type, name: str, raw: object, public: set[type]) -> bool:
    """Whether an undocumented member only overrides what a public base class already documents by name."""
    bases = (base for base in cls.__mro__[1:] if base in public)
    return not _docstring(_function(raw)) and any(name in vars(base) for base in bases)


def _function(raw: object) -> object:
    return raw.__func__ if isinstance(raw, classmethod | staticmethod) else raw


def _unbound(target: object, name: str) -> object:
    """`random.randint` is a method of a hidden instance: what it is bound from, so both are one thing."""
    if isinstance(target, MethodType) and target.__name__ == name:
        return target.__func__
    owner = type(getattr(target, "__self__", None))
    return getattr(owner, name, target) if owner.__module__ == "random" else target


def _collapsed(things: list[_Thing]) -> tuple[list[_Thing], dict[str, str]]:
    """One thing an object, ordered by id, and a table from every spelling to the id that stands for it."""
    best = _best(things)
    spellings = {thing.id: best[thing.identity].id for thing in things}
    for thing in best.values():
        home = getattr(thing.target, "__module__", None) or thing.module
        spellings.setdefault(f"{home}.{thing.path}", thing.id)
    return sorted(best.values(), key=lambda thing: thing.id), spellings


def _best(things: Iterable[_Thing]) -> dict[int, _Thing]:
    """The best spelling of each object, by the object's identity."""
    best: dict[int, _Thing] = {}
    for thing in sorted(things, key=_awkwardness):
        best.setdefault(thing.identity, thing)
    return best


def _awkwardness(thing: _Thing) -> tuple[bool | int | str, ...]:
    """Sort key: the spelling that people write and docs use comes first."""
    return (
        thing.id not in _SPELLED,
        thing.module != "builtins",
        thing.owner is not None,
        getattr(thing.target, "__name__", thing.name) != thing.name,
        getattr(thing.target, "__qualname__", "").lstrip("_") != thing.path,
        getattr(thing.target, "__module__", "") != thing.module,
        thing.id.count("."),
        len(thing.id),
        thing.id,
    )


def _document(thing: _Thing, uses: int) -> Document:
    doc = _docstring(thing.target) or _stand_in(thing)
    stated, body = _split_signature(doc)
    return Document(
        id=thing.id,
        name=thing.name,
        module=thing.module,
        kind=thing.kind,
        signature=_signature(thing, stated),
        summary=_first_sentence(body or doc),
        doc=_plain(doc)[:DOC_CHARS],
        uses=uses,
    )


def _docstring(target: object) -> str:
    doc = getattr(target, "__doc__", None)
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def _stand_in(thing: _Thing) -> str:
    """What can be said of a thing without a docstring: where it belongs, and what that is for."""
    home = thing.owner or (sys.modules.get(thing.module) if thing.kind != "module" else None)
    about = _first_sentence(_docstring(home))
    place = thing.id.rpartition(".")[0] or thing.module
    return f"{thing.kind.capitalize()} {thing.name} of {place}: {about}".removesuffix(": ")


def _signature(thing: _Thing, stated: str) -> str:
    """What `inspect` knows of the signature, else what the docstring states; "" for what is not called."""
    if thing.kind in ("module", "property"):
        return ""
    try:
        return _plain(thing.name + str(inspect.signature(thing.target)))
    except (ValueError, TypeError, AttributeError, NameError):
        # No signature, or one whose defaults or annotations name what this build does not have.
        return stated


def _split_signature(doc: str) -> tuple[str, str]:
    """The signature that a C docstring opens with, if any, and the rest: such lines go, their words stay."""
    stated, rest = "", doc
    while match := _STATED.match(rest):
        stated = stated or match["signature"]
        told = match["told"] or ""
        rest = f"{told if len(told.split()) > 3 else ''}\n{rest[match.end() :]}".strip()
    return stated, rest


def _plain(text: str) -> str:
    """Without what differs from run to run or from home to home: addresses, the interpreter's path."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text)
    return text.replace(sys.executable, "python") if sys.executable else text


def _first_sentence(doc: str) -> str:
    paragraph = " ".join(doc.split("\n\n", 1)[0].split())
    sentence = re.match(r".{12,}?[.!?](?=\s)", paragraph)
    return (sentence[0] if sentence else paragraph)[:SUMMARY_CHARS]
