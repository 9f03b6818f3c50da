"""Run the benchmarks, one after another, and write `docs/benchmarks.md`: `python -m tests.benchmarks [NAME ...]`.

With names (`channel`, `pool`, ...) only those run, and the page is left alone. Status 1 when a goal is missed.
"""

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import asyncpg
from rich.console import Console
from rich.table import Table

from sandbox.servers import open_postgres
from tests.benchmarks import bench_channel, bench_client, bench_consumer, bench_coupon_read, bench_pool, bench_stop
from tests.benchmarks.report import PAGE, Row, render

BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "channel": bench_channel.run,
    "pool": bench_pool.run,
    "client": bench_client.run,
    "coupon_read": bench_coupon_read.run,
    "stop": bench_stop.run,
    "consumer": bench_consumer.run,
}


async def _server_names() -> list[str]:
    async with open_postgres() as server:
        connection = await asyncpg.connect(server.superuser_url)
        version = await connection.fetchval("show server_version")
        await connection.close()
    return [f"PostgreSQL {version}, embedded, fsync off", "Tansu, embedded, in memory (not Apache Kafka)"]


def main(names: list[str]) -> int:
    """Run what is named, or all, and return the exit status."""
    unknown = set(names) - BENCHMARKS.keys()
    if unknown:
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in names or BENCHMARKS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows += BENCHMARKS[name]()
    table = Table("what", "ratio", "goal", "behind it")
    for row in rows:
        table.add_row(row.name, f"{row.ratio:.2f}", row.goal if row.reached else f"{row.goal} missed", row.detail)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if not names:
        PAGE.write_text(render(rows, asyncio.run(_server_names()), datetime.now(UTC).date().isoformat()))
        print(f"written: {PAGE.relative_to(PAGE.parents[1])}", file=sys.stderr)
    return 0 if all(row.reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
