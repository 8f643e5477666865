from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from typer.testing import CliRunner, Result

from backends.sqlite import Sqlite, SqliteSettings
from mixer import cli, cli_drift, cli_explain, demo, server, supervise, telemetry
from mixer.catalogue import ATTRIBUTES, METRICS, SPANS
from mixer.model import read_manifest
from mixer.settings import Settings
from models import judgements
from models.judgements import Judged, Split

WORDS = ("csv", "json", "date", "path", "zip")
DOCUMENTS: list[dict[str, Any]] = [
    {
        "id": f"{word}{number}",
        "title": f"{word} entry",
        "kind": ("class", "function")[number % 2],
        "uses": (number * 7) % 10,
    }
    for word in WORDS
    for number in range(10)
]
DOCUMENTS.append({"id": "odd", "title": "[bold]odd[/bold] markup", "kind": "1"})
FIELDS = {"title": {"type": "text"}, "kind": {"type": "keyword"}, "uses": {"type": "number"}}
MEMORY = {"kind": "memory", "fields": FIELDS, "documents": DOCUMENTS}
FEATURES: list[dict[str, Any]] = [
    {"name": "uses", "source": "number", "field": "uses"},
    {"name": "rank", "source": "backend", "backend": "words", "value": "rank"},
    {"name": "plan", "source": "context", "key": "plan", "levels": ["free", "paid"], "dtype": "category"},
    {"name": "age", "source": "context", "key": "age"},
]
MIX = {"backends": {"words": {}}, "fields": ["title", "kind", "uses"], "features": FEATURES}
SETTINGS: dict[str, Any] = {
    "server": {"listen": "127.0.0.1:0", "admin_listen": "", "drain_s": 1},
    "backends": {"words": MEMORY, "twice": MEMORY},
    "explain": {"recent": 100},
    "mixes": {"default": MIX, "both": {"backends": {"words": {}, "twice": {}}, "fields": ["title"]}},
}
RECIPE = {
    "rounds": 15,
    "patience": 15,
    "threads": 1,
    "parameters": {"num_leaves": 5, "min_data_in_leaf": 3, "learning_rate": 0.3},
}
SPLITS: tuple[Split, ...] = ("train", "train", "train", "train", "valid", "test")


