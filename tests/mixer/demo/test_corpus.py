import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixer.demo import corpus, uses

# Spelled as docs.python.org spells them, and there on Python 3.11 to 3.14.
PUBLIC = """
    open sorted len print zip int str.split dict.get list.sort bytes.decode ValueError KeyError OSError
    FileNotFoundError json.loads json.JSONDecodeError csv.DictReader csv.writer os os.path os.path.join
    os.getcwd os.walk os.remove pathlib.Path pathlib.Path.read_text pathlib.Path.rglob
    pathlib.PurePath.suffix shutil.copytree glob.glob tempfile.NamedTemporaryFile subprocess.run
    subprocess.Popen.communicate argparse.ArgumentParser argparse.ArgumentParser.add_argument
    argparse.ArgumentParser.parse_args configparser.ConfigParser.read logging.getLogger
    logging.handlers.RotatingFileHandler re.compile re.sub re.Match.group datetime.datetime.now
    datetime.date.strftime datetime.timedelta time.sleep collections.defaultdict
    collections.Counter.most_common collections.deque.popleft collections.abc.Mapping
    itertools.chain.from_iterable functools.lru_cache functools.partial contextlib.suppress asyncio.run
    asyncio.gather asyncio.TaskGroup asyncio.create_subprocess_exec asyncio.Queue.get
    threading.Thread.start threading.Lock queue.Queue.get concurrent.futures.ThreadPoolExecutor
    multiprocessing.Pool multiprocessing.pool.Pool.map socket.socket.connect urllib.request.urlopen
    urllib.parse.urlencode http.client.HTTPSConnection sqlite3.Cursor.fetchall random.choice
    random.randint uuid.uuid4 hashlib.sha256 hmac.compare_digest io.StringIO io.IOBase.readlines
    array.array weakref.ref xml.etree.ElementTree.fromstring unittest.TestCase.assertRaises
    unittest.mock.patch unittest.mock.patch.object unittest.mock.Mock.assert_called_with typing.Optional
    typing.TypedDict zoneinfo.ZoneInfo decimal.Decimal.quantize statistics.median bisect.bisect_left
    heapq.heappush string.Template.substitute
"""
# Other spellings of things above, overrides that say nothing new, or never public.
OTHER_SPELLINGS = """
    builtins.open io.open _io.open builtins.str.split IOError EnvironmentError posixpath.join os.path.os
    posix.getcwd asyncio.tasks.gather json.decoder.JSONDecodeError unittest.case.TestCase
    random.Random.randint multiprocessing.context.BaseContext.Pool socket.SocketType weakref.ReferenceType
    array.ArrayType unittest.mock.NonCallableMock.assert_called_with
    argparse._ActionsContainer.add_argument asyncio.BaseEventLoop.run_in_executor
"""
KINDS = {"module", "class", "function", "method", "exception", "property"}


@pytest.fixture(scope="session")
def documents() -> dict[str, corpus.Document]:
    found = list(corpus.documents())
    assert len(found) == len({document["id"] for document in found}), "two documents share an id"
    return {document["id"]: document for document in found}


def test_the_whole_public_library_is_there(documents: dict[str, corpus.Document]) -> None:
    """The corpus is the library, not a sample of it, and not every private corner of it."""
    assert 5_000 < len(documents) < 12_000
    assert not set(PUBLIC.split()) - documents.keys()


def test_a_thing_has_one_spelling(documents: dict[str, corpus.Document]) -> None:
    """Aliases, re-exports and accelerator modules collapse into the spelling that the docs use."""
    assert not set(OTHER_SPELLINGS.split()) & documents.keys()


def test_nothing_private_or_dead_is_there(documents: dict[str, corpus.Document]) -> None:
    """No underscore names, no tests, no modules that later Pythons removed or that open windows."""
    assert not [id_ for id_ in documents if any(part.startswith("_") for part in id_.split("."))]
    tops = {id_.split(".")[0] for id_ in documents}
    assert not tops & {
        "test",
        "idlelib",
        "this",
        "antigravity",
        "tkinter",
        "turtle",
        "imp",
        "distutils",
        "cgi",
    }


def test_every_field_says_something(documents: dict[str, corpus.Document]) -> None:
    """Only `signature` may be empty; a thing without a docstring says where it belongs."""
    for document in documents.values():
        assert document["kind"] in KINDS
        assert document["id"].endswith(document["name"])
        assert document["id"].startswith(document["module"]) or document["module"] == "builtins"
        assert 0 < len(document["summary"]) <= corpus.SUMMARY_CHARS, document["id"]
        assert 0 < len(document["doc"]) <= corpus.DOC_CHARS, document["id"]
        assert document["uses"] >= 0


def test_nothing_of_this_machine_or_run_is_in_the_text(documents: dict[str, corpus.Document]) -> None:
    """No object address and no path of the interpreter: they would differ at the next build."""
    for document in documents.values():
        text = f"{document['signature']} {document['doc']}"
        assert " at 0x" not in text, document["id"]
        assert sys.executable not in text, document["id"]


