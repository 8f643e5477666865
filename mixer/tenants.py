"""What each tenant may ask: a rate, counted as a bucket of tokens that fills evenly, and calls a day.

Each process counts what it lets through itself, and lets through its part of the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import grpc

from mixer import catalogue
from mixer.access_settings import TenantSettings
from mixer.caller import caller
from mixer.errors import Reason, TenantLimited
from mixer.interceptors import BYSTANDERS, Handler, around
from mixer.metrics import Metrics
from mixer.recent import Recent
from mixer.record import current

DEFAULT, OTHER = "default", "other"
"""The settings' name for whoever is not named there, and the metrics' name for all of those."""
OUTCOMES = ("admitted", "rate_limited", "over_quota")
_DAY_S = 86_400
_KNOWN = 10_000
"""Tenants without a name in the settings that are remembered at once."""


class Allowance:
    """What is left of one tenant's rate and quota."""

    __slots__ = ("_day", "_rules", "_taken", "_tokens", "_when_s")

    def __init__(self, rules: TenantSettings, now_s: float) -> None:
        """Nothing of it is used yet."""
        self._rules, self._when_s, self._day = rules, now_s, int(now_s // _DAY_S)
        self._tokens, self._taken = float(rules.at_once), 0

    def take(self, now_s: float) -> tuple[str, float]:
        """Take one call at this Unix time: its outcome, and seconds until there is room where there is none."""
        self._fill(now_s)
        if self._rules.per_day is not None and self._taken >= self._rules.per_day:
            return "over_quota", (self._day + 1) * _DAY_S - now_s
        if self._rules.per_second is not None:
            if self._tokens < 1:
                return "rate_limited", (1 - self._tokens) / self._rules.per_second
            self._tokens -= 1
        self._taken += 1
        return "admitted", 0.0

    def _fill(self, now_s: float) -> None:
        """A clock that is set back fills nothing, and takes nothing away."""
        passed_s, self._when_s = max(0.0, now_s - self._when_s), now_s
        if self._rules.per_second is not None:
            filled = self._tokens + passed_s * self._rules.per_second
            self._tokens = min(filled, float(self._rules.at_once))
        if (day := int(now_s // _DAY_S)) > self._day:
            self._day, self._taken = day, 0


class LimitTenants:
    """Turns away calls beyond what their tenant may make, and says when there is room again."""

    def __init__(
        self,
        tenants: Mapping[str, TenantSettings],
        metrics: Metrics,
        processes: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`processes` share the limits evenly; `clock` tells Unix time."""
        self._rules = {name: rules.shared_by(processes) for name, rules in tenants.items()}
        self._whole, self._clock = tenants, clock
        self._named = {name: Allowance(rules, clock()) for name, rules in self._rules.items()}
        self._others: Recent[Allowance] = Recent(_KNOWN)
        self._counts = {
            (name, outcome): metrics.counter(catalogue.TENANT_REQUESTS, tenant=name, outcome=outcome)
            for name in (*(name for name in tenants if name != DEFAULT), OTHER)
            for outcome in OUTCOMES
        }

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """See `Around`; health checks and reflection are not counted."""
        if method.startswith(BYSTANDERS):
            return handler
        behavior = handler.unary_unary

        async def limited(request: Any, context: grpc.aio.ServicerContext) -> Any:
            self.admit(caller().tenant)
            return await behavior(request, context)

        return around(handler, limited)

    def admit(self, tenant: str) -> None:
        """Take one call of the tenant's; an empty one is whoever was asked for no proof. Raises: TenantLimited."""
        now_s = self._clock()
        outcome, retry_s = self._allowance(tenant, now_s).take(now_s)
        named = tenant in self._named and tenant != DEFAULT
        self._counts[tenant if named else OTHER, outcome].inc()
        if outcome != "admitted":
            current().facts["mixer.refused"] = outcome
            raise self._limited(tenant, outcome, retry_s)

    def _allowance(self, tenant: str, now_s: float) -> Allowance:
        if tenant in self._named:
            return self._named[tenant]
        found = self._others.get(tenant) or Allowance(self._rules.get(DEFAULT, TenantSettings()), now_s)
        self._others.put(tenant, found)
        return found

    def _limited(self, tenant: str, outcome: str, retry_s: float) -> TenantLimited:
        rules = self._whole.get(tenant) or self._whole[DEFAULT]
        if outcome == "over_quota":
            when = datetime.fromtimestamp(self._clock() + retry_s, UTC)
            limit = f"{rules.per_day} calls a day"
            told = f"the next day begins at {when:%Y-%m-%d %H:%M} UTC"
        else:
            limit = f"{rules.per_second:g} calls a second, {rules.at_once} at once"
            told = f"try again in {retry_s:.3g} s"
        named = f"tenant {tenant!r} has" if tenant else "callers have"
        reason = Reason(outcome, {"tenant": tenant, "limit": limit})
        return TenantLimited(f"{named} used up {limit}; {told}", reason, retry_s)
