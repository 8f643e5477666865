from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from backends.base import BackendRefused, BackendUnreachable
from backends.memory import Memory, MemorySettings
from mixer import app, settings
from mixer.errors import AllBackendsFailed, InvalidRequest
from mixer.manifest import MODEL
from mixer.metrics import Metrics
from mixer.settings import Secrets
from mixer.values import Outcome, Ranker
from tests import forest
from tests.samples import request

FIELDS = {"title": {"type": "text"}, "year": {"type": "number"}}
DOCUMENTS = [{"id": str(n), "title": "read csv" if n % 2 else "csv", "year": 1990 + n} for n in range(9)]
MEMORY = {"kind": "memory", "fields": FIELDS, "documents": DOCUMENTS}
SECRETS = Secrets(cursor_key=SecretStr("shared"))


def tree(model: Path | None = None, **rules: Any) -> settings.Settings:
    features = [feature.model_dump(mode="json") for feature in forest.FEATURES]
    raw = {
        "backends": {"a": MEMORY, "b": MEMORY},
        "models": {"forest": {"path": str(model)}} if model else {},
        "mixes": {
            "default": {
                "backends": {"a": {}, "b": {}},
                "features": features,
                "model": "forest" if model else "",
                **rules,
            }
        },
    }
    return settings.parse(yaml.safe_dump(raw))


@pytest.fixture
def spoiled(model_folder: Path, tmp_path: Path) -> Path:
    """A model folder that fails its checksum."""
    shutil.copytree(model_folder, tmp_path / "forest")
    with (tmp_path / "forest" / MODEL).open("ab") as file:
        file.write(b"\n")
    return tmp_path / "forest"


def double() -> Memory:
    return Memory(MemorySettings.model_validate(MEMORY))


async def test_a_mix_without_a_model_serves_the_fused_order() -> None:
    """No model named: ready, fused, and not degraded."""
    built = await app.build(tree(), SECRETS)
    answer = await built.mixes["default"].search(request("csv"))
    assert built.faults == {}
    assert (answer.scores.ranker, answer.degraded_reasons) == (Ranker.FUSED, ())
    assert len(answer.candidates) == len(DOCUMENTS)
    await built.close()


async def test_a_sound_model_ranks(model_folder: Path) -> None:
    """The model's scores make the order, the answer and the metrics name it."""
    metrics = Metrics()
    built = await app.build(tree(model_folder), SECRETS, metrics)
    answer = await built.mixes["default"].search(request("csv"))
    assert built.faults == {}
    assert (answer.scores.ranker, answer.degraded_reasons) == (Ranker.MODEL, ())
    ref = answer.scores.model
    assert ref
    labels = {"mix": "default", "model": ref.name, "version": ref.version, "sha256": ref.sha256}
    assert metrics.registry.get_sample_value("mixer_model_info", labels) == 1
    ranked = answer.scores.values[answer.page.order].tolist()
    assert ranked == sorted(ranked, reverse=True)
    await built.close()


async def test_a_refused_model_keeps_the_mix_from_being_ready(spoiled: Path) -> None:
    """By default a mix whose model failed a check says why and is not ready; the refusal is counted and logged."""
    metrics = Metrics()
    built = await app.build(tree(spoiled), SECRETS, metrics)
    assert MODEL in built.faults["default"]
    labels = {"mix": "default", "check": "checksum"}
    assert metrics.registry.get_sample_value("mixer_model_refused_total", labels) == 1
    await built.close()


async def test_a_refused_model_may_be_done_without(spoiled: Path) -> None:
    """Where the settings say so the fused order is served, and every answer says which model is missing and why."""
    built = await app.build(tree(spoiled, without_model="serve_fused"), SECRETS)
    answer = await built.mixes["default"].search(request("csv"))
    assert built.faults == {}
    assert answer.scores.ranker is Ranker.FUSED
    assert answer.degraded_reasons == ("ranker: checksum_failed",)
    assert answer.scores.model
    assert answer.scores.model.name == "forest"
    await built.close()


async def test_a_missing_folder_is_a_refusal_too(tmp_path: Path) -> None:
    """A model folder that is not there does not stop the server from starting; the mix is not ready."""
    built = await app.build(tree(tmp_path / "nowhere"), SECRETS)
    assert "manifest.json cannot be read" in built.faults["default"]
    await built.close()


async def test_doubles_stand_in_by_name() -> None:
    """A backend given by name takes the place of that of the settings, and the others are opened."""
    broken = double()
    broken.failure = BackendUnreachable("down")
    built = await app.build(tree(), SECRETS, backends={"b": broken})
    answer = await built.mixes["default"].search(request("csv"))
    assert built.backends["b"] is broken
    assert [reply.outcome for reply in answer.replies] == [Outcome.OK, Outcome.ERROR]
    await built.close()


async def test_the_whole_is_wired_with_its_errors() -> None:
    """All failing is UNAVAILABLE, all refusing is the caller's to mend: through every wrapper, unchanged."""
    down, refusing = double(), double()
    down.failure, refusing.failure = BackendUnreachable("down"), BackendRefused("no")
    for failing, error in ((down, AllBackendsFailed), (refusing, InvalidRequest)):
        built = await app.build(tree(), SECRETS, backends={"a": failing, "b": failing})
        with pytest.raises(error):
            await built.mixes["default"].search(request("csv"))


async def test_every_stage_is_watched() -> None:
    """One search gives every stage of the sentence a duration."""
    metrics = Metrics()
    built = await app.build(tree(), SECRETS, metrics)
    await built.mixes["default"].search(request("csv"))
    for stage in ("plan", "fan_out", "merge", "make_features", "rank", "arrange"):
        labels = {"mix": "default", "stage": stage}
        assert metrics.registry.get_sample_value("mixer_stage_duration_seconds_count", labels) == 1
    await built.close()


async def test_replicas_that_share_a_key_share_cursors() -> None:
    """A cursor of one server is good at another with the same key and the same documents, and at no other."""
    first, second = await app.build(tree(), SECRETS), await app.build(tree(), SECRETS)
    stranger = await app.build(tree(), Secrets())
    page = (await first.mixes["default"].search(request("csv", page_size=4))).page
    follow = request("csv", page_size=4, cursor=page.next_cursor)
    assert (await second.mixes["default"].search(follow)).page.offset == 4
    with pytest.raises(InvalidRequest, match="cursor"):
        await stranger.mixes["default"].search(follow)


async def test_closing_closes_every_backend() -> None:
    """After the app is closed no backend answers."""
    one, other = double(), double()
    built = await app.build(tree(), SECRETS, backends={"a": one, "b": other})
    await built.close()
    with pytest.raises(AllBackendsFailed):
        await built.mixes["default"].search(request("csv"))