def judged(number: int) -> Judged:
    """A query whose best documents are the much used ones."""
    word = WORDS[number % len(WORDS)]
    grades = {d["id"]: min(d["uses"] // 2, 3) for d in DOCUMENTS if word in d["title"]}
    return Judged(query=f"{word} {number}", need=f"n{number}", grades=grades, split=SPLITS[number % 6])


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which tables have room."""
    for module in (cli, cli_drift, cli_explain):
        monkeypatch.setattr(module, "console", Console(width=200))


def run(*argv: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in argv])


def said(result: Result) -> str:
    """What a command that went well prints."""
    assert result.exit_code == 0, result.stderr
    return result.stdout


def fault(result: Result, lines: int = 1) -> str:
    """What a command that went wrong says: so many lines on standard error, status 1, and no traceback."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == lines
    return result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings, judged queries, a recipe."""
    made = tmp_path_factory.mktemp("cli")
    (made / "mixer.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False), encoding="utf-8")
    (made / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    judgements.write(made / "judged.jsonl", map(judged, range(60)))
    learned = {**SETTINGS, "models": {"learned": {"path": "ranker"}}}
    learned["mixes"] = {**SETTINGS["mixes"], "learned": {**MIX, "model": "learned"}}
    (made / "learned.yaml").write_text(yaml.safe_dump(learned, sort_keys=False), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def trained(folder: Path) -> tuple[Path, str]:
    """The folder of a model that `mixer train` wrote, and what it printed."""
    result = run(
        *("train", "-c", folder / "mixer.yaml", "-j", folder / "judged.jsonl", "--out", folder / "ranker"),
        *("--recipe", folder / "recipe.yaml", "--name", "[bold]learned"),
    )
    return folder / "ranker", said(result)


class Served:
    """`python -m mixer serve` as a process of its own."""

    def __init__(self, config: Path) -> None:
        command = [sys.executable, "-m", "mixer", "serve", "--config", str(config)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout
        self.lines = [json.loads(self.process.stdout.readline())]
        while self.lines[-1]["event"] != "serving":
            self.lines.append(json.loads(self.process.stdout.readline()))
        self.target = f"127.0.0.1:{self.lines[-1]['port']}"

    def end(self) -> int:
        """SIGTERM; the exit code, and what it still printed."""
        self.process.send_signal(signal.SIGTERM)
        rest, _ = self.process.communicate(timeout=20)
        self.lines += [json.loads(line) for line in rest.splitlines()]
        return self.process.returncode


@pytest.fixture(scope="module")
def served(folder: Path, trained: tuple[Path, str]) -> Iterator[Served]:
    """Three mixes, one of them with the trained model."""
    made = Served(folder / "learned.yaml")
    yield made
    made.process.kill()
    made.process.communicate()


def search(served: Served, *words: object) -> Result:
    return run("search", *words, "--target", served.target, "--timeout-s", 10)


def answer(served: Served, *words: object) -> Any:
    """The answer in JSON, strictly read."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(said(search(served, *words, "--json")), parse_constant=refuse)


def test_help_shows_the_way() -> None:
    """The help lists every command, each with what it does."""
    text = said(run("--help"))
    for command in (
        "serve",
        "search",
        "index",
        "train",
        "evaluate",
        "check-config",
        "schema",
        "catalogue",
        "demo",
        "models",
        "explain",
        "replay",
        "diff",
        "golden-vectors",
    ):
        assert re.search(rf"\b{command} +[A-Z]", text), command


def test_serve_is_healthy(served: Served) -> None:
    """A process that says it serves has health SERVING, for itself and for the service."""
    with grpc.insecure_channel(served.target) as channel:
        for service in ("", "mixer.v1.MixerService"):
            request = health_pb2.HealthCheckRequest(service=service)
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status
            assert status == health_pb2.HealthCheckResponse.SERVING


def test_search_shows_a_table(served: Served) -> None:
    """The hits stand in a table with their ranks, and under it how they came about."""
    text = said(search(served, "csv", "--size", 3))
    rows = [re.split(r" *[│┃] *", line)[1:-1] for line in text.splitlines() if "│" in line]
    assert rows == [
        [str(n), f"csv{n - 1}  csv entry", str(n), str(n), f"{1 / (60 + n):.3f}"] for n in (1, 2, 3)
    ]
    assert "words ok 10 hits" in text
    assert "10 candidates, ranked by fused (no model)" in text


def test_search_shows_markup_as_text(served: Served) -> None:
    """Neither the query nor a document can paint the terminal."""
    text = said(search(served, "[red]markup[/]"))
    assert "[red]markup[/]" in text
    assert "[bold]odd[/bold] markup" in text


def test_search_in_json(served: Served) -> None:
    """`--json` prints the answer alone, as strict JSON; a feature that is missing is null."""
    told = answer(served, "markup")
    assert [hit["id"] for hit in told["hits"]] == ["odd"]
    assert told["hits"][0]["sources"] == [{"backend": "words", "rank": 1, "score": 1.0}]
    assert (told["mix"], told["ranker"], told["model"]) == ("default", "fused", None)
    assert told["feature_names"] == [feature["name"] for feature in FEATURES]
    assert told["features"] == [[None, 1.0, None, None]]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["uses=7"], {"csv1"}),
        (["uses=7|4"], {"csv1", "csv2"}),
        (["uses=8..9"], {"csv4", "csv7"}),
        (["uses=8.."], {"csv4", "csv7"}),
        (["uses=..1"], {"csv0", "csv3"}),
        (["id=csv1|csv2|json1"], {"csv1", "csv2"}),
        (["kind=class", "uses=..2"], {"csv0", "csv6"}),
    ],
)
def test_search_with_filters(served: Served, filters: list[str], ids: set[str]) -> None:
    """Every form of a filter holds for every hit, and several hold at once."""
    where = [word for text in filters for word in ("--where", text)]
    assert {hit["id"] for hit in answer(served, "csv", *where)["hits"]} == ids


def test_search_with_context(served: Served) -> None:
    """Context reaches the features: a number as a number, a word as its level."""
    told = answer(served, "markup", "--context", "plan=paid", "--context", "age=31.5")
    assert told["features"] == [[None, 1.0, 1.0, 31.5]]


