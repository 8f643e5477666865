from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from pydantic import ValidationError

from mixer import settings
from mixer.experiment_settings import InterleaveSettings
from mixer.model_settings import FolderModelSettings
from mixer.settings import Secrets, Settings, SettingsError

SOUND = """
backends:
  lexical: {kind: memory, fields: {title: {type: text}}}
  semantic: {kind: memory, fields: {title: {type: text}}}
models:
  forest: {path: models/forest}
mixes:
  default:
    backends:
      lexical: {weight: 2}
      semantic: {}
    features:
      - {name: bm25, source: backend, backend: lexical, value: score}
    model: forest
"""


def faults(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(SettingsError) as refused:
        settings.parse(text)
    return [(fault.line, fault.path, fault.message) for fault in refused.value.faults]


def fault(text: str) -> tuple[int, str, str]:
    [found] = faults(text)
    return found


def with_stores(
    mix: str = "", store: str = "{kind: sqlite, file: f.db, table: t, fields: [ctr, sales]}"
) -> str:
    """A mix that asks the store `clicks` and reads its `ctr`."""
    feature = "      - {name: ctr, source: store, store: clicks, field: ctr}\n"
    text = SOUND.replace("    model: forest\n", f"{feature}    model: forest\n    stores: {{clicks: {{}}}}\n")
    return f"{text}{mix}stores:\n  clicks: {store}\n"


def with_member(member: str) -> str:
    return SOUND.replace("{weight: 2}", member)


def with_mix(line: str) -> str:
    return f"{SOUND}    {line}\n"


def test_a_sound_file_becomes_a_tree() -> None:
    """What the file says is in the tree; the rest has defaults."""
    made = settings.parse(SOUND)
    rules = made.mixes["default"]
    assert {name: member.weight for name, member in rules.backends.items()} == {"lexical": 2, "semantic": 1}
    assert (rules.model, rules.features[0].name, rules.fusion.kind) == ("forest", "bm25", "rrf")
    assert made.server.default_mix == "default"
    assert made.limits.page_size == 100


def test_a_mix_is_called_by_its_name_or_is_the_default_one() -> None:
    """No name is the default mix's; a name that no mix has is an error that lists those there are."""
    made = settings.parse(SOUND)
    assert (made.mix_called(""), made.mix_called("default")) == ("default", "default")
    with pytest.raises(ValueError, match="no mix is called 'none'; there are: default"):
        made.mix_called("none")


def test_the_tree_is_frozen() -> None:
    """Settings never change once read, at any depth."""
    made = settings.parse(SOUND)
    for branch, leaf in ((made, "server"), (made.server, "listen"), (made.mixes["default"], "page_size")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(branch, leaf, None)


def test_every_fault_is_listed_at_once_with_its_place() -> None:
    """Wrong types, unknown keys, repeated keys and dangling references: one error, by line and path."""
    text = """server:
  listen: 7
  default_mix: defualt
limits: {page_size: 0}
backends:
  lexical: {kind: memory, fields: {title: {type: text}}}
  lexical: {kind: memory, fields: {title: {type: text}}}
mixes:
  default:
    backends: {lexcal: {}, lexical: {wieght: 1}}
    model: forest
    features:
      - {name: one, source: backend, backend: semantic, value: score}
      - {name: one, source: query, value: lines}
"""
    assert [(line, path) for line, path, _ in faults(text)] == [
        (2, "server.listen"),
        (3, "server.default_mix"),
        (4, "limits.page_size"),
        (7, "backends.lexical"),
        (10, "mixes.default.backends.lexcal"),
        (10, "mixes.default.backends.lexical.wieght"),
        (11, "mixes.default.model"),
        (13, "mixes.default.features.0.backend"),
        (14, "mixes.default.features.1.name"),
        (14, "mixes.default.features.1.query.value"),
    ]


def test_the_error_reads_as_one_line_a_fault() -> None:
    """`file:line: path: what`, as editors and people read it."""
    with pytest.raises(SettingsError) as refused:
        settings.parse(with_mix("pages: 3").replace("model: forest", "model: florest"), source="mixer.yaml")
    assert str(refused.value).splitlines() == [
        "mixer.yaml:14: mixes.default.model: no model is called 'florest'; did you mean 'forest'?",
        "mixer.yaml:15: mixes.default.pages: unknown key",
    ]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (with_mix("pages: 3"), "mixes.default.pages", "unknown key"),
        (SOUND + "mixs: {}\n", "mixs", "unknown key"),
        (with_member("{wait: 2}"), "mixes.default.backends.lexical.wait", "unknown key"),
        (with_mix("fusion: {kind: rrf, c: 60}"), "mixes.default.fusion.rrf.c", "unknown key"),
        (with_mix("page_size: 3\n    page_size: 4"), "mixes.default.page_size", "stands twice"),
        (
            SOUND.replace("semantic: {}", "lexcal: {}"),
            "mixes.default.backends.lexcal",
            "did you mean 'lexical'?",
        ),
        (
            SOUND.replace("semantic: {}", "zzz: {}"),
            "mixes.default.backends.zzz",
            "there are: lexical, semantic",
        ),
        (SOUND.replace("model: forest", "model: x"), "mixes.default.model", "there are: forest"),
        (SOUND + "server: {default_mix: main}\n", "server.default_mix", "no mix is called 'main'"),
        (
            SOUND.replace("backend: lexical", "backend: lexica"),
            "mixes.default.features.0.backend",
            "'lexical'?",
        ),
        (with_mix("shadows: [{model: florest}]"), "mixes.default.shadows.0.model", "did you mean 'forest'?"),
        (
            with_mix("shadows: [{model: forest}, {model: forest, share: 0.1}]"),
            "mixes.default.shadows",
            "'forest' stands twice",
        ),
        (with_mix("shadows: [{model: forest, share: 0}]"), "mixes.default.shadows.0.share", "greater than 0"),
        (
            with_mix("shadows: [{model: forest, cpu_share: 2}]"),
            "mixes.default.shadows.0.cpu_share",
            "less than or equal to 1",
        ),
        (SOUND + "guards: {lexcal: {breaker: {}}}\n", "guards.lexcal", "did you mean 'lexical'?"),
        (
            SOUND + "guards: {lexical: {breaker: {wait: 1}}}\n",
            "guards.lexical.breaker.wait",
            "unknown key",
        ),
        (
            SOUND + "limits: {adaptive: {drop: {model: 0.1}}}\n",
            "limits.adaptive.drop",
            "the order is fixed",
        ),
        (
            with_member("{optional: true}").replace("semantic: {}", "semantic: {optional: true}"),
            "mixes.default.backends",
            "all are optional",
        ),
        (with_mix("page_size: 101"), "mixes.default.page_size", "above limits.page_size 100"),
        (SOUND + "limits: {candidates: 199}\n", "mixes.default.backends", "add up to 200, above"),
        (SOUND + "server: {workers: 0}\n", "server.workers", "greater than or equal to 1"),
        (SOUND + "server: {workers: 65}\n", "server.workers", "less than or equal to 64"),
        (SOUND + "telemetry: {query: words}\n", "telemetry.query", "'hash', 'raw' or 'drop'"),
    ],
)
def test_a_fault_says_where_and_what(text: str, path: str, message: str) -> None:
    """Each kind of fault, alone: its path and what is wrong, with the likely name where there is one."""
    _, found, said = fault(text)
    assert found == path
    assert message in said


