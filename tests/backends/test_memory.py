"""The double: as late, broken or senseless as a test wants it."""

import numpy as np
import pytest
from pydantic import ValidationError

from backends.base import BackendGarbage, BackendTimeout, Hits, Query
from backends.memory import Memory, MemorySettings


async def test_late(memory: Memory) -> None:
    """With a latency beyond the timeout it times out; below it, it answers."""
    memory.latency_s = 3600.0
    with pytest.raises(BackendTimeout):
        await memory.retrieve(Query("csv", 1), timeout_s=0.01)
    memory.latency_s = 0.001
    assert len(await memory.retrieve(Query("csv", 1), timeout_s=10.0)) == 1


async def test_failing(memory: Memory) -> None:
    """With a failure it raises that."""
    memory.failure = BackendGarbage("odd")
    with pytest.raises(BackendGarbage, match="odd"):
        await memory.retrieve(Query("csv", 1), timeout_s=10.0)


async def test_senseless(memory: Memory) -> None:
    """With hits it answers those, unchecked."""
    memory.hits = Hits(["a", "a"], np.array([np.nan]))
    assert await memory.retrieve(Query("csv", 1), timeout_s=10.0) is memory.hits


async def test_share_of_words(memory: Memory) -> None:
    """The score is the share of the query's words that a document has."""
    hits = await memory.retrieve(Query("csv menu reader menu", 3), timeout_s=10.0)
    assert hits.scores.tolist() == [1 / 3] * 3


async def test_content_is_the_version(memory: Memory) -> None:
    """Other documents, other version."""
    other = Memory(MemorySettings(kind="memory", fields={}))
    versions = [(await backend.retrieve(Query("csv", 1), 10.0)).index.version for backend in (memory, other)]
    assert len(set(versions)) == 2


@pytest.mark.parametrize("documents", [[{"id": "a"}, {"id": "a"}], [{"id": "a", "colour": 1}], [{}]])
def test_bad_documents(documents: list[dict[str, object]]) -> None:
    """Documents that break the rules of a file break those of the settings."""
    with pytest.raises(ValidationError, match="documents"):
        MemorySettings.model_validate({"kind": "memory", "fields": {}, "documents": documents})