def test_search_another_mix(served: Served) -> None:
    """`--mix` asks the backends of that mix."""
    told = answer(served, "csv", "--mix", "both")
    assert [backend["backend"] for backend in told["backends"]] == ["words", "twice"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["csv", "--mix", "bath"], "NOT_FOUND: mix: no mix has that name; did you mean 'both'?"),
        (["csv", "--where", "uses"], "'uses': write name=value"),
        (["csv", "--where", "uses=a..b"], "'a' is not a number"),
        (["csv", "--context", "=3"], "'=3': write name=value"),
        (["csv", "--where", "nothing=3"], "INVALID_ARGUMENT"),
        (["csv", "--size", "-1"], "INVALID_ARGUMENT: page_size"),
        ([""], "INVALID_ARGUMENT: query"),
    ],
)
def test_search_that_cannot_be_answered(served: Served, words: list[str], expected: str) -> None:
    """What is wrong is said in one line, and the status is 1."""
    assert expected in fault(search(served, *words))


def test_search_where_nobody_listens() -> None:
    """A dead target is named."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{probe.getsockname()[1]}"
        told = fault(run("search", "csv", "--target", target, "--timeout-s", 5))
    assert told.startswith(f"{target} says UNAVAILABLE: ")


def test_train_says_what_it_made(trained: tuple[Path, str]) -> None:
    """The line after training names folder, model, version and trees; every metric follows; markup is only text."""
    folder, printed = trained
    manifest = read_manifest(folder)
    first, *rest = printed.splitlines()
    assert first == f"{folder}: [bold]learned {manifest.version}, {manifest.trees} trees"
    assert rest == [f"  {measure} {value:.4f}" for measure, value in manifest.metrics.items()]
    assert manifest.metrics["valid_open_ndcg10_model"] > manifest.metrics["valid_open_ndcg10_fused"]
    assert manifest.parameters["num_leaves"] == 5


def test_a_trained_model_serves(served: Served, trained: tuple[Path, str]) -> None:
    """What `train` wrote ranks in a mix that names it: the much used first, and it is the same model."""
    told = answer(served, "zip", "--mix", "learned")
    assert (told["ranker"], told["degraded"]) == ("model", False)
    assert told["model"]["sha256"] == read_manifest(trained[0]).model_sha256
    assert {hit["fields"]["uses"] for hit in told["hits"][:4]} == {6, 7, 8, 9}
    assert np.all(np.diff([hit["score"] for hit in told["hits"]]) <= 0)


def explain(served: Served, *words: object) -> Result:
    return run("explain", *words, "--target", served.target)


def test_explain_a_search(served: Served) -> None:
    """A search asked anew has the table with what moved each hit; then its steps, its votes and its features."""
    text = said(explain(served, "--search", "zip", "--mix", "learned"))
    first = next(line for line in text.splitlines() if re.match(r"│ +1 │", line))
    assert re.search(r"uses [+-]\d", first)
    told = answer(served, "zip", "--mix", "learned")
    hit = told["hits"][0]
    places = rf"  fused {hit['fused_rank']} → by score 1 ▲{hit['fused_rank'] - 1} → diversity 1 → pins 1\n"
    assert re.search(rf"^1 {hit['id']} *\n{places}", text, re.MULTILINE)
    assert f"fused score {hit['fused_score']:.4f} = words {hit['fused_score']:.4f} (rank " in text
    assert re.search(rf"score +{hit['score']:.4f}", text)
    assert "the model's mean" in text


def test_explain_an_answer(served: Served) -> None:
    """By its query id an answer is explained as it was served; in JSON its parts add up to its scores."""
    query_id = answer(served, "zip", "--mix", "learned")["query_id"]
    told = json.loads(said(explain(served, query_id, "--json", "--id", "zip3", "--id", "zip9")))
    assert told["answer"]["query_id"] == query_id
    assert {hit["id"] for hit in told["answer"]["hits"]} == {"zip3", "zip9"}
    for hit, row in zip(told["answer"]["hits"], told["contributions"], strict=True):
        assert sum(row) + told["bias"] == pytest.approx(hit["score"])


def test_explain_the_fused_order(served: Served) -> None:
    """Where no model ranked, that is said instead of what moved the hits."""
    text = said(explain(served, "--search", "csv", "--where", "uses=..2"))
    assert "no model ranked: the fused order stands" in text
    assert "what moved it" not in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "pass a QUERY_ID"),
        (("id", "--search", "csv"), "pass a QUERY_ID"),
        (("--search", "csv", "--log", "folder"), "pass a QUERY_ID"),
        (("nobody",), "NOT_FOUND: query_id: none of the last 100 answers"),
        (("--search", "csv", "--where", "uses"), "'uses': write name=value"),
        (("--search", "csv", "--id", "nothing"), "INVALID_ARGUMENT: ids[0]: is not among"),
    ],
)
def test_what_cannot_be_explained(served: Served, words: tuple[str, ...], expected: str) -> None:
    """What is wrong is said in one line, and the status is 1."""
    assert expected in fault(explain(served, *words))


def test_evaluate_asks_a_running_mixer(served: Served, folder: Path) -> None:
    """`--target` measures the Mixer that runs: each backend, the fused order and the model, on the test split."""
    text = said(
        run(
            *("evaluate", "-c", folder / "learned.yaml", "-j", folder / "judged.jsonl", "--mix", "learned"),
            *("--target", served.target),
        )
    )
    assert "test, open pool" in text
    for ranking in ("words", "fused", "served"):
        assert re.search(rf"{ranking}\b.* 0\.\d\d\d", text)
    gain = re.search(r"10 queries; served less fused, NDCG@10: \+?(\d\.\d+)", text)
    assert gain
    assert float(gain[1]) > 0.1


def test_evaluate_starts_a_mixer(folder: Path) -> None:
    """Without a target one is started, and both pools and all splits can be had."""
    argv = ("evaluate", "-c", folder / "mixer.yaml", "-j", folder / "judged.jsonl", "--pools", "open,judged")
    text = said(run(*argv, "--split", "all"))
    assert "all, open pool" in text
    assert "all, judged pool" in text
    assert text.count("60 queries; served less fused") == 2


def work(
    command: str, folder: Path, *words: object, config: Path | None = None, judged: Path | None = None
) -> Result:
    """`train` or `evaluate` with these options besides the usual ones."""
    out = ("--out", folder / "never") if command == "train" else ()
    paths = ("-c", config or folder / "mixer.yaml", "-j", judged or folder / "judged.jsonl")
    return run(command, *paths, *out, *words)


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_work_that_cannot_be_done(command: str, folder: Path, tmp_path: Path) -> None:
    """A mix, a pool, a file or an index that is not there is one line, and nothing is written."""
    assert "no mix is called 'none'; there are: default, both" in fault(
        work(command, folder, "--mix", "none")
    )
    assert "--pools closed: take open or judged or open,judged" in fault(
        work(command, folder, "--pools", "closed")
    )
    assert "gone.jsonl" in fault(work(command, folder, judged=tmp_path / "gone.jsonl"))
    (tmp_path / "bad.jsonl").write_text('{"query": "q"}\n{"query": 1}\n', encoding="utf-8")
    told = fault(work(command, folder, judged=tmp_path / "bad.jsonl"), lines=2)
    assert "bad.jsonl:1: " in told
    assert "bad.jsonl:2: " in told
    lost = {**SETTINGS, "backends": {"words": {"kind": "sqlite", "index": "lost"}, "twice": MEMORY}}
    (tmp_path / "lost.yaml").write_text(yaml.safe_dump(lost, sort_keys=False), encoding="utf-8")
    assert f"{tmp_path / 'lost'} holds no index" in fault(
        work(command, folder, config=tmp_path / "lost.yaml")
    )
    assert not (folder / "never").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"round: 3", "recipe.yaml: round: unknown key"),
        (b"rounds: many", "recipe.yaml: rounds: "),
        (b"\xff", "recipe.yaml: 'utf-8' codec"),
    ],
)
def test_recipes_that_make_no_sense(folder: Path, tmp_path: Path, content: bytes, expected: str) -> None:
    """A recipe's fault is one line with the file's name."""
    (tmp_path / "recipe.yaml").write_bytes(content)
    assert expected in fault(work("train", folder, "--recipe", tmp_path / "recipe.yaml"))
    assert "gone.yaml" in fault(work("train", folder, "--recipe", tmp_path / "gone.yaml"))


def test_evaluate_needs_a_sound_model(folder: Path, tmp_path: Path) -> None:
    """A mix whose model is refused is not measured without it in silence: the fault is said."""
    shutil.copy(folder / "learned.yaml", tmp_path)
    told = work("evaluate", folder, "--mix", "learned", config=tmp_path / "learned.yaml")
    assert told.exit_code == 1
    assert f"the model of mix 'learned' is refused: {tmp_path / 'ranker' / 'manifest.json'}" in told.stderr
    assert "Traceback" not in told.stderr


def test_check_config_finds_it_sound(folder: Path) -> None:
    """A sound file is named with its mixes and backends, on one line."""
    config = folder / "mixer.yaml"
    told = f"{config}: sound; mixes: default, both; backends: words, twice\n"
    assert said(run("check-config", "-c", config)) == told


def test_check_config_lists_every_fault(tmp_path: Path) -> None:
    """Each fault has its line in the file and its path; the status is 1."""
    config = tmp_path / "bad.yaml"
    config.write_text(
        "server:\n  listn: x\n"
        "backends:\n  a: {kind: memory, fields: {}}\n"
        "mixes:\n  default:\n    backends: {b: {}}\n    page_size: -3\n    model: m\n",
        encoding="utf-8",
    )
    told = fault(run("check-config", "-c", config), lines=4).splitlines()
    places = [line.removeprefix(f"{config}:").split(": ")[:2] for line in told]
    assert places == [
        ["2", "server.listn"],
        ["7", "mixes.default.backends.b"],
        ["8", "mixes.default.page_size"],
        ["9", "mixes.default.model"],
    ]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"mixes: [", b"- 1", b""])
def test_check_config_of_what_is_no_settings(tmp_path: Path, content: bytes) -> None:
    """A file that is no text, no YAML or no mapping is one fault with file and line."""
    config = tmp_path / "bad.yaml"
    config.write_bytes(content)
    assert fault(run("check-config", "-c", config)).startswith(f"{config}:1: (file): is not ")


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_settings_that_are_not_there(command: str, tmp_path: Path) -> None:
    """A missing file is named, with the option that names another."""
    assert fault(run(command, "-c", tmp_path / "no.yaml")) == (
        f"{tmp_path / 'no.yaml'}: No such file or directory; name a settings file with --config\n"
    )


@pytest.mark.parametrize(
    ("words", "own", "served"),
    [
        ((), 1, ("server", 1)),
        ((), 3, ("supervise", 3)),
        (("--workers", 2), 1, ("supervise", 2)),
        (("--workers", 1), 3, ("server", 1)),
    ],
)
def test_serve_with_workers(
    words: tuple[object, ...],
    own: int,
    served: tuple[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The option wins over the settings; one worker is no more than this process."""
    seen: list[tuple[str, int]] = []

    def serving(name: str) -> Callable[[Settings], Coroutine[Any, Any, None]]:
        async def serve(settings: Settings) -> None:
            seen.append((name, settings.server.workers))

        return serve

    monkeypatch.setattr(telemetry, "start_logging", lambda *told, **more: None)
    monkeypatch.setattr(server, "serve", serving("server"))
    monkeypatch.setattr(supervise, "serve", serving("supervise"))
    config = tmp_path / "mixer.yaml"
    config.write_text(yaml.safe_dump({**SETTINGS, "server": {"workers": own}}), encoding="utf-8")
    said(run("serve", "-c", config, *words))
    assert seen == [served]


