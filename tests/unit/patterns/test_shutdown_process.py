"""Shutdown with real signals, in processes of its own."""

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from patterns.shutdown import Shutdown

ROOT = Path(__file__).parents[3]


async def test_listening_hears_real_signals_and_restores_what_was_before() -> None:
    """In the block the signals reach the channel; after it the former handlers are back."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    stop = Shutdown(10)
    with stop.listen(signal.SIGUSR1):
        signal.raise_signal(signal.SIGUSR1)
        assert await stop.signals.receive() is signal.SIGUSR1
    stop = Shutdown(10)
    with stop.listen():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        await stop.forced.wait()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before
    await stop.run()  # lets go of the budget's timer


def test_listening_outside_the_main_thread_is_refused() -> None:
    """Only the main thread gets signals, so elsewhere it raises, and changes nothing."""
    refused: list[type[BaseException]] = []

    async def main() -> None:
        try:
            with Shutdown(1).listen():
                pass
        except (RuntimeError, ValueError) as error:
            refused.append(type(error))

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    assert refused == [RuntimeError]


PROGRAM = """
import asyncio, sys
from patterns import Shutdown, receive, select

async def quick():
    await asyncio.sleep(0)

async def slow():
    await asyncio.sleep(float(sys.argv[2]))

async def main():
    stop = Shutdown(float(sys.argv[1]), report=lambda phase: print(phase.name, phase.outcome, flush=True))
    with stop.listen():
        print("ready", flush=True)
        signals = receive(stop.signals)
        await select(signals)
        print("received", signals.value.name, flush=True)
        result = await stop.run(("stop intake", quick), ("drain", slow), ("close", quick))
    for line in result.left_over:
        print("left over:", line, flush=True)
    return 0 if result.is_clean else 1

sys.exit(asyncio.run(main()))
"""


class Program:
    """The program above in a process of its own."""

    def __init__(self, budget_seconds: float, drain_seconds: float) -> None:
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(budget_seconds), str(drain_seconds)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        self._output = self.process.stdout
        assert self.line() == "ready"

    def line(self) -> str:
        """Read the next line."""
        return self._output.readline().rstrip()

    def end(self) -> tuple[int, list[str]]:
        """Return the exit status and the lines not yet read."""
        with self.process:
            lines = self._output.read().splitlines()
        return self.process.returncode, lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_stops_in_order_with_status_0_at_the_first_signal(number: signal.Signals) -> None:
    """A real SIGTERM or SIGINT runs every phase, and the process ends with status 0 and nothing left over."""
    program = Program(budget_seconds=60, drain_seconds=0)
    program.process.send_signal(number)
    status, lines = program.end()
    assert lines == [f"received {number.name}", "stop intake done", "drain done", "close done"]
    assert status == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_process_is_forced_by_the_second_signal_with_status_1_and_says_what_is_left(second: signal.Signals) -> None:
    """A second real signal in the middle of the drain ends the process; its last lines are the left-over list."""
    program = Program(budget_seconds=60, drain_seconds=600)
    program.process.send_signal(signal.SIGTERM)
    assert program.line() == "received SIGTERM"
    assert program.line() == "stop intake done"
    program.process.send_signal(second)
    status, lines = program.end()
    assert lines[:2] == ["drain cut off", "close skipped"]
    assert lines[2].startswith("left over: drain: cut off at <string>:9 in slow (sleep)")
    assert lines[3:] == ["left over: close: skipped"]
    assert status == 1


def test_process_whose_budget_runs_out_ends_with_status_1_and_says_what_is_left() -> None:
    """When the drain takes longer than the budget the process cuts it off by itself."""
    program = Program(budget_seconds=0.2, drain_seconds=600)
    program.process.send_signal(signal.SIGTERM)
    status, lines = program.end()
    assert lines[:4] == ["received SIGTERM", "stop intake done", "drain cut off", "close skipped"]
    assert lines[4].startswith("left over: drain: cut off at")
    assert status == 1


def test_ten_signals_at_once_neither_kill_nor_hang_the_process() -> None:
    """A burst of signals is one first and one forcing signal: the process ends by itself, by status 0 or 1."""
    program = Program(budget_seconds=60, drain_seconds=600)
    for _ in range(10):
        program.process.send_signal(signal.SIGTERM)
    program.process.send_signal(signal.SIGINT)
    status, lines = program.end()
    assert lines[0].startswith("received SIG")
    assert lines[-1] == "left over: close: skipped"
    assert status == 1
