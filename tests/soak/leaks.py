"""Look for what is held for too long, between two faults (L6): in the processes, and in the database."""

import contextlib
from dataclasses import replace
from typing import Final

import asyncpg

from sandbox.instance import Service
from sandbox.system import System
from tests.support.eventually import eventually
from tests.support.footprint import Footprint, footprint_of
from tests.support.judgement import Judgement, Rule, judge

_MORE: Final = 20
"""How many descriptors and threads a process may hold on top of its first look: a full pool of 10, and some spare."""
_MEMORY_FACTOR: Final = 2.5
_BACKENDS_EACH: Final = 12
_SETTLE_SECONDS: Final = 30.0
_BACKENDS: Final = "select count(*) from pg_stat_activity where usename = any($1)"


class Leaks:
    """Compare each instance with what it held when it was looked at first."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._first: dict[str, Footprint] = {}

    async def look(self) -> Judgement:
        """Look at every instance and at the database's backends, clients' own connections aside (L6)."""
        judgement = await judge_backends(self._system, at_most=_BACKENDS_EACH * len(self._system.instances))
        for instance in self._system.instances:
            clients = int(await instance.total("lp_http_connections") or 0)
            held = footprint_of(instance.process.pid)
            held = replace(held, sockets=held.sockets - clients)
            first = self._first.setdefault(instance.name, held)
            found = held.judge(first, more=_MORE, memory_factor=_MEMORY_FACTOR).differences[Rule.NO_LEAK]
            judgement |= judge(Rule.NO_LEAK, (f"{instance.name}: {one}" for one in found))
        return judgement


async def judge_backends(system: System, *, at_most: int) -> Judgement:
    """Wait, bounded, until the services have no more backends than this, and judge it (L6)."""
    connection = await asyncpg.connect(system.postgres.superuser_url, timeout=_SETTLE_SECONDS)
    try:

        async def backends() -> int:
            return int(await connection.fetchval(_BACKENDS, list(Service)))

        async def are_few() -> bool:
            return await backends() <= at_most

        with contextlib.suppress(TimeoutError):
            await eventually(are_few, seconds=_SETTLE_SECONDS, pause_seconds=0.1)
        held = await backends()
    finally:
        await connection.close()
    return judge(Rule.NO_LEAK, [f"{held} database backends, more than {at_most}"] if held > at_most else [])
