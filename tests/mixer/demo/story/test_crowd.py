from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from rich.console import Console

from mixer.demo.story.crowd import Crowd
from models.judgements import Judged
from tests.doubles import engines, mixers

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
QUERIES = [Judged(query="csv file", need="csv", grades={document["id"]: 3 for document in engines.DOCUMENTS})]


def settings(folder: Path) -> Any:
    return mixers.settings({"a": MEMORY}, feedback={"folder": str(folder)})


def crowded(target: str) -> Crowd:
    """Until thirty were answered."""
    with Crowd(target, QUERIES) as crowd:
        crowd.wait(30, Console(quiet=True))
        return crowd


async def test_people_search_and_click(tmp_path: Path) -> None:
    """Everybody is answered; nearly everybody likes a list of the best; every click and impression is known of."""
    async with mixers.running(settings(tmp_path)) as mixer:
        crowd = await asyncio.to_thread(crowded, f"127.0.0.1:{mixer.server.port}")
        seen = crowd.figures()
        accepted = {
            kind: mixer.value("mixer_feedback_events_total", kind=kind, outcome="accepted") or 0
            for kind in ("impression", "click")
        }
    assert seen.searches == crowd.visits >= 30
    assert (seen.failed, crowd.failures(), seen.versions) == (0, {}, ("",))
    assert seen.click_share > 0.7
    assert accepted["impression"] > accepted["click"] >= seen.click_share * seen.searches - 0.5


def test_who_is_not_answered_is_told() -> None:
    """Nobody is there: every search failed, by its status."""
    seen = crowded("127.0.0.1:1")
    assert seen.figures().failed == seen.visits
    assert seen.failures() == {"UNAVAILABLE": seen.visits}
    assert seen.figures(arm="canary").searches == 0
