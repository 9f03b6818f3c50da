"""Disks that fail: system calls of a service or of its database return errors that real disks return."""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from sandbox.servers import KafkaServer, PostgresServer, ServerError
from sandbox.servers.keeper import descendants
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.servers import embedded_only
from tests.support.shop import open_shop
from tests.support.system_call import open_injection
from tests.support.trade import open_trade

pytestmark = [embedded_only, pytest.mark.thorough]

UNAVAILABLE: Final = "503 dependency-unavailable"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param("ENOSPC", marks=pytest.mark.fault("X2", "each write of reward_store's log: ENOSPC")),
        pytest.param("EIO", marks=pytest.mark.fault("X2", "each write of reward_store's log: EIO")),
    ],
)
async def test_log_that_cannot_be_written_never_stops_serving(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport, error: str
) -> None:
    """Orders go on and the service stays ready; when writing works again the log says how many lines it lost."""
    async with open_shop(postgres, kafka, tmp_path) as shop, open_trade(shop) as trade:
        process = trade.service.process
        async with open_injection([process.pid], f"write:error={error}", path=process.log):
            size = process.log.stat().st_size
            await trade.redeemers.wait_told(30)
            assert process.log.stat().st_size == size
            assert await trade.service.readiness() == 200
        await eventually(lambda: "Log lines were dropped" in trade.service.events())
        back_seconds = await trade.wait_back()
        await trade.report(fault_report, back_seconds)


def is_running(server: PostgresServer) -> bool:
    """Tell whether the server has not ended."""
    try:
        return bool(server.pid)
    except ServerError:
        return False


@pytest.mark.fault("X2", "each write of Postgres to its files: EIO, until it crashed")
async def test_database_whose_disk_fails_is_one_that_is_gone(
    own_postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """A failed write of its log of changes ends every backend (PANIC); recovered, the database has every order."""
    async with open_shop(own_postgres, kafka, tmp_path) as shop, open_trade(shop) as trade:
        processes = [own_postgres.pid, *descendants(own_postgres.pid)]
        async with open_injection(processes, "pwrite64,pwritev:error=EIO"):
            await trade.redeemers.wait_answers(UNAVAILABLE)
            await asyncio.sleep(1)
        if not is_running(own_postgres):  # it could not even recover
            await own_postgres.start()
        back_seconds = await trade.wait_back()
        assert "PANIC" in own_postgres.log.read_text(errors="replace")
        await trade.report(fault_report, back_seconds)
