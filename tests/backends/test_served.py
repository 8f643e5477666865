"""What engines behind a server of their own share: how much of a query they ask, and what they know of the server."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import BackendError, BackendTimeout, BackendUnreachable
from backends.served import Live, shortened, within


@pytest.mark.parametrize(
    ("text", "fields", "asked"),
    [
        ("read csv read csv", 1, "read csv read csv"),
        ("C++ and node.js", 1, "C++ and node.js"),
        ("read " * 800, 1, "read"),
        (" ".join(f"w{i}" for i in range(100)), 1, " ".join(f"w{i}" for i in range(64))),
        (" ".join(f"w{i}" for i in range(100)), 100, " ".join(f"w{i}" for i in range(10))),
        ("東" * 100, 1, "東" * 64),
        ("Ελλάς " * 10 + "ναι", 1, "Ελλάς " * 10 + "ναι"),
        ("\U0001f600" * 100, 1, "\U0001f600" * 64),
    ],
)
def test_queries_are_shortened(text: str, fields: int, asked: str) -> None:
    """Up to 64 words stand as they are; of more, each counts once and the first 64 do, fewer in many fields."""
    assert shortened(text, fields) == asked


@given(st.text(max_size=600), st.integers(1, 20))
def test_what_is_left_is_of_the_query(text: str, fields: int) -> None:
    """Nothing comes in that was not there, and what is short enough is left alone."""
    asked = shortened(text, fields)
    assert set(asked.split()) <= set(text.split()) or text.split()[: len(asked.split()) - 1]
    assert shortened(asked, fields) == asked
    assert len(asked) <= len(text)


class Read:
    """A reading that counts, and waits or fails as it is told."""

    def __init__(self) -> None:
        self.count = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.failure: BackendError | None = None

    async def __call__(self) -> int:
        self.count += 1
        await self.may_end.wait()
        if self.failure:
            raise self.failure
        return self.count


async def test_one_reading_for_all() -> None:
    """However many ask at first, the server is read once; while that is young, not again."""
    read = Read()
    live = Live(read, every_s=3600.0)
    assert await asyncio.gather(*(live.get() for _ in range(10))) == [1] * 10
    assert await live.get() == 1
    assert read.count == 1


async def test_read_beside_the_searches() -> None:
    """What is a little old is given at once, and read anew beside; what is much older is waited for."""
    read = Read()
    live = Live(read, every_s=0.2)
    assert await live.get() == 1
    await asyncio.sleep(0.25)
    read.may_end.clear()
    assert await live.get() == 1
    await asyncio.sleep(1.0)
    waiting = asyncio.create_task(live.get())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    read.may_end.set()
    assert await waiting == 2
    await live.close()


async def test_failure_is_said_to_who_waits() -> None:
    """A reading that fails is an error for those that wait for it; the next one reads again."""
    read = Read()
    live = Live(read, every_s=3600.0)
    read.failure = BackendUnreachable("down")
    with pytest.raises(BackendUnreachable, match="down"):
        await live.get()
    read.failure = None
    assert await live.get() == 2


async def test_one_who_leaves_ends_nothing() -> None:
    """A caller that is cancelled leaves the reading to the others."""
    read = Read()
    read.may_end.clear()
    live = Live(read, every_s=3600.0)
    first, second = asyncio.create_task(live.get()), asyncio.create_task(live.get())
    await asyncio.sleep(0.01)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    read.may_end.set()
    assert await second == 1
    assert read.count == 1


async def test_close_ends_a_reading() -> None:
    """Who waits for a reading when the backend is closed finds it unreachable."""
    read = Read()
    read.may_end.clear()
    live = Live(read, every_s=3600.0)
    waiting = asyncio.create_task(live.get())
    await asyncio.sleep(0.01)
    await live.close()
    with pytest.raises(BackendUnreachable):
        await waiting


async def test_time_is_kept() -> None:
    """What takes longer than its time is a timeout, and without time nothing is begun."""
    with pytest.raises(BackendTimeout):
        async with within(0.01):
            await asyncio.sleep(60.0)
    with pytest.raises(BackendTimeout):
        async with within(0.0):
            raise AssertionError("begun")
