"""The package as a whole: what importing costs, and how engines are chosen."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from backends import ENGINES, BackendSettings
from backends.index import IndexSettings

ADAPTER: TypeAdapter[BackendSettings] = TypeAdapter(BackendSettings)


def test_importing_is_cheap_and_stands_alone() -> None:
    """Importing the table, the builder and the service loads no engine's library, no SDK, and nothing of Mixer."""
    code = "import sys, backends, backends.build, backends.service; print(*sorted(sys.modules), sep='\\n')"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    heavy = {
        "aiohttp",
        "opensearchpy",
        "tantivy",
        "usearch",
        "sklearn",
        "scipy",
        "mixer",
        "models",
        "opentelemetry.sdk",
    }
    assert heavy.isdisjoint(loaded)
    assert {"psycopg", "psycopg_pool", "qdrant_client", "httpx"}.isdisjoint(loaded)
    assert "backends.tantivy" in loaded


def test_table_and_settings_agree() -> None:
    """Every kind in the table can be chosen in the settings, and no other."""
    kinds = {
        member.model_fields["kind"].annotation.__args__[0]
        for member in (e.Settings for e in ENGINES.values())
    }
    assert kinds == ENGINES.keys()
    for kind in ENGINES:
        with pytest.raises(ValidationError) as caught:
            ADAPTER.validate_python({"kind": kind, "no_such_key": 1})
        assert ("no_such_key",) in [fault["loc"][1:] for fault in caught.value.errors()]
    with pytest.raises(ValidationError):
        ADAPTER.validate_python({"kind": "altavista"})


def index_of(settings: object) -> Path:
    assert isinstance(settings, IndexSettings)
    return settings.index


def test_index_lies_beside_the_settings() -> None:
    """A relative index folder starts at the folder of the settings file; an absolute one stands as it is."""
    for written, meant in (("index", Path("/etc/mixer/index")), ("/data/index", Path("/data/index"))):
        raw = {"kind": "tantivy", "index": written}
        assert index_of(ADAPTER.validate_python(raw, context={"folder": Path("/etc/mixer")})) == meant
    assert index_of(ADAPTER.validate_python({"kind": "tantivy", "index": "index"})) == Path("index")
