"""Files for the faults of the ETL, and what stands between it and its database."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from sandbox.coupon_file import coupon_rows
from tests.support.etl_model import FileModel, read_model
from tests.support.etl_process import EtlCommand
from tests.support.fault_proxy import FaultProxy, open_fault_proxy

ROWS: Final = 6_000


def some_file(etl: EtlCommand, *, rows: int = ROWS, seed: int = 5, bad_percent: float = 2) -> tuple[Path, FileModel]:
    """Write a file with bad rows and with codes that come again, half of them with another amount."""
    content = list(coupon_rows(rows, seed=seed, bad_percent=bad_percent, duplicate_percent=4))
    path = etl.write(f"coupons-{seed}.csv", content)
    return path, read_model(path.read_bytes())


@contextlib.asynccontextmanager
async def behind_proxy(etl: EtlCommand) -> AsyncIterator[tuple[EtlCommand, FaultProxy]]:
    """Put a proxy between the ETL and its server."""
    async with open_fault_proxy(etl.postgres.port) as proxy:
        yield replace(etl, settings={**etl.settings, "POSTGRES__PORT": str(proxy.port)}), proxy
