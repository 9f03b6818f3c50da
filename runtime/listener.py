"""Listening sockets that are ours before any server starts, so that a port in use is an ordinary error.

Go's `net.Listen` does the same; uvicorn would bind late and end the process with `SystemExit`.
"""

from __future__ import annotations

import os
import socket


def open_listener(host: str, port: int, *, listen_fd: int | None = None, backlog: int = 2048) -> socket.socket:
    """Bind and listen, or take over an inherited listening socket; non-blocking either way.

    Args:
        host: an address or a name; the first address it resolves to is used.
        port: 0 to 65535; 0 lets the system choose.
        listen_fd: number of an inherited socket that listens already; it is duplicated, so the caller's stays open.
        backlog: how many connections may wait to be accepted.

    Raises:
        OSError: the address is taken or cannot be used, or the inherited number is no listening stream socket.
        ValueError: the host is no name of one, or a number is out of range; settings are checked for both.
    """
    if listen_fd is not None:
        return _take_listener(listen_fd)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _take_listener(listen_fd: int) -> socket.socket:
    listener = socket.socket(fileno=os.dup(listen_fd))
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise OSError(f"file descriptor {listen_fd} is not a listening stream socket")
    listener.setblocking(False)
    return listener
