"""A mix's traffic split over arms, each with a model of its own; and arms that are taken back when they do harm."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic, perf_counter

from mixer import catalogue
from mixer.arms import KeySample, Split, draw, sample_ratio_p
from mixer.canary import Breach, Window, judge
from mixer.cursor import CursorSigner
from mixer.duel import Duel
from mixer.errors import ClientError, InvalidRequest
from mixer.experiment_settings import ArmSettings, CanarySettings, ExperimentSettings
from mixer.metrics import Metrics
from mixer.model import LightGbmModel, ModelRefused
from mixer.record import current
from mixer.rollout import Deployed, Lane
from mixer.values import Answer, ModelRef, Request
from mixer.verdicts import Verdict, Verdicts

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often the arms are looked at."""
CONTROL = 0
"""The number of the arm that the others are held against."""


class Arm:
    """One arm: the lane of its model, what is counted of its requests, and what it did lately."""

    def __init__(
        self, mix: str, declared: ArmSettings, lane: Lane, metrics: Metrics, remembers: bool
    ) -> None:
        """`remembers` its last requests, where a canary is judged by them."""
        self.name, self.share, self.bounds, self.lane = declared.name, declared.share, declared.canary, lane
        self._remembers = remembers
        self._watched: Deployed | None = None
        self.window = Window()
        labels = {"mix": mix, "arm": declared.name}
        self.duel = Duel(mix, declared.name, declared.interleave, metrics) if declared.interleave else None
        requests = catalogue.ARM_REQUESTS
        self._ok, self._error, self._refused = (
            metrics.counter(requests, **labels, outcome=outcome).inc for outcome in ("ok", "error", "refused")
        )
        self._seconds = metrics.histogram(catalogue.ARM_SECONDS, **labels)
        self._fallbacks = metrics.counter(catalogue.ARM_FALLBACKS, **labels)
        self.tell_share = metrics.gauge(catalogue.ARM_SHARE, **labels).set
        self.tell_keys = metrics.gauge(catalogue.ARM_KEYS, **labels).set
        self.taken_back = metrics.gauge(catalogue.ARM_TAKEN_BACK, **labels).set

    @property
    def ref(self) -> ModelRef | None:
        """The model in it."""
        loaded = self.lane.stands.loaded
        return loaded.ref if loaded else None

    @property
    def on(self) -> tuple[str, str]:
        """What a verdict would be on."""
        return self.name, self.ref.sha256 if self.ref else ""

    @property
    def is_watched(self) -> bool:
        """What is remembered is of the model that is at work now."""
        return self._watched is self.lane.stands

    async def search(self, request: Request) -> Answer:
        """Ask its model, and remember how it went."""
        stands = self._stands()
        began_s = perf_counter()
        try:
            answer = await stands.search(request)
        except ClientError:
            self._refused()
            raise
        except BaseException:
            self._error()
            if self._remembers and stands is self._watched:
                self.window.failed(monotonic())
            raise
        self._answered(stands, answer, perf_counter() - began_s)
        return answer

    def saw(self, query_id: str, id_: str, clicked: bool) -> bool:
        """One of its answers was seen, or one of the hits clicked; whether it is remembered."""
        heard = self.window.saw(query_id, clicked)
        return (self.duel.saw(query_id, id_, clicked) if self.duel else False) or heard

    def _stands(self) -> Deployed:
        """The model at work; where it is another than before, what the one before did is forgotten."""
        stands = self.lane.stands
        if stands is not self._watched:
            self._watched = stands
            self.window = _window(stands) if self._remembers else self.window
        return stands

    def _answered(self, stands: Deployed, answer: Answer, elapsed_s: float) -> None:
        self._ok()
        self._seconds.observe(elapsed_s, current().exemplar)
        fell_back = bool(answer.scores.fallback_reason)
        if fell_back:
            self._fallbacks.inc()
        if self.duel:
            self.duel.served(answer)
        if self._remembers and stands is self._watched:
            added_s = elapsed_s - max(reply.elapsed_s for reply in answer.replies)
            scores = None if fell_back else answer.scores.values
            self.window.answered(monotonic(), answer.plan.request.query_id, added_s, scores)


def _window(stands: Deployed) -> Window:
    if not isinstance(stands.loaded, LightGbmModel):
        return Window()
    profile = stands.loaded.manifest.score_profile
    return Window(profile.edges, profile.shares)