def test_stores_are_declared_and_asked_by_name() -> None:
    """A store of the settings, its part in a mix, and a feature made from it."""
    sound = settings.parse(with_stores())
    assert sound.stores["clicks"].fields == ("ctr", "sales")
    assert sound.stores["clicks"].cache.ttl_s == 10
    assert sound.mixes["default"].stores["clicks"].timeout_s == 0.05


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (
            with_stores().replace("store: clicks", "store: click"),
            "mixes.default.features.1.store",
            "no store of this mix is called 'click'; did you mean 'clicks'?",
        ),
        (
            with_stores().replace("field: ctr", "field: crt"),
            "mixes.default.features.1.field",
            "no field of store 'clicks' is called 'crt'; did you mean 'ctr'?",
        ),
        (
            with_stores().replace("{clicks: {}}", "{clicks: {}, users: {}}"),
            "mixes.default.stores.users",
            "no store is called 'users'; there are: clicks",
        ),
        (
            with_stores().replace("{clicks: {}}", "{clicks: {timeout_s: 0}}"),
            "mixes.default.stores.clicks.timeout_s",
            "0",
        ),
        (
            with_stores(store="{kind: memcached, fields: [ctr]}"),
            "stores.clicks",
            "'redis', 'postgres', 'sqlite'",
        ),
        (
            with_stores(store="{kind: redis, url: 'redis://:x@h', fields: [ctr]}"),
            "stores.clicks.redis.url",
            "holds a password; name the environment variable that does in password_env",
        ),
        (
            with_stores(store="{kind: redis, url: 'redis://h', fields: [ctr], key: 'doc:{ID}'}"),
            "stores.clicks.redis.key",
            "knows no {ID}; use {id} or {context.NAME}",
        ),
        (
            with_stores().replace(
                "  clicks: {kind", "  a.b: {kind: sqlite, file: f, table: t, fields: [x]}\n  clicks: {kind"
            ),
            "stores.a.b.[key]",
            "pattern",
        ),
    ],
)
def test_faults_of_stores(text: str, path: str, message: str) -> None:
    """Names that refer to nothing, passwords in the file, keys that cannot be: each is named with its mend."""
    _, found, said = fault(text)
    assert found == path
    assert message in said


