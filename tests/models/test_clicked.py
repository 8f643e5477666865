from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from backends.base import FloatColumn
from mixer import cli, model
from mixer.arrange import shuffle
from mixer.events import Event, EventKind
from mixer.manifest import JUDGED
from mixer.schema import Feature, schema_hash
from mixer.values import IntColumn
from models import evaluation, listings
from models.clicked import Clicked, Weighing, listings_of
from models.clicks import PositionBased, by_power, events_of
from models.feedback import Joined
from tests.doubles import logs

IMPRESSION, CLICK, CONVERSION = EventKind.IMPRESSION, EventKind.CLICK, EventKind.CONVERSION
FEATURES: tuple[Feature, ...] = TypeAdapter(tuple[Feature, ...]).validate_python(
    [{"name": name, "source": "number", "field": name} for name in ("merit", "habit")]
)
SCHEMA = schema_hash(FEATURES)


def search(query_id: str, **columns: Any) -> dict[str, Any]:
    """Three documents; a feature is the document's number."""
    made: dict[str, Any] = {
        "schema_sha256": SCHEMA,
        "feature_names": ["merit", "habit"],
        "features": [[float(place), -float(place)] for place in range(3)],
        **columns,
    }
    return logs.search(query_id, **made)


def clicked(
    folder: Path,
    searches: Iterable[Mapping[str, Any]],
    events: Iterable[Event],
    weighing: Weighing | None = None,
) -> Clicked:
    logs.write_searches(folder / "log", searches)
    logs.write_events(folder / "events", [(1, event) for event in events])
    with Joined(folder / "log", folder / "events") as joined:
        return listings_of(joined, "default", FEATURES, weighing or Weighing())


def test_a_click_is_a_listing(tmp_path: Path) -> None:
    """The clicked document against all else that was ranked, as it was logged; another click is no better there."""
    events = [
        *(Event("q1", IMPRESSION, id_) for id_ in "abc"),
        *(Event("q1", CLICK, id_) for id_ in "bc"),
        Event("q1", CONVERSION, "c"),
    ]
    logged = search("q1", fused_ranks=[3, 1, 2], slices=[("tier", "paid")])
    first, second = clicked(tmp_path, [logged], events).listings
    assert first.slices == second.slices == {"tier": "paid"}
    assert (first.ids, first.grades.tolist(), first.weight) == (("a", "b", "c"), [0, 1, 0], 2.0)
    assert (second.ids, second.grades.tolist(), second.weight) == (("a", "b", "c"), [0, 0, 2], 3.0)
    assert (second.features[:, 0].tolist(), second.fused_ranks.tolist()) == ([0, 1, 2], [3, 1, 2])
    assert (second.ranks.tolist(), second.backends, second.degraded) == ([[1, 2, 3]], ("one",), False)
    assert (first.judged.query, first.judged.need) == ("read a csv file", "read a csv file")
    assert (first.judged.grades, first.judged.day) == ({"b": 1}, "2023-11-14")


def test_a_click_is_held_against_what_was_not_shown_too(tmp_path: Path) -> None:
    """Its place among all candidates is what counts: a model must know what to do with those below the fold."""
    events = [Event("q1", IMPRESSION, "a"), Event("q1", IMPRESSION, "b"), Event("q1", CLICK, "b")]
    paged = [Event("q2", CLICK, "b")]
    first, second = clicked(tmp_path, [search("q1"), search("q2", page_size=2)], [*events, *paged]).listings
    assert (first.ids, second.ids) == (("a", "b", "c"), ("a", "b", "c"))
    assert (first.grades.tolist(), second.grades.tolist()) == ([0, 1, 0], [0, 1, 0])


def test_what_gives_no_listing_is_counted(tmp_path: Path) -> None:
    """No search vanishes without a word."""
    searches = [
        search("q1"),
        search("q2"),
        search("q3", mix="other"),
        search("q4", schema_sha256="0" * 64),
        search("q5", ids=["a"], features=[[0.0, 0.0]]),
    ]
    made = clicked(tmp_path, searches, [Event(f"q{number}", CLICK, "a") for number in (1, 3, 4, 5)])
    assert len(made.listings) == 1
    assert made.left_out == {
        "without a click": 1,
        "of another mix": 1,
        "with other features": 1,
        "with a single hit": 1,
    }


