"""One port for several processes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved(listen: str) -> Iterator[str]:
    """Hold `host:port` without listening, for processes of this user that share it; port 0 is any free one.

    Yields the address with the port that is held. Connections go to those who listen (SO_REUSEPORT).
    Raises: OSError where it is taken, is no host:port, or the system cannot spread connections.
    """
    if sys.platform != "linux":
        raise OSError("more than one worker needs Linux: elsewhere processes cannot share a port evenly")
    with _bound(listen) as held:
        # Only now: whoever shares the port with others was in the way of binding, as any stranger is.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield f"{listen.rpartition(':')[0]}:{held.getsockname()[1]}"


def _bound(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (ValueError, OSError) as error:
        raise OSError(f"cannot listen on {listen}: workers share a port, it must be host:port") from error
    family, kind, protocol, _, address = found[0]
    held = socket.socket(family, kind, protocol)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(address)
    except OSError as error:
        held.close()
        raise OSError(f"cannot listen on {listen}: is the port taken?") from error
    return held