def test_serve_when_workers_fail(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their error is told in one line, and their status is the command's."""

    async def fails(settings: Settings) -> None:
        raise supervise.WorkersFailed("worker 1 was killed", 137)

    monkeypatch.setattr(telemetry, "start_logging", lambda *told, **more: None)
    monkeypatch.setattr(supervise, "serve", fails)
    result = run("serve", "-c", folder / "mixer.yaml", "--workers", 2)
    assert (result.exit_code, result.stderr) == (137, "worker 1 was killed\n")


@pytest.mark.parametrize("workers", [-1, 65])
def test_serve_with_too_many_workers(folder: Path, workers: int) -> None:
    """A number out of range is a mistake of the command line."""
    assert run("serve", "-c", folder / "mixer.yaml", "--workers", workers).exit_code == 2


def test_check_config_names_a_refused_model(folder: Path, trained: tuple[Path, str], tmp_path: Path) -> None:
    """A model that a mix cannot use is named with the mix and the check that it failed."""
    raw = yaml.safe_load((folder / "learned.yaml").read_text(encoding="utf-8"))
    raw["mixes"]["learned"]["features"] = FEATURES[:2]
    raw["mixes"]["other"] = {**MIX, "model": "gone"}
    raw["models"] = {"learned": {"path": str(trained[0])}, "gone": {"path": "gone"}}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    told = fault(run("check-config", "-c", tmp_path / "bad.yaml"), lines=2)
    assert (
        "mixes.learned.model: schema check: the mix declares other features: 2 of them, trained on 4" in told
    )
    assert f"mixes.other.model: manifest check: {tmp_path / 'gone' / 'manifest.json'} cannot be read" in told


def test_schema_accepts_what_is_sound(folder: Path) -> None:
    """The printed JSON schema is one, takes the demo's settings and ours, and no unknown key."""
    schema = json.loads(said(run("schema")))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    shipped = Path(demo.__file__).parent / "mixer.yaml"
    for path in (shipped, folder / "mixer.yaml", folder / "learned.yaml"):
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert [error.message for error in validator.iter_errors(raw)] == []
    raw["mixes"]["default"]["fusoin"] = {}
    assert [list(error.path) for error in validator.iter_errors(raw)] == [["mixes", "default"]]


def test_catalogue() -> None:
    """Every metric, span and attribute is in the tables."""
    text = said(run("catalogue"))
    for name in (*(metric.name for metric in METRICS), *SPANS, *(told.key for told in ATTRIBUTES)):
        assert f"`{name}`" in text


@pytest.fixture
def definition(tmp_path: Path) -> Path:
    path = tmp_path / "symbols.yaml"
    content = {
        "schema": {"fields": FIELDS},
        "engine": {"kind": "sqlite", "symbols": ["id"], "popularity": "uses"},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS), encoding="utf-8")
    return path