@pytest.mark.parametrize(
    ("member", "key"),
    [
        ("{weight: -1}", "weight"),
        ("{weight: .nan}", "weight"),
        ("{weight: .inf}", "weight"),
        ("{limit: 0}", "limit"),
        ("{limit: 1.5}", "limit"),
        ("{timeout_s: 0}", "timeout_s"),
        ("{timeout_s: .inf}", "timeout_s"),
        ("{bounds: {low: .nan}}", "bounds.low"),
        ("{bounds: {high: .inf}}", "bounds.high"),
    ],
)
def test_numbers_must_make_sense(member: str, key: str) -> None:
    """No number that would make every score NaN, or a wait without end."""
    assert fault(with_member(member))[1] == f"mixes.default.backends.lexical.{key}"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (with_mix("pins: [{query: x, ids: []}]"), "mixes.default.pins.0.ids"),
        (with_mix("diversity: {field: site, max: 0}"), "mixes.default.diversity.max"),
        (with_mix("fusion: {kind: rrf, k: 0}"), "mixes.default.fusion.rrf.k"),
        (with_mix("fusion: {kind: borda}"), "mixes.default.fusion"),
        (with_mix("without_model: panic"), "mixes.default.without_model"),
        (SOUND.replace("model: forest", "model: [forest]"), "mixes.default.model"),
        (SOUND + "server: {default_mix: [default]}\n", "server.default_mix"),
        (SOUND.replace("kind: memory", "kind: memo", 1), "backends.lexical"),
        (SOUND.replace("path: models/forest", ""), "models.forest.path"),
    ],
)
def test_what_has_the_wrong_form_is_a_fault(text: str, path: str) -> None:
    """A value of the wrong form is named by its path; nothing else about the file is held against it."""
    assert fault(text)[1] == path


@pytest.mark.parametrize("missing", ["backends", "mixes"])
def test_there_must_be_something_to_serve(missing: str) -> None:
    """Without backends or mixes there is no service."""
    raw = {key: value for key, value in yaml.safe_load(SOUND).items() if key != missing}
    assert missing in {path for _, path, _ in faults(yaml.safe_dump(raw))}
    assert missing in {path for _, path, _ in faults(yaml.safe_dump({**raw, missing: {}}))}


@pytest.mark.parametrize("text", ["", "[]", "- backends", "words", "3"])
def test_a_file_that_is_no_mapping_is_said_to_be_none(text: str) -> None:
    """An empty file, a list or a word is one fault."""
    assert fault(text) == (1, "(file)", "is not a mapping of settings")


