from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from mixer import cli, cli_words
from mixer.verdicts import Verdicts
from tests.doubles import engines, mixers
from tests.mixer.test_verdicts import verdict

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}


def settings(folder: Path) -> Any:
    arms = [{"name": "control", "share": 0.9}, {"name": "canary", "share": 0.1}]
    experiment = {"salt": "s", "arms": arms, "verdicts": str(folder / "verdicts")}
    return mixers.settings({"a": MEMORY}, {"experiment": experiment}, server=mixers.ADMIN)


def written(folder: Path, made: Any) -> Path:
    path = folder / "mixer.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_none=True)))
    return path


async def check(folder: Path, searches: int, shares: tuple[float, float] | None = None) -> Result:
    """After so many searches on a server whose arms have the shares of the file, or others."""
    made = settings(folder)
    path, raw = written(folder, made), made.model_dump(mode="json", exclude_none=True)
    if shares:
        for arm, share in zip(raw["mixes"]["default"]["experiment"]["arms"], shares, strict=True):
            arm["share"] = share
    async with mixers.running(type(made).model_validate(raw)) as mixer:
        for _ in range(searches):
            await mixer.search("csv")
        url = f"http://127.0.0.1:{mixer.server.admin_port}/metrics"
        command = ["experiment", "check", "-c", str(path), "--metrics", url]
        return await asyncio.to_thread(CliRunner().invoke, cli.app, command)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_words.console, "_width", 120)


async def test_a_sound_split(tmp_path: Path) -> None:
    """What each arm got and did, and the probability; arms that were taken back are named with the reason."""
    Verdicts("default", tmp_path / "verdicts").keep(verdict("default", sha256="b" * 64))
    result = await check(tmp_path, 60)
    assert result.exit_code == 0, result.output
    assert "as it should be" in result.output
    assert "canary : taken back at 2024-01-01" in result.output
    [control] = [line for line in result.output.splitlines() if line.startswith("│ control")]
    cells = [cell.strip() for cell in control.strip("│").split("│")]
    assert (cells[1], cells[3]) == ("0.9", "54.0")
    assert cells[2] == cells[4]


async def test_what_readers_of_drafted_lists_prefer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists so far, the shares that they leave possible, and the verdict, summed over what the page tells of."""
    made = settings(tmp_path).model_dump(mode="json", exclude_none=True)
    made["mixes"]["default"]["experiment"]["arms"][1]["interleave"] = {"settle_s": 60.0}
    path = written(tmp_path, mixers.settings({"a": MEMORY}).model_validate(made))
    lists = 'mixer_interleaved_lists{mix="default",arm="canary",pid="%d",preferred="%s"} %d'
    for losses, preferred in ((30, "undecided"), (5, "readers prefer canary")):
        page = [
            "# TYPE mixer_interleaved_lists gauge",
            *(
                lists % (pid, whose, count)
                for pid in (1, 2)
                for whose, count in (("arm", 15), ("neither", 4))
            ),
            lists % (1, "control", losses),
            "# TYPE mixer_arm_share_ratio gauge",
            'mixer_arm_share_ratio{mix="default",arm="control"} 0.9',
            "# EOF",
        ]
        served = tmp_path / "metrics"
        served.write_text("\n".join(page) + "\n")
        command = ["experiment", "check", "-c", str(path), "--metrics", served.as_uri()]
        result = CliRunner().invoke(cli.app, command)
        assert result.exit_code == 0, result.output
        told = (
            f"canary: {preferred}: in {38 + losses} drafted lists its hits won 30, the control's {losses}, "
        )
        assert told in result.output


async def test_a_broken_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that do not fall as the shares say end with status 1."""
    monkeypatch.setattr("mixer.experiment.draw", lambda salt, key: (0.95, hash(key) & (2**64 - 1)))
    result = await check(tmp_path, 30)
    assert result.exit_code == 1
    assert "the split is broken" in result.output


async def test_what_is_asked_in_vain(tmp_path: Path) -> None:
    """A mix without an experiment, a page that is not there: the message says what to do."""
    made = mixers.settings({"a": MEMORY})
    path = written(tmp_path, made)
    invoke = CliRunner().invoke
    result = invoke(cli.app, ["experiment", "check", "-c", str(path)])
    assert (result.exit_code, "has no experiment" in result.output) == (1, True)
    path = written(tmp_path, settings(tmp_path))
    result = invoke(
        cli.app, ["experiment", "check", "-c", str(path), "--metrics", "http://127.0.0.1:1/metrics"]
    )
    assert (result.exit_code, "--metrics" in result.output) == (1, True)
    result = invoke(cli.app, ["experiment", "check", "-c", str(path), "--mix", "other"])
    assert (result.exit_code, "no mix is called 'other'" in result.output) == (1, True)
