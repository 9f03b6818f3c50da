"""The reference: a bare ASGI application on uvicorn that reads campaigns by the driver, with nothing around it.

Run as a program: `python -m tests.benchmarks.bare_campaign_read FD URL DATABASE` serves the inherited socket until it
is ended. `GET /v1/campaigns` is the first page of all of them, whatever is behind that the id of one.
"""

import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import uvicorn
from pymongo import DESCENDING, AsyncMongoClient

from runtime.pages import LIMIT_DEFAULT
from services.campaign_api.store import CAMPAIGNS

Message = MutableMapping[str, Any]  # Any: ASGI's own messages
Scope = MutableMapping[str, Any]  # Any: ASGI's own scope

_LIST = "/v1/campaigns"
_NEWEST_FIRST = [("starts_at", DESCENDING), ("_id", DESCENDING)]


async def serve(fd: int, url: str, database: str) -> None:
    """Serve both reads on the inherited listening socket."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        url, readConcernLevel="majority", maxPoolSize=20, tz_aware=True
    )
    campaigns = client[database][CAMPAIGNS]

    async def application(
        scope: Scope, _receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["path"] == _LIST:
            limit = LIMIT_DEFAULT + 1
            found = await campaigns.find({}, sort=_NEWEST_FIRST, limit=limit, batch_size=limit).to_list(None)
            body = orjson.dumps(found)
        else:
            body = orjson.dumps(await campaigns.find_one({"_id": scope["path"].rsplit("/", 1)[1]}))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(
        application, http="httptools", loop="uvloop", lifespan="off", access_log=False, log_level="warning"
    )
    server = uvicorn.Server(config)
    await server.serve(sockets=[socket.socket(fileno=fd)])
    await client.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
