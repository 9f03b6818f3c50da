"""``python -m deploy.topics`` on a real broker."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.topics import Topic, TopicMismatchError, ensure_topics
from runtime.errors import DependencyUnavailable
from runtime.settings import KafkaSettings
from sandbox.servers import KafkaServer

_ROOT = Path(__file__).parents[3]


def run_topics(**variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the command with these variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOPICS_")}
    return subprocess.run(
        [sys.executable, "-m", "deploy.topics"],
        cwd=_ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


async def test_missing_topics_are_made_once_by_whoever_comes_first(kafka: KafkaServer) -> None:
    """Five callers at once make the two topics; a sixth has nothing to do."""
    settings = KafkaSettings(bootstrap=kafka.bootstrap)
    topics = [Topic(f"made-{uuid4()}", 6), Topic(f"made-{uuid4()}", 2)]
    await asyncio.gather(*(ensure_topics(settings, topics) for _ in range(5)))
    assert await ensure_topics(settings, topics) == []
    with pytest.raises(TopicMismatchError, match="6 partitions, not 3"):
        await ensure_topics(settings, [Topic(topics[0].name, 3)])


async def test_no_broker_is_told_after_the_time_given() -> None:
    """It gives up with the brokers' last word."""
    with pytest.raises(DependencyUnavailable):
        await ensure_topics(KafkaSettings(bootstrap="127.0.0.1:1"), [Topic("x")], timeout_seconds=0.1)


def test_command_without_brokers_says_why_in_one_line() -> None:
    """The brokers' client writes nothing of its own; the reason of the last failed connection is in our line."""
    ended = run_topics(TOPICS_KAFKA__BOOTSTRAP="127.0.0.1:1", TOPICS_TIMEOUT_SECONDS="1")
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert line.startswith("topics: kafka: _TRANSPORT; ")
    assert "Connection refused" in line


def test_answer_that_does_not_come_ends_as_brokers_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A future that is late is tried again until the time is over, and is no traceback then."""

    def late(*_: object) -> list[Topic]:
        raise TimeoutError

    monkeypatch.setattr("deploy.topics._missing", late)
    with pytest.raises(DependencyUnavailable, match="no answer in time"):
        asyncio.run(ensure_topics(KafkaSettings(bootstrap="127.0.0.1:1"), [Topic("x")], timeout_seconds=0.1))


def test_the_command_says_what_it_made_and_ends_with_the_right_status(kafka: KafkaServer) -> None:
    """Made, then nothing to do, then another number of partitions, then bad settings: 0, 0, 1, 78."""
    topic = f"made-{uuid4()}"
    variables = {"TOPICS_KAFKA__BOOTSTRAP": kafka.bootstrap, "TOPICS_COUPON_EVENTS": topic}
    assert run_topics(**variables).stdout == f"topics: {topic} made\n"
    assert run_topics(**variables).stdout == "topics: nothing to do\n"
    wrong = run_topics(**variables, TOPICS_PARTITIONS="7")
    assert (wrong.returncode, "6 partitions, not 7" in wrong.stderr) == (1, True)
    bad = run_topics(TOPICS_KAFKA__BOOTSTRAPS="x")
    assert (bad.returncode, "did you mean TOPICS_KAFKA__BOOTSTRAP?" in bad.stderr) == (78, True)