@pytest.mark.parametrize(
    ("id_", "kind", "words"),
    [
        ("json.loads", "function", "Deserialize"),
        ("pathlib.Path.read_text", "method", "Open the file in text mode, read it, and close the file."),
        ("pathlib.PurePath.suffix", "property", "last suffix"),
        ("KeyError", "exception", "Mapping key not found."),
        ("zip", "class", "until an input is exhausted"),
        ("string.Template.substitute", "method", "Method substitute of string.Template: A string class"),
        ("csv.DictReader", "class", "Class DictReader of csv: CSV"),
    ],
)
def test_a_summary_is_the_first_sentence(
    documents: dict[str, corpus.Document], id_: str, kind: str, words: str
) -> None:
    """The first sentence after any signature line; what has no docstring is described by its owner."""
    assert documents[id_]["kind"] == kind
    assert words in documents[id_]["summary"]


def test_signatures_come_from_inspection_or_the_docstring(documents: dict[str, corpus.Document]) -> None:
    """Python functions are inspected; a C function that hides its signature states it in its docstring."""
    assert documents["os.path.join"]["signature"] == "join(a, *p)"
    assert documents["getattr"]["signature"] == "getattr(object, name[, default])"
    assert documents["os"]["signature"] == documents["pathlib.PurePath.suffix"]["signature"] == ""


def test_uses_count_the_librarys_own_references(documents: dict[str, corpus.Document]) -> None:
    """What the library leans on most is counted most; imports of a name count for it under any alias."""
    uses = {id_: document["uses"] for id_, document in documents.items()}
    assert max(uses, key=lambda id_: uses[id_]) == "os"
    assert uses["len"] > 1_000
    assert uses["os.path.join"] > 100
    assert uses["collections.abc.MutableMapping"] < uses["re.compile"] < uses["os"]


def test_references_follow_imports_and_literals(tmp_path: Path) -> None:
    """A dotted name counts through its import, a method through a literal or when only one class has it."""
    source = tmp_path / "source.py"
    source.write_text(
        "import os.path\nfrom csv import writer as w\n\ndef open(): ...\n\n"
        "w(x); os.path.join(a, b); ','.join(y); row.writeheader(); other.join(z); open(); len(q)\n",
        encoding="utf-8",
    )
    spellings = {
        id_: id_ for id_ in ("csv", "csv.writer", "os", "os.path", "os.path.join", "str.join", "open", "len")
    }
    found = list(uses.references(source, spellings, {"writeheader": "csv.DictWriter.writeheader"}))
    assert sorted(found) == [
        "csv", "csv.DictWriter.writeheader", "csv.writer", "csv.writer", "len", "os", "os.path", "os.path",
        "os.path.join", "str.join",
    ]  # fmt: skip


class _Hidden:
    def suffix(self) -> None: ...


class Pure(_Hidden): ...


class Concrete(Pure): ...


def test_members_of_a_hidden_base_go_to_the_first_public_class() -> None:
    """A subclass does not claim what its public base already offers from behind the scenes."""
    things = [corpus._Thing(cls.__name__, __name__, "class", cls) for cls in (Pure, Concrete)]
    members = [member.path for thing in things for member in corpus._members(thing, {Pure, Concrete})]
    assert members == ["Pure.suffix"]


@pytest.mark.parametrize(
    ("doc", "signature", "rest"),
    [
        ("f(x[, y]) -> value\n\nDo it.", "f(x[, y])", "Do it."),
        ("f() -> int\nf(x) -> integer\n\nDo it.", "f()", "Do it."),
        ("f(x) - new thing made of the given\nparts.", "f(x)", "new thing made of the given\nparts."),
        ("f(x) does it.", "", "f(x) does it."),
        ("Do it.", "", "Do it."),
    ],
)
def test_a_stated_signature_leaves_the_docstring(doc: str, signature: str, rest: str) -> None:
    """Lines that only state a signature go from the text; words that such a line adds stay."""
    assert corpus._split_signature(doc) == (signature, rest)


def test_ids_are_those_of_the_documents(documents: dict[str, corpus.Document]) -> None:
    """The cheap list of ids and the documents never disagree, and come in one order."""
    assert corpus.ids() == documents.keys()
    assert list(documents) == sorted(documents)


def _built(seed: str) -> str:
    """A small corpus, built by another process under this hash seed."""
    kept = {"abc", "builtins", "collections", "csv", "inspect", "io", "json", "os", "random", "re", "shutil"}
    script = (
        "import json; from mixer.demo import corpus; corpus.sources = lambda: []\n"
        f"corpus._LEFT_OUT, corpus._SUBMODULES = {' '.join(sys.stdlib_module_names - kept)!r}, 'os.path'\n"
        "print(json.dumps(list(corpus.documents())))"
    )
    environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_a_second_build_is_the_same() -> None:
    """Two processes with different hash seeds make the same documents."""
    first, second = _built("1"), _built("2")
    assert first == second
    assert {"csv.DictReader", "os.path.join", "str.split"} < {
        document["id"] for document in json.loads(first)
    }


def test_writing_gives_json_lines_and_a_bar_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One document a line, counted; stdout stays free for the caller."""
    monkeypatch.setattr(corpus, "sources", list)
    count = corpus.write(tmp_path / "corpus.jsonl")
    lines = (tmp_path / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    assert count == len(lines)
    assert [json.loads(line)["id"] for line in lines] == sorted(json.loads(line)["id"] for line in lines)
    out, err = capsys.readouterr()
    assert not out
    assert "Writing documents" in err
