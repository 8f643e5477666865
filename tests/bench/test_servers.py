"""What the benchmark's own servers say: the groups of backends, the settings, the counted spans."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mixer.settings import parse
from protos.backends.v1 import backend_pb2
from tests.bench import servers
from tests.bench.scenes import SCENES
from tests.bench.servers import SHARED, Group


def answered(backend: int, group: Group) -> list[str]:
    return list(backend_pb2.RetrieveResponse.FromString(servers.canned(backend, group)).ids)


@pytest.mark.parametrize("group", [SHARED, Group(3, 100), Group(16, 100), Group(3, 1000)], ids=str)
def test_a_group_answers_with_as_many_candidates_as_it_says(group: Group) -> None:
    """Each backend returns its hits once; over all of them there are as many documents as the group tells."""
    answers = [answered(backend, group) for backend in range(group.backends)]
    assert all(len(ids) == len(set(ids)) == group.hits for ids in answers)
    assert len(set().union(*answers)) == group.candidates


def test_own_documents_make_every_hit_a_candidate() -> None:
    """Without a pool nothing overlaps; with one of twice the hits, much does."""
    assert Group(3, 1000).candidates == 3000
    assert Group(16, 100).candidates == 1600
    assert 100 < SHARED.candidates < 200


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.key)
def test_the_settings_of_every_scene_are_sound(scene: object) -> None:
    """Mixer takes them, asks each backend for all of its hits, and has a feature for all that they return."""
    group = next(known.group for known in SCENES if known is scene)
    settings = parse(servers.settings(["127.0.0.1:1"] * group.backends, 0, "", group.hits))
    mix = settings.mixes["default"]
    assert [member.limit for member in mix.backends.values()] == [group.hits] * group.backends
    assert len(mix.features) == servers.COLUMNS + 2 * group.backends


def test_one_worker_needs_no_key() -> None:
    """A Mixer that knows no workers takes the settings for one."""
    assert "workers" not in servers.settings(["127.0.0.1:1"], 0, "")
    assert "workers: 2" in servers.settings(["127.0.0.1:1"], 0, "", workers=2)


def test_spans_are_counted_by_the_service_that_sent_them() -> None:
    """Over messages, resources and scopes."""
    message = ExportTraceServiceRequest()
    for service, spans in (("a", 2), ("b", 1), ("a", 3)):
        sent = message.resource_spans.add()
        sent.resource.attributes.add(key="service.name").value.string_value = service
        for _ in range(spans):
            sent.scope_spans.add().spans.add()
    assert servers.counted([message.SerializeToString()] * 2) == {"a": 10, "b": 2}
