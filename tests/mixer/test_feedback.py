"""Feedback as its callers see it, over a socket, and what is on disk afterwards."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from mixer.client import Event, EventKind, EventOutcome, MixerClient, MixerError
from mixer.errors import EventsNotWritten, Overloaded
from mixer.event_log import SCHEMA, EventLog
from mixer.feedback import Feedback, Search
from mixer.log_settings import FeedbackSettings
from mixer.metrics import Metrics
from mixer.parquet import Rotating
from tests.doubles import engines, mixers
from tests.doubles.mixers import Mixer

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
ACCEPTED, DUPLICATE = EventOutcome.ACCEPTED, EventOutcome.DUPLICATE
LATE, UNKNOWN = EventOutcome.LATE, EventOutcome.UNKNOWN


@pytest.fixture(autouse=True)
async def nothing_hangs() -> AsyncIterator[None]:
    """Every test here ends."""
    async with asyncio.timeout(30):
        yield


def settings(folder: Path, **feedback: Any) -> Any:
    return mixers.settings({"a": MEMORY}, feedback={"folder": str(folder), **feedback})


def rows(folder: Path) -> list[dict[str, Any]]:
    """What readers find."""
    found: list[dict[str, Any]] = ds.dataset(folder, format="parquet", schema=SCHEMA).to_table().to_pylist()
    return found


def click(query_id: str, event_id: str = "e1", **fields: Any) -> Event:
    return Event(query_id, EventKind.CLICK, "4", event_id=event_id, **fields)


def counted(mixer: Mixer, kind: str, outcome: str) -> float | None:
    return mixer.value("mixer_feedback_events_total", kind=kind, outcome=outcome)


async def test_events_are_on_disk_as_they_were_sent(tmp_path: Path) -> None:
    """Every field of every event is in the log, with the server's time and what the server knew."""
    async with mixers.running(settings(tmp_path)) as mixer:
        result = await mixer.search("csv")
        sent = [
            Event(result.query_id, EventKind.IMPRESSION, "4", 1, happened_s=1_700_000_000.25),
            click(result.query_id, position=2),
            Event("nobody-s", EventKind.CONVERSION, "9", 0, 12.5),
        ]
        assert await mixer.client.feedback(sent) == (ACCEPTED, ACCEPTED, UNKNOWN)
    written = rows(tmp_path)
    assert [row["event_id"] for row in written] == [event.event_id for event in sent]
    assert [row["kind"] for row in written] == ["impression", "click", "conversion"]
    assert [row["outcome"] for row in written] == ["accepted", "accepted", "unknown"]
    assert [(row["query_id"], row["id"], row["position"], row["value"]) for row in written] == [
        (result.query_id, "4", 1, 0.0),
        (result.query_id, "4", 2, 0.0),
        ("nobody-s", "9", 0, 12.5),
    ]
    assert written[0]["happened"].timestamp() == 1_700_000_000.25
    assert abs(written[0]["time"].timestamp() - sent[1].happened_s) < 60


async def test_an_event_is_taken_once(tmp_path: Path) -> None:
    """Sent again, in the same call or another, it is a duplicate: answered, counted, not written."""
    async with mixers.running(settings(tmp_path)) as mixer:
        result = await mixer.search("csv")
        event = click(result.query_id)
        assert await mixer.client.feedback([event, event]) == (ACCEPTED, DUPLICATE)
        assert await mixer.client.feedback([event, click(result.query_id, "e2")]) == (DUPLICATE, ACCEPTED)
        assert (counted(mixer, "click", "accepted"), counted(mixer, "click", "duplicate")) == (2, 2)
        assert counted(mixer, "impression", "accepted") == 0
    assert [row["event_id"] for row in rows(tmp_path)] == ["e1", "e2"]


