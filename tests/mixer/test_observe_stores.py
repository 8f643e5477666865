from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mixer import app
from mixer.hydrate import Wanted
from mixer.metrics import Metrics
from mixer.settings import Settings
from tests.doubles import engines, mixers
from tests.samples import request

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
FEATURES = [
    {"name": "sold", "source": "store", "store": "sales", "field": "sold"},
    {"name": "age", "source": "store", "store": "users", "field": "age"},
    {"name": "plan", "source": "context", "key": "plan"},
]


def settings(folder: Path, timeout_s: float = 15.0) -> Settings:
    file = folder / "stores.db"
    with closing(sqlite3.connect(file)) as made, made:
        made.execute("CREATE TABLE sales (id, sold)")
        made.execute("CREATE TABLE users (id, age)")
        made.executemany("INSERT INTO sales VALUES (?, ?)", [(1, 0.5), (2, "many")])
        made.execute("INSERT INTO users VALUES ('ann', 31)")
    kind = {"kind": "sqlite", "file": str(file)}
    stores = {
        "sales": {**kind, "table": "sales", "fields": ["sold"]},
        "users": {**kind, "table": "users", "key": "{context.user}", "fields": ["age"]},
    }
    mix = {"features": FEATURES, "stores": {name: {"timeout_s": timeout_s} for name in stores}}
    return mixers.settings({"a": MEMORY}, mix, stores=stores)


def counts(mixer: mixers.Mixer, name: str, **labels: str) -> dict[str, float | None]:
    return {store: mixer.value(name, mix="default", store=store, **labels) for store in ("sales", "users")}


async def test_rows_are_counted_by_where_they_came_from(tmp_path: Path) -> None:
    """Every row that was looked up is from the cache, from the store, or lost; time is of asking the store alone."""
    async with mixers.running(settings(tmp_path)) as mixer:
        await mixer.search("csv file", context={"user": "ann"})
        await mixer.search("csv file", context={"user": "bob"})
        await mixer.search("csv file")
    rows = "mixer_store_rows_total"
    assert counts(mixer, rows, source="store") == {"sales": 4, "users": 2}
    assert counts(mixer, rows, source="cache") == {"sales": 8, "users": 0}
    assert counts(mixer, rows, source="lost") == {"sales": 0, "users": 0}
    assert counts(mixer, "mixer_store_missing_total") == {"sales": 6, "users": 1}
    assert counts(mixer, "mixer_store_unreadable_total") == {"sales": 1, "users": 0}
    assert counts(mixer, "mixer_store_duration_seconds_count", outcome="ok") == {"sales": 1, "users": 2}


async def test_a_late_store_is_told_in_the_same_words_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the answer, on its span and the root's, in its metrics."""
    made = settings(tmp_path, timeout_s=1e-9)
    with mixers.tracing() as traced:
        async with mixers.running(made) as mixer:
            result = await mixer.search("csv file", context={"user": "ann"})
    assert result.degraded_reasons == ("store sales: timeout", "store users: timeout")
    assert result.stores[0].detail == "no answer within 0 ms"
    root, own = traced.one(mixers.ROOT), traced.one("look_up sales")
    told: dict[str, Any] = dict(root.attributes or {})
    assert told["mixer.store.sales.outcome"] == (own.attributes or {})["mixer.store.outcome"] == "timeout"
    assert told["mixer.degraded_reasons"] == result.degraded_reasons
    assert (own.attributes or {})["error.type"] == "timeout"
    assert counts(mixer, "mixer_store_rows_total", source="lost") == {"sales": 4, "users": 1}
    assert counts(mixer, "mixer_store_duration_seconds_count", outcome="timeout") == {"sales": 1, "users": 1}
    assert mixer.value("mixer_degraded_total", mix="default") == 1


async def test_look_ups_hang_below_their_stage(tmp_path: Path) -> None:
    """The stage has a span for each store, and what is stored of a user is on none of them."""
    with mixers.tracing() as traced:
        async with mixers.running(settings(tmp_path)) as mixer:
            await mixer.search("csv file", context={"user": "ann", "plan": 7.0})
    stage = traced.one("hydrate")
    assert stage.context is not None
    for name in ("look_up sales", "look_up users"):
        parent = traced.one(name).parent
        assert parent is not None
        assert parent.span_id == stage.context.span_id
    shown = [key for key in traced.one("rank").attributes or {} if key.startswith("mixer.top.feature.")]
    assert shown == ["mixer.top.feature.sold"]


async def test_a_mix_without_stores_is_told_of_none(tmp_path: Path) -> None:
    """No span, no duration, no series: what is not configured costs nothing."""
    with mixers.tracing() as traced:
        async with mixers.running(mixers.settings({"a": MEMORY})) as mixer:
            result = await mixer.search("csv file")
    assert result.stores == ()
    assert not [span.name for span in traced.spans if span.name.startswith(("hydrate", "look_up"))]
    assert not [s for s in mixer.samples if "store" in s.labels or s.labels.get("stage") == "hydrate"]


async def test_stores_are_shared_and_closed(tmp_path: Path) -> None:
    """Two mixes ask one store, whose cache both fill; it is closed with the app."""
    raw = settings(tmp_path).model_dump(mode="json", exclude_none=True)
    raw["mixes"]["other"] = raw["mixes"]["default"]
    built = await app.build(Settings.model_validate(raw), metrics=Metrics())
    await built.mixes["default"].search(request("csv file"))
    told = await built.mixes["other"].search(request("csv file", mix="other"))
    await built.close()
    assert [(stored.asked, stored.cached) for stored in told.candidates.stores] == [(4, 4), (0, 0)]
    after = await built.hydrators["users"].look_up(Wanted(["1"], {"user": "ann"}, 5.0))
    assert after.detail == "the backend is closed"


async def test_a_store_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """The server does not start, and says which store, and why."""
    raw = settings(tmp_path).model_dump(mode="json", exclude_none=True)
    raw["stores"]["sales"]["file"] = str(tmp_path / "gone.db")
    with pytest.raises(ValueError, match=r"stores\.sales: .*gone\.db: unable to open"):
        await app.build(Settings.model_validate(raw))
