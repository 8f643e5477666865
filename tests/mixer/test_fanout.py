from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import permutations

import numpy as np
import pytest

from backends.base import (
    Backend,
    BackendError,
    BackendGarbage,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    Hits,
    Query,
)
from backends.memory import Memory, MemorySettings
from mixer.errors import AllBackendsFailed, InvalidRequest
from mixer.fanout import Ask, FanOut, ask, unless_skipped
from mixer.values import Call, Outcome, Reply
from tests.samples import hits, mix, plan, reply


class Fake:
    """A backend that does what the test says."""

    def __init__(self, answer: Callable[[], Awaitable[Hits]]) -> None:
        self._answer = answer
        self.asked: list[tuple[Query, float]] = []

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        self.asked.append((query, timeout_s))
        return await self._answer()

    async def close(self) -> None:
        """Nothing to let go of."""


def answering(answer: Hits | BaseException) -> Fake:
    async def answered() -> Hits:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return Fake(answered)


async def asked(backend: Backend, timeout_s: float = 5.0) -> Reply:
    return await ask(backend, Call("a", Query("csv", 10), timeout_s))


def memory() -> Memory:
    return Memory(
        MemorySettings.model_validate(
            {
                "kind": "memory",
                "fields": {"title": {"type": "text"}},
                "documents": [{"id": "1", "title": "csv"}],
            }
        )
    )


async def test_hits_that_make_sense_are_ok() -> None:
    """An answer is kept as it came, with the time that it took."""
    answer = hits(["x"])
    made = await asked(answering(answer))
    assert (made.backend, made.outcome, made.hits, made.detail) == ("a", Outcome.OK, answer, "")
    assert made.elapsed_s >= 0


async def test_the_backend_is_asked_what_the_call_says() -> None:
    """The call's query goes to the backend as it is, with the time that the call has."""
    backend = answering(hits())
    await asked(backend, 0.25)
    assert backend.asked == [(Query("csv", 10), 0.25)]


@pytest.mark.parametrize(
    ("failure", "outcome", "detail"),
    [
        (BackendTimeout("late"), Outcome.TIMEOUT, "no answer within 5000 ms"),
        (TimeoutError(), Outcome.TIMEOUT, "no answer within 5000 ms"),
        (BackendRefused("no such field"), Outcome.REFUSED, "no such field"),
        (BackendUnreachable("no connection"), Outcome.ERROR, "no connection"),
        (BackendGarbage("nonsense"), Outcome.ERROR, "nonsense"),
        (BackendError("failed"), Outcome.ERROR, "failed"),
    ],
)
async def test_a_failure_is_a_value(failure: Exception, outcome: Outcome, detail: str) -> None:
    """Every way in which a backend can fail is an outcome with a word of why, never an exception."""
    made = await asked(answering(failure))
    assert (made.outcome, made.hits, made.detail) == (outcome, None, detail)


async def test_a_backend_that_ignores_its_time_is_left_behind() -> None:
    """A backend that would never answer is given up when its time is over."""

    async def never() -> Hits:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    made = await asked(Fake(never), 0.01)
    assert (made.outcome, made.hits) == (Outcome.TIMEOUT, None)


async def test_a_late_double_is_a_timeout() -> None:
    """The memory engine, told to be late, is one too: doubles and engines fail alike."""
    late = memory()
    late.latency_s = 60.0
    assert (await asked(late, 0.01)).outcome is Outcome.TIMEOUT


