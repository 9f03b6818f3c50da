"""The audit on real databases, after real traffic: ok as they are, FAILED after any change to them."""

import asyncio
import sys
from pathlib import Path
from random import Random

import asyncpg
import httpx

from patterns import background
from sandbox.audit import audit
from sandbox.balancer import Balancer
from sandbox.holdings import read_holdings
from sandbox.instance import Service
from sandbox.journal import Journal, read_journal
from sandbox.links import GUEST
from sandbox.observation import open_observer
from sandbox.seed import make_seed, plant
from sandbox.system import System, open_system
from sandbox.traffic import Traffic
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]

# In each database `chosen` names its oldest redemption or coupon that was neither spent nor cancelled.
CHOSEN = {
    "redemptions": "select redemption_id from redemptions where status = 'issued' order by created_at limit 1",
    "coupons": "select code from coupons where status = 'issued' order by issued_at limit 1",
}
REWARDS_BREAKS = {
    "points off by one": "update members set points = points + 1 where member_id = 'm-1'",
    "stock off by one": "update rewards set stock = stock - 1 where reward_id = 'rw-coffee'",
    "acknowledged redemption missing": "delete from redemptions where redemption_id in (table chosen)",
    "redemption of another member": "update redemptions set member_id = 'm-2' where redemption_id in (table chosen)",
    "redemption at another price": "update redemptions set points_spent = 1 where redemption_id in (table chosen)",
    "redemption invented": """
        insert into redemptions (redemption_id, member_id, reward_id, coupon_code, points_spent, value_cents, currency,
                                 created_at, expires_at)
        values (gen_random_uuid(), 'm-1', 'rw-coffee', '0123456789ABCDEF', 40, 300, 'EUR', now(), now() + '30 days')
    """,
    "redemption cancelled in secret": """
        update redemptions set status = 'cancelled', cancelled_at = now() where redemption_id in (table chosen)
    """,
    "cancellation unfinished": """
        update redemptions set status = 'cancelling', cancelling_since = now(), cancel_claimed_until = now()
        where redemption_id in (table chosen)
    """,
    "key lost": """
        delete from idempotency_keys where key = (select key from idempotency_keys where status = 201 limit 1)
    """,
    "event unpublished": "update outbox set published_at = null where id = (select id from outbox limit 1)",
}
COUPONS_BREAKS = {
    "coupon dropped": "delete from coupons where code in (table chosen)",
    "coupon doubled": """
        insert into coupons (code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at,
                             status, version, source)
        select '0123456789ABCDEF', member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at,
               status, version, source
        from coupons where code in (table chosen)
    """,
    "coupon invented": """
        insert into coupons (code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at,
                             status, version, source)
        select '0123456789ABCDEF', member_id, reward_id, gen_random_uuid(), value_cents, currency, issued_at,
               expires_at, status, version, source
        from coupons where code in (table chosen)
    """,
    "coupon of another value": "update coupons set value_cents = value_cents + 1 where code in (table chosen)",
    "coupon of another member": "update coupons set member_id = 'm-nobody' where code in (table chosen)",
    "coupon that ends earlier": """
        update coupons set expires_at = expires_at - interval '1 us' where code in (table chosen)
    """,
    "coupon spent in secret": """
        update coupons set status = 'redeemed', redeemed_at = now() where code in (table chosen)
    """,
    "coupon cancelled in secret": "update coupons set status = 'cancelled' where code in (table chosen)",
    "dead letter": """
        insert into dead_letters (id, consumer_group, topic, topic_id, partition, record_offset, headers, error_class,
                                  error_detail)
        values (gen_random_uuid(), 'g', 't', 'i', 0, 0, '[]', 'NotJsonError', 'x')
    """,
}