def test_a_query_that_was_not_logged_is_its_id(tmp_path: Path) -> None:
    """Where words are dropped from the log, each search is a query of its own."""
    (listing,) = clicked(tmp_path, [search("q1", query="")], [Event("q1", CLICK, "a")]).listings
    assert (listing.judged.query, listing.judged.need) == ("q1", "q1")


def test_weights() -> None:
    """1 over examination, clipped; the same, on average, where all places were drawn."""
    weighing, places = Weighing(by_power(1.0), clip=2.5), np.arange(3)
    assert weighing.weights(places, places + 1, np.ones(3)).tolist() == [1, 2, 2.5]
    drawn = weighing.weights(places, places + 1, np.full(3, 1 / 3))
    np.testing.assert_allclose(drawn, 3 / (1 + 1 / 2 + 1 / 3))


def test_a_pinned_hit_keeps_its_examination() -> None:
    """Chance says nothing of a hit whose place was certain; the others share the places that were drawn."""
    weights = Weighing(by_power(1.0)).weights(np.array([0, 2]), np.array([1, 3]), np.array([1, 0.5, 0.5]))
    np.testing.assert_allclose(weights, [1, 1 / (0.5 * (1 / 2 + 1 / 3))])


@pytest.mark.parametrize("believed", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("kept", [0.0, 0.6])
def test_declared_chance_undoes_the_bias_whatever_is_believed(believed: float, kept: float) -> None:
    """Over every order that could be drawn, weighed clicks go as liking goes, to the last bits."""
    liked, truth, summed = np.array([0.1, 0.5, 0.9, 0.3]), np.array([1.0, 0.7, 0.2, 0.1]), np.zeros(4)
    orders = [np.array(order) for order in permutations(range(4))]
    for order in orders:
        chance = kept * (order == np.arange(4)).all() + (1 - kept) / len(orders)
        propensities = kept * (order == np.arange(4)) + (1 - kept) / 4
        weights = Weighing(by_power(believed), np.inf).weights(np.arange(4), np.arange(1, 5), propensities)
        summed[order] += chance * truth * liked[order] * weights
    np.testing.assert_allclose(summed / summed.sum(), liked / liked.sum(), rtol=1e-12)


def test_the_place_prefers_none_of_two_liked_alike(tmp_path: Path) -> None:
    """Over all that may be clicked: were clicked ones left out of each other's listings, the upper would win."""
    examination, liked, preferred = np.array([1.0, 0.1]), 0.9, {"a": 0.0, "b": 0.0}
    chances = {"a": liked * examination[0], "b": liked * examination[1]}
    outcomes = {"": (), "a": ("a",), "b": ("b",), "ab": ("a", "b")}
    searches = [search(name or "none", query="", page_size=2) for name in outcomes]
    events = [Event(name, CLICK, id_) for name, ids in outcomes.items() for id_ in ids]
    for listing in clicked(tmp_path, searches, events, Weighing(examination)).listings:
        name = listing.judged.query
        chance = np.prod([chances[id_] if id_ in name else 1 - chances[id_] for id_ in "ab"])
        (better,) = listing.judged.grades
        preferred[better] += chance * listing.weight * (len(listing) - 1)
    assert preferred["a"] == pytest.approx(preferred["b"])


def test_the_record_is_of_all_that_was_learned_from(tmp_path: Path) -> None:
    """The same logs have the same hash; another weighing has another."""
    searches, events = [search("q1")], [Event("q1", CLICK, "b")]
    first = clicked(tmp_path / "a", searches, events).judgements("log")
    again = clicked(tmp_path / "b", searches, events).judgements("log")
    other = clicked(tmp_path / "c", searches, events, Weighing(by_power(0.5))).judgements("log")
    assert (first.sha256 == again.sha256, first.sha256 == other.sha256) == (True, False)
    assert first.queries[0].grades == {"b": 1}


@dataclass(frozen=True)
class World:
    """Queries whose truth is known: grades follow `merit`, and nothing else does.

    The server that is at work orders by `habit`, which says nothing of the grades. Documents of one query keep
    their features; each query is asked several times.
    """

    queries: int = 250
    documents: int = 8
    visits: int = 6
    seed: int = 11

    def grades(self) -> IntColumn:
        """(queries, documents), half of them 0."""
        random = np.random.default_rng(self.seed)
        drawn: IntColumn = random.choice(4, (self.queries, self.documents), p=[0.5, 0.25, 0.15, 0.1])
        return drawn

    def features(self) -> FloatColumn:
        """(queries, documents, 2), best habit first."""
        random = np.random.default_rng(self.seed + 1)
        merit = self.grades() + random.normal(0, 1.5, (self.queries, self.documents))
        habit = -np.sort(-random.normal(0, 1, (self.queries, self.documents)), axis=1)
        return np.stack([merit, habit], axis=2)

    def write(self, folder: Path, people: PositionBased, exploring: float = 0.0) -> None:
        """Both logs of all visits; an arm of so many of the searches shuffles all that it shows."""
        random, rows, events = np.random.default_rng(self.seed + 2), [], []
        for query, (grades, matrix) in enumerate(zip(self.grades(), self.features(), strict=True)):
            for visit in range(self.visits):
                explores, query_id = random.random() < exploring, f"{query}/{visit}"
                order = np.arange(self.documents)
                propensities = shuffle(order, 0, self.documents if explores else 0, query_id)
                ids = [f"{query}-{document}" for document in order]
                rows.append(
                    logs.search(
                        query_id,
                        ids,
                        query=f"query {query}",
                        arm="explore" if explores else "",
                        propensities=propensities[order].tolist(),
                        schema_sha256=SCHEMA,
                        features=matrix[order].tolist(),
                    )
                )
                clicks = people.clicks(grades[order], random)
                events += [(1.0, event) for event in events_of(query_id, ids, clicks, logs.START_S)]
        logs.write_searches(folder / "log", rows)
        logs.write_events(folder / "events", events)

    def ndcg(self, folder: Path) -> float:
        """What a model's order of these queries is worth, by their true grades."""
        loaded = model.load(folder, FEATURES)
        scored = (loaded.score(matrix).argsort()[::-1] for matrix in self.features())
        pairs = zip(self.grades(), scored, strict=True)
        return float(
            np.mean([evaluation.ndcg(grades[order], grades.tolist(), depth=5) for grades, order in pairs])
        )


RECIPE = {
    "rounds": 60,
    "patience": 15,
    "threads": 1,
    "parameters": {"num_leaves": 7, "learning_rate": 0.1, "min_data_in_leaf": 20},
}
FRESH = World(queries=400, seed=99)


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings, a recipe, and the logs of a server whose places are looked at as 1/place, a fifth of it exploring."""
    folder = tmp_path_factory.mktemp("biased")
    World().write(folder, PositionBased(by_power(1.0)), exploring=0.2)
    settings = {
        "backends": {"a": {"kind": "memory", "fields": {"merit": {"type": "number"}}, "documents": []}},
        "mixes": {
            "default": {"backends": {"a": {}}, "features": [f.model_dump() for f in FEATURES]},
            "other": {"backends": {"a": {}}, "features": [FEATURES[0].model_dump()]},
        },
    }
    (folder / "mixer.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    return folder


def train(folder: Path, out: Path, *words: object) -> Result:
    command = [
        *("train", "-c", folder / "mixer.yaml", "--recipe", folder / "recipe.yaml", "--out", out),
        *("--from-log", folder / "log", folder / "events", *words),
    ]
    return CliRunner().invoke(cli.app, [str(word) for word in command])


def trained(folder: Path, out: Path, *words: object) -> Path:
    result = train(folder, out, *words)
    assert result.exit_code == 0, result.stderr
    return out


def test_weighing_beats_learning_the_bias(biased: Path, tmp_path: Path) -> None:
    """On queries nobody saw, by grades nobody logged: clicks as they are teach habit, weighed ones teach merit."""
    naive = trained(biased, tmp_path / "naive", "--eta", "0")
    weighed = trained(biased, tmp_path / "weighed", "--eta", "1")
    figures = {folder.name: FRESH.ndcg(folder) for folder in (naive, weighed)}
    assert figures["weighed"] > figures["naive"] + 0.05, figures
    shares = {folder.name: model.read_manifest(folder).importance for folder in (naive, weighed)}
    assert shares["naive"]["habit"] > 0.5 > shares["weighed"]["habit"], shares


def test_exploring_stands_in_for_knowing(biased: Path, tmp_path: Path) -> None:
    """Examination measured in the exploring arm serves about as well as the true one."""
    known = FRESH.ndcg(trained(biased, tmp_path / "known", "--eta", "1"))
    measured = FRESH.ndcg(trained(biased, tmp_path / "measured", "--explore", "explore"))
    naive = FRESH.ndcg(trained(biased, tmp_path / "naive", "--eta", "0"))
    assert measured > naive + 0.05, (measured, naive)
    assert measured == pytest.approx(known, abs=0.03)


def test_the_command_says_what_it_made(biased: Path, tmp_path: Path) -> None:
    """Model, trees, figures, what was left out; the manifest says how clicks were weighed; the same logs, the same."""
    result = train(biased, tmp_path / "ranker", "--clip", "5")
    assert result.exit_code == 0, result.stderr
    manifest = model.read_manifest(tmp_path / "ranker")
    assert f"ranker: ranker {manifest.version}, {manifest.trees} trees" in result.stdout
    assert "searches without a click" in result.stdout
    assert manifest.data.source.startswith("log: ")
    assert manifest.data.source.endswith(" clicks, examination (1/place)^1, clip 5")
    assert (manifest.data.since, manifest.data.until) == ("2023-11-14", "2023-11-14")
    kept = listings.read(tmp_path / "ranker" / JUDGED)
    assert (kept.split, {listing.judged.assigned for listing in kept.listings}) == ("test", {"test"})
    assert max(listing.weight for listing in kept.listings) == 5
    again = trained(biased, tmp_path / "again", "--clip", "5")
    assert model.read_manifest(again).model_sha256 == manifest.model_sha256


def test_logs_may_lie_far_away(biased: Path, tmp_path: Path) -> None:
    """Behind the URL of another file system they give the same model, byte for byte."""
    far = fsspec.filesystem("memory")
    for name in ("log", "events"):
        far.put(str(biased / name), f"/far/{name}", recursive=True)
    command = [
        *(
            "train",
            "-c",
            biased / "mixer.yaml",
            "--recipe",
            biased / "recipe.yaml",
            "--out",
            tmp_path / "far",
        ),
        *("--from-log", "memory://far/log", "memory://far/events"),
    ]
    result = CliRunner().invoke(cli.app, [str(word) for word in command])
    assert result.exit_code == 0, result.stderr
    here = trained(biased, tmp_path / "here")
    made = [model.read_manifest(folder).model_sha256 for folder in (tmp_path / "far", here)]
    assert made[0] == made[1]


def test_the_command_learns_on_a_cluster(biased: Path, tmp_path: Path) -> None:
    """On two processes that it starts itself: as good a model, and the manifest says how it was grown."""
    alone, shared = trained(biased, tmp_path / "alone"), trained(biased, tmp_path / "shared", "--dask", "2")
    assert FRESH.ndcg(shared) == pytest.approx(FRESH.ndcg(alone), abs=0.03)
    assert model.read_manifest(shared).parameters["num_machines"] == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--dask", "tcp://127.0.0.1:1"], "no Dask scheduler answers at tcp://127.0.0.1:1"),
        (["--mix", "other"], "no training or no validation query"),
        (["--mix", "othr"], "no mix is called 'othr'"),
        (["--explore", "nobody"], "nothing was put at random"),
        (["--judgements", "judged.jsonl"], "--judgements or --from-log, one of the two"),
    ],
)
def test_the_command_tells_what_is_wrong(biased: Path, tmp_path: Path, words: list[str], told: str) -> None:
    """A fault is a line and status 1; no model is written."""
    result = train(biased, tmp_path / "ranker", *words)
    assert result.exit_code == 1
    assert told in result.stderr
    assert not (tmp_path / "ranker").exists()