def version(folder: Path) -> str:
    return str(json.loads((folder / "index.json").read_text(encoding="utf-8"))["version"])


@pytest.mark.parametrize("packed", [False, True])
def test_index(definition: Path, documents: Path, tmp_path: Path, packed: bool) -> None:
    """JSON Lines, packed or not, become an index that the engine opens; the line says how many and which version."""
    source, folder = documents, tmp_path / "[bold]index"
    if packed:
        source = tmp_path / "documents.jsonl.gz"
        source.write_bytes(gzip.compress(documents.read_bytes()))
    printed = said(run("index", definition, source, folder))
    assert printed == f"{folder}: {len(DOCUMENTS)} documents, version {version(folder)}\n"
    assert Sqlite(SqliteSettings(kind="sqlite", index=folder))


def test_index_is_replaced(definition: Path, documents: Path, tmp_path: Path) -> None:
    """Building again takes the place of the index that was there; the same input is the same version."""
    folder = tmp_path / "index"
    said(run("index", definition, documents, folder))
    first = version(folder)
    said(run("index", definition, documents, folder))
    assert version(folder) == first
    documents.write_text('{"id": "1"}\n', encoding="utf-8")
    assert "1 documents" in said(run("index", definition, documents, folder))
    assert version(folder) != first


@pytest.fixture
def bad(documents: Path) -> Path:
    """Documents of which lines 2 and 4 are bad."""
    lines = documents.read_text(encoding="utf-8").splitlines()
    lines[1], lines[3] = "{", '{"id": "[red]x", "uses": "many"}'
    documents.write_text("\n".join(lines), encoding="utf-8")
    return documents


