"""The commands beside `load`: they only read, and a signal ends them."""

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[3]
SECONDS: Final = 10.0


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("command", "number"),
    [
        (("status", "-"), signal.SIGTERM),
        (("status", "-"), signal.SIGINT),
        (("rejects", "show", "-"), signal.SIGTERM),
        (("rejects", "export", "-"), signal.SIGINT),
    ],
)
def test_signal_ends_a_command_whose_input_brings_nothing_more(
    tmp_path: Path, command: tuple[str, ...], number: signal.Signals
) -> None:
    """Whoever writes standard input may hold it open for ever: one signal is enough, and the status names it."""
    read_end, write_end = os.pipe()
    environment = {**os.environ, "ETL_SPOOL_DIRECTORY": str(tmp_path)}
    arguments = [sys.executable, "-m", "etl", *command]
    process = subprocess.Popen(arguments, cwd=ROOT, env=environment, stdin=read_end, stderr=subprocess.PIPE)
    try:
        os.close(read_end)
        os.write(write_end, b"code")
        wait_until_read(write_end)
        process.send_signal(number)
        _, told = process.communicate(timeout=SECONDS)
        assert (process.returncode, told) == (128 + number, b"")
    finally:
        process.kill()
        process.communicate()
        os.close(write_end)


def wait_until_read(pipe: int) -> None:
    """Wait until nothing is left in a pipe."""
    end, left = time.monotonic() + SECONDS, array.array("i", [1])
    while left[0]:
        assert time.monotonic() < end, "nobody reads the pipe"
        time.sleep(0.01)
        fcntl.ioctl(pipe, termios.FIONREAD, left)
