"""Protobuf to values and back for explanations, pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from mixer import wire
from mixer.errors import InvalidRequest, Violation
from mixer.explain import Answered, Explanation
from mixer.settings import LimitSettings, MixSettings
from mixer.values import Answer, IntColumn, Page, Ranker, Request
from protos.mixer.v1 import mixer_pb2 as pb


@dataclass(frozen=True, slots=True)
class Which:
    """Which hits of an answer to explain."""

    hits: int
    """From the top of the page."""
    ids: tuple[str, ...] = ()
    """These documents instead, wherever they stand."""
    model: str = ""
    """By this one of the settings; empty for the one that ranked."""

    def rows_of(self, answer: Answer) -> IntColumn:
        """Rows of the answer, best first. Raises: InvalidRequest that names each id that is not among them."""
        if not self.ids:
            return answer.page.rows[: self.hits]
        ranked = answer.candidates.ids
        places = {id_: row for row, id_ in enumerate(ranked)}
        told = f"is not among the {len(ranked)} candidates: no backend returned it"
        if wrong := [Violation(f"ids[{i}]", told) for i, id_ in enumerate(self.ids) if id_ not in places]:
            raise InvalidRequest(wrong)
        rows = np.array([places[id_] for id_ in dict.fromkeys(self.ids)], np.intp)
        return rows[answer.page.order.argsort()[rows].argsort()]


def which_from(message: pb.ExplainRequest, most: int) -> Which:
    """What to explain, `most` hits at once. Raises: InvalidRequest that names every wrong field."""
    wrong: list[Violation] = []
    if not message.query_id and not message.HasField("search"):
        wrong.append(Violation("answer", "is not named; set query_id or search"))
    if not 0 <= message.hits <= most:
        wrong.append(Violation("hits", f"is {message.hits}; send 0 to {most}"))
    if len(message.ids) > most:
        wrong.append(Violation("ids", f"has {len(message.ids)}; send {most} at most"))
    if message.hits and message.ids:
        wrong.append(Violation("hits", "goes without ids; send one of the two"))
    if wrong:
        raise InvalidRequest(wrong)
    return Which(message.hits or most, tuple(message.ids), message.model)


def request_from(
    message: pb.ExplainRequest, mix: str, rules: MixSettings, limits: LimitSettings, time_left_s: float
) -> Request:
    """The search to ask anew. Raises: InvalidRequest that names every wrong field."""
    try:
        return wire.request_from(message.search, mix, rules, limits, time_left_s)
    except InvalidRequest as error:
        raise InvalidRequest(
            [Violation(f"search.{v.field}", v.description) for v in error.violations]
        ) from error


def response_from(explanation: Explanation, answered: Answered, shown: tuple[str, ...]) -> pb.ExplainResponse:
    """The whole explanation; `shown` are the document fields that the mix displays."""
    was = answered.answer.scores
    ref = was.model if was.ranker is Ranker.MODEL else None
    return pb.ExplainResponse(
        answer=_answer(explanation, answered, shown),
        placements=_placements(explanation, answered.answer.page.order.argsort()[explanation.rows] + 1),
        contributions=pb.Contributions(
            bias=explanation.contributions.bias,
            values=explanation.contributions.values.ravel().tolist(),
            lacking=explanation.contributions.lacking,
        ),
        served_by=pb.Model(**asdict(ref)) if ref else None,
    )


def _answer(explanation: Explanation, answered: Answered, shown: tuple[str, ...]) -> pb.SearchResponse:
    """The answer as if the explained rows were its page."""
    answer, rows = explanation.answer, explanation.rows
    page = Page(rows, 0, len(rows), answer.page.pinned, answer.page.next_cursor)
    request = replace(answer.plan.request, debug=True)
    alone = replace(answer, page=page, plan=replace(answer.plan, request=request))
    message = wire.response_from(alone, shown, answered.trace_id, answered.elapsed_s)
    for hit, rank in zip(message.hits, explanation.ranks.tolist(), strict=True):
        hit.rank = rank
    return message


def _placements(explanation: Explanation, served: IntColumn) -> list[pb.Placement]:
    ranks = (
        explanation.fused_ranks,
        explanation.scored_ranks,
        explanation.spread_ranks,
        explanation.ranks,
        served,
    )
    names = ("fused_rank", "scored_rank", "spread_rank", "rank", "served_rank")
    return [
        pb.Placement(**dict(zip(names, places, strict=True)), votes=votes)
        for places, votes in zip(np.stack(ranks, axis=1).tolist(), explanation.votes.T.tolist(), strict=True)
    ]
