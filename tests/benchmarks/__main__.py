"""Run the benchmarks, one after another, and write `docs/benchmarks.md`: `python -m tests.benchmarks [NAME ...]`.

With names (`channel`, `pool`, ...) or a scale only that is measured, and the page is left alone; MongoDB's alone are
`python -m tests.benchmarks campaign_read consents`. With `--servers compose` those of the flow run on the servers of
docker-compose.yml, and the page's other column stays.
Status 1 when a goal is missed.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from tests.benchmarks import (
    bench_campaign_read,
    bench_channel,
    bench_client,
    bench_consents,
    bench_consumer,
    bench_coupon_read,
    bench_etl,
    bench_pool,
    bench_producer,
    bench_relay,
    bench_stop,
)
from tests.benchmarks.report import PAGE, Page, Row, describe_machine
from tests.benchmarks.servers import Servers, describe_servers, use_servers

PARTS: dict[str, Callable[[], list[Row]]] = {
    "channel": bench_channel.run,
    "pool": bench_pool.run,
    "client": bench_client.run,
    "coupon_read": bench_coupon_read.run,
    "campaign_read": bench_campaign_read.run,
    "stop": bench_stop.run,
}
# What a broker decides; each takes the share of its records that is to be sent.
FLOW: dict[str, Callable[[float], list[Row]]] = {
    "consumer": bench_consumer.run,
    "producer": bench_producer.run,
    "relay": bench_relay.run,
}
SCALED: dict[str, Callable[[float], list[Row]]] = {**FLOW, "consents": bench_consents.run, "etl": bench_etl.run}


def _measure(names: list[str], scale: float) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows += PARTS[name]() if name in PARTS else SCALED[name](scale)
    return rows


def _show(rows: list[Row]) -> None:
    table = Table("what", "ratio", "goal", "behind it")
    for row in rows:
        table.add_row(row.name, f"{row.ratio:.2f}", row.goal if row.reached else f"{row.goal} missed", row.detail)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def main(arguments: list[str]) -> int:
    """Run what is named, or all that these servers can tell of, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Ratios measured in one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*PARTS, *SCALED]))
    parser.add_argument("--servers", type=Servers, choices=list(Servers), default=Servers.EMBEDDED)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of the records, changes or rows of what carries many"
    )
    given = parser.parse_args(arguments)
    known = [*PARTS, *SCALED] if given.servers is Servers.EMBEDDED else [*FLOW]
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"no such benchmark on these servers: {', '.join(unknown)}; there are {', '.join(known)}")
    if not 0 < given.scale <= 1:
        parser.error("--scale must be above 0 and at most 1")
    with use_servers(given.servers):
        rows = _measure(given.names or known, given.scale)
        servers = asyncio.run(describe_servers(given.servers))
    _show(rows)
    if not given.names and given.scale == 1:
        page = Page.parse(PAGE.read_text("utf-8") if PAGE.exists() else "")
        page.put(given.servers, rows, f"{datetime.now(UTC).date().isoformat()}; {describe_machine()}; {servers}")
        PAGE.write_text(page.render(), "utf-8")
        print(f"written: {PAGE.relative_to(PAGE.parents[1])}", file=sys.stderr)
    return 0 if all(row.reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
