"""What a stage's result says of itself: values to span attributes, pure, in native Python types.

Columns of numbers may stay arrays: they are written as such. Never a document's text, a filter's or a context's
value: only what the catalogue lists.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from mixer.arrange import total_order
from mixer.catalogue import latency_bucket
from mixer.explain import Explanation
from mixer.values import (
    Answer,
    Candidates,
    Effort,
    Features,
    IntColumn,
    ModelRef,
    Outcome,
    Page,
    Plan,
    Reply,
    Request,
    Scores,
    Stored,
)

Attributes = dict[str, Any]

FOREIGN_CHARS = 128
"""Kept of a text that a backend sent."""


class Redactor:
    """How the user's words may appear in telemetry."""

    def __init__(self, mode: Literal["hash", "raw", "drop"], key: bytes) -> None:
        """Hashes under the same key are the same for the same query."""
        self._mode = mode
        self._key = key

    def query(self, text: str) -> Attributes:
        """The attributes that stand for a query."""
        attributes: Attributes = {"mixer.query.chars": len(text)}
        shown = self.shown(text)
        if shown is not None:
            attributes[f"mixer.query.{self._mode}"] = shown
        return attributes

    def shown(self, text: str) -> str | None:
        """The query itself, its hash, or None."""
        if self._mode == "drop":
            return None
        if self._mode == "raw":
            return text
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()[:16]


def of_request(request: Request, redactor: Redactor) -> Attributes:
    """What is known before the first stage."""
    return {
        "mixer.mix": request.mix,
        "mixer.query_id": request.query_id,
        "mixer.filters": len(request.filters),
        "mixer.page.size": request.page_size,
        **redactor.query(request.query),
    }


def of_answer(answer: Answer, elapsed_s: float, added_s: float) -> Attributes:
    """What the root span and the log line say of a whole answer; who answered comes last, so that it is kept."""
    reasons = answer.degraded_reasons
    return {
        **_of_replies(answer.replies),
        "mixer.page.offset": answer.page.offset,
        "mixer.hits": len(answer.page.rows),
        "mixer.candidates": len(answer.candidates),
        "mixer.latency_bucket": latency_bucket(elapsed_s),
        "mixer.added_ms": added_s * 1000,
        "mixer.degraded": bool(reasons),
        **_of_effort(answer.plan.request.effort),
        **({"mixer.degraded_reasons": reasons} if reasons else {}),
        **of_scores(answer.scores),
    }


def of_explanation(explanation: Explanation, asked: str) -> Attributes:
    """What the root span and the log line say of an answer that was explained, by the model `asked` for if any."""
    lacking, answer = explanation.contributions.lacking, explanation.answer
    return {
        "mixer.mix": answer.plan.request.mix,
        "mixer.query_id": answer.plan.request.query_id,
        **({"mixer.arm": answer.arm} if answer.arm else {}),
        **of_scores(answer.scores),
        **({"mixer.explain.model": asked} if asked else {}),
        "mixer.explain.hits": len(explanation.rows),
        "mixer.explain.scored": len(explanation.contributions.values),
        "mixer.explain.elapsed_ms": explanation.elapsed_s * 1000,
        **({"mixer.explain.lacking": lacking} if lacking else {}),
    }


def of_backend(reply: Reply) -> Attributes:
    """One backend's answer, on the root span; said as it comes, for requests that fail later too."""
    prefix = f"mixer.backend.{reply.backend}"
    return {
        f"{prefix}.outcome": reply.outcome.value,
        f"{prefix}.elapsed_ms": reply.elapsed_s * 1000,
        f"{prefix}.hits": 0 if reply.hits is None else len(reply.hits),
    }


def of_reply(reply: Reply) -> Attributes:
    """One backend's answer, on its own span."""
    attributes: Attributes = {
        "mixer.backend.outcome": reply.outcome.value,
        "mixer.backend.hits": 0 if reply.hits is None else len(reply.hits),
    }
    if reply.index.version:
        attributes["mixer.backend.index_version"] = reply.index.version[:FOREIGN_CHARS]
    if reply.index.server_version:
        attributes["mixer.backend.server_version"] = reply.index.server_version[:FOREIGN_CHARS]
    if reply.attempts != 1:
        attributes["mixer.backend.attempts"] = reply.attempts
    if reply.hedged:
        attributes["mixer.backend.hedged"] = True
    if reply.breaker:
        attributes["mixer.backend.breaker"] = reply.breaker
    return attributes


def of_store(stored: Stored) -> Attributes:
    """What one feature store gave, on the root span."""
    prefix = f"mixer.store.{stored.store}"
    return {
        f"{prefix}.outcome": stored.outcome.value,
        f"{prefix}.elapsed_ms": stored.elapsed_s * 1000,
        f"{prefix}.found": stored.found,
    }


def of_look_up(store: str, timeout_s: float) -> Attributes:
    """What is known before a store is asked, on its own span."""
    return {"mixer.store.name": store, "mixer.store.timeout_ms": max(timeout_s, 0.0) * 1000}


