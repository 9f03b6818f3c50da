"""Files of coupons that are made: the same for the same seed, and good or bad as they say."""

import csv
import io
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from loyalty.coupon import Coupon
from loyalty.money import Money
from sandbox.coupon_file import BAD_KINDS, HEADER, coupon_rows

ROOT = Path(__file__).parents[3]
COLUMNS = HEADER.decode().strip().split(",")


def _code(raw: bytes) -> str | None:
    """Return the code of a row that passes the rules of the business; None for one that does not."""
    try:
        return _read(raw).code
    except ValueError:
        return None


def _read(raw: bytes) -> Coupon:
    (fields,) = csv.reader(io.StringIO(raw.decode(), newline=""), strict=True)
    row = dict(zip(COLUMNS, fields, strict=True))
    return Coupon(
        row["code"],
        row["member_id"],
        row["reward_id"],
        None,
        Money(int(row["value_cents"]), row["currency"]),
        datetime.fromisoformat(row["issued_at"]),
        datetime.fromisoformat(row["expires_at"]),
    )


@pytest.mark.parametrize("is_quoted", [False, True])
def test_row_with_a_code_is_a_coupon_and_one_without_is_none(is_quoted: bool) -> None:
    """Every good row passes the rules of the business, and every bad one breaks one of them."""
    rows = list(coupon_rows(3_000, seed=3, bad_percent=30, duplicate_percent=10, is_quoted=is_quoted))
    assert len(rows) == 3_000
    for row in rows:
        assert _code(row.raw) == row.code
    bad = sum(row.code is None for row in rows)
    assert 600 < bad < 1_200


def test_each_kind_of_a_bad_row_is_bad() -> None:
    """No kind is good by accident."""
    (good,) = coupon_rows(1, seed=1)
    fields = good.raw.decode().strip().split(",")
    assert _code(good.raw) == fields[0]
    for name, change in BAD_KINDS.items():
        assert _code((",".join(change(fields)) + "\n").encode()) is None, name


def test_row_that_comes_again_is_the_same_or_worth_another_amount() -> None:
    """Codes come again as often as asked, some of them with another amount."""
    rows = list(coupon_rows(2_000, seed=5, duplicate_percent=20))
    times = Counter(row.code for row in rows)
    assert 200 < sum(times.values()) - len(times) < 600
    assert len({row.raw for row in rows}) > len(times)


def test_same_seed_gives_the_same_file_and_another_one_another() -> None:
    """A file can be made again from its numbers."""
    first, again, other = (list(coupon_rows(100, seed=seed, bad_percent=5)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("bad", "duplicate"), [(-1.0, 0.0), (101.0, 0.0), (0.0, -1.0), (0.0, 101.0)])
def test_percent_out_of_range_is_refused(bad: float, duplicate: float) -> None:
    """A percent is from 0 to 100."""
    with pytest.raises(ValueError, match="percents"):
        coupon_rows(1, seed=1, bad_percent=bad, duplicate_percent=duplicate)


def test_command_writes_a_file_with_its_header() -> None:
    """`python -m sandbox coupons-csv` writes the rows that its numbers ask for."""
    made = subprocess.run(
        [sys.executable, "-m", "sandbox", "coupons-csv", "--rows", "50", "--bad-percent", "10", "--seed", "4"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    expected = HEADER + b"".join(row.raw for row in coupon_rows(50, seed=4, bad_percent=10))
    assert made.stdout == expected
    assert made.stderr == b""


def test_command_with_a_number_out_of_range_writes_nothing() -> None:
    """Not even a header, which would be a file that looks whole."""
    command = [sys.executable, "-m", "sandbox", "coupons-csv", "--bad-percent", "101"]
    made = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=60)
    assert (made.returncode, made.stdout) == (2, b"")
    assert b"percents from 0 to 100" in made.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full, as Linux has it")
def test_command_on_a_full_disk_says_so_in_one_line() -> None:
    """The status is 1: half a file must not be taken for a whole one."""
    command = [sys.executable, "-m", "sandbox", "coupons-csv", "--rows", "1000"]
    with Path("/dev/full").open("wb") as full:
        made = subprocess.run(command, cwd=ROOT, check=False, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert made.returncode == 1
    assert made.stderr.startswith(b"the file is not whole: ")
    assert made.stderr.count(b"\n") == 1
