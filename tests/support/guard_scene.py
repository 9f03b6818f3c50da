"""Both databases, a topic and a ledger: what the tests of the guards start real services on, and judge them by."""

import asyncio
import contextlib
import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx

from deploy.migrate import migrate
from loyalty.event import decode
from loyalty.reward import Member, RedemptionStatus
from runtime.postgres import open_pool
from sandbox.servers import KafkaServer, PostgresServer
from tests.support.coupon_api_process import open_coupon_api
from tests.support.databases import migrate_settings, role_settings
from tests.support.eventually import eventually
from tests.support.judgement import Judgement, Rule, judge
from tests.support.ledger import Ledger, digest, judge_units
from tests.support.reward_store_contract import id_of, some_order, some_reward
from tests.support.reward_store_process import Place, open_reward_store
from tests.support.reward_world import PostgresWorld
from tests.support.servers import create_topic
from tests.support.service_process import HttpServiceProcess, ServiceProcess
from tests.support.topic_reader import read_whole_topic

KILLS: Final = 20
KILLED: Final = 137
REWARD: Final = "rw-coffee"
ENDED: Final = (0, "Process stopped")
PRICE: Final = 100
SHORT_LEASES: Final = {
    "KAFKA__DELIVERY_TIMEOUT_SECONDS": "1",
    "COUPON_API__TIMEOUT_SECONDS": "1",
    "POSTGRES__ACQUIRE_TIMEOUT_SECONDS": "1",
    "POSTGRES__STATEMENT_TIMEOUT_SECONDS": "1",
    "POSTGRES__LOCK_TIMEOUT_SECONDS": "1",
    "RELAY__LEASE_SECONDS": "3.5",
    "CANCEL__LEASE_SECONDS": "3.5",
    "CANCEL__INTERVAL_SECONDS": "0.3",
}
# What is frozen with a transaction open must be there as it was when it wakes up.
PATIENT: Final = {
    "POSTGRES__IDLE_IN_TRANSACTION_SECONDS": "120",
    "HTTP__REQUEST_TIMEOUT_SECONDS": "60",
    "HTTP__FINISH_SECONDS": "60",
    "GRACE_SECONDS": "120",
}

Order = dict[str, Any]  # Any: what httpx takes as body and headers

_COME_BACK: Final = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
_LEFT_BEHIND: Final = """
select format('backend %s holds an advisory lock', pid) as what from pg_locks
where locktype = 'advisory' and database = (select oid from pg_database where datname = $1)
union all
select format('backend %s is %s', pid, state) from pg_stat_activity
where datname = $1 and state like 'idle in transaction%'
"""
_TOLD_SECONDS: Final = 60.0
_TRIES_PAUSE_SECONDS: Final = 0.1
_NOTICED_SECONDS: Final = 3.0


async def work_until_killed(service: HttpServiceProcess, work: Callable[[int], Awaitable[object]]) -> None:
    """Do a round of work, and another, until the service has died at its point: on a busy machine one may not do."""
    for number in itertools.count():
        await work(number)
        with contextlib.suppress(TimeoutError):
            status = await service.process.wait(_NOTICED_SECONDS)
            assert status == KILLED, service.process.log.read_text()
            return


async def wait_ready_or_dead(service: HttpServiceProcess) -> None:
    """Wait until a service is ready, or has died: what others left behind may bring it to its point at once."""

    async def is_either() -> bool:
        return not service.process.is_running or await service.readiness() == HTTPStatus.OK

    await eventually(is_either, seconds=40, pause_seconds=0.05)


async def wait_frozen(service: ServiceProcess) -> None:
    """Wait until a process has stopped itself."""
    stat = Path(f"/proc/{service.process.pid}/stat")
    await eventually(lambda: stat.read_text().rpartition(") ")[2].startswith("T"), seconds=40)


