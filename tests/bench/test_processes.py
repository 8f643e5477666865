"""The processes of the benchmark."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from mixer.demo.processes import NotReady
from protos.mixer.v1 import mixer_pb2
from tests.bench import processes, scenes
from tests.bench.processes import Launch
from tests.bench.scenes import SCENES
from tests.bench.servers import Group
from tests.bench.trees import ROOT, Tree

HERE = Tree(ROOT, "a" * 40)


def test_mixer_is_started_asked_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole answer, its metrics, its CPU; then it is gone. What the user's own OTEL_* say is not passed on."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    group = Group(2, 20)
    with processes.backends(group) as behind:
        launch = Launch(HERE, tmp_path / "mixer.yaml", behind.targets, hits=group.hits)
        with scenes.ready([launch]) as (service,):
            answer = service.stub.Search(mixer_pb2.SearchRequest(query="a", page_size=10), timeout=10.0)
            assert len(answer.hits) == 10
            assert answer.candidates == group.candidates == 40
            assert answer.trace_id == ""
            assert service.metric("mixer_added_latency_seconds_count") == 1
            assert 0 < service.added_s() < 10
            assert processes.cpu_s(service.process) > 0
    assert not service.process.is_running()


def test_a_mixer_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    """Instead of being waited for."""
    launch = Launch(HERE, tmp_path / "mixer.yaml", ["127.0.0.1:1"], model=str(tmp_path / "none"), hits=0)
    with pytest.raises(NotReady, match="limit"), scenes.ready([launch]):
        pass


def test_settings_that_a_tree_does_not_know_are_told(tmp_path: Path) -> None:
    """In a sentence of its own; sound ones are not."""
    launch = Launch(HERE, tmp_path / "mixer.yaml", ["127.0.0.1:1"])
    assert processes.refusal(launch) == ""
    assert "limit" in processes.refusal(Launch(HERE, tmp_path / "other.yaml", ["127.0.0.1:1"], hits=-1))


def test_the_floor_answers_with_ten_hits() -> None:
    """From the first backend."""
    with processes.backends(Group(1, 10)) as behind, processes.floor(behind.targets) as floor:
        answer = floor.stub.Search(mixer_pb2.SearchRequest(query="a"), timeout=10.0, wait_for_ready=True)
        assert len(answer.hits) == 10
        assert floor.metric("anything") == 0
        assert isinstance(floor.process, psutil.Process)


def test_the_collector_counts_nothing_at_first() -> None:
    """And says so."""
    with processes.helper("collector") as (_, (port,)):
        assert scenes.Stage(Path(), {}, {}, port).spans() == {}


def test_a_scene_is_traced_as_it_says(tmp_path: Path) -> None:
    """By the environment; one that is not traced has no exporter at all."""
    stage = scenes.Stage(
        tmp_path,
        {3: tmp_path, 16: tmp_path},
        {scene.group: processes.Backends(psutil.Process(), []) for scene in SCENES},
        7,
    )
    for scene in SCENES:
        told = stage.launch(HERE, scene).environment
        assert told.get("OTEL_TRACES_SAMPLER_ARG") == (None if scene.sampled is None else str(scene.sampled))
        assert told.get("OTEL_EXPORTER_OTLP_ENDPOINT") == (
            None if scene.sampled is None else "http://127.0.0.1:7"
        )