def of_stored(stored: Stored) -> Attributes:
    """What one feature store gave, on its own span."""
    return {
        "mixer.store.outcome": stored.outcome.value,
        "mixer.store.asked": stored.asked,
        "mixer.store.cached": stored.cached,
        "mixer.store.found": stored.found,
        "mixer.store.unreadable": stored.unreadable,
    }


def of_scores(scores: Scores) -> Attributes:
    """Who ranked, and why not the model where it did not."""
    return {
        "mixer.ranker": scores.ranker.value,
        **({"mixer.scorer": scores.scorer} if scores.scorer else {}),
        **({"mixer.fallback_reason": scores.fallback_reason} if scores.fallback_reason else {}),
        **_of_model(scores.model),
    }


def _of_effort(effort: Effort) -> Attributes:
    return {"mixer.quality": effort.quality} if effort.step else {}


def _of_model(model: ModelRef | None) -> Attributes:
    if model is None:
        return {}
    return {
        "mixer.model.name": model.name,
        "mixer.model.version": model.version,
        "mixer.model.sha256": model.sha256,
    }


def _of_replies(replies: Sequence[Reply]) -> Attributes:
    ok = sum(reply.outcome is Outcome.OK for reply in replies)
    asked = sum(reply.outcome is not Outcome.SKIPPED for reply in replies)
    return {"mixer.backends.asked": asked, "mixer.backends.ok": ok}


def _of_plan(_: Sequence[Any], plan: Plan) -> Attributes:
    return {"mixer.backends.asked": sum(not call.skipped for call in plan.calls)}


def _of_fan_out(_: Sequence[Any], replies: Sequence[Reply]) -> Attributes:
    return _of_replies(replies)


def _of_candidates(_: Sequence[Any], candidates: Candidates) -> Attributes:
    dropped = sum(drop.count for drop in candidates.drops)
    return {"mixer.candidates": len(candidates), "mixer.dropped": dropped}


def _of_hydrated(_: Sequence[Any], candidates: Candidates) -> Attributes:
    ok = sum(stored.outcome is Outcome.OK for stored in candidates.stores)
    return {"mixer.stores.asked": len(candidates.stores), "mixer.stores.ok": ok}


def _of_features(_: Sequence[Any], features: Features) -> Attributes:
    return {
        "mixer.features": len(features.names),
        "mixer.features.missing": int(features.missing.sum()),
        "mixer.features.out_of_range": int(features.out_of_range.sum()),
    }


def _of_page(_: Sequence[Any], page: Page) -> Attributes:
    return {"mixer.hits": len(page.rows), "mixer.pinned": len(page.pinned)}


class OfRank:
    """The rank span: the best candidates as arrays of one length, index by index the same document."""

    def __init__(self, top_k: int, top_features: Sequence[str]) -> None:
        """`top_features` are shown, the weightiest first."""
        self._top_k = top_k
        self._top_features = tuple(top_features)

    def __call__(self, inputs: Sequence[Any], scores: Scores) -> Attributes:
        """Arrays first and identity last: past its limit a span loses the oldest."""
        candidates: Candidates = inputs[0]
        features: Features = inputs[1]
        rows = total_order(candidates, scores)[: self._top_k]
        keys, places = _shown(self._top_features, features.names)
        prior_ranks = candidates.prior.argsort()[rows] + 1
        return {
            **dict(zip(keys, features.matrix.T[places, rows], strict=True)),
            **{f"mixer.top.member.{name}": own[rows] for name, own in scores.members.items()},
            "mixer.top.ids": tuple(candidates.ids[row] for row in rows.tolist()),
            "mixer.top.scores": scores.values[rows],
            "mixer.top.prior_ranks": tuple(prior_ranks.tolist()),
            "mixer.top.sources": _sources(candidates, rows),
            **of_scores(scores),
        }


@lru_cache(256)
def _shown(top_features: tuple[str, ...], names: tuple[str, ...]) -> tuple[tuple[str, ...], IntColumn]:
    """The attributes of those top features that there are, and their columns, as (k, 1)."""
    shown = [name for name in top_features if name in names]
    places = np.array([names.index(name) for name in shown], np.intp)
    return tuple(f"mixer.top.feature.{name}" for name in shown), places.reshape(-1, 1)


def _sources(candidates: Candidates, rows: IntColumn) -> tuple[str, ...]:
    present = candidates.ranks[:, rows] > 0
    bits = np.left_shift(1, np.arange(len(present)))
    return tuple(_names(candidates.backends, code) for code in (bits @ present).tolist())


@lru_cache(4096)
def _names(backends: tuple[str, ...], code: int) -> str:
    """The backends whose bits are set."""
    return ",".join(name for bit, name in enumerate(backends) if code >> bit & 1)


Describe = Callable[[Sequence[Any], Any], Attributes]


def describers(top_k: int, top_features: Sequence[str]) -> Mapping[str, Describe]:
    """For every stage, what its inputs and result become on its span."""
    return {
        "plan": _of_plan,
        "fan_out": _of_fan_out,
        "merge": _of_candidates,
        "hydrate": _of_hydrated,
        "make_features": _of_features,
        "rank": OfRank(top_k, top_features),
        "arrange": _of_page,
    }
