"""A real Solr node from Maven's jars, with a core for each test that wants one."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.programs import free_port, jars, program

VERSION = "9.10.1"
_HERE = Path(__file__).parent
_PARTS = (f"org.apache.solr:solr-test-framework:{VERSION}",)


class Node:
    """Where it listens, and how a test fills it."""

    def __init__(self, url: str, home: Path) -> None:
        self.url, self._home = url, home

    def call(self, path: str, body: object = None, **parameters: str) -> Any:
        """One request, its answer read. Raises: urllib.error.HTTPError."""
        sent = None if body is None else json.dumps(body).encode()
        asked = urllib.parse.urlencode({"wt": "json", **parameters})
        request = urllib.request.Request(
            f"{self.url}/{path}?{asked}", sent, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def create(self, core: str) -> None:
        """A core with the schema that lies beside this file."""
        conf = self._home / core / "conf"
        conf.mkdir(parents=True)
        for name in ("solrconfig.xml", "schema.xml"):
            shutil.copy(_HERE / "solr" / name, conf)
        self.call("admin/cores", action="CREATE", name=core, instanceDir=core)

    def add(self, core: str, documents: Sequence[Mapping[str, Any]]) -> None:
        """The documents, to be found at once."""
        self.call(f"{core}/update", list(documents), commit="true")

    def answers(self) -> bool:
        try:
            return "lucene" in self.call("admin/info/system")
        except (urllib.error.URLError, ConnectionError):
            return False


@contextmanager
def running(folder: Path) -> Iterator[Node]:
    """A node that is up, its cores in the folder."""
    home = folder / "home"
    home.mkdir()
    shutil.copy(_HERE / "solr" / "solr.xml", home)
    port = free_port()
    node = Node(f"http://127.0.0.1:{port}/solr", home)
    java = ["java", "-Xmx512m", f"-Dsolr.log.dir={folder}", "-cp", f"{jars(f'solr-{VERSION}', *_PARTS)}/*"]
    command: list[str | Path] = [*java, _HERE / "java" / "SolrNode.java", str(port), home]
    with program(command, folder / "node.log", node.answers):
        yield node
