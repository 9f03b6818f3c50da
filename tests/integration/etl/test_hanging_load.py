"""A load that hangs can be seen from outside: it runs, and what it tells Prometheus stands still."""

from pathlib import Path

import asyncpg
import pytest

from sandbox.coupon_file import HEADER, coupon_rows
from sandbox.probe import ProbeFailed, probe
from sandbox.servers import PostgresServer
from sandbox.servers.address import free_port
from tests.support.etl_process import EtlCommand, first_lines
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(120)

ROWS = 2_000


async def test_load_behind_a_lock_says_how_much_is_to_do_and_that_nothing_is_done(
    postgres: PostgresServer, coupons_database: str, administrator: asyncpg.Connection, tmp_path: Path
) -> None:
    """While somebody locks the table the admin port has the file's bytes, and none done; then the load goes on."""
    rows = list(coupon_rows(ROWS, seed=1))
    etl, port = EtlCommand(postgres, coupons_database, tmp_path), free_port()
    path = etl.write("a.csv", rows)
    to_do = f"lp_etl_bytes {float(path.stat().st_size - len(HEADER))}"

    told = ""

    async def is_told() -> bool:
        nonlocal told
        try:
            _, told = await probe(f"http://127.0.0.1:{port}/metrics")
        except ProbeFailed:
            return False
        return to_do in told

    locking = administrator.transaction()
    await locking.start()
    await administrator.execute("lock table coupons")
    async with etl.start("load", path, variables={"ADMIN__PORT": str(port)}) as process:
        await eventually(is_told, seconds=60)
        assert "lp_etl_bytes_done 0.0" in told
        assert 'lp_etl_rows{outcome="processed"} 0.0' in told
        await locking.rollback()
        await process.communicate()
    assert process.returncode == 0
    assert await etl.stored() == first_lines(rows)
