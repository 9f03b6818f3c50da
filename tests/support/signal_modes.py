"""What the application for tests of ``runtime.process`` does: one mode a test."""

import asyncio
import gc
import sys
import threading
import time
from typing import ClassVar

from pydantic_settings import SettingsConfigDict

from patterns import receive, select
from runtime.logs import get_logger
from runtime.postgres import open_pool
from runtime.process import Process
from runtime.settings import PostgresSettings, ProcessSettings

log = get_logger(__name__)


class ModeSettings(ProcessSettings):
    """Settings under ``MODE_``."""

    model_config = SettingsConfigDict(env_prefix="MODE_")

    service: ClassVar[str] = "mode"

    mode: str
    postgres: PostgresSettings = PostgresSettings(
        database="x", user="x", port=1, connect_timeout_seconds=0.5, close_timeout_seconds=0.2
    )


class ModeApplication:
    """Run as the mode says; most wait for a signal and then stop in two phases."""

    def __init__(self, settings: ModeSettings) -> None:
        self._settings = settings

    async def run(self, process: Process) -> None:
        """Do what the mode says."""
        mode = self._settings.mode
        if mode == "dependency down":
            async with open_pool(self._settings.postgres) as pool:
                await pool.wait_for_connection(process.startup)
        if mode == "raises":
            raise ValueError("broken on purpose")
        process.health.set_ready()
        log.info("Working", frozen=gc.get_freeze_count())
        if mode == "eats its cancel":
            await self._eat()
        if mode == "blocks the loop":
            time.sleep(60)  # noqa: ASYNC251 - the fault under test
        if mode == "leaves a thread":
            threading.Thread(target=time.sleep, args=(60,), name="left behind").start()
        shutdown = receive(process.shutdown)
        await select(shutdown)
        log.info("Received shutdown signal", signal=shutdown.value.name)
        await process.stop.run(("drain", self._drain), ("close", self._close))
        if mode == "breaks when cut off":
            raise ValueError("broken on purpose")
        log.info("Application shutdown completed")

    async def _drain(self) -> None:
        if self._settings.mode == "fails to drain":
            raise OSError("cannot drain")
        is_endless = self._settings.mode in {"drains for ever", "breaks when cut off"}
        await asyncio.sleep(60 if is_endless else 0.05)

    async def _close(self) -> None:
        await asyncio.sleep(0)

    async def _eat(self) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                sys.stdout.write("no\n")
