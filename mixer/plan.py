"""Request to plan: whom to ask what, for how long, and where the page begins."""

from __future__ import annotations

from backends.base import Query
from mixer.cursor import CursorSigner, request_digest
from mixer.errors import DeadlineTooShort, InvalidRequest, Violation
from mixer.schema import fields_read
from mixer.settings import MixBackendSettings, MixSettings
from mixer.values import Bookmark, Call, Effort, Plan, Request


class MakePlan:
    """The stage: every backend of the mix is asked for the same words, each within its own time."""

    def __init__(self, mix: MixSettings, signer: CursorSigner) -> None:
        """Takes the mix that it plans for."""
        self._mix = mix
        self._stores_s = max((store.timeout_s for store in mix.stores.values()), default=0.0)
        self._signer = signer
        grouped = {mix.diversity.field} if mix.diversity else set()
        self._fields = tuple(sorted({*mix.fields, *fields_read(mix.features), *grouped}))

    def __call__(self, request: Request) -> Plan:
        """Raises: DeadlineTooShort; InvalidRequest where the cursor is forged or another request's."""
        budget_s = request.time_left_s - self._mix.rank_reserve_s
        if budget_s <= 0:
            reserve_ms = self._mix.rank_reserve_s * 1000
            raise DeadlineTooShort(
                f"the deadline leaves nothing beside the {reserve_ms:g} ms kept for ranking"
            )
        # Stores are asked after the backends: they have their time, but never more than half of what there is.
        budget_s -= min(self._stores_s, budget_s / 2)
        bookmark = self._bookmark(request)
        calls = tuple(
            Call(
                backend=name,
                query=Query(request.query, _limit(member, request.effort), request.filters, self._fields),
                timeout_s=min(member.timeout_s, budget_s),
                most_s=member.timeout_s,
                skipped=_OPTIONAL if member.optional and not request.effort.optional else "",
            )
            for name, member in self._mix.backends.items()
        )
        lacking = _lacking(calls, request.effort)
        return Plan(request, calls, bookmark.offset if bookmark else request.offset, bookmark, lacking)

    def _bookmark(self, request: Request) -> Bookmark | None:
        if not request.cursor:
            return None
        bookmark = self._signer.open(request.cursor)
        if bookmark.request != request_digest(request):
            message = "belongs to another query, mix, filter or context; repeat those of the first request"
            raise InvalidRequest([Violation("cursor", message)])
        return bookmark


_OPTIONAL = "optional, and left out under load"


def _limit(member: MixBackendSettings, effort: Effort) -> int:
    return member.limit if effort.limit_share == 1.0 else max(1, round(member.limit * effort.limit_share))


def _lacking(calls: tuple[Call, ...], effort: Effort) -> tuple[str, ...]:
    """What of the plan is less than the whole for want of capacity."""
    skipped = ("load: optional backends skipped",) if any(call.skipped for call in calls) else ()
    return (*skipped, "load: candidate limits lowered") if effort.limit_share < 1.0 else skipped
