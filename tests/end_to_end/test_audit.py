"""The audit on real databases, after real traffic: ok as they are, FAILED after any change to them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TypeAlias

import asyncpg
import httpx

from patterns import background
from runtime.mongo import Collection, Document
from sandbox.audit import audit
from sandbox.consent_document import DETAILS, MASTERS
from sandbox.crowd import Crowd
from sandbox.delivery import Delivery
from sandbox.holdings import read_holdings, read_platform
from sandbox.instance import Service
from sandbox.journal import REJECTS, Journal, Record, read_journal
from sandbox.links import GUEST
from sandbox.mongo_servers import MongoServers
from sandbox.observation import open_observer
from sandbox.seed import make_seed, plant
from sandbox.system import System, open_system
from tests.support.eventually import eventually

Break: TypeAlias = Callable[[Collection, Document], Awaitable[None]]

ROOT = Path(__file__).parents[2]

ROWS = 4_000

# In each database `chosen` names its oldest redemption or coupon that was neither spent nor cancelled.
CHOSEN = {
    "redemptions": "select redemption_id from redemptions where status = 'issued' order by created_at limit 1",
    "coupons": "select code from coupons where status = 'issued' and source = 'event' order by issued_at limit 1",
    "loaded": "select code from coupons where status = 'issued' and source <> 'event' order by source_line limit 1",
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
LOADED_BREAKS = {
    "loaded coupon dropped": "delete from coupons where code in (table chosen)",
    "loaded coupon doubled": """
        insert into coupons (code, member_id, reward_id, value_cents, currency, issued_at, expires_at, status, version,
                             source, source_line)
        select '0123456789ABCDEF', member_id, reward_id, value_cents, currency, issued_at, expires_at, status, version,
               source, source_line
        from coupons where code in (table chosen)
    """,
    "loaded coupon of another value": "update coupons set value_cents = value_cents + 1 where code in (table chosen)",
    "loaded coupon of no file": "update coupons set source = 'event' where code in (table chosen)",
    "part of a file dropped": "delete from etl_ranges where byte_start = (select max(byte_start) from etl_ranges)",
    "file that is not done": "update etl_files set state = 'loading', loaded_at = null",
}


async def _drop(collection: Collection, document: Document) -> None:
    await collection.delete_one({"_id": document["_id"]})


async def _copy(collection: Collection, document: Document) -> None:
    await collection.insert_one({**document, "_id": "copy"})


def _set(**fields: object) -> Break:
    async def alter(collection: Collection, document: Document) -> None:
        await collection.update_one({"_id": document["_id"]}, {"$set": fields})

    return alter


CAMPAIGN_BREAKS = {
    "campaign dropped": _drop,
    "campaign doubled": _copy,
    "campaign renamed in secret": _set(name="Renamed in secret"),
    "campaign at another version": _set(version=1_000),
}
CONSENT_BREAKS = {
    "consent dropped": _drop,
    "consent doubled": _copy,
    "consent of another member": _set(member_id="m-nobody"),
    "consent with a field that nobody wrote": _set(note="by nobody"),
}
DETAIL_BREAKS = {"detail dropped": _drop, "detail doubled": _copy, "detail for another purpose": _set(purpose="none")}


async def _send_traffic(system: System, directory: Path) -> None:
    """Start the services, let members use them until there is something of each kind, and stop when it has arrived.

    A file is loaded as well.
    """
    seed = make_seed(20, 4_000)
    await plant(seed, system.rewards_url)
    await asyncio.gather(*(system.start(service) for service in Service))
    with Journal(directory) as journal:
        journal.seeded(seed)
        crowd = Crowd(system, journal, seed, rate=40, random=Random(5))

        async def have_left_documents() -> bool:
            with background().with_timeout(6) as ctx:
                await crowd.run(ctx)
            return all([await _any_document(system, *where) is not None for where in _breaks(system)])

        await eventually(have_left_documents, seconds=120)  # what is made may also be deleted
        delivery = Delivery(system, journal, 5, print, rows=ROWS)
        await delivery.run(background())
        assert delivery.differences == []
    await _visit(system)
    async with open_observer(system, crowd) as observer, asyncio.timeout(60):
        await observer.wait_drained()
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


async def _audit_command(directory: Path, system: System, *, coupons_url: str | None = None) -> tuple[int, str]:
    """Run the audit as a command; return its status and its last line."""
    servers = _mongo(system)
    urls = {
        "--rewards": system.rewards_url,
        "--coupons": coupons_url or system.coupons_url,
        "--mongo": servers.side.reader_url,
        "--salesforce": servers.salesforce_url,
    }
    options = [word for option in urls.items() for word in option]
    command = ("-m", "sandbox.audit", "--journal", str(directory), *options)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode().splitlines()[-1]


def _mongo(system: System) -> MongoServers:
    assert system.mongo_servers is not None
    return system.mongo_servers


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


def _breaks(system: System) -> dict[tuple[str, str], dict[str, Break]]:
    """Return the changes to a document by its database and its collection."""
    side = _mongo(system).side
    return {
        (side.campaigns, "campaigns"): CAMPAIGN_BREAKS,
        (side.consents, MASTERS): CONSENT_BREAKS,
        (side.consents, DETAILS): DETAIL_BREAKS,
    }


async def _any_document(system: System, database: str, collection: str) -> Document | None:
    async with _mongo(system).mongo.connect() as client:
        return await client[database][collection].find_one({})


@asynccontextmanager
async def _broken(system: System, database: str, collection: str, change: Break) -> AsyncIterator[None]:
    """Change one document of MongoDB for the length of a block."""
    chosen = await _any_document(system, database, collection)
    assert chosen is not None, f"no document of {collection} is left to be hurt"
    async with _mongo(system).mongo.connect() as client:
        documents = client[database][collection]
        await change(documents, chosen)
        try:
            yield
        finally:
            await documents.replace_one({"_id": chosen["_id"]}, chosen, upsert=True)
            await documents.delete_one({"_id": "copy"})


async def _unnoticed_rows(system: System, record: Record, rejects: Path) -> list[str]:
    """Return the names of the changes to a row that the audit is ok with."""
    unnoticed = []
    files = list(record.files)
    holdings = await read_platform(system, files, rejects)
    for name, statement in REWARDS_BREAKS.items():
        broken = await _change(system, system.rewards_database, "redemptions", statement)
        read = await read_holdings(broken, system.coupons_url, files, rejects)
        if audit(record, replace(read, documents=holdings.documents)).is_ok:
            unnoticed.append(name)
    for chosen, breaks in (("coupons", COUPONS_BREAKS), ("loaded", LOADED_BREAKS)):
        for name, statement in breaks.items():
            broken = await _change(system, system.coupons_database, chosen, statement)
            read = await read_holdings(system.rewards_url, broken, files, rejects)
            if audit(record, replace(read, documents=holdings.documents)).is_ok:
                unnoticed.append(name)
    return unnoticed


async def _is_noticed_without_a_reject(system: System, record: Record, rejects: Path) -> bool:
    """Drop the last line of the reject file for a look of the audit."""
    (path,) = await asyncio.to_thread(lambda: list(rejects.iterdir()))
    kept = path.read_bytes()
    path.write_bytes(b"".join(kept.splitlines(keepends=True)[:-1]))
    try:
        return not audit(record, await read_platform(system, list(record.files), rejects)).is_ok
    finally:
        path.write_bytes(kept)


async def _unnoticed_documents(system: System, record: Record, rejects: Path) -> list[str]:
    """Return the names of the changes to a document that the audit is ok with."""
    unnoticed = []
    for (database, collection), breaks in _breaks(system).items():
        for name, change in breaks.items():
            async with _broken(system, database, collection, change):
                if audit(record, await read_platform(system, list(record.files), rejects)).is_ok:
                    unnoticed.append(name)
    return unnoticed


async def test_each_link_broken_in_the_databases_fails_the_audit(tmp_path: Path) -> None:
    """After real traffic and a load the audit says ok, and after each single change to one row or document FAILED.

    So it does after one reject is dropped.
    """
    async with open_system(tmp_path) as system:
        await _send_traffic(system, tmp_path)
        status, last = await _audit_command(tmp_path, system)
        assert last.startswith("audit ok: "), last
        assert status == 0

        record, rejects = read_journal(tmp_path), tmp_path / REJECTS
        assert await _unnoticed_rows(system, record, rejects) == []
        assert await _unnoticed_documents(system, record, rejects) == []
        assert await _is_noticed_without_a_reject(system, record, rejects)
        verdict = audit(record, await read_platform(system, list(record.files), rejects))
        assert verdict.is_ok, "a change was not undone"
        assert verdict.loads is not None
        assert verdict.loads.rows == ROWS

        broken = await _change(system, system.coupons_database, "coupons", COUPONS_BREAKS["coupon dropped"])
        status, last = await _audit_command(tmp_path, system, coupons_url=broken)
        assert last.startswith("audit FAILED: "), last
        assert status == 1
