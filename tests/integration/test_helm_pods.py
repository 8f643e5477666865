"""The pods of the chart: where they are probed, how they end, what they may do, and whom they reach."""

from __future__ import annotations

import copy

import pytest

from mixer import settings
from tests.integration.chart import (
    SERVICE,
    SETS,
    Manifest,
    containers,
    manifests,
    of_kind,
    pods,
    port_of,
    server,
    server_name,
    settings_file,
    values,
)
from tests.integration.restricted import breaches

BASE = ("--set=secrets.cursorKey=k,secrets.redactionKey=k", "--set=networkPolicy.enabled=true")


@pytest.mark.parametrize("name", SETS)
def test_probes_ask_where_mixer_listens(name: str) -> None:
    """Ports come from the settings; startup and readiness ask gRPC health, liveness asks HTTP."""
    found = manifests(values(name))
    mixer = server(found)["containers"][0]
    listens = settings.parse(settings_file(found, server_name(found))).server
    ports = {port["name"]: port["containerPort"] for port in mixer["ports"]}
    plain = getattr(listens, "health_listen", "")
    expected = {"grpc": port_of(listens.listen), "admin": port_of(listens.admin_listen)}
    assert ports == expected | ({"health": port_of(plain)} if plain else {})
    asked = ports.get("health", ports["grpc"])
    assert mixer["startupProbe"]["grpc"] == {"port": asked}
    assert mixer["readinessProbe"]["grpc"] == {"port": asked, "service": SERVICE}
    assert mixer["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "admin"}


@pytest.mark.parametrize("name", SETS)
def test_the_kubelet_waits_for_the_drain(name: str) -> None:
    """A pod is not killed before its sleep and the drain of its own settings are over."""
    found = manifests(values(name))
    spec = server(found)
    hook = spec["containers"][0].get("lifecycle", {}).get("preStop")
    sleep_s = int(hook["exec"]["command"][-1]) if hook else 0
    loaded = settings.parse(settings_file(found, server_name(found)))
    drain_s = loaded.server.drain_s + (loaded.feature_log.drain_s if loaded.feature_log else 0)
    assert spec["terminationGracePeriodSeconds"] >= sleep_s + drain_s + 15


def test_a_lifecycle_of_ones_own_keeps_the_sleep_unless_it_has_another() -> None:
    """`postStart` stands beside the sleep, a `preStop` in its place."""
    hook = "--set=lifecycle.postStart.exec.command={ls}"
    both = server(manifests(*BASE, hook))["containers"][0]["lifecycle"]
    assert both["postStart"] == {"exec": {"command": ["ls"]}}
    assert both["preStop"] == {"exec": {"command": ["sleep", "5"]}}
    own = server(manifests(*BASE, "--set=lifecycle.preStop.sleep.seconds=7"))["containers"][0]["lifecycle"]
    assert own == {"preStop": {"sleep": {"seconds": 7}}}


@pytest.mark.parametrize("name", SETS)
def test_pods_meet_the_restricted_standard(name: str) -> None:
    """Every pod passes the Pod Security Standard "restricted"; none writes its root folder or holds a token."""
    for spec in pods(manifests(values(name))).values():
        assert breaches(spec) == []
        assert spec["automountServiceAccountToken"] is False
        assert all(each["securityContext"]["readOnlyRootFilesystem"] is True for each in containers(spec))


@pytest.mark.parametrize(
    ("where", "spoiled", "told"),
    [
        ("pod", {"hostNetwork": True}, "hostNetwork"),
        ("pod", {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volume v: hostPath"),
        ("pod", {"securityContext": {"runAsNonRoot": True}}, "mixer: seccompProfile"),
        (
            "container",
            {"securityContext": {"capabilities": {"drop": ["ALL"]}}},
            "mixer: allowPrivilegeEscalation",
        ),
        ("container", {"securityContext": {"allowPrivilegeEscalation": False}}, "mixer: capabilities"),
        ("container", {"ports": [{"hostPort": 80}]}, "mixer: hostPort 80"),
    ],
)
def test_the_standard_can_be_broken(where: str, spoiled: Manifest, told: str) -> None:
    """What checks pods against the standard finds what breaks it."""
    spec = copy.deepcopy(server(manifests(*BASE)))
    (spec if where == "pod" else spec["containers"][0]).update(spoiled)
    assert told in breaches(spec)


@pytest.mark.parametrize("name", [name for name in SETS if name not in ("minimal",)])
def test_pods_spread_over_nodes_and_zones(name: str) -> None:
    """The constraints select the pods that they are of."""
    for deployment in of_kind(manifests(values(name)), "Deployment").values():
        template = deployment["spec"]["template"]
        for constraint in template["spec"]["topologySpreadConstraints"]:
            assert (
                constraint["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
            )


def policy(name: str, *args: str) -> Manifest:
    found = manifests(*args)
    return dict(of_kind(found, "NetworkPolicy")[name or server_name(found)]["spec"])


def ports(rules: list[Manifest]) -> list[list[object]]:
    return [[port["port"] for port in rule["ports"]] for rule in rules]


def test_policies_let_through_what_the_settings_need() -> None:
    """Names, backends of the chart and remote ones, the collector, Kafka and object storage; callers and Prometheus."""
    spec = policy("search", values("backends"))
    assert ports(spec["egress"]) == [[53, 53], [443], [443], [50061], [50062]]
    own = [rule["to"][0]["podSelector"]["matchLabels"] for rule in spec["egress"][3:]]
    assert [labels["app.kubernetes.io/component"] for labels in own] == ["backend-lexical", "backend-symbols"]
    assert ports(spec["ingress"]) == [["grpc"], ["admin"]]
    backend = policy("search-lexical", values("backends"))
    assert [rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            for rule in backend["ingress"]] == ["server"]  # fmt: skip
    assert ports(policy("mixer", values("persistence"))["egress"]) == [[53, 53], [50061, 9093]]
    pinned = (values("rollout"), "--set=networkPolicy.enabled=true")
    assert ports(policy("mixer", *pinned)["egress"]) == [[53, 53], [50061, 443]]


def test_policies_know_callers_and_peers_by_name() -> None:
    """With peers named, nobody else calls Mixer but its own test, and it reaches nothing else."""
    spec = policy("mixer", values("production"))
    callers, scrapers = (rule["from"] for rule in spec["ingress"])
    for allowed in (callers, scrapers):
        assert allowed[-1]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    assert scrapers[0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    assert all(rule["to"] for rule in spec["egress"])
    assert ports(spec["egress"]) == [[53, 53], [4317], [50061]]


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("https://search.example.com/api", 443),
        ("https://search.example.com:9200/api", 9200),
        ("http://solr", 80),
        ("s3://bucket/models", 443),
        ("dns:///a.b:50061", 50061),
        ("[::1]:50061", 50061),
        ("postgresql://mixer@db:5433/search", 5433),
        ("postgresql://mixer@db/search", 5432),
        ("redis://cache", 6379),
        ("12 of 30", None),
    ],
)
def test_policies_read_ports_from_addresses(address: str, port: int | None) -> None:
    """Whatever form an address has, its port is let through, and no other."""
    backend = "--set=config.backends.x.kind=remote,config.mixes.default.backends.x.limit=1"
    rules = policy("mixer", *BASE, backend, f"--set-string=config.backends.x.target={address}")["egress"]
    assert ports(rules) == [[53, 53], *([[port]] if port else [])]
