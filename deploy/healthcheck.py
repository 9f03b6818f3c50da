"""Ask a process's admin port whether it is ready: status 0 when it is, 1 when not or when it does not answer.

    python -I -S /app/deploy/healthcheck.py [PATH] [PORT]

It is run every few seconds in every container, so it loads next to nothing: no site-packages, no HTTP library.
"""

import socket
import sys

TIMEOUT_SECONDS = 2.5
"""Of connecting, and of each wait for more of the answer; Docker's own limit (5 s) bounds the whole."""
_ANSWER_BYTES_MAX = 65_536


def ask(path: str, port: int) -> tuple[bool, str]:
    """Return whether the answer's status is 200, and its body; it never raises for what the network does."""
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
            connection.sendall(request)
            answer = bytearray()
            while len(answer) < _ANSWER_BYTES_MAX and (part := connection.recv(_ANSWER_BYTES_MAX)):
                answer += part
    except OSError as error:
        return False, f"no answer on port {port}: {error}"
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 200 "), body.decode("utf-8", "replace") or "an empty answer"


def main(arguments: list[str]) -> int:
    """Print what the process says of itself, for `docker inspect`, and return the status."""
    path = arguments[0] if arguments else "/readyz"
    port = int(arguments[1]) if len(arguments) > 1 else 9090
    is_ready, told = ask(path, port)
    sys.stdout.write(f"{told}\n")
    return 0 if is_ready else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