@dataclass(frozen=True, slots=True)
class GuardScene:
    """Two migrated databases and a topic, one reward in plenty, and the ledger of what members asked for.

    Attributes:
        place: where reward_store lives.
        coupons_database: where coupon_api lives.
        world: the rewards database.
        coupons: a superuser's connection to the coupons database.
        ledger: a member is a unit: each asks for one thing.
        enrolled: the points that each member began with.
    """

    place: Place
    coupons_database: str
    world: PostgresWorld
    coupons: asyncpg.Connection
    ledger: Ledger
    enrolled: dict[str, int] = field(default_factory=dict)

    def reward_store(
        self, *, without: str | None = None, **settings: str
    ) -> AbstractAsyncContextManager[HttpServiceProcess]:
        """Start reward_store, perhaps without a guard."""
        return open_reward_store(self.place, without=without, **settings)

    def coupon_api(
        self, *, without: str | None = None, **settings: str
    ) -> AbstractAsyncContextManager[HttpServiceProcess]:
        """Start coupon_api, perhaps without a guard."""
        place = self.place
        return open_coupon_api(place.postgres, self.coupons_database, place.directory, without=without, **settings)

    async def enrol(self, *members: str, points: int = 3 * PRICE) -> None:
        """Let members be there, who by default could pay three times."""
        for member in members:
            await self.world.put_member(Member(member, points))
            self.enrolled[member] = points

    async def redeem(self, member: str, *services: HttpServiceProcess, reward_id: str = REWARD) -> httpx.Response:
        """Redeem once under one key, and write down what was asked for and what was told."""
        self.ledger.attempt(member, [member, reward_id])
        answer = await ask(member, "/v1/redemptions", services, self.order_of(member, reward_id))
        if answer.status_code == HTTPStatus.CREATED:
            self.ledger.acknowledge(member, [member, reward_id])
        return answer

    @staticmethod
    def order_of(member: str, reward_id: str = REWARD, key: str | None = None) -> Order:
        """Return what a member posts, under one key or a given one."""
        return {"json": {"reward_id": reward_id}, "headers": {"idempotency-key": key or f"key-of-{member}"}}

    async def redeem_beside(self, member: str) -> UUID:
        """Redeem with no service that would be told of it: a relay finds the event when it looks next."""
        self.ledger.attempt(member, [member, REWARD])
        answer = await self.world.store.redeem(some_order(member, REWARD))
        self.ledger.acknowledge(member, [member, REWARD])
        return id_of(answer)

    async def judge_redemptions(self) -> Judgement:
        """Hold the ledger against the redemptions (L1 to L4)."""
        return self.ledger.judge(
            (one.member_id, [one.member_id, one.reward_id]) for one in await self.world.redemptions()
        )

    async def judge_payments(self) -> Judgement:
        """Compare the points of each member with what their redemptions cost, those aside that were cancelled (L4)."""
        rows = await self.world.administrator.fetch("select member_id, points from members")
        spent: Counter[str] = Counter()
        for one in await self.world.redemptions():
            spent[one.member_id] += one.points_spent * (one.status is not RedemptionStatus.CANCELLED)
        return judge(
            Rule.RIGHT_CONTENT,
            (
                f"{member} has {points} points after spending {spent[member]} of {self.enrolled[member]}"
                for member, points in rows
                if points != self.enrolled[member] - spent[member]
            ),
        )

    async def judge_leftovers(self) -> Judgement:
        """Look for open transactions and locks on keys that the dead have left in the rewards database (L6)."""
        left: list[str] = []

        async def are_gone() -> bool:
            left[:] = [row["what"] for row in await self.coupons.fetch(_LEFT_BEHIND, self.place.database)]
            return not left

        with contextlib.suppress(TimeoutError):
            await eventually(are_gone, seconds=10)
        return judge(Rule.NO_LEAK, left)

    async def claims(self) -> set[tuple[UUID, object]]:
        """Return the rows of the outbox that some relay has in hand, each with the end of its lease."""
        rows = await self.world.administrator.fetch(
            "select id, claimed_until from outbox where published_at is null and claimed_until is not null"
        )
        return {(row["id"], row["claimed_until"]) for row in rows}

    async def judge_topic(self, sent_before: Mapping[UUID, int] | None = None) -> Judgement:
        """Hold the events that were committed against the records of the topic, and those against their order.

        Args:
            sent_before: how often an event was sent by a relay that died or lost its lease before it could mark it:
                so many records more of it are no fault, consumers skip them.
        """
        spare = Counter(sent_before or {})
        committed = {str(row.id): digest([row.key, row.payload.hex()]) for row in await self.world.events()}
        found: list[tuple[str, str]] = []
        seen: set[UUID] = set()
        versions: dict[str, list[int]] = {}
        for message in await read_whole_topic(self.place.kafka.bootstrap, self.place.topic):
            event = decode(message.value(), message.key())
            versions.setdefault(event.coupon.code, []).append(event.coupon.version)
            if event.event_id in seen and spare[event.event_id]:
                spare[event.event_id] -= 1
                continue
            seen.add(event.event_id)
            found.append((str(event.event_id), digest([event.coupon.code, (message.value() or b"").hex()])))
        first_come = {code: list(dict.fromkeys(order)) for code, order in versions.items()}
        disorder = [f"{code} came as {order}" for code, order in first_come.items() if order != sorted(order)]
        units = judge_units(committed.items(), committed.items(), found)
        return units | judge(Rule.RIGHT_CONTENT, disorder)


