"""Files that others replace while they are in use: keys, certificates. The last good content stands.

Orchestrators swap a symbolic link somewhere above the file, so contents are compared, not times.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

POLL_S = 5.0
"""How often files are looked at."""
OUTCOMES = ("swapped", "refused", "unreadable")
"""How looking at changed files ends: they are in use, their content is wrong, they cannot be read."""

T = TypeVar("T")


class Reloading(Generic[T]):
    """What some files hold together, made anew when they change."""

    def __init__(
        self,
        what: str,
        paths: Sequence[Path],
        make: Callable[[Sequence[bytes]], T],
        count: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        """Read now. `make` gets the contents in the order of the paths, and raises ValueError where they are wrong.

        `what` names them in the log, `count` is called with one of OUTCOMES. Raises: OSError, ValueError.
        """
        self._what, self._paths, self._make, self._count = what, tuple(paths), make, count
        self._contents = self._read()
        self.value = make(self._contents)
        """The last good one."""
        self._missed = ""

    async def follow(self, swapped: Callable[[], None] = lambda: None) -> None:
        """Look at the files for as long as the loop runs; `swapped` is called whenever there is another value."""
        while True:
            await asyncio.sleep(POLL_S)
            if await self.look():
                swapped()

    async def look(self) -> bool:
        """Read the files beside the loop; whether there is another value. What fails is said once, and counted once."""
        try:
            contents = await asyncio.to_thread(self._read)
            if contents == self._contents:
                self._missed = ""
                return False
            self._contents = contents
            self.value = await asyncio.to_thread(self._make, contents)
        except (OSError, ValueError) as error:
            self._miss("unreadable" if isinstance(error, OSError) else "refused", error)
            return False
        self._missed = ""
        self._count("swapped")
        log.info("files reloaded", extra={"what": self._what})
        return True

    def _miss(self, outcome: str, error: Exception) -> None:
        why = str(error)
        if outcome == "unreadable" and why == self._missed:
            return
        self._missed = why
        self._count(outcome)
        log.error("files not reloaded", extra={"what": self._what, "outcome": outcome, "why": why})

    def _read(self) -> list[bytes]:
        return [path.read_bytes() for path in self._paths]
