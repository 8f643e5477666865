"""The Pod Security Standard "restricted", control by control, of pod specs as they are rendered.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.integration.chart import Manifest, containers

VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image"),
    *("persistentVolumeClaim", "projected", "secret"),
}
SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout"),
    *("net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes"),
}
SECCOMP = ("RuntimeDefault", "Localhost")


def breaches(spec: Manifest) -> list[str]:
    """Where a pod spec breaks the standard, by field."""
    found = [*_of_the_pod(spec)]
    for container in containers(spec):
        found += [f"{container['name']}: {fault}" for fault in _of_a_container(container, spec)]
    return found


def _of_the_pod(spec: Manifest) -> Iterator[str]:
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    for volume in spec.get("volumes", ()):
        yield from (f"volume {volume['name']}: {kind}" for kind in volume.keys() - {"name"} - VOLUMES)
    context = spec.get("securityContext", {})
    yield from (
        f"sysctl {each['name']}" for each in context.get("sysctls", ()) if each["name"] not in SYSCTLS
    )
    yield from _of_either(context)


def _of_a_container(container: Manifest, spec: Manifest) -> Iterator[str]:
    context = container.get("securityContext", {})
    both = {**spec.get("securityContext", {}), **context}
    capabilities = context.get("capabilities", {})
    yield from (f"hostPort {port['hostPort']}" for port in container.get("ports", ()) if port.get("hostPort"))
    if context.get("privileged"):
        yield "privileged"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if both.get("seccompProfile", {}).get("type") not in SECCOMP:
        yield "seccompProfile"
    yield from _of_either(context)


def _of_either(context: dict[str, Any]) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield "runAsUser"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "windowsOptions.hostProcess"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in SECCOMP:
        yield "appArmorProfile"
    linux = context.get("seLinuxOptions", {})
    if linux.get("type", "") not in (
        "",
        "container_t",
        "container_init_t",
        "container_kvm_t",
        "container_engine_t",
    ):
        yield "seLinuxOptions.type"
    if linux.get("user") or linux.get("role"):
        yield "seLinuxOptions"
