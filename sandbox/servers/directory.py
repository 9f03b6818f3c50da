"""The directory that a server has to itself."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.servers.account import Account, unprivileged_account
from sandbox.servers.errors import ServerError


@dataclass(frozen=True, slots=True)
class ServerDirectory:
    """A directory owned by the account that the server runs under.

    Attributes:
        path: where it is.
        account: the account to switch to; None when this process has no privileges to drop.
        remove: what is to be removed when the server is gone: the directory, or nothing.
    """

    path: Path
    account: Account | None
    remove: tuple[Path, ...]


@contextlib.asynccontextmanager
async def open_directory(path: Path | None, prefix: str) -> AsyncIterator[ServerDirectory]:
    """Make a directory for a server; one without a given path is temporary and removed on leaving.

    Raises:
        ServerError: the account that the server will run under cannot reach it.
    """
    directory = _create(path, prefix)
    try:
        yield directory
    finally:
        for leftover in directory.remove:
            await asyncio.to_thread(shutil.rmtree, leftover, ignore_errors=True)


def _create(path: Path | None, prefix: str) -> ServerDirectory:
    account = unprivileged_account()
    if path is None:
        place = Path(tempfile.mkdtemp(prefix=prefix))
    else:
        place = path.absolute()
        place.mkdir(parents=True, exist_ok=True)
    if account is not None:
        if not account.can_enter(place):
            raise ServerError(f"an unprivileged server cannot reach {place}: choose a directory others may pass to")
        account.own(place)
    return ServerDirectory(place, account, (place,) if path is None else ())
