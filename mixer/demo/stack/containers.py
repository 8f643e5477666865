"""python -m mixer.demo.stack.containers FOLDER: what the containers of compose.yaml read, written once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixer.demo import show
from mixer.demo.show import BACKENDS, HERE, MODEL
from mixer.demo.stack import watching

HOSTS = {
    "127.0.0.1:50051": "0.0.0.0:50051",
    "127.0.0.1:9464": "0.0.0.0:9464",
    "127.0.0.1:50061": "dns:///lexical:50061",
    "127.0.0.1:50062": "dns:///semantic:50061",
    "127.0.0.1:50063": "dns:///symbols:50061",
}
"""Of mixer.yaml's addresses, those between containers: every service has a name, and all backends one port."""
TARGETS = {"mixer": "mixer:9464", "spans": "collector:8889", "collector": "collector:8888"}


def main(folder: Annotated[Path, typer.Argument(help="The volume that all containers read.")]) -> None:
    """Index the standard library's documentation of this image's interpreter; write settings and rules."""
    stage = show.prepare(folder, 50051, Console())
    for name in BACKENDS:
        show.write_backend(stage, name)
    stage.settings.write_text(settings_text(), encoding="utf-8")
    watching.write(folder, TARGETS, stage.settings)


def settings_text() -> str:
    """mixer.yaml with the addresses of containers."""
    text = (HERE / "mixer.yaml").read_text(encoding="utf-8")
    for here, there in HOSTS.items():
        text = text.replace(here, there)
    return text.replace("MODEL_FOLDER", json.dumps(str(MODEL.resolve())))


if __name__ == "__main__":
    typer.run(main)