def test_index_names_bad_lines(definition: Path, bad: Path, tmp_path: Path) -> None:
    """Every bad line is named by its number with its fault, and nothing is published."""
    result = run("index", definition, bad, tmp_path / "index")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{bad}:2: is not JSON" in result.stderr
    assert f"{bad}:4: `uses` is not a number" in result.stderr
    assert "2 bad lines, nothing written; mend them or pass --allow-bad-lines 2" in result.stderr
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(("allowed", "code"), [(1, 1), (2, 0), (3, 0)])
def test_index_in_spite_of_bad_lines(
    definition: Path, bad: Path, tmp_path: Path, allowed: int, code: int
) -> None:
    """With as many bad lines as are allowed the rest is published, and the bad ones are named all the same."""
    result = run("index", definition, bad, tmp_path / "index", "--allow-bad-lines", allowed)
    assert result.exit_code == code
    assert f"{bad}:2: " in result.stderr
    assert (tmp_path / "index").exists() == (code == 0)
    assert (f"{len(DOCUMENTS) - 2} documents" in result.stdout) == (code == 0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"schema: {fields: {}}\nengine: {kind: sqlite, symbl: [id]}", "engine.sqlite.symbl: unknown key"),
        (
            b"schema: {fields: {title: {type: text}}, unknown: ignore}\nengine: {kind: sqlite, popularity: usage}",
            "fields the index does not have for it: usage",
        ),
        (b"\xff", "symbols.yaml: 'utf-8' codec"),
        (b"[]", "symbols.yaml: "),
    ],
)
def test_index_definitions_that_make_no_sense(
    definition: Path, documents: Path, tmp_path: Path, content: bytes, expected: str
) -> None:
    """A definition's fault is said, and nothing is written."""
    definition.write_bytes(content)
    result = run("index", definition, documents, tmp_path / "index")
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert expected in result.stderr
    assert not (tmp_path / "index").exists()


