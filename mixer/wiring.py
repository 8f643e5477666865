"""Wires one mix: its stages, put together once, and anew with every model that comes to rank."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from backends.base import Backend
from mixer import catalogue
from mixer.arrange import Arrange
from mixer.budget import Budget
from mixer.choice import Choice
from mixer.cursor import CursorSigner
from mixer.describe import OfRank, Redactor, describers
from mixer.draft import ArrangeDraft, RankBoth, Rival
from mixer.ensemble import Ensemble, RankByEnsemble
from mixer.experiment import Experiment
from mixer.experiment_settings import ExperimentSettings, ShadowSettings
from mixer.explain import Explain
from mixer.fanout import Ask, FanOut, unless_skipped
from mixer.features import MakeFeatures
from mixer.follow import Follow, Watch
from mixer.guards import Guards
from mixer.hydrate import Hydrate, Hydrator, as_they_are, look_up
from mixer.merge import Merge
from mixer.metrics import Metrics
from mixer.model import LightGbmModel, ModelRefused
from mixer.observe import MixObserver
from mixer.observe_stores import StoreObserver
from mixer.pipeline import Pipeline
from mixer.plan import MakePlan
from mixer.rank import Rank, RankByFusion, RankByModel
from mixer.rollout import Deployed, Lane, Loaded, Loading
from mixer.schema import ContextFeature, Feature, StoreFeature
from mixer.settings import MixSettings, Settings
from mixer.shadow import Shadow, Shadows
from mixer.shadow_counts import ShadowCounts
from mixer.slices import Slices
from mixer.values import Answer, Candidates, Plan, Request

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mix:
    """One mix, ready to be searched."""

    settings: MixSettings
    search: Callable[[Request], Awaitable[Answer]]
    rehearse: Callable[[Request], Awaitable[Answer]]
    """A search that is neither logged as served, nor remembered, nor counted of an arm."""
    lens: Explain
    lane: Lane
    watches: tuple[Watch, ...] = ()
    """What runs beside its searches."""
    experiment: Experiment | None = None
    shadows: Shadows | None = None

    @property
    def fault(self) -> str:
        """Why it should not be searched, where its model failed a check."""
        return self.lane.stands.fault


@dataclass(frozen=True, slots=True)
class Shared:
    """What all mixes are wired to."""

    settings: Settings
    metrics: Metrics
    backends: Mapping[str, Backend]
    guards: Guards
    signer: CursorSigner
    redactor: Redactor
    changed: asyncio.Event
    turn: asyncio.Lock
    hydrators: Mapping[str, Hydrator] = field(default_factory=dict)


class Wiring:
    """One mix's stages, put together once, and with every model that comes to rank."""

    def __init__(self, name: str, mix: MixSettings, shared: Shared) -> None:
        self._name, self._rules, self._shared = name, mix, shared
        self._follow = Follow(shared.settings.models, mix.features)
        told = describers(shared.settings.telemetry.top_k, self._weighty(None))
        features = [feature.name for feature in mix.features]
        self._observer = observer = MixObserver(
            name, shared.metrics, list(mix.backends), features, told, shared.redactor, mix.slices
        )
        self._stages = Pipeline(
            plan=observer.stage("plan", MakePlan(mix, shared.signer)),
            fan_out=observer.waiting_stage("fan_out", FanOut(shared.backends, observer.ask(self._ask()))),
            merge=observer.stage("merge", Merge(mix)),
            hydrate=self._hydrate(),
            make_features=observer.stage("make_features", MakeFeatures(mix.features)),
            rank=observer.stage("rank", RankByFusion()),
            arrange=observer.stage("arrange", Arrange(mix, shared.signer)),
        )

    def _hydrate(self) -> Callable[[Plan, Candidates], Awaitable[Candidates]]:
        """A mix without stores is not told of having none."""
        if not self._rules.stores:
            return as_they_are
        watched = StoreObserver(self._name, list(self._rules.stores), self._shared.metrics).look_up(look_up)
        stage = Hydrate(self._rules, self._shared.hydrators, watched)
        return self._observer.waiting_stage("hydrate", stage)

    def _ask(self) -> Ask:
        """Through what stands before each backend; without those that are left out under load."""
        ask = self._shared.guards.ask(self._rules.backends)
        return unless_skipped(ask) if self._sheds else ask

    @property
    def _sheds(self) -> bool:
        return self._shared.settings.limits.adaptive is not None

    async def mix(self) -> Mix:
        """The mix, a model in every lane; one that fails a check raises nothing: its mix says so."""
        mix = await (self._split(self._rules.experiment) if self._rules.experiment else self._whole())
        if not self._rules.shadows:
            return mix
        shadows, watches = await self._shadows()
        beside = shadows.beside(mix.search)
        return replace(mix, search=beside, watches=(*mix.watches, *watches), shadows=shadows)

    async def _whole(self) -> Mix:
        lane, watches = await self._lane(self._rules.model)
        search = self._observer.search(lane.search)
        return Mix(self._rules, search, search, self._lens({self._rules.model: lane}), lane, watches)

    async def _split(self, declared: ExperimentSettings) -> Mix:
        """The mix with a lane for every arm; whether it is ready, the control's says."""
        lanes: dict[str, Lane] = {}
        keys: dict[str, str] = {}
        watches: list[Watch] = []
        for arm in declared.arms:
            rival = _rival(declared, lanes) if arm.interleave else None
            keys[arm.name] = self._rules.model if arm.model is None else arm.model
            lanes[arm.name], followed = await self._lane(keys[arm.name], arm.name, rival)
            watches += followed
        shared = self._shared
        experiment = Experiment(self._name, declared, lanes, shared.signer, shared.metrics)
        search, rehearse = map(self._observer.search, (experiment.search, experiment.rehearse))
        lens = self._lens({keys[name]: lane for name, lane in lanes.items()})
        control = lanes[declared.arms[0].name]
        return Mix(self._rules, search, rehearse, lens, control, (*watches, experiment.watch), experiment)

    def _lens(self, lanes: Mapping[str, Lane]) -> Explain:
        """What explains its answers; lanes by the names of their models."""
        choice = Choice(self._shared.settings.models, self._rules.features, lanes)
        return Explain(self._rules, choice.called)

    async def _lane(
        self, key: str, arm: str = "", rival: Rival | None = None
    ) -> tuple[Lane, tuple[Watch, ...]]:
        """A lane with its first model in it, and what follows its registry; with a rival, lists are drafted."""
        lane = Lane(lambda loaded: self._deploy(loaded, arm, rival), self._shared.changed.set)
        told = {"arm": arm} if arm else {}
        return lane, await self._follow(key, lane, self._loading(self._prepare, told))

    async def _shadows(self) -> tuple[Shadows, tuple[Watch, ...]]:
        """One that fails a check is said and left out, whatever the mix does without a model."""
        made: list[Shadow] = []
        watches: list[Watch] = []
        for declared in self._rules.shadows:
            shadow, key = self._shadow(declared), declared.model
            watches += await self._follow(key, shadow, self._loading(lambda loaded: None, {"shadow": key}))
            made.append(shadow)
        return Shadows(made), tuple(watches)

    def _shadow(self, declared: ShadowSettings) -> Shadow:
        slices = Slices(self._rules.slices, list(self._rules.backends))
        counts = ShadowCounts(self._shared.metrics, self._name, declared.model)
        return Shadow(declared.share, lambda: Budget(declared.cpu_share), counts, slices.of_answer)

    def _loading(self, prepare: Callable[[LightGbmModel], None], told: Mapping[str, str]) -> Loading:
        def count(outcome: str) -> None:
            self._shared.metrics.counter(catalogue.MODEL_SWAPS, mix=self._name, outcome=outcome).inc()

        return Loading(self._shared.turn, prepare, count, {"mix": self._name, **told})

    def _prepare(self, loaded: LightGbmModel) -> None:
        self._observer.prepare(loaded.manifest)

    def _deploy(self, loaded: Loaded, arm: str, rival: Rival | None) -> Deployed:
        """The whole search with this model: what ranks, and what is told of it, in one."""
        own, stage = self._ranker(loaded, arm), self._observer.stage
        described = OfRank(self._shared.settings.telemetry.top_k, self._weighty(loaded))
        rank = stage("rank", RankBoth(own, rival) if rival else own, described)
        model = None if isinstance(loaded, ModelRefused) else loaded
        pipeline = replace(
            self._stages, rank=rank, arrange=stage("arrange", self._arrange(arm, rival)), arm=arm, model=model
        )
        search: Callable[[Request], Awaitable[Answer]] = pipeline.search
        if self._sheds and model:
            rank = stage("rank", RankByFusion(model.ref, "load"), described)
            fused = replace(pipeline, rank=rank, arrange=stage("arrange", self._arrange(arm, None)))
            search = _by_effort(pipeline, fused)
        ready = not isinstance(loaded, ModelRefused) or self._rules.without_model == "serve_fused"
        return Deployed(search, loaded, "" if ready else str(loaded), own)

    def _arrange(self, arm: str, rival: Rival | None) -> Arrange:
        if rival:
            return ArrangeDraft(self._rules, self._shared.signer, arm, rival)
        arms = self._rules.experiment.arms if self._rules.experiment else ()
        explore_hits = next((each.explore_hits for each in arms if each.name == arm), None)
        return Arrange(self._rules, self._shared.signer, arm, explore_hits or 0)

    def _ranker(self, loaded: Loaded, arm: str) -> Rank:
        if loaded is None:
            return RankByFusion()
        if isinstance(loaded, ModelRefused):
            told = {"mix": self._name, "arm": arm, "check": loaded.check, "why": str(loaded)}
            log.error("model refused", extra=told)
            self._observer.refused(loaded.check)
            return RankByFusion(loaded.ref, f"{loaded.check}_failed")
        if isinstance(loaded, Ensemble):
            self._observer.loaded_ensemble(loaded, arm)
            return RankByEnsemble(loaded)
        self._observer.loaded(loaded.manifest, loaded.left_to_lightgbm, arm)
        return RankByModel(loaded)

    def _is_private(self, feature: Feature) -> bool:
        """Whether it tells of the user: what was sent of them, or is stored under it."""
        if isinstance(feature, StoreFeature):
            return bool(self._shared.settings.stores[feature.store].template.context_keys)
        return isinstance(feature, ContextFeature)

    def _weighty(self, loaded: Loaded) -> list[str]:
        """The features that a rank span shows. Facts about a user stay out of traces, whatever they weigh."""
        names = [feature.name for feature in self._rules.features if not self._is_private(feature)]
        if isinstance(loaded, LightGbmModel | Ensemble):
            names.sort(key=loaded.importance.__getitem__, reverse=True)
        return names[: self._shared.settings.telemetry.top_features]


def _by_effort(whole: Pipeline, fused: Pipeline) -> Callable[[Request], Awaitable[Answer]]:
    """Ranks by the model where there is the effort."""

    def search(request: Request) -> Awaitable[Answer]:
        return (whole if request.effort.model else fused).search(request)

    return search


def _rival(declared: ExperimentSettings, lanes: Mapping[str, Lane]) -> Rival:
    """The control, whatever is at work there when a list is drafted."""
    control = declared.arms[0].name
    return Rival(control, lambda: lanes[control].stands.rank, declared.salt)