async def _send_traffic(system: System, directory: Path) -> None:
    """Start the services, let members use them for some seconds, and stop when everything has arrived."""
    seed = make_seed(20, 4_000)
    await plant(seed, system.rewards_url)
    await asyncio.gather(*(system.start(service) for service in Service))
    stores, apis = (
        [instance for instance in system.instances if instance.service is service]
        for service in (Service.REWARD_STORE, Service.COUPON_API)
    )
    balancers = {
        Service.REWARD_STORE: Balancer(lambda: stores, system.client, timeout_seconds=15),
        Service.COUPON_API: Balancer(lambda: apis, system.client, timeout_seconds=15),
    }
    with Journal(directory) as journal:
        journal.seeded(seed)
        traffic = Traffic(balancers, journal, seed, system.token, rate=40, random=Random(5))
        with background().with_timeout(6) as ctx:
            await traffic.run(ctx)
    await _visit(system)
    observer = await open_observer(system, traffic)

    async def is_drained() -> bool:
        return (await observer.look()).is_drained

    await eventually(is_drained, seconds=60, pause_seconds=0.05)
    await observer.aclose()
    await system.stop_services()


async def _visit(system: System) -> None:
    """Be the guest: redeem two rewards by hand, and cancel one; the audit must not mind."""
    async with httpx.AsyncClient(
        base_url=system.base_url(Service.REWARD_STORE), headers={"authorization": f"Bearer {system.token(GUEST)}"}
    ) as client:
        made = [
            await client.post(
                "/v1/redemptions", json={"reward_id": "rw-coffee"}, headers={"idempotency-key": f"by-hand-{number}"}
            )
            for number in range(2)
        ]
        assert [answer.status_code for answer in made] == [201, 201]
        redemption_id = made[0].json()["redemption_id"]

        async def is_cancelled() -> bool:
            answer = await client.post(f"/v1/redemptions/{redemption_id}/cancel")
            return answer.status_code == 200 and answer.json()["status"] == "cancelled"

        await eventually(is_cancelled, seconds=30)


async def _audit_command(directory: Path, rewards_url: str, coupons_url: str) -> tuple[int, str]:
    """Run the audit as a command; return its status and its last line."""
    command = ("-m", "sandbox.audit", "--journal", str(directory), "--rewards", rewards_url, "--coupons", coupons_url)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode().splitlines()[-1]


async def _change(system: System, database: str, table: str, statement: str) -> str:
    """Copy a database, change the copy, and return its URL."""
    await system.postgres.drop_database("broken")
    administrator = await asyncpg.connect(system.postgres.superuser_url)
    await administrator.execute(f'create database broken owner lp_owner template "{database}"')
    await administrator.close()
    url = system.postgres.url("broken")
    connection = await asyncpg.connect(url)
    await connection.execute(f"create temporary view chosen as {CHOSEN[table]}")
    status = await connection.execute(statement)
    await connection.close()
    assert status.endswith(" 1"), f"the change is to touch one row: {status}"
    return url


async def test_each_link_broken_in_the_databases_fails_the_audit(tmp_path: Path) -> None:
    """After real traffic the audit says ok, and after each single change to one row it says FAILED."""
    async with open_system(tmp_path) as system:
        await _send_traffic(system, tmp_path)
        status, last = await _audit_command(tmp_path, system.rewards_url, system.coupons_url)
        assert last.startswith("audit ok: "), last
        assert status == 0

        record = read_journal(tmp_path)
        unnoticed = []
        for name, statement in REWARDS_BREAKS.items():
            broken = await _change(system, system.rewards_database, "redemptions", statement)
            if audit(record, await read_holdings(broken, system.coupons_url)).is_ok:
                unnoticed.append(name)
        for name, statement in COUPONS_BREAKS.items():
            broken = await _change(system, system.coupons_database, "coupons", statement)
            if audit(record, await read_holdings(system.rewards_url, broken)).is_ok:
                unnoticed.append(name)
        assert unnoticed == []

        broken = await _change(system, system.coupons_database, "coupons", COUPONS_BREAKS["coupon dropped"])
        status, last = await _audit_command(tmp_path, system.rewards_url, broken)
        assert last.startswith("audit FAILED: "), last
        assert status == 1
