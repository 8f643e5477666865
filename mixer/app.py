"""Puts Mixer together from its settings: with `wiring`, the only place that names concrete classes.

Tests build through it too.
"""

from __future__ import annotations

import asyncio
import secrets as random
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from backends import open_backend
from backends.base import Backend
from backends.stores import open_store
from backends.stores.base import StoreFault
from mixer import gather
from mixer.cursor import CursorSigner
from mixer.describe import Redactor
from mixer.events import Event, EventKind
from mixer.explainer import Explainer
from mixer.fanout import ask
from mixer.guards import Guards
from mixer.hydrate import Hydrator
from mixer.load import Load
from mixer.metrics import Metrics
from mixer.relief import Relief
from mixer.settings import ExplainSettings, Secrets, Settings
from mixer.wiring import Mix, Shared, Wiring

if TYPE_CHECKING:
    from mixer.feature_log import FeatureLog
    from mixer.feedback import Feedback


@dataclass(frozen=True, slots=True)
class App:
    """All mixes over all backends."""

    settings: Settings
    metrics: Metrics
    backends: Mapping[str, Backend]
    mixes: Mapping[str, Mix] = field(default_factory=dict)
    feature_log: FeatureLog | None = None
    feedback: Feedback | None = None
    explainer: Explainer = field(default_factory=lambda: Explainer(ExplainSettings()))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where another model was put to work."""
    hydrators: Mapping[str, Hydrator] = field(default_factory=dict)
    load: Load | None = None
    """How much is asked of it, where its limit of calls follows that."""
    _beside: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, str]:
        """Why the app is not ready, by mix; empty when it is."""
        return {name: mix.fault for name, mix in self.mixes.items() if mix.fault}

    async def sound(self) -> None:
        """Wait until there is no fault."""
        while self.faults:
            self.changed.clear()
            await self.changed.wait()

    def beside(self, task: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it beside the searches, until the app is closed at the latest."""
        started = asyncio.create_task(task)
        self._beside.append(started)
        return started

    async def close(self) -> None:
        """End what runs beside the searches, let the shadows end what they began, close every backend, and write
        what waits in the logs."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        shadows = [mix.shadows for mix in self.mixes.values() if mix.shadows]
        drain_s = self.settings.server.drain_s
        await asyncio.gather(*(asyncio.to_thread(each.close, drain_s) for each in shadows))
        if self.feedback:
            await self.feedback.close()
        await asyncio.gather(*(backend.close() for backend in self.backends.values()))
        await asyncio.gather(*(hydrator.close() for hydrator in self.hydrators.values()))
        await asyncio.to_thread(self.explainer.close)
        if self.feature_log:
            await asyncio.to_thread(self.feature_log.close)


async def build(
    settings: Settings,
    secrets: Secrets | None = None,
    metrics: Metrics | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> App:
    """Open the backends and load the models; `backends` stand in for those of the settings, by name.

    Raises: OSError or ValueError where an embedded backend's index, a feature store, the feature log or the event log
    cannot be opened. A model that fails a check raises nothing: its mix says so.
    """
    await asyncio.to_thread(gather.warm)
    secrets, metrics = secrets or Secrets.from_environment(), metrics or Metrics()
    opened, hydrators = _opened(settings, backends or {}), _hydrators(settings)
    changed, redaction_key = asyncio.Event(), _key(secrets.redaction_key)
    signer = CursorSigner(_key(secrets.cursor_key))
    redactor = Redactor(settings.telemetry.query, redaction_key)
    guards = Guards(settings.guards, ask, metrics)
    shared = Shared(settings, metrics, opened, guards, signer, redactor, changed, asyncio.Lock(), hydrators)
    mixes = {name: await Wiring(name, mix, shared).mix() for name, mix in settings.mixes.items()}
    feature_log = _feature_log(settings, secrets, metrics, redaction_key)
    if feature_log:
        mixes = {name: replace(mix, search=feature_log.search(mix.search)) for name, mix in mixes.items()}
    explainer = Explainer(settings.explain)
    mixes = {name: replace(mix, search=explainer.remembering(mix.search)) for name, mix in mixes.items()}
    load = _load(settings, metrics)
    if load:
        relief = Relief(settings, load, signer, metrics)
        mixes = {name: replace(mix, search=relief.search(name, mix.search)) for name, mix in mixes.items()}
    feedback = await _feedback(settings, metrics, mixes)
    app = App(settings, metrics, opened, mixes, feature_log, feedback, explainer, changed, hydrators, load)
    for mix in mixes.values():
        for watch in mix.watches:
            app.beside(watch())
    return app


def _opened(settings: Settings, stand_ins: Mapping[str, Backend]) -> dict[str, Backend]:
    return {
        name: stand_ins[name] if name in stand_ins else open_backend(declared)
        for name, declared in settings.backends.items()
    }


def _hydrators(settings: Settings) -> dict[str, Hydrator]:
    """Raises: StoreFault that names the store."""
    made: dict[str, Hydrator] = {}
    for name, declared in settings.stores.items():
        try:
            made[name] = Hydrator(name, declared, open_store(declared))
        except StoreFault as fault:
            raise StoreFault(f"stores.{name}: {fault}") from fault
    return made


def _load(settings: Settings, metrics: Metrics) -> Load | None:
    limits = settings.limits
    return Load(limits.adaptive, limits.concurrent_calls, metrics) if limits.adaptive else None


async def _feedback(settings: Settings, metrics: Metrics, mixes: Mapping[str, Mix]) -> Feedback | None:
    if settings.feedback is None:
        return None
    from mixer.event_log import EventLog
    from mixer.feedback import Feedback, Search

    def hear(search: Search, event: Event) -> None:
        if experiment := mixes[search.mix].experiment:
            experiment.saw(event.query_id, event.id, clicked=event.kind is not EventKind.IMPRESSION)

    return Feedback(settings.feedback, await EventLog.open(settings.feedback, metrics), metrics, hear)


def _feature_log(
    settings: Settings, secrets: Secrets, metrics: Metrics, redaction_key: bytes
) -> FeatureLog | None:
    if settings.feature_log is None:
        return None
    from mixer.feature_log import open_log  # and with it Arrow, which takes a while

    return open_log(settings.feature_log, settings, secrets, metrics, redaction_key)


def _key(secret: SecretStr | None) -> bytes:
    return random.token_bytes(32) if secret is None else secret.get_secret_value().encode()
