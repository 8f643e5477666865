"""How people click: the position-based model, to simulate clicks from judgements and to undo the bias of places.

A click needs two things, the document being looked at and being liked: P(click) = examination(place) * attraction
(Craswell et al., "An experimental comparison of click position-bias models", WSDM 2008). Examination is estimated
where places were drawn at random, or taken as (1/place)^eta (Joachims et al., "Unbiased learning-to-rank with biased
feedback", WSDM 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backends.base import FloatColumn
from mixer.events import Event, EventKind
from mixer.values import IntColumn
from models.feedback import Served

DEPTH = 50
"""Places with an examination of their own; what is deeper has that of the last."""
_LEAST = 1e-3


def by_power(eta: float, depth: int = DEPTH) -> FloatColumn:
    """Examination (depth,) that falls as (1/place)^eta; 0 looks at every place alike."""
    places = np.arange(1, depth + 1, dtype=np.float64)
    examined: FloatColumn = places**-eta
    return examined


def at(examination: FloatColumn, places: IntColumn) -> FloatColumn:
    """The examination (n,) of places (n,) from 1."""
    examined: FloatColumn = examination[np.clip(places, 1, len(examination)) - 1]
    return examined


@dataclass(frozen=True, slots=True)
class PositionBased:
    """People who look at places by `examination` (depth,), and like what they look at by its grade from 0."""

    examination: FloatColumn = field(default_factory=lambda: by_power(1.0))
    attraction: Sequence[float] = (0.05, 0.3, 0.6, 0.95)
    """Not 0 for grade 0: people err."""

    def clicks(self, grades: IntColumn, random: np.random.Generator, first: int = 1) -> NDArray[np.bool_]:
        """Which hits (n,) of these grades one person clicks, shown from place `first` on."""
        places = np.arange(first, first + len(grades))
        chance = at(self.examination, places) * np.asarray(self.attraction)[grades]
        clicked: NDArray[np.bool_] = random.random(len(grades)) < chance
        return clicked


def events_of(
    query_id: str, ids: Sequence[str], clicked: NDArray[np.bool_], happened_s: float, first: int = 1
) -> list[Event]:
    """What a page says of one visit: an impression a hit, and the clicks; their ids are made of all this."""

    def event(kind: EventKind, place: int) -> Event:
        event_id = f"{query_id}/{kind}/{place}"
        return Event(query_id, kind, ids[place - first], place, 0.0, happened_s, event_id)

    places = range(first, first + len(ids))
    impressions = [event(EventKind.IMPRESSION, place) for place in places]
    return [*impressions, *(event(EventKind.CLICK, place) for place in places if clicked[place - first])]


def shown(served: Served) -> tuple[IntColumn, IntColumn]:
    """Places in the list (n,) from 0 of what was shown, and where it was shown (n,) from 1.

    Those with an event; where there is no impression, the whole page.
    """
    events = [(served.clicked, served.clicked_at), (served.seen, served.seen_at)]
    if not served.seen.size:
        first, size = served.row["page_offset"], served.row["page_size"]
        page = np.arange(first, min(first + size, len(served.row["propensities"])))
        events.append((page, page + 1))
    places, told = np.unique(np.concatenate([places for places, _ in events]), return_index=True)
    return places, np.concatenate([positions for _, positions in events])[told]


class TooLittleExploring(ValueError):
    """The searches of an arm do not tell how far people look."""


def estimated(searches: Iterable[Served], depth: int = DEPTH) -> FloatColumn:
    """Examination (depth,) relative to the first place, from searches that put documents there at random.

    Takes hits with a propensity below 1: with each weighed by 1 over its own, every place shows the same documents on
    average, and what is left of the differences in clicks is the place. A place without a click has the examination of
    the one before; with few clicks the estimate is rough. Raises: TooLittleExploring.
    """
    clicked, seen = np.zeros(depth), np.zeros(depth)
    for served in searches:
        places, positions = shown(served)
        propensities = served.row["propensities"][places]
        kept = (propensities < 1) & (positions <= depth)
        weights = 1.0 / propensities[kept]
        np.add.at(seen, positions[kept] - 1, weights)
        np.add.at(clicked, positions[kept] - 1, weights * np.isin(places[kept], served.clicked))
    if not seen.any():
        raise TooLittleExploring("no search of the arm has a propensity below 1: nothing was put at random")
    if not clicked[0]:
        raise TooLittleExploring("nobody clicked the first place: nothing to measure the others by")
    rates = np.divide(clicked, seen, out=np.zeros(depth), where=seen > 0) / (clicked[0] / seen[0])
    for place in range(1, depth):
        if not rates[place]:
            rates[place] = rates[place - 1]
    examined: FloatColumn = np.clip(rates, _LEAST, 1.0)
    return examined
