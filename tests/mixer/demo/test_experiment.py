from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from backends import open_backend
from mixer.client import AsyncMixerClient, SearchResult
from mixer.demo import experiment
from mixer.demo.experiment import RECIPE, _by_fold, _embedded
from mixer.demo.show import BACKENDS, MODEL, Stage
from mixer.manifest import sha256_of
from mixer.model import read_manifest
from mixer.server import running
from mixer.settings import Settings, load
from models import judgements, training, work
from models.collection import Listing
from models.training import Recipe, fit
from tests import forest
from tests.doubles import engines


def test_the_recipe_is_one() -> None:
    """The recipe is valid, and LightGBM takes every one of its parameters without a warning."""
    assert Recipe.model_validate(RECIPE.model_dump()) == RECIPE
    quick = RECIPE.model_copy(update={"rounds": 3, "threads": 1})
    made = fit(forest.listings(range(8)), forest.listings(range(100, 104), "valid"), forest.FEATURES, quick)
    assert {key: made.parameters[key] for key in RECIPE.parameters} == dict(RECIPE.parameters)


def test_the_shipped_model_is_of_the_recipe() -> None:
    """The model was made by the recipe and from the judgements that the repository holds."""
    manifest = read_manifest(MODEL)
    assert {key: manifest.parameters[key] for key in RECIPE.parameters} == dict(RECIPE.parameters)
    assert manifest.parameters["seed"] == RECIPE.seed
    assert manifest.trees <= RECIPE.rounds
    assert manifest.data.sha256 == sha256_of(experiment.JUDGEMENTS)


def test_the_judged_queries_are_there() -> None:
    """The repository holds the queries, and every split and fold has some."""
    queries = judgements.read(experiment.JUDGEMENTS).queries
    assert set(judgements.counts(queries)) == {"train", "valid", "test"}
    assert {judged.fold(experiment.FOLDS) for judged in queries} == set(range(experiment.FOLDS))


async def asked(settings: Settings) -> SearchResult:
    """The whole list for one query."""
    async with (
        running(work.for_work(settings, "default", with_model=False)) as (server, _),
        AsyncMixerClient(f"127.0.0.1:{server.port}", timeout_s=10) as client,
    ):
        return await client.search("read a csv file", page_size=50, features=True)


async def test_engines_in_one_process_answer_the_same(stage: Stage) -> None:
    """With its engines in the same process the demo serves the same ids, scores and features as over sockets."""
    embedded = _embedded(stage)
    assert {name: backend.kind for name, backend in embedded.backends.items()} == BACKENDS
    apart = load(stage.settings)
    async with AsyncExitStack() as stack:
        targets = {
            name: await stack.enter_async_context(engines.healthy(open_backend(backend)))
            for name, backend in embedded.backends.items()
        }
        remote = {
            name: backend.model_copy(update={"target": targets[name]})
            for name, backend in apart.backends.items()
        }
        served = await asked(apart.model_copy(update={"backends": remote}))
    worked = await asked(embedded)
    assert len(served.hits) > 10
    assert not served.degraded
    assert [(hit.id, hit.score, hit.sources) for hit in worked.hits] == [
        (hit.id, hit.score, hit.sources) for hit in served.hits
    ]
    assert worked.features.tobytes() == served.features.tobytes()


def test_no_model_ranks_its_own_folds(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing is ranked by a forest that neither learned from nor was stopped by a query of its need."""
    seen: list[tuple[set[str], set[str]]] = []

    class Fitted:
        def __init__(self, place: int) -> None:
            self.place = place

        def order(self) -> object:
            return lambda listing: self.place

    def fit(learned: list[Listing], stopping: list[Listing], *_: object) -> Fitted:
        seen.append(({ls.judged.need for ls in learned}, {ls.judged.need for ls in stopping}))
        return Fitted(len(seen) - 1)

    monkeypatch.setattr(training, "fit", fit)
    listings = tuple(forest.listings(range(60)))
    job = work.Job(_embedded(stage), "default", judgements.read(experiment.JUDGEMENTS))
    order = _by_fold(listings, job)
    assert len(seen) == experiment.FOLDS
    for listing in listings:
        learned, stopping = seen[int(order(listing))]
        assert listing.judged.need not in learned | stopping
        assert not learned & stopping
        assert learned
        assert stopping
