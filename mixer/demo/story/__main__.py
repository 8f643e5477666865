"""python -m mixer.demo.story: tells it all, and ends with 1 where something does not come true."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixer.demo.experiment import JUDGEMENTS
from mixer.demo.processes import NotReady
from mixer.demo.story import acts
from mixer.demo.story.crowd import Crowd
from mixer.demo.story.stage import StoryBroken, opened, serving

FOLDER = Path(".build/story")
CHAPTERS = (acts.log_and_learn, acts.shadow, acts.canary, acts.promote, acts.broken, acts.subtly_worse)


def main(
    folder: Annotated[Path, typer.Option(help="Where indexes, models, registry and logs go.")] = FOLDER,
) -> None:
    """A model's life on a real server under load: learned, tried, promoted, rolled back; broken ones stopped."""
    console = Console()
    try:
        with opened(folder, console, JUDGEMENTS) as scene:
            acts.first_model(scene)
            with serving(scene), Crowd(scene.target, scene.people_ask) as crowd:
                for chapter in CHAPTERS:
                    chapter(scene, crowd)
            scene.title("The end")
            failed = dict(crowd.failures())
            scene.say(f"{crowd.visits} searches in all, {sum(failed.values())} failed {failed or ''}")
            scene.say(f"Registry, logs and verdicts are in {scene.folder}.")
    except (StoryBroken, NotReady) as error:
        console.print(f"the story broke: {error}", style="bold red", markup=False)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
