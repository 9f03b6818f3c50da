"""Bytes that are no request of HTTP/1.1, or begin one and never end it. Every answer is the connection's last."""

from collections.abc import Iterator
from typing import Final

from tests.bad_input.http_row import APIS, Row

_GET: Final = b"GET /k4n4ry HTTP/1.1\r\nhost: test\r\n"
_POST: Final = b"POST /k4n4ry HTTP/1.1\r\nhost: test\r\n"
_CHUNKED: Final = _POST + b"transfer-encoding: chunked\r\n\r\n"

BAD: Final[dict[str, bytes]] = {
    "TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03k4n4ry",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nk4n4ry",
    "SSH greeting": b"SSH-2.0-k4n4ry\r\n",
    "SOCKS greeting": b"\x05\x01\x00k4n4ry",
    "NULs": b"\0" * 100 + b"k4n4ry",
    "forged log line": b'{"event":"k4n4ry","level":"error"}\r\n\r\n',
    "terminal codes": b"\x1b[31mk4n4ry\x1b[0m\r\n\r\n",
    "version 1.2": b"GET /k4n4ry HTTP/1.2\r\nhost: test\r\n\r\n",
    "version 3.7": b"GET /k4n4ry HTTP/3.7\r\nhost: test\r\n\r\n",
    "version of two digits": b"GET /k4n4ry HTTP/1.10\r\nhost: test\r\n\r\n",
    "version in lower case": b"GET /k4n4ry http/1.1\r\nhost: test\r\n\r\n",
    "another protocol": b"GET /k4n4ry ICE/1.0\r\nhost: test\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nhost: test\r\nx: k4n4ry\r\n\r\n",
    "two targets": b"GET /k4n4ry /k4n4ry HTTP/1.1\r\nhost: test\r\n\r\n",
    "relative target": b"GET k4n4ry HTTP/1.1\r\nhost: test\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nhost: k4n4ry\r\n\r\n",
    "other scheme": b"GET ftp://k4n4ry/ HTTP/1.1\r\nhost: test\r\n\r\n",
    "fragment": b"GET /k4n4ry#part HTTP/1.1\r\nhost: test\r\n\r\n",
    "fragment after a query": b"GET /k4n4ry?limit=1#part HTTP/1.1\r\nhost: test\r\n\r\n",
    "target not ASCII": b"GET /k4n4ry\xff\xfe HTTP/1.1\r\nhost: test\r\n\r\n",
    "target in UTF-8": "GET /k4n4ry\u202e HTTP/1.1\r\nhost: test\r\n\r\n".encode(),
    "target with NUL": b"GET /k4n4ry\0 HTTP/1.1\r\nhost: test\r\n\r\n",
    "target with an escape code": b"GET /\x1b[31mk4n4ry HTTP/1.1\r\nhost: test\r\n\r\n",
    "target with DEL": b"GET /k4n4ry\x7f HTTP/1.1\r\nhost: test\r\n\r\n",
    "no host": b"GET /k4n4ry HTTP/1.1\r\n\r\n",
    "two hosts": _GET + b"host: k4n4ry\r\n\r\n",
    "header with NUL in its name": _GET + b"x\0k4n4ry: 1\r\n\r\n",
    "header with NUL in its value": _GET + b"x: k4n4ry\0\r\n\r\n",
    "header with an escape code": _GET + b"x: \x1b[31mk4n4ry\r\n\r\n",
    "header with a bell": _GET + b"x-request-id: k4n4ry\x07\r\n\r\n",
    "header with a lone carriage return": _GET + b"x: k4n4ry\rforged: 1\r\n\r\n",
    "header without a colon": _GET + b"k4n4ry\r\n\r\n",
    "header without a name": _GET + b": k4n4ry\r\n\r\n",
    "space before the colon": _GET + b"k4n4ry : 1\r\n\r\n",
    "space in a header's name": _GET + b"k4 n4ry: 1\r\n\r\n",
    "header's name not ASCII": _GET + b"k4n4ry\xff: 1\r\n\r\n",
    "folded header": _GET + b"x: 1\r\n k4n4ry\r\n\r\n",
    "folded first header": b"GET /k4n4ry HTTP/1.1\r\n host: test\r\n\r\n",
    "two lengths": _POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nk4n4ry",
    "the same length twice": _POST + b"content-length: 6\r\ncontent-length: 6\r\n\r\nk4n4ry",
    "list of lengths": _POST + b"content-length: 6, 6\r\n\r\nk4n4ry",
    "negative length": _POST + b"content-length: -6\r\n\r\nk4n4ry",
    "length with a plus": _POST + b"content-length: +6\r\n\r\nk4n4ry",
    "hexadecimal length": _POST + b"content-length: 0x6\r\n\r\nk4n4ry",
    "length with an underscore": _POST + b"content-length: 1_0\r\n\r\nk4n4ry",
    "length that is no number": _POST + b"content-length: k4n4ry\r\n\r\n",
    "empty length": _POST + b"content-length:\r\n\r\nk4n4ry",
    "absurd length": _POST + b"content-length: 99999999999999999999999\r\n\r\nk4n4ry",
    "length and chunks": _POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nk4n4ry",
    "chunks and length": _POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nk4n4ry",
    "chunked, then another coding": _POST + b"transfer-encoding: chunked, k4n4ry\r\n\r\n0\r\n\r\n",
    "chunked with a space before the colon": _POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\nk4n4ry",
    "coding with a vertical tab": _POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\nk4n4ry",
    "chunked twice": _POST + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\nk4n4ry",
    "chunk size that is no number": _CHUNKED + b"k4n4ry\r\n",
    "negative chunk size": _CHUNKED + b"-6\r\nk4n4ry\r\n0\r\n\r\n",
    "chunk size with a prefix": _CHUNKED + b"0x6\r\nk4n4ry\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": _CHUNKED + b"10000000000000006\r\nk4n4ry\r\n0\r\n\r\n",
    "chunk longer than its size": _CHUNKED + b"3\r\nk4n4ry\r\n0\r\n\r\n",
    "chunk size ended by a line feed": _CHUNKED + b"6\nk4n4ry\r\n0\r\n\r\n",
}

