"""Who may ask this server, put together from its settings: proof of who calls, then what a tenant may make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from backends.reloading import Reloading
from backends.tls import read
from mixer.interceptors import Around, MayForce, anybody
from mixer.metrics import Metrics
from mixer.settings import Settings
from mixer.tls import ServerCertificate


@dataclass(frozen=True, slots=True)
class Access:
    """What stands between callers and the service; by itself it lets everybody do everything."""

    layers: Sequence[Around] = ()
    """The outermost first."""
    may_force: MayForce = anybody
    reflection: bool = True
    files: Sequence[Reloading[Any]] = ()
    """To be followed beside the calls."""


OPEN = Access()


def unusable(settings: Settings) -> Iterator[str]:
    """Why files of certificates and keys that the settings name cannot be used, one a line."""
    metrics = Metrics()
    checks: dict[str, Callable[[], object]] = {"auth": lambda: access_of(settings, metrics)}
    if tls := settings.server.tls:
        checks["server.tls"] = lambda: ServerCertificate(tls, metrics)
    for name, engine in settings.backends.items():
        if asked := getattr(engine, "tls", None):
            checks[f"backends.{name}.tls"] = partial(read, asked)
    for where, check in checks.items():
        try:
            check()
        except (OSError, ValueError) as error:
            yield f"{where}: {error}"


def access_of(settings: Settings, metrics: Metrics) -> Access:
    """What the settings ask for. Raises: OSError, ValueError where files of keys cannot be used."""
    layers: list[Around] = []
    auth, proof = settings.auth, None
    if auth:
        from mixer.auth import Authenticate

        layers.append(proof := Authenticate(auth, metrics))
    if settings.tenants:
        from mixer.tenants import LimitTenants

        layers.append(LimitTenants(settings.tenants, metrics, settings.server.workers))
    if auth is None or proof is None:
        return Access(tuple(layers))
    return Access(tuple(layers), proof.may_force, auth.reflection, tuple(proof.files))
