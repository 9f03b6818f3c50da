"""Find out where a server can listen and whether it does."""

import os
import random
import socket
from collections import deque

LOOPBACK = "127.0.0.1"
# Below the range from which systems take the ports of outgoing connections (32768 on Linux, 49152 on macOS), so that
# the port of a stopped server is still free when the server comes back.
_PORTS = range(15_000, 32_000)
_ATTEMPTS = 200
# Whoever asks listens a moment later: until then the port is kept from others. Within this process it is remembered,
# and processes that run side by side, whose numbers are near one another, look in different parts of the range.
_PARTS = 16
_GIVEN: deque[int] = deque(maxlen=200)


def free_port() -> int:
    """Return a port on loopback that nothing listens on right now, and that was not among the last 200 given here.

    Raises:
        OSError: no free port was found in 200 tries.
    """
    ports = _PORTS[os.getpid() % _PARTS :: _PARTS]
    for _ in range(_ATTEMPTS):
        port = random.choice(ports)  # noqa: S311 - spreads ports, protects nothing
        if port in _GIVEN:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        _GIVEN.append(port)
        return port
    raise OSError(f"no free port between {_PORTS.start} and {_PORTS.stop} in {_ATTEMPTS} tries")
