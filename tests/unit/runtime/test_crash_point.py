"""A crash point fires where it is armed, and can be armed in a test only."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from runtime.crash_point import CrashPoints, CrashSettings

NAMES = ("before", "after")


def test_point_outside_a_test_is_refused() -> None:
    """Settings that name a point without saying that this is a test are bad settings."""
    with pytest.raises(ValidationError, match="for tests only"):
        CrashSettings(point="before")


def test_unknown_point_is_refused() -> None:
    """A misspelt point is an error, both when it is armed and when it is reached."""
    with pytest.raises(ValueError, match="one of before, after"):
        CrashPoints(CrashSettings(is_test=True, point="befor"), NAMES)
    with pytest.raises(ValueError, match="unknown crash point"):
        CrashPoints(CrashSettings(), NAMES).reach("befor")


def test_unarmed_points_do_nothing() -> None:
    """Without a point in the settings every arrival passes."""
    points = CrashPoints(CrashSettings(is_test=True), NAMES)
    for name in NAMES:
        points.reach(name)


def test_armed_point_kills_at_the_named_arrival() -> None:
    """The process passes other points and the first arrival, and is killed at the second arrival at the armed one."""
    program = """
from runtime.crash_point import CrashPoints, CrashSettings
points = CrashPoints(CrashSettings(is_test=True, point="after", hit=2), ("before", "after"))
for step in ("before", "after", "before", "after"):
    points.reach(step)
    print(step, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=9)
    assert (done.returncode, done.stdout.split()) == (-9, ["before", "after", "before"])
