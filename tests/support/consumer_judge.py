"""Judge coupon_consumer by its ids: a coupon is what an event asks for, a poisonous record is known by its place.

What the broker acknowledged is what a producer attempted and was promised; the coupons are what is stored.
"""

import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg

from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import coupon_rows, row_of
from tests.support.judgement import Judgement, Rule, judge, judge_end, judge_progress, judge_time
from tests.support.ledger import digest, judge_units
from tests.support.service_process import ServiceProcess

ORDERLY: Final = (0, "Process stopped")
GRACE_SECONDS: Final = 30.0
"""The process's own default: by then a stop is forced."""

_CONNECT_SECONDS: Final = 10
_RECORD_STEPS: Final = """
create table offset_steps (id bigint generated always as identity, partition integer, began bigint, ended bigint);
create function record_step() returns trigger language plpgsql security definer set search_path from current as $$
begin
    insert into offset_steps (partition, began, ended) values (new.partition, old.next_offset, new.next_offset);
    return null;
end $$;
create trigger record_step after update on consumer_offsets for each row execute function record_step();
"""
_FORGET_STEPS: Final = "drop function record_step() cascade; drop table offset_steps;"


@dataclass(frozen=True, slots=True)
class Step:
    """A move of one partition's stored offset."""

    partition: int
    began: int
    ended: int


async def judge_world(world: World) -> Judgement:
    """Hold what was produced against coupons and dead letters (L1 to L4), stored offsets against the ends (L5)."""
    connection = await asyncpg.connect(world.postgres.url(world.database), timeout=_CONNECT_SECONDS)
    try:
        coupons = await coupon_rows(connection)
        letters = await connection.fetch("select partition, record_offset from dead_letters")
        offsets = await connection.fetch("select partition, next_offset from consumer_offsets where next_offset > 0")
    finally:
        await connection.close(timeout=_CONNECT_SECONDS)
    events = sorted(world.events, key=lambda event: event.coupon.version)
    asked = [(event.coupon.code, digest(row_of(event))) for event in events]
    asked += [(_place(*each), "") for each in world.poison]
    stored = [(code, digest(row)) for code, row in coupons.items()]
    units = judge_units(asked, asked, stored, dead=[_place(*letter) for letter in letters])
    ends = {f"partition {partition}": end for partition, end in world.ends.items()}
    return units | judge_progress(ends, {f"partition {partition}": offset for partition, offset in offsets})


def judge_steps(steps: Sequence[Step], ends: Mapping[int, int]) -> Judgement:
    """Look whether the stored offsets stepped over each record once (L1, L2), known by its place."""
    settled = Counter(
        (step.partition, offset)
        for step in steps
        for offset in range(step.began, step.ended)
        if step.ended > step.began
    )
    produced = [(partition, offset) for partition, end in ends.items() for offset in range(end)]
    lost = judge(Rule.NOTHING_LOST, [f"{_place(*place)} was not settled" for place in produced if not settled[place]])
    doubled = [(place, times) for place, times in settled.items() if times > 1]
    return lost | judge(Rule.NOTHING_DOUBLED, [f"{_place(*place)} was settled {n} times" for place, n in doubled])


@asynccontextmanager
async def recorded_steps(world: World) -> AsyncIterator[list[Step]]:
    """Have the database write down each move of a stored offset; the list is filled on leaving."""
    steps: list[Step] = []
    await _execute(world, _RECORD_STEPS)
    try:
        yield steps
        connection = await asyncpg.connect(world.postgres.url(world.database), timeout=_CONNECT_SECONDS)
        try:
            rows = await connection.fetch("select partition, began, ended from offset_steps order by id")
        finally:
            await connection.close(timeout=_CONNECT_SECONDS)
        steps += [Step(**row) for row in rows]
    finally:
        await _execute(world, _FORGET_STEPS)


async def stop_and_judge(member: ServiceProcess, *, at_most: float = GRACE_SECONDS) -> tuple[Judgement, float]:
    """Send SIGTERM, wait for the end, and look at its time (L7) and at how it ended (L8); also return the seconds.

    A member that has hardly begun is let begin first: before its own handler stands, the signal just kills it.
    """
    await member.wait_event("Process started")
    began = time.monotonic()
    member.process.send_signal(signal.SIGTERM)
    status = await member.process.wait(2 * at_most)
    seconds = time.monotonic() - began
    ended = judge_end(member.process.name, status, member.events()[-1], wanted=ORDERLY)
    return judge_time("stopping", seconds, at_most=at_most) | ended, seconds


async def _execute(world: World, sql: str) -> None:
    connection = await asyncpg.connect(world.postgres.url(world.database), timeout=_CONNECT_SECONDS)
    try:
        await connection.execute(sql)
    finally:
        await connection.close(timeout=_CONNECT_SECONDS)


def _place(partition: int, offset: int) -> str:
    return f"{partition}/{offset}"
