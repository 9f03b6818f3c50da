"""``runtime.process.run`` as a real process that gets real signals at every bad moment; it always ends as defined."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import Signals
from typing import Any

import pytest

from tests.support.fault_report import FaultReport
from tests.support.judgement import judge_end

_ROOT = Path(__file__).parents[3]
_COMMAND = [sys.executable, "-m", "tests.support.signal_application"]


class Run:
    """One process under test: its log lines, its signals, its end."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    def lines(self) -> list[dict[str, Any]]:  # Any: a log line's fields
        """Return the log so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def text(self) -> str:
        """Return all of standard error so far."""
        return self._log.read_text()

    def events(self) -> list[str]:
        """Return the events so far."""
        return [line["event"] for line in self.lines()]

    def wait_for(self, event: str, seconds: float = 40.0) -> dict[str, Any]:  # Any: a log line's fields
        """Return the first line with the event, waiting for it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.lines():
                if line["event"] == event:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"no {event!r} in:\n{self.text()}")

    def wait_held(self) -> None:
        """Wait for the process to say that it holds signals, its first word."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"held\n"

    def send(self, number: Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    def end(self, seconds: float = 40.0) -> int:
        """Return the process's status; negative when a signal ended it."""
        return self.process.wait(seconds)


@contextmanager
def running(log: Path, mode: str, *, command: list[str] | None = None, **variables: str) -> Iterator[Run]:
    """Start the application in a mode; kill what is left at the end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MODE_")}
    environment |= {"MODE_MODE": mode, "MODE_ADMIN__PORT": "0", "MODE_GRACE_SECONDS": "2", **variables}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command or _COMMAND, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=stderr
        )
    try:
        yield Run(process, log)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The file that gets the process's standard error."""
    return tmp_path / "stderr"


@pytest.mark.parametrize("number", [Signals.SIGTERM, Signals.SIGINT, Signals.SIGHUP])
def test_a_signal_begins_an_orderly_stop_that_is_logged_phase_by_phase(log: Path, number: Signals) -> None:
    """Status 0, and the log tells the order: signal, phases with their seconds, completed, stopped."""
    with running(log, "orderly") as run:
        run.wait_for("Working")
        run.send(number)
        assert run.end() == 0
        expected = [
            "Process started",
            "Admin server listening",
            "Working",
            "Stop requested",
            "Received shutdown signal",
            "Stop phase done",
            "Stop phase done",
            "Application shutdown completed",
            "Process stopped",
        ]
        assert [event for event in run.events() if event in expected] == expected
        phases = [(line["phase"], line["seconds"] >= 0) for line in run.lines() if line["event"] == "Stop phase done"]
        assert phases == [("drain", True), ("close", True)]
        assert run.wait_for("Received shutdown signal")["signal"] == number.name


def test_what_is_loaded_is_no_longer_looked_through_by_the_collector(log: Path) -> None:
    """When the application works, the objects of the modules are frozen: a collection passes them over."""
    with running(log, "orderly") as run:
        assert run.wait_for("Working")["frozen"] > 10_000
        run.send(Signals.SIGTERM)
        assert run.end() == 0


@pytest.mark.parametrize("delay_ms", [0, 10, 50, 100, 200, 400, 800])
def test_a_signal_at_any_moment_of_the_start_ends_with_status_0(log: Path, delay_ms: int) -> None:
    """From the process's first word on no moment exists at which SIGTERM hangs it, kills it or is lost."""
    with running(log, "orderly") as run:
        run.wait_held()
        time.sleep(delay_ms / 1_000)
        run.send(Signals.SIGTERM)
        assert run.end() == 0


@pytest.mark.parametrize("delay_ms", [0, 20, 50])
def test_a_signal_before_the_first_word_ends_the_process_at_once_or_in_order(log: Path, delay_ms: int) -> None:
    """While the interpreter itself starts the system's default holds: nothing was opened, and it ends by the signal."""
    with running(log, "orderly") as run:
        time.sleep(delay_ms / 1_000)
        run.send(Signals.SIGTERM)
        assert run.end() in {0, -Signals.SIGTERM}


def test_a_signal_that_the_starter_blocked_is_kept_until_it_has_a_handler(log: Path) -> None:
    """A SIGTERM sent before the first instruction of Python ends the process with status 0, as in the image."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {Signals.SIGTERM})
    try:
        with running(log, "orderly") as run:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            run.send(Signals.SIGTERM)
            assert run.end() == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.mark.parametrize("delay_ms", [0, 50, 200, 500])
def test_a_signal_while_the_dependency_is_down_ends_with_status_0(log: Path, delay_ms: int) -> None:
    """The admin port answers meanwhile: alive, not ready."""
    with running(log, "dependency down", MODE_STARTUP_SECONDS="60") as run:
        line = run.wait_for("Admin server listening")
        port = int(re.findall(r"\d+", str(line["address"]))[-1])
        assert status_of(port, "/livez") == 200
        assert status_of(port, "/readyz") == 503
        assert status_of(port, "/metrics") == 200
        time.sleep(delay_ms / 1_000)
        run.send(Signals.SIGTERM)
        assert run.end() == 0
        assert "Stopped while starting" in run.events()


def status_of(port: int, path: str) -> int:
    """Return the status of a GET."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_dependency_that_never_comes_ends_with_status_1_and_its_last_error(log: Path) -> None:
    """After startup_seconds the process gives up and says what the last attempt said."""
    with running(log, "dependency down", MODE_STARTUP_SECONDS="0.5") as run:
        assert run.end() == 1
        assert "Errno 111" in str(run.wait_for("Application failed")["exception"])


