"""Puts Mixer together from its settings: the only place that names concrete classes. Tests build through it too."""

from __future__ import annotations

import asyncio
import logging
import secrets as random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pydantic import SecretStr

from backends import open_backend
from backends.base import Backend
from mixer import gather, model, sources
from mixer.arrange import Arrange
from mixer.cursor import CursorSigner
from mixer.describe import Redactor, describers
from mixer.fanout import FanOut, ask
from mixer.features import MakeFeatures
from mixer.merge import Merge
from mixer.metrics import Metrics
from mixer.observe import MixObserver
from mixer.pipeline import Pipeline
from mixer.plan import MakePlan
from mixer.rank import RankByFusion, RankByModel
from mixer.settings import MixSettings, Secrets, Settings
from mixer.values import Answer, Request

if TYPE_CHECKING:
    from mixer.feature_log import FeatureLog
    from mixer.feedback import Feedback

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mix:
    """One mix, ready to be searched; `fault` says why it should not be, where its model failed a check."""

    settings: MixSettings
    search: Callable[[Request], Awaitable[Answer]]
    fault: str = ""


@dataclass(frozen=True, slots=True)
class App:
    """All mixes over all backends."""

    settings: Settings
    metrics: Metrics
    backends: Mapping[str, Backend]
    mixes: Mapping[str, Mix] = field(default_factory=dict)
    feature_log: FeatureLog | None = None
    feedback: Feedback | None = None

    @property
    def faults(self) -> dict[str, str]:
        """Why the app is not ready, by mix; empty when it is."""
        return {name: mix.fault for name, mix in self.mixes.items() if mix.fault}

    async def close(self) -> None:
        """Close every backend, and write what waits of the events and the feature log."""
        if self.feedback:
            await self.feedback.close()
        await asyncio.gather(*(backend.close() for backend in self.backends.values()))
        if self.feature_log:
            await asyncio.to_thread(self.feature_log.close)


async def build(
    settings: Settings,
    secrets: Secrets | None = None,
    metrics: Metrics | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> App:
    """Open the backends and load the models; `backends` stand in for those of the settings, by name.

    Raises: OSError or ValueError where an embedded backend's index, the feature log or the event log cannot be
    opened. A model that fails a check raises nothing: its mix says so.
    """
    await asyncio.to_thread(gather.warm)
    secrets, metrics = secrets or Secrets.from_environment(), metrics or Metrics()
    stand_ins = backends or {}
    opened = {
        name: stand_ins[name] if name in stand_ins else open_backend(declared)
        for name, declared in settings.backends.items()
    }
    signer, redaction_key = CursorSigner(_key(secrets.cursor_key)), _key(secrets.redaction_key)
    redactor = Redactor(settings.telemetry.query, redaction_key)
    mixes = {
        name: await _mix(name, mix, settings, metrics, opened, signer, redactor)
        for name, mix in settings.mixes.items()
    }
    feature_log = _feature_log(settings, secrets, metrics, redaction_key)
    if feature_log:
        mixes = {name: replace(mix, search=feature_log.search(mix.search)) for name, mix in mixes.items()}
    feedback = await _feedback(settings, metrics)
    return App(settings, metrics, opened, mixes, feature_log, feedback)


async def _mix(
    name: str,
    mix: MixSettings,
    settings: Settings,
    metrics: Metrics,
    backends: Mapping[str, Backend],
    signer: CursorSigner,
    redactor: Redactor,
) -> Mix:
    loaded = await asyncio.to_thread(_load, mix, settings)
    observer = _observer(name, mix, settings, metrics, redactor, loaded)
    rank = _ranker(mix, loaded, observer)
    pipeline = Pipeline(
        plan=observer.stage("plan", MakePlan(mix, signer)),
        fan_out=observer.waiting_stage("fan_out", FanOut(backends, observer.ask(ask))),
        merge=observer.stage("merge", Merge(mix)),
        make_features=observer.stage("make_features", MakeFeatures(mix.features)),
        rank=observer.stage("rank", rank),
        arrange=observer.stage("arrange", Arrange(mix, signer)),
    )
    ready = not isinstance(loaded, model.ModelRefused) or mix.without_model == "serve_fused"
    return Mix(mix, observer.search(pipeline.search), "" if ready else str(loaded))


async def _feedback(settings: Settings, metrics: Metrics) -> Feedback | None:
    if settings.feedback is None:
        return None
    from mixer.event_log import EventLog
    from mixer.feedback import Feedback

    return Feedback(settings.feedback, await EventLog.open(settings.feedback), metrics)


Loaded = model.LightGbmModel | model.ModelRefused | None


def _load(mix: MixSettings, settings: Settings) -> Loaded:
    if not mix.model:
        return None
    try:
        return sources.load(settings.models[mix.model], mix.features)
    except model.ModelRefused as refusal:
        return refusal


def _observer(
    name: str,
    mix: MixSettings,
    settings: Settings,
    metrics: Metrics,
    redactor: Redactor,
    loaded: Loaded,
) -> MixObserver:
    features = [feature.name for feature in mix.features]
    # Facts about a user stay out of traces, whatever they weigh.
    weighty = [feature.name for feature in mix.features if feature.source != "context"]
    if isinstance(loaded, model.LightGbmModel):
        weighty = sorted(weighty, key=loaded.manifest.importance.__getitem__, reverse=True)
    told = describers(settings.telemetry.top_k, weighty[: settings.telemetry.top_features])
    return MixObserver(name, metrics, list(mix.backends), features, told, redactor, mix.slices)


def _ranker(mix: MixSettings, loaded: Loaded, observer: MixObserver) -> RankByModel | RankByFusion:
    if loaded is None:
        return RankByFusion()
    if isinstance(loaded, model.ModelRefused):
        log.error("model refused", extra={"model": mix.model, "check": loaded.check, "why": str(loaded)})
        observer.refused(loaded.check)
        return RankByFusion(loaded.ref, f"{loaded.check}_failed")
    observer.loaded(loaded.manifest, loaded.left_to_lightgbm)
    return RankByModel(loaded)


def _feature_log(
    settings: Settings, secrets: Secrets, metrics: Metrics, redaction_key: bytes
) -> FeatureLog | None:
    if settings.feature_log is None:
        return None
    from mixer.feature_log import open_log  # and with it Arrow, which takes a while

    return open_log(settings.feature_log, settings, secrets, metrics, redaction_key)


def _key(secret: SecretStr | None) -> bytes:
    return random.token_bytes(32) if secret is None else secret.get_secret_value().encode()
