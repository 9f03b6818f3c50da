"""The reference: a bare ASGI application on uvicorn that reads one coupon, with nothing around it.

Run as a program: `python -m tests.benchmarks.bare_read FD DSN SQL` serves the inherited socket until it is ended.
"""

import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import asyncpg
import orjson
import uvicorn

Message = MutableMapping[str, Any]  # Any: ASGI's own messages
Scope = MutableMapping[str, Any]  # Any: ASGI's own scope


async def _keep_state(_connection: object) -> None:
    """Stand in for asyncpg's reset query, which would be a second round trip."""


async def serve(fd: int, dsn: str, sql: str) -> None:
    """Serve `GET /v1/coupons/{code}` with the given query on the inherited listening socket."""
    pool = await asyncpg.create_pool(dsn, min_size=10, max_size=10, reset=_keep_state)

    async def application(
        scope: Scope, _receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        code = scope["path"].rsplit("/", 1)[1]
        async with pool.acquire() as connection:
            row = await connection.fetchrow(sql, code)
        body = orjson.dumps(dict(row or {}))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(
        application, http="httptools", loop="uvloop", lifespan="off", access_log=False, log_level="warning"
    )
    server = uvicorn.Server(config)
    await server.serve(sockets=[socket.socket(fileno=fd)])
    await pool.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