async def test_events_sent_at_once_are_taken_once(tmp_path: Path) -> None:
    """Of many calls with the same event at the same time one is the first; all return after the write."""
    async with mixers.running(settings(tmp_path)) as mixer:
        result = await mixer.search("csv")
        calls = [mixer.client.feedback([click(result.query_id)]) for _ in range(30)]
        outcomes = [outcome for (outcome,) in await asyncio.gather(*calls)]
    assert sorted(outcomes) == [ACCEPTED] + [DUPLICATE] * 29
    assert len(rows(tmp_path)) == 1


async def test_late_events_are_taken_and_told(tmp_path: Path) -> None:
    """Past the window after its search an event is late: in the log, counted apart."""
    async with mixers.running(settings(tmp_path, window_s=0.05)) as mixer:
        result = await mixer.search("csv")
        await asyncio.sleep(0.1)
        assert await mixer.client.feedback([click(result.query_id)]) == (LATE,)
        assert counted(mixer, "click", "late") == 1
    assert [row["outcome"] for row in rows(tmp_path)] == ["late"]


async def test_threads_send_feedback_too(tmp_path: Path) -> None:
    """The client that waits says the same as the one that does not, errors included."""

    def both(target: str) -> tuple[Any, MixerError]:
        with MixerClient(target, timeout_s=10) as client:
            found = client.search("csv")
            with pytest.raises(MixerError) as failed:
                client.feedback([click("")])
            return client.feedback([click(found.query_id)]), failed.value

    async with mixers.running(settings(tmp_path)) as mixer:
        outcomes, error = await asyncio.to_thread(both, mixer.target)
    assert outcomes == (ACCEPTED,)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == ["events[0].query_id"]


async def test_a_wrong_event_takes_none(tmp_path: Path) -> None:
    """A call with a fault leaves nothing behind: mended and sent again, all of it is new."""
    async with mixers.running(settings(tmp_path)) as mixer:
        result = await mixer.search("csv")
        with pytest.raises(MixerError, match=r"events\[1\].id: is empty"):
            await mixer.client.feedback([click(result.query_id), Event("q", EventKind.CLICK, "")])
        assert await mixer.client.feedback([click(result.query_id)]) == (ACCEPTED,)
    assert len(rows(tmp_path)) == 1


async def test_a_server_without_a_folder_takes_none() -> None:
    """Where the settings have no feedback, the method says so."""
    async with mixers.running(mixers.settings({"a": MEMORY})) as mixer:
        with pytest.raises(MixerError, match="takes no feedback") as failed:
            await mixer.client.feedback([click("q")])
    assert failed.value.code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_folder_that_cannot_be_is_a_fault_at_start(tmp_path: Path) -> None:
    """A server that could not keep what it takes does not start."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        async with mixers.running(settings(tmp_path / "file")):
            pass


class Stuck(Rotating):
    """Files that are not written until they are let, and fail while they must."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, SCHEMA)
        self.free, self.fails = threading.Event(), False

    def write(self, batch: pa.RecordBatch) -> None:
        self.free.wait(10)
        if self.fails:
            raise OSError("no space left")
        super().write(batch)


class Taker:
    """Feedback over files that can be stopped."""

    def __init__(
        self, folder: Path, most: int = 100, hear: Callable[[Search, Event], None] | None = None
    ) -> None:
        self.files = Stuck(folder)
        self.log = EventLog(self.files, most)
        declared = FeedbackSettings(folder=folder, remembered=3)
        self.metrics = Metrics()
        self.feedback = Feedback(declared, self.log, self.metrics, hear or (lambda search, event: None))

    def take(self, *event_ids: str) -> asyncio.Task[tuple[EventOutcome, ...]]:
        return asyncio.create_task(self.feedback.take([click("q", event_id) for event_id in event_ids]))

    async def close(self) -> None:
        self.files.free.set()
        await self.feedback.close()


@pytest.fixture
async def taker(tmp_path: Path) -> AsyncIterator[Taker]:
    made = Taker(tmp_path, most=3)
    yield made
    await made.close()


