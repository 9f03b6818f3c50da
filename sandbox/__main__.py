"""Make data for trying things out: `python -m sandbox coupons-csv --rows 1000 > coupons.csv`."""

import argparse
import os
import sys
from collections.abc import Iterator

from sandbox.coupon_file import HEADER, FileRow, coupon_rows


def main(arguments: list[str]) -> int:
    """Run the command that the arguments name, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="Make data for trying things out.")
    commands = parser.add_subparsers(title="commands", required=True)
    maker = commands.add_parser("coupons-csv", help="write a file of coupons to standard output")
    maker.add_argument("--rows", type=int, default=1_000)
    maker.add_argument("--bad-percent", type=float, default=0.0, help="about so many rows break a rule")
    maker.add_argument("--duplicate-percent", type=float, default=0.0, help="about so many have the code of another")
    maker.add_argument("--quoted", action="store_true", help="every field in quotes")
    maker.add_argument("--seed", type=int, default=1, help="the same seed gives the same file")
    given = parser.parse_args(arguments)
    try:
        rows = coupon_rows(
            given.rows,
            seed=given.seed,
            bad_percent=given.bad_percent,
            duplicate_percent=given.duplicate_percent,
            is_quoted=given.quoted,
        )
    except ValueError as error:
        parser.error(str(error))
    return _write(rows)


def _write(rows: Iterator[FileRow]) -> int:
    output = sys.stdout.buffer
    try:
        output.write(HEADER)
        output.writelines(row.raw for row in rows)
        output.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # or the interpreter would fail to flush at its end
        if not isinstance(error, BrokenPipeError):  # then whoever reads has seen enough
            sys.stderr.write(f"the file is not whole: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