class Experiment:
    """The arms of one mix."""

    def __init__(
        self,
        mix: str,
        declared: ExperimentSettings,
        lanes: Mapping[str, Lane],
        signer: CursorSigner,
        metrics: Metrics,
    ) -> None:
        """Takes a lane for every arm, each with a model in it."""
        self._mix, self._declared, self._signer, self._metrics = mix, declared, signer, metrics
        judged = any(arm.canary for arm in declared.arms)
        self.arms = [
            Arm(mix, arm, lanes[arm.name], metrics, judged and (bool(arm.canary) or number == CONTROL))
            for number, arm in enumerate(declared.arms)
        ]
        self._numbers = {arm.name: number for number, arm in enumerate(self.arms)}
        self._split = Split([arm.share for arm in self.arms])
        self._verdicts = Verdicts(mix, declared.verdicts)
        self._outside = metrics.counter(catalogue.OUTSIDE, mix=mix)
        self._routes: Sequence[int] = ()
        self._keys = KeySample(len(self.arms))
        self._route(self._verdicts.standing())
        metrics.before_reading(self._tell)

    async def search(self, request: Request) -> Answer:
        """Answer by the arm that the request is in; the control answers those that are in none."""
        key = self._key(request)
        if not key:
            self._outside.inc()
            return replace(await self.arms[CONTROL].lane.search(request), arm="")
        arm = self.arms[self._number(request, key)]
        current().facts["mixer.arm"] = arm.name
        return await arm.search(request)

    async def rehearse(self, request: Request) -> Answer:
        """Answer by the same arm as `search`, without a count of it: nothing is judged by it."""
        key = self._key(request)
        if not key:
            return replace(await self.arms[CONTROL].lane.search(request), arm="")
        return await self.arms[self._routed(request, key)[0]].lane.search(request)

    def saw(self, query_id: str, id_: str, clicked: bool) -> None:
        """A hit of an answer was seen or clicked. A canary's clicks are held against the control's; in a drafted list
        they are for who picked the hit."""
        for arm in self.arms:
            if arm.saw(query_id, id_, clicked):
                return

    async def watch(self) -> None:
        """Look at the arms again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception:
                log.exception("a look at the arms failed; they stay as they are", extra={"mix": self._mix})

    async def look(self) -> None:
        """Take back the arms that are past a bound, follow the verdicts that others gave, and count drafted lists."""
        for arm in self.arms:
            if arm.duel:
                arm.duel.settle()
        for number, arm in enumerate(self.arms):
            if arm.bounds and self._routes[number] == number and (breach := self._breach(arm, arm.bounds)):
                await self._take_back(arm, breach)
        self._route(await asyncio.to_thread(self._verdicts.standing))

    def _key(self, request: Request) -> str:
        """What places the request, or nothing."""
        if self._declared.key == "query_id":
            return request.query_id
        return str(request.context.get(self._declared.key, ""))

    def _number(self, request: Request, key: str) -> int:
        """The arm: of the page before, or as drawn; the control for one that is not to be asked."""
        arm, drawn = self._routed(request, key)
        if drawn is not None:
            self._keys.add(drawn, arm)
        return arm

    def _routed(self, request: Request, key: str) -> tuple[int, int | None]:
        """The arm, and the key's own number where it was drawn."""
        before = self._of_cursor(request.cursor) if request.cursor else None
        if before is not None:
            return self._routes[before], None
        place, number = draw(self._declared.salt, key)
        return self._routes[self._split.arm(place)], number

    def _of_cursor(self, cursor: str) -> int | None:
        """The arm that the list of the page before was ranked in. What is wrong with a cursor, the plan says."""
        try:
            return self._numbers.get(self._signer.open(cursor).arm)
        except InvalidRequest:
            return None

    def _breach(self, arm: Arm, bounds: CanarySettings) -> Breach | None:
        """Both arms over the same stretch of time."""
        control = self.arms[CONTROL]
        if not (arm.is_watched and control.is_watched):
            return None
        since_s = max(monotonic() - bounds.window_s, arm.window.from_s, control.window.from_s)
        return judge(bounds, arm.window.figures(since_s), control.window.figures(since_s))

    async def _take_back(self, arm: Arm, breach: Breach) -> None:
        ref = arm.ref or ModelRef("", "", "")
        verdict = Verdict(
            mix=self._mix,
            arm=arm.name,
            model=ref.name,
            version=ref.version,
            sha256=ref.sha256,
            reason=breach.reason,
            figure=breach.figure,
            control=breach.control,
            bound=breach.bound,
            requests=breach.requests,
            control_requests=breach.control_requests,
            why=str(breach),
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        labels = {"mix": self._mix, "arm": arm.name, "reason": breach.reason}
        self._metrics.counter(catalogue.ROLLBACKS, **labels).inc()
        log.error("arm taken back", extra=verdict.model_dump())
        await asyncio.to_thread(self._verdicts.keep, verdict)

    def _route(self, verdicts: Mapping[tuple[str, str], Verdict]) -> None:
        """Which arm answers for which: an arm that was taken back, or has no model, is answered by the control."""
        out = [arm.on in verdicts for arm in self.arms]
        routes = tuple(
            CONTROL if gone or isinstance(arm.lane.stands.loaded, ModelRefused) else number
            for number, (arm, gone) in enumerate(zip(self.arms, out, strict=True))
        )
        for arm, gone in zip(self.arms, out, strict=True):
            arm.taken_back(int(gone))
        if routes == self._routes:
            return
        # Another split: keys counted under the one before say nothing of it.
        self._routes, self._keys = routes, KeySample(len(self.arms))
        for arm, share in zip(self.arms, self.shares, strict=True):
            arm.tell_share(share)

    @property
    def shares(self) -> list[float]:
        """What each arm gets now."""
        shares = [0.0] * len(self.arms)
        for arm, route in zip(self.arms, self._routes, strict=True):
            shares[route] += arm.share
        return shares

    def _tell(self) -> None:
        counts = list(self._keys.counts)
        for arm, count in zip(self.arms, counts, strict=True):
            arm.tell_keys(count)
        p = sample_ratio_p(counts, self.shares)
        self._metrics.gauge(catalogue.SAMPLE_RATIO_P, mix=self._mix).set(p)