async def test_the_call_returns_after_the_write(taker: Taker, tmp_path: Path) -> None:
    """Neither the first call nor one that repeats it is answered while the disk is waited for."""
    first, again = taker.take("e1"), taker.take("e1")
    await asyncio.sleep(0.05)
    assert not first.done()
    assert not again.done()
    taker.files.free.set()
    assert (await first, await again) == ((UNKNOWN,), (DUPLICATE,))


async def test_what_is_not_written_is_not_taken(taker: Taker) -> None:
    """Where the disk fails, all who wait for it are told, and the same events are new when sent again."""
    taker.files.fails = True
    first, again = taker.take("e1"), taker.take("e1")
    taker.files.free.set()
    for call in (first, again):
        with pytest.raises(EventsNotWritten):
            await call
    assert (
        sum(s.value for m in taker.metrics.registry.collect() for s in m.samples if "feedback" in s.name) == 0
    )
    taker.files.fails = False
    assert await taker.take("e1") == (UNKNOWN,)


async def test_more_than_the_disk_takes_is_turned_away(taker: Taker, tmp_path: Path) -> None:
    """A full queue takes none of a call's events: sent again later, all of them are new."""
    writing = taker.take("e0")
    await asyncio.sleep(0.05)
    waiting = taker.take("e1", "e2")
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await taker.take("e3", "e4")
    taker.files.free.set()
    await asyncio.gather(writing, waiting)
    assert await taker.take("e3", "e4") == (UNKNOWN, UNKNOWN)
    await taker.close()
    assert [row["event_id"] for row in rows(tmp_path)] == ["e0", "e1", "e2", "e3", "e4"]


async def test_a_caller_who_gives_up_loses_nothing(taker: Taker, tmp_path: Path) -> None:
    """Its events are written all the same, and who waits for the same write is answered."""
    quits, stays = taker.take("e1"), taker.take("e2", "e1")
    await asyncio.sleep(0.05)
    quits.cancel()
    taker.files.free.set()
    assert await stays == (UNKNOWN, DUPLICATE)
    await taker.close()
    assert {row["event_id"] for row in rows(tmp_path)} == {"e1", "e2"}


async def test_a_listener_hears_what_counts(tmp_path: Path) -> None:
    """Once an event, with its search's mix and arm; nothing of searches that are unknown."""
    heard: list[tuple[Search, Event]] = []
    taker = Taker(tmp_path, hear=lambda search, event: heard.append((search, event)))
    taker.files.free.set()
    taker.feedback.served("q", "m", "b")
    event = click("q")
    await taker.feedback.take([event, event, click("other", "e2")])
    await taker.close()
    ((search, told),) = heard
    assert ((search.mix, search.arm), told) == (("m", "b"), event)


async def test_memory_is_bounded(tmp_path: Path) -> None:
    """What is kept in mind is the last so many; an event older than those is for the join to find out."""
    taker = Taker(tmp_path)
    taker.files.free.set()
    for number in range(5):
        await taker.take(f"e{number}")
    assert await taker.take("e4", "e3", "e2") == (DUPLICATE,) * 3
    assert await taker.take("e0") == (UNKNOWN,)
    await taker.close()


SERVE = """
import asyncio, sys
from pathlib import Path
from tests.doubles import mixers
from tests.mixer.test_feedback import click, settings

async def main():
    async with mixers.running(settings(Path(sys.argv[1]))) as mixer:
        found = await mixer.search("csv")
        await mixer.client.feedback([click(found.query_id, str(n)) for n in range(100)])
        print("taken", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_killed_server_loses_nothing_it_took(tmp_path: Path) -> None:
    """What was answered is found after SIGKILL, in a whole file, once the next server started."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    assert await process.stdout.readline() == b"taken\n"
    process.kill()
    await process.communicate()
    assert rows(tmp_path) == []
    async with mixers.running(settings(tmp_path)):
        assert [row["event_id"] for row in rows(tmp_path)] == [str(number) for number in range(100)]
