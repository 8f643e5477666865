from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from mixer import catalogue
from mixer.admin import Admin
from mixer.metrics import Metrics


@pytest.fixture
def served() -> Iterator[tuple[Admin, Metrics, int]]:
    metrics = Metrics()
    admin = Admin(metrics.registry)
    yield admin, metrics, admin.start("127.0.0.1:0")
    admin.stop()


def get(port: int, path: str, accept: str = "*/*") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", path, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_alive_is_not_ready(served: tuple[Admin, Metrics, int]) -> None:
    """A server lives from its start and is ready when told so, and not ready again when told so."""
    admin, _, port = served
    assert get(port, "/livez")[0] == 200
    assert get(port, "/readyz")[0] == 503
    admin.ready = True
    assert get(port, "/readyz")[0] == 200
    admin.ready = False
    assert get(port, "/readyz")[0] == 503


def test_metrics_are_scraped(served: tuple[Admin, Metrics, int]) -> None:
    """What was counted is there, in either of Prometheus's formats."""
    _, metrics, port = served
    metrics.counter(catalogue.DEGRADED, mix="m").inc(3)
    status, text = get(port, "/metrics")
    assert status == 200
    assert 'mixer_degraded_total{mix="m"} 3.0' in text
    _, text = get(port, "/metrics", "application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/", "/metric", "/livez/", "/../etc/passwd"])
def test_there_is_nothing_else(served: tuple[Admin, Metrics, int], path: str) -> None:
    """Any other path is not found."""
    assert get(served[2], path)[0] == 404


def test_scrapes_are_not_printed(
    served: tuple[Admin, Metrics, int], capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard output is for the log lines of calls."""
    get(served[2], "/livez")
    assert capfd.readouterr() == ("", "")


def test_a_taken_port_is_an_error(served: tuple[Admin, Metrics, int]) -> None:
    """Two servers cannot have one port, and the second says so at once."""
    with pytest.raises(OSError, match=r"in use"):
        Admin(Metrics().registry).start(f"127.0.0.1:{served[2]}")


def test_stopping_closes_the_port() -> None:
    """After the stop nobody answers; stopping what never started does nothing."""
    admin = Admin(Metrics().registry)
    admin.stop()
    port = admin.start("127.0.0.1:0")
    admin.stop()
    with pytest.raises(ConnectionRefusedError):
        get(port, "/livez")
