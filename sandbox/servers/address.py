"""Find out where a server can listen and whether it does."""

import random
import socket

LOOPBACK = "127.0.0.1"
# Below the range from which systems take the ports of outgoing connections (32768 on Linux, 49152 on macOS), so that
# the port of a stopped server is still free when the server comes back.
_PORTS = range(15_000, 32_000)
_ATTEMPTS = 200


def free_port() -> int:
    """Return a port on loopback that nothing listens on right now.

    Raises:
        OSError: no free port was found in 200 tries.
    """
    for _ in range(_ATTEMPTS):
        port = random.choice(_PORTS)  # noqa: S311 - spreads ports, protects nothing
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {_PORTS.start} and {_PORTS.stop} in {_ATTEMPTS} tries")
