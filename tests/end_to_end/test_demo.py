"""`python -m sandbox.demo`, as a newcomer runs it: real servers, real processes, and the audit's last word."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.demo import RESTARTED
from sandbox.disturbance import FAILURES
from sandbox.servers import keeper

ROOT = Path(__file__).parents[2]
UNDER_TRAFFIC = "2xx "
_WAIT_SECONDS = 120.0

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class _Run:
    """A demo that runs, and whatever belongs to it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._output = directory.with_suffix(".out")
        with self._output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sandbox.demo", "--directory", str(directory), *arguments],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=keeper.die_with_parent(os.getpid()),  # noqa: PLW1509 - it calls nothing that takes a lock
            )

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until it has printed something."""
        give_up_at = time.monotonic() + _WAIT_SECONDS
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < give_up_at, self.output
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its status and its last line."""
        status = self.process.wait(_WAIT_SECONDS)
        return status, self.output.splitlines()[-1]


@contextmanager
def _run(directory: Path, *arguments: str) -> Iterator[_Run]:
    run = _Run(directory / "demo", *arguments)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait(_WAIT_SECONDS)


def _await_end_of(pids: list[int]) -> None:
    give_up_at = time.monotonic() + _WAIT_SECONDS
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < give_up_at, f"left behind: {left}"
        time.sleep(0.05)


@linux
def test_demo_of_some_seconds_disturbs_everything_and_audits_ok(tmp_path: Path) -> None:
    """It restarts services under traffic, lets Salesforce fail and MongoDB step down, and ends with `audit ok`.

    A file is loaded meanwhile, stopped and gone on with. No process is left.
    """
    with _run(tmp_path, "--seconds", "6") as run:
        run.wait_for("traffic seed")
        pids = keeper.descendants(run.process.pid)
        assert len(pids) > 10
        status, last = run.end()
    assert last.startswith("audit ok: "), run.output
    assert status == 0
    for service in RESTARTED:
        assert f"rolling restart of {service}: {service}-1 ended with status 0, 0 requests failed" in run.output
    assert run.output.count("Salesforce serves again after") == len(FAILURES)
    assert "MongoDB is the primary again" in run.output
    assert "its load got a SIGTERM and ended with status 75" in run.output
    assert "the same command again ended with status 3" in run.output
    assert "the same file under another name ended with status 3" in run.output
    assert re.search(r"[1-9]\d* coupons from files \(20000 rows, [1-9]\d* rejects\)", last), last
    assert re.search(r"[1-9]\d* writes of consents", last), last
    assert "not Apache Kafka" in run.output
    assert "API docs" in run.output
    _await_end_of(pids)


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_demo_interrupted_still_drains_and_audits(tmp_path: Path, number: signal.Signals) -> None:
    """A first signal to the whole process group ends the traffic, not the audit."""
    with _run(tmp_path) as run:
        run.wait_for(UNDER_TRAFFIC)
        os.killpg(run.process.pid, number)
        status, last = run.end()
    assert last.startswith("audit ok: "), run.output
    assert status == 0


@linux
def test_demo_interrupted_twice_ends_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    """A second Ctrl-C ends it with status 130 and without an audit, and no process stays."""
    with _run(tmp_path) as run:
        run.wait_for(UNDER_TRAFFIC)
        pids = keeper.descendants(run.process.pid)
        run.process.send_signal(signal.SIGINT)
        run.wait_for("waiting for the backlog")
        run.process.send_signal(signal.SIGINT)
        status, last = run.end()
    assert status == 130
    assert "without an audit" in last
    _await_end_of(pids)


@linux
@pytest.mark.parametrize("moment", ["starting the services", UNDER_TRAFFIC])
def test_demo_killed_leaves_nothing(tmp_path: Path, moment: str) -> None:
    """After kill -9 of the demo no server and no service is left, whenever it happens."""
    with _run(tmp_path) as run:
        run.wait_for(moment)
        pids = keeper.descendants(run.process.pid)
        run.process.kill()
        run.process.wait(_WAIT_SECONDS)
    assert pids
    _await_end_of(pids)


def test_demo_beside_a_running_one_says_so(tmp_path: Path) -> None:
    """A second demo in the same directory ends with one sentence and touches nothing."""
    with _run(tmp_path) as run:
        run.wait_for("starting the servers")
        second = subprocess.run(
            [sys.executable, "-m", "sandbox.demo", "--directory", str(tmp_path / "demo")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_WAIT_SECONDS,
            check=False,
        )
        assert second.returncode == 1
        assert "a demo is running already" in second.stderr
        assert run.process.poll() is None


@linux
def test_demo_whose_services_do_not_answer_ends_at_the_second_signal_all_the_same(tmp_path: Path) -> None:
    """It waits for no answer then: the frozen services are killed, and no process stays."""
    with _run(tmp_path) as run:
        run.wait_for(UNDER_TRAFFIC)
        pids = keeper.descendants(run.process.pid)
        for pid in pids:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if command.endswith((b"services.reward_store\0", b"services.coupon_api\0")) and b"keeper" not in command:
                os.kill(pid, signal.SIGSTOP)
        run.process.send_signal(signal.SIGINT)
        run.wait_for("the traffic ends")
        run.process.send_signal(signal.SIGINT)
        status, last = run.end()
    assert status == 130, run.output
    assert "without an audit" in last
    _await_end_of(pids)
