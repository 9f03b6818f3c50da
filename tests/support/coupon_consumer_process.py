"""coupon_consumer as a real process, and its operator's commands."""

import asyncio
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from sandbox.servers import KafkaServer, PostgresServer
from sandbox.servers.address import free_port
from tests.support.service_process import ROOT, ServiceProcess, environment_of, open_service, postgres_variables


class CouponConsumerProcess(ServiceProcess):
    """A coupon_consumer that was started."""

    async def wait_settled(self, **counts: float) -> None:
        """Wait until the counters of records by outcome are these."""
        await self.wait_metrics(
            **{f'lp_consumer_records_total{{outcome="{outcome}"}}': count for outcome, count in counts.items()}
        )

    async def rebalances(self) -> tuple[float, float, float]:
        """Return how often partitions were assigned, revoked and lost."""
        metrics = await self.metrics()
        assigned, revoked, lost = (
            metrics[f'lp_kafka_consumer_{kind}_total{{name="default"}}'] for kind in ("assigned", "revoked", "lost")
        )
        return assigned, revoked, lost


def _variables(postgres: PostgresServer, database: str, bootstrap: str, topic: str, **settings: str) -> dict[str, str]:
    return {
        **postgres_variables(postgres, database, "coupon_consumer"),
        "KAFKA__BOOTSTRAP": bootstrap,
        "CONSUMER__TOPIC": topic,
        "CONSUMER__GROUP": f"group-{topic}",
        "CONSUMER__SESSION_TIMEOUT_SECONDS": "6",
        "CONSUMER__MAX_POLL_INTERVAL_SECONDS": "30",
        "CHECK_SECONDS": "1",
        "BROKER_DOWN_SECONDS": "3",
        "LOG_FORMAT": "json",
        **settings,
    }


def open_coupon_consumer(
    postgres: PostgresServer,
    database: str,
    kafka: KafkaServer,
    topic: str,
    directory: Path,
    *,
    without: str | None = None,
    **settings: str,
) -> AbstractAsyncContextManager[CouponConsumerProcess]:
    """Start coupon_consumer, perhaps without a guard; settings are variables without their prefix.

    It is stopped on leaving.
    """
    settings = {"ADMIN__PORT": str(free_port()), **settings}
    variables = _variables(postgres, database, kafka.bootstrap, topic, **settings)
    return open_service(CouponConsumerProcess, "coupon_consumer", directory, variables, without=without)


async def run_command(
    postgres: PostgresServer, database: str, bootstrap: str, topic: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run one of the operator's commands to its end."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "services.coupon_consumer", *arguments],
        cwd=ROOT,
        env=environment_of("coupon_consumer", _variables(postgres, database, bootstrap, topic)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