def test_what_is_not_yaml_is_placed() -> None:
    """The line at which the parser stumbled."""
    line, path, message = fault("server:\n  listen: [\n")
    assert (line, path) == (3, "(file)")
    assert message.startswith("is not YAML")


def test_paths_start_at_the_file_s_folder(tmp_path: Path) -> None:
    """A relative path in the file is beside the file, wherever the server is started; an absolute one stays."""
    file = tmp_path / "mixer.yaml"
    file.write_text(SOUND, encoding="utf-8")
    assert settings.load(file).models["forest"] == FolderModelSettings(path=tmp_path / "models/forest")
    file.write_text(SOUND.replace("models/forest", "/srv/forest"), encoding="utf-8")
    assert settings.load(file).models["forest"] == FolderModelSettings(path=Path("/srv/forest"))


def test_a_file_s_faults_name_the_file(tmp_path: Path) -> None:
    """The error of a file on disk begins with its path."""
    file = tmp_path / "mixer.yaml"
    file.write_text(with_mix("pages: 3"), encoding="utf-8")
    with pytest.raises(SettingsError, match=str(file)):
        settings.load(file)


def schema() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(settings.json_schema()))
    return made


def test_the_json_schema_is_one() -> None:
    """Editors can use it: it is a valid schema of draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_json_schema_agrees_with_the_reader() -> None:
    """It passes a sound file, and stumbles over an unknown key and a wrong value as the reader does."""
    validator = jsonschema.Draft202012Validator(schema())
    assert validator.is_valid(yaml.safe_load(SOUND))
    for text in (
        with_mix("pages: 3"),
        with_member("{weight: -1}"),
        SOUND.replace("kind: memory", "kind: memo"),
    ):
        assert not validator.is_valid(yaml.safe_load(text))


def test_secrets_are_masked() -> None:
    """Neither a repr nor a dump of the secrets shows them; the tree of settings holds none."""
    secrets = Secrets.from_environment(
        {"MIXER_CURSOR_KEY": "hush-cursor", "MIXER_REDACTION_KEY": "hush-words"}
    )
    for shown in (repr(secrets), str(secrets), f"{secrets}", secrets.model_dump_json()):
        assert "hush" not in shown
    assert secrets.cursor_key
    assert secrets.cursor_key.get_secret_value() == "hush-cursor"
    assert not {"cursor_key", "redaction_key"} & set(Settings.model_fields)


def test_an_empty_secret_is_none() -> None:
    """A variable that is set to nothing is as good as none: no server signs with an empty key."""
    assert Secrets.from_environment({"MIXER_CURSOR_KEY": ""}) == Secrets.from_environment({}) == Secrets()


def test_secrets_for_other_processes() -> None:
    """They read the same keys; one that nobody set is made at random, each time another."""
    mine = Secrets.from_environment({"MIXER_CURSOR_KEY": "mine"})
    told, again = mine.as_environment(), mine.as_environment()
    assert told["MIXER_CURSOR_KEY"] == again["MIXER_CURSOR_KEY"] == "mine"
    assert told["MIXER_REDACTION_KEY"] != again["MIXER_REDACTION_KEY"]
    read = Secrets.from_environment(told)
    assert read.as_environment() == told
    assert all(len(key) >= 43 for key in Secrets().as_environment().values())


def test_an_alias_to_itself_is_a_fault() -> None:
    """A file that refers to itself without end gets one clear fault."""
    assert fault("backends: &loop [*loop]")[2] == "holds an alias to itself"


def test_bounds_the_wrong_way_round_are_a_fault() -> None:
    """A scale of scores whose top is not above its bottom is refused."""
    with pytest.raises(ValidationError, match="above high"):
        settings.ScoreBounds(low=2.0, high=1.0)


LOG = f"{SOUND}feature_log: "


def test_a_feature_log_is_declared_by_its_sinks(tmp_path: Path) -> None:
    """A folder starts at the file's own; without the section nothing is logged."""
    text = f"{LOG}{{sinks: [{{kind: parquet, folder: log}}, {{kind: otlp}}]}}"
    made = settings.parse(text, folder=tmp_path).feature_log
    assert made
    assert [sink.kind for sink in made.sinks] == ["parquet", "otlp"]
    assert getattr(made.sinks[0], "folder", None) == tmp_path / "log"
    assert (made.share, made.query, made.inputs) == (1.0, "hash", False)
    assert settings.parse(SOUND).feature_log is None


