"""`mixer experiment`: whether a running experiment gets the split that it was given, and what its arms do."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mixer import metrics_page
from mixer.arms import sample_ratio_p
from mixer.cli_inputs import Config, EventLog, FeatureLog, Mix, mix_of, settings_of
from mixer.cli_words import console, failure, say
from mixer.duel import PREFERRED
from mixer.experiment_settings import ArmSettings, ExperimentSettings
from mixer.sequential import Tally, interval, log_evidence
from mixer.verdicts import Verdicts

app = typer.Typer(
    no_args_is_help=True, help="Experiments: arms of a mix's traffic, each with a model of its own."
)
SUSPECT_P = 0.001
"""Below it the split is taken for broken: what the arms' figures say is not to be believed."""

_EVEN, _MOST = 0.5, 700.0
_READ = ("mix", "arm", "outcome", "preferred")

Sample = Callable[..., float]


@app.callback()
def _group() -> None:
    """A group also with one command."""


@app.command()
def check(
    config: Config,
    mix: Mix = "",
    metrics: Annotated[
        str, typer.Option(help="Metrics page of a server, or of a Prometheus that federates all of them.")
    ] = "http://localhost:9464/metrics",
) -> None:
    """Hold the keys of each arm against its share, and show what the arms do. Ends with 1 where the split is broken.

    Keys are counted once, however often they ask. While an arm is taken back, the control gets its share.
    """
    name, declared = _declared(config, mix)
    sample = _samples(metrics, name)
    verdicts = list(Verdicts(name, declared.verdicts).standing().values())
    shares = [sample("mixer_arm_share_ratio", arm=arm.name) for arm in declared.arms]
    keys = [int(sample("mixer_arm_keys", arm=arm.name)) for arm in declared.arms]
    if not sum(shares):
        raise failure(f"{metrics} tells of no experiment of the mix {name!r}: is this its server?")
    console.print(_table(name, declared.arms, shares, keys, sample))
    for verdict in verdicts:
        say(f"{verdict.arm} {verdict.version}: taken back at {verdict.at}: {verdict.why}")
    for arm in declared.arms:
        if arm.interleave:
            say(_preference(arm.name, _tally(arm.name, sample), arm.interleave.alpha))
    p = sample_ratio_p(keys, shares)
    if p < SUSPECT_P:
        raise failure(f"p {p:.2g}: the split is broken; do not believe what the arms' figures say")
    say(f"p {p:.2g}: the split is as it should be")


@app.command()
def interleaved(
    log: FeatureLog,
    events: EventLog,
    window_s: Annotated[float, typer.Option(help="How long after its search an event counts.")] = 3600.0,
    alpha: Annotated[
        float,
        typer.Option(min=1e-9, max=0.5, help="How often a winner may ever be named where there is none."),
    ] = 0.05,
) -> None:
    """Whom the readers of drafted lists prefer, by the logs of all servers: each arm's model against the control."""
    from models.feedback import Joined
    from models.interleaved import tallies

    try:
        with Joined(log, events, window_s) as joined:
            found = tallies(joined)
    except ValueError as error:
        raise failure(str(error)) from error
    if not found:
        raise failure(f"{log} holds no drafted list that somebody saw: does an arm interleave?")
    for pair, tally in found.items():
        say(f"{pair.mix} {pair.version} in {_preference(pair.arm, tally, alpha)}")


def _table(
    name: str, arms: tuple[ArmSettings, ...], shares: list[float], keys: list[int], sample: Sample
) -> Table:
    table = Table(title=name, title_justify="left")
    for heading in ("arm", "share", "keys", "expected", "requests", "errors", "fallbacks", "mean ms"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    for arm, share, count in zip(arms, shares, keys, strict=True):
        table.add_row(
            arm.name, f"{share:.4g}", str(count), f"{share * sum(keys):.1f}", *_row(arm.name, sample)
        )
    return table


def _row(arm: str, sample: Sample) -> list[str]:
    outcomes = {
        outcome: sample("mixer_arm_requests_total", arm=arm, outcome=outcome)
        for outcome in ("ok", "error", "refused")
    }
    total = sum(outcomes.values())
    errors, fallbacks = outcomes["error"], sample("mixer_arm_fallbacks_total", arm=arm)
    answers = sample("mixer_arm_duration_seconds_count", arm=arm)
    mean_ms = sample("mixer_arm_duration_seconds_sum", arm=arm) / answers * 1000 if answers else 0.0
    return [f"{total:.0f}", _share(errors, total), _share(fallbacks, total), f"{mean_ms:.1f}"]


def _tally(arm: str, sample: Sample) -> Tally:
    """Over all processes that the page tells of."""
    counted = [sample("mixer_interleaved_lists", arm=arm, preferred=whose) for whose in PREFERRED.values()]
    wins, losses, ties = map(int, counted)
    return Tally(wins, losses, ties)


def _preference(arm: str, tally: Tally, alpha: float) -> str:
    """What the readers of drafted lists prefer, in a sentence."""
    low, high = interval(tally, alpha)
    verdict = "undecided"
    if not low <= _EVEN <= high:
        verdict = f"readers prefer {arm if low > _EVEN else 'the control'}"
    evidence = exp(min(log_evidence(tally), _MOST))
    return (
        f"{arm}: {verdict}: in {tally.decided + tally.ties} drafted lists its hits won {tally.wins}, "
        f"the control's {tally.losses}, neither's {tally.ties}; of those decided {low:.1%} to {high:.1%} are its own; "
        f"e-value {evidence:.3g}, where {1 / alpha:g} decides"
    )


def _share(count: float, of: float) -> str:
    return f"{count / of:.2%}" if of else "-"


def _declared(config: Path, mix: str) -> tuple[str, ExperimentSettings]:
    loaded = settings_of(config)
    name = mix_of(loaded, mix)
    declared = loaded.mixes[name].experiment
    if declared is None:
        raise failure(f"{config}: mixes.{name} has no experiment")
    return name, declared


def _samples(url: str, mix: str) -> Sample:
    """What reads one sample of the mix by its name and labels; 0 where there is none."""
    try:
        page = metrics_page.read(url)
    except (OSError, ValueError) as error:
        raise failure(
            f"{url} cannot be read: {error}; name the server's metrics page with --metrics"
        ) from error
    read: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for sample in page:
        ours = frozenset(pair for pair in sample.labels.items() if pair[0] in _READ)
        read[sample.name, ours] = read.get((sample.name, ours), 0.0) + sample.value
    return lambda name, **labels: read.get((name, frozenset({"mix": mix, **labels}.items())), 0.0)
