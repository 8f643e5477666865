from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import history, records
from tests.bench.capacity import Assumed, Measured, Sizes, courses_of, needs
from tests.check import capacity

SIZES = Sizes(
    searches=1, features=1, candidates=1.0, resident_bytes=400_000_000, log_bytes=10_000.0, trace_bytes=1.0
)


def test_what_a_load_needs() -> None:
    """1,000 searches of 2.6 ms keep 2.6 cores busy: four pods at 65 %, six where one zone of three may be lost."""
    made = needs(1000, 0.0026, SIZES, Assumed(utilization=0.65, zones=3, usd_per_core_hour=0.06))
    assert (made.cores, made.pods, made.pods_and_a_zone) == (2.6, 4, 6)
    assert (made.memory_bytes, made.log_bytes_per_day) == (2.4e9, 8.64e11)
    assert made.usd_per_million == pytest.approx(6 * 0.06 / 3.6)


@given(st.floats(1, 1e6), st.floats(1e-4, 1.0), st.floats(0.1, 1.0), st.integers(2, 9))
def test_pods_carry_the_load(rate: float, cpu_s: float, utilization: float, zones: int) -> None:
    """All below the utilization, with a zone lost too; zones are equal."""
    made = needs(rate, cpu_s, SIZES, Assumed(utilization=utilization, zones=zones))
    assert made.cores / made.pods <= utilization * (1 + 1e-9)
    left = made.pods_and_a_zone * (zones - 1) / zones
    assert made.pods_and_a_zone % zones == 0
    assert made.cores / left <= utilization * (1 + 1e-9)


def test_the_page_is_that_of_the_figures() -> None:
    """docs/scale.md says what docs/capacity.json gives."""
    page = capacity.PAGE.read_text(encoding="utf-8")
    assert capacity.fresh(page) == page


def test_figures_are_those_of_their_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the record is at hand, other figures are a fault."""
    run = records.run(crowds={1: (records.crowd(10),), 2: (records.crowd(20),)})
    path = history.keep(run, tmp_path)
    told = Measured(
        record=path.name,
        commit=run.commit,
        machine=run.machine,
        courses=courses_of(run),
        crowds=run.crowds,
        sizes=SIZES,
    )
    kept = tmp_path / "capacity.json"
    monkeypatch.setattr(capacity, "PATH", kept)
    kept.write_text(told.model_dump_json())
    assert capacity.fault(tmp_path) == ""
    assert capacity.fault(tmp_path / "elsewhere") == ""
    kept.write_text(told.model_copy(update={"commit": "b" * 40}).model_dump_json())
    assert path.name in capacity.fault(tmp_path)