@pytest.mark.parametrize(
    ("rules", "path", "message"),
    [
        ("{sinks: []}", "feature_log", "names no sink"),
        ("{sinks: [{kind: otlp}], share: 1.5}", "feature_log.share", "less than or equal to 1"),
        ("{sinks: [{kind: pulsar}]}", "feature_log.sinks.0", "'parquet', 'otlp', 'kafka'"),
        ("{sinks: [{kind: kafka, topic: t}]}", "feature_log.sinks.0.kafka.servers", "required"),
        ("{sinks: [{kind: otlp}], inputs: true}", "feature_log", "set query to raw"),
    ],
)
def test_faults_of_a_feature_log(rules: str, path: str, message: str) -> None:
    """Each is named where it stands."""
    _, where, said = fault(f"{LOG}{rules}")
    assert where == path
    assert message in said


def with_arms(arms: str, **more: str) -> str:
    rules = {"salt": "s", **more}
    return with_mix(
        f"experiment: {{{', '.join(f'{key}: {value}' for key, value in rules.items())}, arms: [{arms}]}}"
    )


EVEN = "{name: control, share: 0.5}, {name: canary, share: 0.5, canary: {}}"


def test_an_experiment() -> None:
    """Arms with their shares; a canary's bounds have defaults, and an arm's model is the mix's own."""
    declared = settings.parse(with_arms(EVEN)).mixes["default"].experiment
    assert declared
    assert [(arm.name, arm.share, arm.model) for arm in declared.arms] == [
        ("control", 0.5, None),
        ("canary", 0.5, None),
    ]
    assert declared.arms[1].canary
    assert (declared.key, declared.arms[1].canary.min_requests) == ("query_id", 200)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (with_arms("{name: a, share: 1}"), ".arms", "at least 2"),
        (with_arms("{name: a, share: 0.5}, {name: a, share: 0.5}"), "", "one name"),
        (with_arms("{name: a, share: 0.5}, {name: b, share: 0.4}"), "", "add up to 0.9"),
        (with_arms("{name: a, share: 0.5, canary: {}}, {name: b, share: 0.5}"), "", "is the control"),
        (
            with_arms("{name: a, share: 0.5, interleave: true}, {name: b, share: 0.5}"),
            "",
            "others interleave",
        ),
        (
            with_arms(f"{EVEN}, {{name: c, share: 0, interleave: {{alpha: 1}}}}"),
            ".arms.2.interleave.alpha",
            "",
        ),
        (with_arms(f"{EVEN}, {{name: B!, share: 0}}"), ".arms.2.name", "pattern"),
        (with_arms("{name: a, share: 0.5}, {name: b, share: 0.5, model: fores}"), ".arms.1.model", "forest"),
        (with_arms(EVEN, salt="''"), ".salt", "at least 1"),
    ],
)
def test_faults_of_an_experiment(text: str, path: str, message: str) -> None:
    """Each named where it stands."""
    found = fault(text)
    assert found[1] == f"mixes.default.experiment{path}"
    assert message in found[2]


@pytest.mark.parametrize(
    ("given", "made"),
    [("true", InterleaveSettings()), ("false", None), ("{alpha: 0.01}", InterleaveSettings(alpha=0.01))],
)
def test_interleaving_is_switched_or_set(given: str, made: InterleaveSettings | None) -> None:
    """`true` takes the defaults."""
    text = with_arms(f"{EVEN}, {{name: c, share: 0, interleave: {given}}}")
    experiment = settings.parse(text).mixes["default"].experiment
    assert experiment
    assert experiment.arms[2].interleave == made
