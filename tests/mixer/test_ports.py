from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mixer.ports import reserved


@contextmanager
def listening(address: str, shared: bool) -> Iterator[int]:
    """A socket that listens, on a port that others may share or not."""
    host, _, port = address.rpartition(":")
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        held.bind((host, int(port)))
        held.listen()
        yield held.getsockname()[1]


def test_a_reserved_port_is_for_those_who_share() -> None:
    """Processes that share the port may listen, others may not; and every connection goes to one who listens."""
    with reserved("127.0.0.1:0") as address, listening(address, shared=True), listening(address, shared=True):
        host, _, port = address.rpartition(":")
        assert (host, port != "0") == ("127.0.0.1", True)
        for _ in range(50):
            socket.create_connection((host, int(port)), timeout=5).close()
        with pytest.raises(OSError, match="in use"), listening(address, shared=False):
            pass


def test_a_reserved_port_is_not_answered() -> None:
    """Before anyone listens a connection is refused, not kept waiting."""
    with reserved("127.0.0.1:0") as address, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=5)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_of_strangers_is_taken(host: str, shared: bool) -> None:
    """Also where the strangers would share it: two servers on one port would answer each other's callers."""
    with (
        listening("127.0.0.1:0", shared) as port,
        pytest.raises(OSError, match=rf"cannot listen on {host}:{port}: is the port taken"),
        reserved(f"{host}:{port}"),
    ):
        pass


@pytest.mark.parametrize(
    "address", ["unix:/tmp/mixer.sock", "localhost", "nowhere.invalid:50051", "127.0.0.1:x"]
)
def test_an_address_is_host_and_port(address: str) -> None:
    """Whatever else gRPC could listen on is no port to share, and that is said."""
    with pytest.raises(OSError, match="must be host:port"), reserved(address):
        pass


@pytest.mark.parametrize("host", ["[::1]", "0.0.0.0", "localhost", ""])
def test_hosts(host: str) -> None:
    """Names, both versions of IP, and all addresses."""
    with reserved(f"{host}:0") as address:
        assert address.rpartition(":")[0] == host


def test_a_port_is_free_again() -> None:
    """When all is over another may have it."""
    with reserved("127.0.0.1:0") as address:
        pass
    with reserved(address) as again:
        assert again == address