CODINGS: Final[dict[str, bytes]] = {
    "gzip": b"transfer-encoding: gzip\r\n",
    "gzip, chunked": b"transfer-encoding: gzip, chunked\r\n",
    "in two lines": b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
    "identity": b"transfer-encoding: identity\r\n",
    "unknown": b"transfer-encoding: k4n4ry\r\n",
    "quoted": b'transfer-encoding: "chunked"\r\n',
}

UNFINISHED: Final[dict[str, tuple[bytes, str]]] = {
    "half a method": (b"G", "header-timeout"),
    "half a header": (_GET + b"x: k4n4ry", "header-timeout"),
    "header without its last line": (_GET + b"x: k4n4ry\r\n", "header-timeout"),
    "half a body": (_POST + b"content-length: 10\r\n\r\nk4n4ry", "body-timeout"),
    "half a chunk": (_CHUNKED + b"a\r\nk4n4ry", "body-timeout"),
    "chunks without an end": (_CHUNKED + b"6\r\nk4n4ry\r\n", "body-timeout"),
}


def _rows() -> Iterator[Row]:
    for api in APIS:
        for name, request in BAD.items():
            yield Row(name, api, request, 400, "bad-request")
        for name, coding in CODINGS.items():
            request = _POST + coding + b"\r\n0\r\n\r\nk4n4ry"
            yield Row(f"coding {name}", api, request, 400, "transfer-coding-not-supported")
        for version in (b"", b" HTTP/0.9", b" HTTP/2.0"):
            request = b"GET /k4n4ry%b\r\nhost: test\r\n\r\n" % version
            yield Row(f"version {version.decode()!r}", api, request, 400, "http-version-not-supported")
        long_target = b"GET /k4n4ry" + b"a" * 9_000 + b" HTTP/1.1\r\nhost: test\r\n\r\n"
        yield Row("long target", api, long_target, 414, "target-too-long")
        yield Row("header without an end", api, _GET + b"x: k4n4ry" + b"a" * 30_000, 431, "headers-too-large")
        announced = _POST + b"content-length: 65537\r\n\r\nk4n4ry"
        yield Row("announced body too large", api, announced, 413, "body-too-large")
        chunks = _CHUNKED + (b"8000\r\n" + b"k" * 0x8000 + b"\r\n") * 2 + b"1\r\nk\r\n"
        yield Row("chunked body too large", api, chunks, 413, "body-too-large")
        extension = _CHUNKED + b"6;" + b"k4n4ry" * 100_000
        yield Row("chunk extension without an end", api, extension, 413, "body-too-large")


ROWS: Final = tuple(_rows())
UNFINISHED_ROWS: Final = tuple(
    Row(name, api, request, 408, code) for api in APIS for name, (request, code) in UNFINISHED.items()
)
"""Answered when their time is up, so best sent at once."""