@pytest.mark.parametrize(
    ("nonsense", "detail"),
    [
        (Hits(["x", ""], np.array([1.0, 2.0])), "an id is empty"),
        (Hits(["x"], np.array([1.0, 2.0])), "2 scores for 1 ids"),
        (Hits(["x"], np.array([1.0]), {"year": np.array([1.0, 2.0])}), "2 values"),
        (Hits(["x"], np.array([1.0]), texts={"title": []}), "0 values"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_error(nonsense: Hits, detail: str) -> None:
    """Columns that do not fit together are garbage: nothing of them is used, and the fault is named."""
    double = memory()
    double.hits = nonsense
    made = await asked(double)
    assert (made.outcome, made.hits) == (Outcome.ERROR, None)
    assert made.detail.startswith("garbage: ")
    assert detail in made.detail


async def test_a_crash_is_loud_and_costs_one_answer(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in an engine is an error outcome that does not repeat the foreign words, and a traceback in the log."""
    made = await asked(answering(ZeroDivisionError("the user's words")))
    assert (made.outcome, made.hits) == (Outcome.ERROR, None)
    assert made.detail == "crashed with ZeroDivisionError"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.records[0].exc_info


@pytest.mark.parametrize("nothing", [None, "hits", 3])
async def test_an_answer_of_the_wrong_kind_leaves_nothing_behind(nothing: object) -> None:
    """What is no Hits at all is an error without hits: nothing of it reaches the merge."""
    made = await asked(answering(nothing))  # type: ignore[arg-type]
    assert (made.outcome, made.hits) == (Outcome.ERROR, None)


async def test_cancelling_cancels_the_call() -> None:
    """When the request is given up, the backend's task is cancelled, not answered for."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def until_cancelled() -> Hits:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("unreachable")

    fan_out = FanOut({"a": Fake(until_cancelled), "b": Fake(until_cancelled)}, ask)
    task = asyncio.ensure_future(fan_out(plan(mix("a", "b"))))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


NAMES = ("a", "b", "c")


@pytest.mark.parametrize("arrival", list(permutations(NAMES)))
async def test_replies_stand_in_the_plan_s_order(arrival: Sequence[str]) -> None:
    """Whichever backend answers first, the replies are the same: arrival order changes nothing."""
    turns = {name: asyncio.Event() for name in (*arrival, "end")}
    done: list[str] = []

    def in_turn(name: str) -> Fake:
        async def answered() -> Hits:
            await turns[name].wait()
            done.append(name)
            turns[(*arrival, "end")[arrival.index(name) + 1]].set()
            return hits([name, "shared"])

        return Fake(answered)

    turns[arrival[0]].set()
    replies = await FanOut({name: in_turn(name) for name in NAMES}, ask)(plan(mix(*NAMES)))
    assert done == list(arrival)
    assert [made.backend for made in replies] == list(NAMES)
    assert [made.hits.ids[0] for made in replies if made.hits] == list(NAMES)


async def test_all_are_asked_at_once() -> None:
    """No backend waits for another: all have been asked before any has answered."""
    together = asyncio.Barrier(3)

    async def meet() -> Hits:
        await together.wait()
        return hits(["x"])

    replies = await FanOut({name: Fake(meet) for name in NAMES}, ask)(plan(mix(*NAMES)))
    assert [made.outcome for made in replies] == [Outcome.OK] * 3


def put(*replies: Reply) -> Ask:
    """An `ask` with the replies in hand."""
    by_name = {made.backend: made for made in replies}

    async def ready(backend: Backend, call: Call) -> Reply:
        return by_name[call.backend]

    return ready


async def fan_out(*replies: Reply) -> tuple[Reply, ...]:
    names = [made.backend for made in replies]
    return await FanOut({name: answering(hits()) for name in names}, put(*replies))(plan(mix(*names)))


@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.ERROR, Outcome.REFUSED, Outcome.CANCELLED])
async def test_one_answer_is_enough(outcome: Outcome) -> None:
    """As long as one backend answered, however few its hits, the others' failures are values."""
    replies = await fan_out(reply("a", None, outcome, "why"), reply("b", hits()))
    assert [made.outcome for made in replies] == [outcome, Outcome.OK]


async def test_all_failing_is_an_error() -> None:
    """No answer at all is never an empty list: the error names every backend and its reason."""
    with pytest.raises(AllBackendsFailed, match="a: late; b: broken"):
        await fan_out(reply("a", None, Outcome.TIMEOUT, "late"), reply("b", None, Outcome.ERROR, "broken"))


async def test_all_refusing_is_the_caller_s_to_mend() -> None:
    """Where every backend says that the request can never be answered, the request is wrong."""
    with pytest.raises(InvalidRequest) as refused:
        await fan_out(
            reply("a", None, Outcome.REFUSED, "no field x"), reply("b", None, Outcome.REFUSED, "nor here")
        )
    assert [(v.field, v.description) for v in refused.value.violations] == [
        ("filters", "refused by a: no field x"),
        ("filters", "refused by b: nor here"),
    ]


async def test_refusing_and_failing_is_a_failure() -> None:
    """One backend that failed might have answered: the caller may try again."""
    with pytest.raises(AllBackendsFailed):
        await fan_out(reply("a", None, Outcome.REFUSED, "no"), reply("b", None, Outcome.TIMEOUT, "late"))


async def test_a_backend_that_cancels_itself_is_a_value() -> None:
    """A cancellation that nobody asked for ends that backend's call, not the request."""
    got = await asked(answering(asyncio.CancelledError()))
    assert got.outcome is Outcome.CANCELLED
    assert got.hits is None


@pytest.mark.parametrize(
    "wrong",
    [
        Hits([1, 2], np.array([2.0, 1.0])),  # type: ignore[list-item]
        Hits(["a"], np.array([[1.0]])),
        Hits(["a"], np.array([1.0]), {}, {"title": [None]}),  # type: ignore[list-item]
        Hits(["a"], np.array([1.0]), {"n": np.array([[1.0]])}),
    ],
)
async def test_columns_of_the_wrong_kind_are_garbage(wrong: Hits) -> None:
    """An engine's own mistake in types or shapes is named where it is made, and goes no further."""
    got = await asked(answering(wrong))
    assert got.outcome is Outcome.ERROR
    assert got.detail.startswith("garbage: ")


@pytest.mark.parametrize(
    ("failure", "unreachable"), [(BackendUnreachable("gone"), True), (BackendError("failed"), False)]
)
async def test_what_another_try_may_mend_is_told(failure: Exception, unreachable: bool) -> None:
    """Only where there was no connection is a failure one that another try may find mended."""
    assert (await asked(answering(failure))).unreachable is unreachable


async def test_a_call_that_the_plan_skips_is_not_put() -> None:
    """The backend is not asked; the reply says so, and why. Every other call is put as ever."""
    backend = answering(hits(["x"]))
    made = await unless_skipped(ask)(backend, Call("a", Query("csv", 10), 5.0, skipped="too much to do"))
    assert (made.outcome, made.detail, made.attempts) == (Outcome.SKIPPED, "too much to do", 0)
    assert not backend.asked
    assert (await unless_skipped(ask)(backend, Call("a", Query("csv", 10), 5.0))).outcome is Outcome.OK
