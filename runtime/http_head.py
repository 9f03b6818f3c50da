"""What a request's header may not announce, whatever its path.

All of it is 400, where RFC 9110 would have 505 for a version and 501 for a transfer coding: in this platform a 5xx is
the server's fault and wakes somebody, and no client can cause one by what it sends.
"""

from collections.abc import Sequence

from runtime.problem import Problem


def head_problem(headers: Sequence[tuple[bytes, bytes]], version: str) -> Problem | None:
    """Return what is wrong with a version, a Host or a transfer coding; None when nothing is.

    Args:
        headers: names in lower case, in the order they came, doubles kept.
        version: as it stands in the request line.
    """
    if version not in ("1.1", "1.0"):
        return Problem(400, "http-version-not-supported")
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return Problem(400, "bad-request", "Exactly one Host header is needed.")
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings not in ([], [b"chunked"]):
        return Problem(400, "transfer-coding-not-supported")
    return None


def is_too_large(headers: Sequence[tuple[bytes, bytes]], bytes_max: int, count_max: int) -> bool:
    """Say whether there are too many headers, or too many bytes in all their lines together."""
    return len(headers) > count_max or sum(len(name) + len(value) + 4 for name, value in headers) > bytes_max


def without_upgrade(method: bytes, target: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a request's head as it would have come without an offer to change the protocol.

    A server that takes no upgrade ignores it (RFC 9110 section 7.8); the parser does not, and drops the body.
    """
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] != b"upgrade"]
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, target, version.encode(), b"".join(lines))
