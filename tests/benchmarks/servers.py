"""The servers that the benchmarks of the flow run on: embedded ones, or those of docker-compose.yml."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from unittest.mock import patch
from urllib.parse import quote

import asyncpg

from sandbox.servers import open_mongo, open_postgres
from sandbox.servers.address import LOOPBACK, free_port

ROOT = Path(__file__).parents[2]
_PROJECT = "loyalty-bench"
_UP_SECONDS = 900
_SECONDS = 120
_SECRET = "/run/secrets/postgres-password"  # noqa: S105 - a file's name


class Servers(StrEnum):
    """Which servers, by the name of their column."""

    EMBEDDED = "embedded"
    COMPOSE = "compose"


def _compose(*arguments: str, seconds: int = _SECONDS) -> str:
    command = ["docker", "compose", "--project-name", _PROJECT, *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, timeout=seconds, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def use_servers(servers: Servers) -> Iterator[None]:
    """Have whatever opens a server in this block use these; those of compose are started for it and removed after it.

    Only the two servers are containers: the services under measurement are processes of this machine either way.

    Raises:
        subprocess.SubprocessError: Docker did not do it.
    """
    if servers is Servers.EMBEDDED:
        yield
        return
    ports = {"POSTGRES_PORT": str(free_port()), "KAFKA_PORT": str(free_port())}
    with patch.dict(os.environ, ports):
        try:
            _compose("up", "--detach", "--wait", "postgres", "kafka", seconds=_UP_SECONDS)
            password = quote(_compose("exec", "-T", "postgres", "cat", _SECRET).strip(), safe="")
            named = {
                "SANDBOX_POSTGRES_URL": f"postgresql://postgres:{password}@{LOOPBACK}:{ports['POSTGRES_PORT']}/postgres",
                "SANDBOX_KAFKA_BOOTSTRAP": f"{LOOPBACK}:{ports['KAFKA_PORT']}",
            }
            with patch.dict(os.environ, named):
                yield
        finally:
            _compose("down", "--volumes", "--timeout", "10")


async def describe_servers(servers: Servers) -> str:
    """Name the servers in use, for the page."""
    async with open_postgres() as server:
        connection = await asyncpg.connect(server.superuser_url)
        version = await connection.fetchval("show server_version")
        fsync = await connection.fetchval("show fsync")
        await connection.close()
    database = f"PostgreSQL {str(version).split()[0]}, fsync {fsync}"
    if servers is Servers.EMBEDDED:
        async with open_mongo() as mongo, mongo.connect() as client:
            mongo_version = (await client.server_info())["version"]
        return f"{database}, Tansu in memory (not Apache Kafka), and MongoDB {mongo_version}, one node, all embedded"
    return f"{database}, and {_kafka_image()}, in containers"


def _kafka_image() -> str:
    images = [line.strip().removeprefix("image: ") for line in (ROOT / "docker-compose.yml").read_text().splitlines()]
    return next(image for image in images if image.startswith("apache/kafka")).replace("apache/kafka:", "Apache Kafka ")