@pytest.mark.parametrize(("first", "second"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM")])
def test_the_second_signal_stops_now_and_says_what_was_cut_off(log: Path, first: str, second: str) -> None:
    """Status 1, long before the grace period ends, with the phase at hand and the one that never began."""
    with running(log, "drains for ever", MODE_GRACE_SECONDS="60") as run:
        run.wait_for("Working")
        run.send(Signals[first])
        run.wait_for("Received shutdown signal")
        run.send(Signals[second])
        assert run.end(30) == 1
        line = run.wait_for("Stopped by force")
        assert line["cut_off"] == ["phase drain: cut off", "phase close: skipped"]
        assert second in line["reason"]


def test_the_end_of_the_budget_stops_now_and_says_what_was_cut_off(log: Path) -> None:
    """A phase that does not end is cancelled when the grace period is over, and the status is 1."""
    with running(log, "drains for ever", MODE_GRACE_SECONDS="0.5") as run:
        run.wait_for("Working")
        run.send(Signals.SIGTERM)
        assert run.end() == 1
        assert "phase drain: cut off" in run.wait_for("Stopped by force")["cut_off"]


def test_what_an_application_raises_when_it_is_cut_off_is_told_with_the_cut(log: Path) -> None:
    """Its error is in the one line that says what was cut off, and nobody complains that it was never looked at."""
    with running(log, "breaks when cut off", MODE_GRACE_SECONDS="0.5") as run:
        run.wait_for("Working")
        run.send(Signals.SIGTERM)
        assert run.end() == 1
        assert run.wait_for("Stopped by force")["error"] == "ValueError('broken on purpose')"
        assert "never retrieved" not in run.text()


def test_a_phase_that_fails_does_not_keep_the_next_from_running_and_the_status_is_1(log: Path) -> None:
    """The failed phase is logged with its error, the next one ran, and nobody takes the end for a clean one."""
    with running(log, "fails to drain") as run:
        run.wait_for("Working")
        run.send(Signals.SIGTERM)
        assert run.end() == 1
        assert run.wait_for("Stop phase failed")["phase"] == "drain"
        assert run.wait_for("Stop phase done")["phase"] == "close"


@pytest.mark.parametrize("mode", ["eats its cancel", "blocks the loop", "leaves a thread"])
def test_what_will_not_end_is_ended_by_force_with_status_1(log: Path, mode: str) -> None:
    """A task that eats its cancel, a blocked loop, a thread that stays: none of them outlives the stop."""
    with running(log, mode, MODE_GRACE_SECONDS="0.5") as run:
        run.wait_for("Working")
        run.send(Signals.SIGTERM)
        assert run.end() == 1
        assert "Stopped by force" in run.events()


def test_an_application_that_raises_ends_with_status_1_and_its_traceback(log: Path) -> None:
    """The traceback is in one log line, and the admin port is closed in order."""
    with running(log, "raises") as run:
        assert run.end() == 1
        assert "ValueError: broken on purpose" in str(run.wait_for("Application failed")["exception"])
        assert run.wait_for("Process stopped")["status"] == 1


def test_bad_settings_end_with_status_78_and_all_problems_and_no_secret(log: Path) -> None:
    """One message on standard error names every variable at fault and shows no value."""
    variables: dict[str, str] = {
        "MODE_LOG_LEVEL": "LOUD",
        "MODE_POSTGRES__HSOT": "db",
        "MODE_POSTGRES__DATABASE": "x",
        "MODE_POSTGRES__PASSWORD": "very-secret",
        "MODE_GRACE_SECONDS": "nan",
    }
    with running(log, "orderly", command=None, **variables) as run:
        assert run.end() == 78
        for variable in ("MODE_LOG_LEVEL", "MODE_POSTGRES__HSOT", "MODE_POSTGRES__USER", "MODE_GRACE_SECONDS"):
            assert variable in run.text()
        assert "did you mean MODE_POSTGRES__HOST?" in run.text()
        assert "very-secret" not in run.text()


def test_an_admin_port_in_use_ends_with_status_1_and_names_the_reason(log: Path) -> None:
    """The application never starts when the process could not be observed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running(log, "orderly", MODE_ADMIN__PORT=port) as run:
            assert run.end() == 1
            assert "in use" in str(run.wait_for("Admin server failed")["error"])
            assert "Working" not in run.events()


def test_sigquit_shows_where_every_task_and_thread_stands_and_stops_nothing(log: Path) -> None:
    """One log line has the stacks; the process goes on and stops in order later."""
    with running(log, "orderly") as run:
        run.wait_for("Working")
        run.send(Signals.SIGQUIT)
        line = run.wait_for("Stacks")
        assert any("signal_modes.py" in task for task in line["tasks"])
        assert "MainThread" in line["threads"]
        run.send(Signals.SIGTERM)
        assert run.end() == 0


def test_sigquit_shows_the_line_that_blocks_the_loop_while_it_does(log: Path) -> None:
    """The stacks come from a thread of their own: when they are needed most the loop cannot write them."""
    with running(log, "blocks the loop") as run:
        run.wait_for("Working")
        deadline = time.monotonic() + 20
        stacks: list[str] = []
        while not any("time.sleep(60)" in stack for stack in stacks):
            assert time.monotonic() < deadline, stacks
            run.send(Signals.SIGQUIT)
            time.sleep(0.1)
            stacks = [line["threads"]["MainThread"] for line in run.lines() if line["event"] == "Stacks"]


@pytest.mark.parametrize("number", [Signals.SIGTERM, Signals.SIGINT, Signals.SIGHUP, Signals.SIGQUIT])
def test_no_signal_at_the_very_end_changes_the_status(number: Signals) -> None:
    """Once the inbox is closed none ends the process, though the interpreter gave up its handlers and a thread is left.

    An object of the main module is deleted after that; the thread is one that a signal may be delivered to.
    """
    program = f"""
import os, threading, time
from runtime.signals import hold_signals
class Late:
    def __del__(self, kill=os.kill, process=os.getpid(), write=os.write):
        kill(process, {int(number)})
        write(1, b"sent")
late = Late()
inbox = hold_signals()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
inbox.close()
raise SystemExit(7)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=_ROOT, stdout=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stdout) == (7, b"sent")


def test_sigpipe_has_no_effect(log: Path) -> None:
    """A peer that went away is an error of one write, never the end of the process."""
    with running(log, "orderly") as run:
        run.wait_for("Working")
        run.send(Signals.SIGPIPE)
        run.send(Signals.SIGTERM)
        assert run.end() == 0


def test_a_hangup_ignored_from_the_start_stays_ignored(log: Path) -> None:
    """Under nohup the terminal's end does not stop the process."""
    with running(log, "orderly", command=["nohup", *_COMMAND]) as run:
        run.wait_for("Working")
        run.send(Signals.SIGHUP)
        run.send(Signals.SIGQUIT)
        run.wait_for("Stacks")
        assert "Stop requested" not in run.events()
        run.send(Signals.SIGTERM)
        assert run.end() == 0


@pytest.mark.fault("H6", "SIGTERM to process 1 of a namespace of its own")
def test_as_process_1_of_a_namespace_it_stops_on_sigterm_like_anywhere(log: Path, fault_report: FaultReport) -> None:
    """Process 1 has no default actions: without handlers of its own it would never hear the signal."""
    unshare = shutil.which("unshare")
    probe = [str(unshare), "--fork", "--pid", "true"]
    if unshare is None or subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system gives no new process namespace")
    with running(log, "orderly", command=[unshare, "--fork", "--pid", "--kill-child", *_COMMAND]) as run:
        assert run.wait_for("Process started")["pid"] == 1
        run.wait_for("Working")
        children = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        status = run.end()
        fault_report.judge(judge_end("process 1", status, run.events()[-1], wanted=(0, "Process stopped")))


def test_a_full_log_disk_and_a_closed_log_pipe_stop_nothing(log: Path, tmp_path: Path) -> None:
    """With nowhere to log to the process starts, serves its admin port and stops in order all the same."""
    for redirect in ("2>/dev/full", "2> >(exec true)"):
        marker = tmp_path / "port"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = ["bash", "-c", f"exec {' '.join(_COMMAND)} {redirect}"]
        with running(log, "orderly", command=command, MODE_ADMIN__PORT=str(port)) as run:
            run.wait_held()
            deadline = time.monotonic() + 40
            while time.monotonic() < deadline and not _is_ready(port):
                time.sleep(0.05)
            assert status_of(port, "/readyz") == 200
            metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)
            with metrics as answer:
                text = answer.read().decode()
            assert re.search(r"^lp_log_lines_dropped_total [1-9]", text, re.MULTILINE), marker
            run.send(Signals.SIGTERM)
            assert run.end() == 0


def _is_ready(port: int) -> bool:
    try:
        return status_of(port, "/readyz") == 200
    except OSError:
        return False