def test_index_without_files(definition: Path, documents: Path, tmp_path: Path) -> None:
    """A definition or documents that are not there are named."""
    gone = tmp_path / "gone"
    assert str(gone) in fault(run("index", gone, documents, tmp_path / "index"))
    result = run("index", definition, gone, tmp_path / "index")
    assert result.exit_code == 1
    assert str(gone) in result.stderr


def test_index_keeps_what_is_no_index(definition: Path, documents: Path, tmp_path: Path) -> None:
    """A folder that holds something else is not replaced."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").touch()
    result = run("index", definition, documents, mine)
    assert result.exit_code == 1
    assert "holds something else than an index" in result.stderr
    assert [path.name for path in mine.iterdir()] == ["letter.txt"]


def test_serve_ends_clean(served: Served) -> None:
    """After SIGTERM the process drains and ends with status 0; each call it answered has its line of JSON."""
    for mix in ("default", "both", "learned"):
        said(search(served, "csv", "--mix", mix))
    assert served.end() == 0
    calls = [line for line in served.lines if line["event"] == "call"]
    assert {line.get("mixer.mix") for line in calls} >= {"default", "both", "learned"}
    assert [line["event"] for line in served.lines].count("draining") == 1


def test_decay_shows_ndcg_by_age(folder: Path, tmp_path: Path) -> None:
    """A row a window, oldest last, from dated judgements; without dates the command says that there are none."""
    dated = [judged(n).model_copy(update={"day": f"2024-0{n // 12 + 1}-{n % 12 + 1:02}"}) for n in range(60)]
    judgements.write(tmp_path / "dated.jsonl", dated)
    options = ("--recipe", folder / "recipe.yaml", "--windows", 3)
    told = said(run("models", "decay", "-c", folder / "mixer.yaml", "-j", tmp_path / "dated.jsonl", *options))
    assert "12 queries from 2024-05-01 to 2024-05-12" in told
    assert [
        line.split("│")[2].strip()[-10:] for line in told.splitlines() if "2024" in line and "│" in line
    ] == [
        "2024-04-12",
        "2024-03-12",
        "2024-02-12",
    ]
    assert "a model may be" in told
    undated = run("models", "decay", "-c", folder / "mixer.yaml", "-j", folder / "judged.jsonl", *options)
    assert undated.exit_code == 1
    assert "60 of 60 judged queries have no `day`" in undated.stderr
    wrong = run(
        "models", "decay", "-c", folder / "mixer.yaml", "-j", folder / "judged.jsonl", "--overlap", 1.5
    )
    assert "--overlap: Input should be less than 1" in fault(wrong)