async def ask(
    member: str, path: str, services: Iterable[HttpServiceProcess], order: Order | None = None
) -> httpx.Response:
    """Post to the first service, and then to the last of them again and again, until there is an answer that is final.

    Raises:
        TimeoutError: there was none within 60 s.
    """
    first, *others = services
    async with asyncio.timeout(_TOLD_SECONDS):
        for service in itertools.chain([first, *others], itertools.repeat((others or [first])[-1])):
            async with service.client(member, connections=1) as client:
                client.timeout = _TOLD_SECONDS  # somebody may be frozen meanwhile
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.post(path, **(order or {}))
                    if not _says_come_back(answer):
                        return answer
            await asyncio.sleep(_TRIES_PAUSE_SECONDS)
    raise AssertionError("unreachable: services come for ever")


def _says_come_back(answer: httpx.Response) -> bool:
    if answer.status_code == HTTPStatus.CONFLICT:
        return bool(answer.json()["code"] == "request-in-progress")
    return answer.status_code in _COME_BACK


@contextlib.asynccontextmanager
async def open_guard_scene(postgres: PostgresServer, kafka: KafkaServer, directory: Path) -> AsyncIterator[GuardScene]:
    """Make both databases under names of their own, and a topic; the databases are dropped on leaving."""
    own = uuid.uuid4().hex[:12]
    settings = migrate_settings(postgres, rewards=f"rewards_{own}", coupons=f"coupons_{own}")
    await migrate(settings)
    async with contextlib.AsyncExitStack() as stack:
        for database in (settings.rewards_database, settings.coupons_database):
            stack.push_async_callback(postgres.drop_database, database)
        rewards, coupons = [
            await asyncpg.connect(postgres.url(database), timeout=10)
            for database in (settings.rewards_database, settings.coupons_database)
        ]
        for connection in (rewards, coupons):
            stack.push_async_callback(connection.close)
        pool = await stack.enter_async_context(
            open_pool(role_settings(postgres, settings.rewards_database, "reward_store"))
        )
        place = Place(postgres, kafka, settings.rewards_database, await create_topic(kafka), directory)
        world = PostgresWorld(pool, rewards, place.topic)
        await world.put_reward(some_reward(REWARD, points_cost=PRICE, stock=1_000_000))
        with Ledger(directory) as ledger:
            yield GuardScene(place, settings.coupons_database, world, coupons, ledger)
