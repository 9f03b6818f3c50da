"""What whoever starts a load sees of it: bars on a terminal, log lines elsewhere."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Final

import orjson
import pytest

from sandbox.coupon_file import HEADER, coupon_rows

ROOT: Final = Path(__file__).parents[3]
ROWS: Final = 8_000


@pytest.fixture
def command(tmp_path: Path) -> list[str | Path]:
    """A dry run of so many batches that it takes longer than the bars need for their first look."""
    path = tmp_path / "coupons.csv"
    path.write_bytes(HEADER + b"".join(row.raw for row in coupon_rows(ROWS, seed=1)))
    options = ("--dry-run", "--workers", "2", "--batch-rows", "10", "--rejects-directory", tmp_path)
    return [sys.executable, "-m", "etl", "load", *options, path]


def test_terminal_shows_a_bar_for_each_worker_and_the_whole_to_its_end(command: list[str | Path]) -> None:
    """Both workers are seen with a line in hand, and the whole with its rate, at 100 % in the end."""
    seen, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        while part := _read(seen):
            shown += part
        assert process.wait(10) == 0
    os.close(seen)
    text = shown.decode()
    assert "worker 1 of 2" in text
    assert "worker 2 of 2" in text
    assert "line " in text
    last = text[: text.rindex("rows/s")]
    assert f"{ROWS:,} rows, " in last[-30:]
    assert "100%" in last[-200:]


def test_elsewhere_it_is_a_log_line(command: list[str | Path]) -> None:
    """Off a terminal nothing but JSON is written, with the counts and the rate at the end."""
    ended = subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.PIPE, timeout=10)
    told = [orjson.loads(line) for line in ended.stderr.splitlines()]
    progress = [line for line in told if line["event"].startswith("Progress: ")]
    assert progress[-1]["event"] == f"Progress: {ROWS} processed, {ROWS} skipped, 0 rejected, 0 failed"
    assert progress[-1]["rows_per_second"] > 0


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # Linux says so when nobody has the other side any more
        return b""
