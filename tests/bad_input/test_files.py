"""Files of coupons that are none, or hold rows that are none: each gets its one answer, and the log shows nothing."""

import gzip
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import orjson
import pytest

from deploy.settings import MigrateSettings
from etl.block import BARE_RETURN, NEVER_CLOSED, TEXT_BEHIND_QUOTE, TOO_LONG
from etl.coupon_batch import ENDS_BEFORE_IT_BEGINS, RULES, TOO_FEW_FIELDS, TOO_MANY_FIELDS
from etl.records import NOT_UTF8, NUL_BYTE
from etl.rejects import read_all_rejects
from sandbox.coupon_file import HEADER, coupon_rows
from sandbox.servers import PostgresServer
from tests.bad_input.http_row import CANARY
from tests.bad_input.log_trace import faults_in
from tests.support.databases import open_emptied
from tests.support.etl_process import EtlCommand
from tests.support.etl_scene import TABLES
from tests.support.fault_report import FaultReport
from tests.support.judgement import Rule, judge

CONTENT_BYTES_MAX: Final = 3_000_000
LIMIT: Final = {"CONTENT_BYTES_MAX": str(CONTENT_BYTES_MAX)}
ROWS: Final = [row.raw for row in coupon_rows(500, seed=9)]
GOOD: Final = HEADER + b"".join(ROWS[:3])
PACKED: Final = gzip.compress(HEADER + b"".join(ROWS), mtime=0)

HEADER_WRONG: Final = "the header is wrong: "
GZIP_WRONG: Final = "the gzip data is cut, damaged or followed by something else"


def _with_column(old: bytes, new: bytes) -> bytes:
    return GOOD.replace(old, new, 1)


CONTENTS: Final[dict[str, tuple[bytes, str]]] = {
    "empty": (b"", "the file is empty"),
    "nothing but a mark": (b"\xef\xbb\xbf", "the file has no header"),
    "an empty line first": (b"\n" + GOOD, "the file has no header"),
    "no header": (b"".join(ROWS[:3]), f"{HEADER_WRONG}missing: .*; unknown: .*"),
    "a column is missing": (_with_column(b"currency,", b""), f"{HEADER_WRONG}missing: 'currency'"),
    "a column is doubled": (_with_column(b"currency", b"code"), f"{HEADER_WRONG}missing: 'currency'; doubled: 'code'"),
    "a column that nobody sees": (
        _with_column(b"currency", "cur\x1b[31m\u202e\u2028\x85rency".encode()),
        rf"{HEADER_WRONG}missing: 'currency'; unknown: 'cur\\x1b\[31m\\u202e\\u2028\\x85rency'",
    ),
    "a column with a line end": (_with_column(b"currency", b'"cur\nrency"'), rf"{HEADER_WRONG}.*'cur\\nrency'"),
    "names in capitals": (GOOD.upper(), f"{HEADER_WRONG}missing: .*"),
    "semicolons": (GOOD.replace(b",", b";"), f"{HEADER_WRONG}missing: .*"),
    "a header that is not UTF-8": (
        _with_column(b"currency", b"curr\xffency"),
        "the header is no record of CSV in UTF-8",
    ),
    "a header with a stray quote": (
        _with_column(b"currency", b'"cur"rency'),
        "the header is no record of CSV in UTF-8",
    ),
    "UTF-16": (GOOD.decode().encode("utf-16"), "the file is in UTF-16, not in UTF-8"),
    "UTF-32": (GOOD.decode().encode("utf-32"), "the file is in UTF-32, not in UTF-8"),
    "UTF-16 without a mark": (
        GOOD.decode().encode("utf-16-le"),
        f"{HEADER_WRONG}.*|the header is no record of CSV in UTF-8",
    ),
    "one line for ever": (b"x" * 2_000_000, "line 1 is longer than 1048576 bytes: this is no file of records"),
    "zeros": (bytes(2_000_000), "line 1 is longer than 1048576 bytes: this is no file of records"),
    "too long": (HEADER + b"\n" * CONTENT_BYTES_MAX, f"the content is longer than {CONTENT_BYTES_MAX} bytes"),
    "gzip cut in its data": (PACKED[: len(PACKED) // 2], GZIP_WRONG),
    "gzip cut in its checksum": (PACKED[:-3], GZIP_WRONG),
    "gzip of another checksum": (PACKED[:-8] + bytes(4) + PACKED[-4:], GZIP_WRONG),
    "gzip of another length": (PACKED[:-4] + bytes(4), GZIP_WRONG),
    "gzip and more": (PACKED + b"more", GZIP_WRONG),
    "gzip of nothing": (gzip.compress(b""), "the file is empty"),
    "gzip that explodes": (
        gzip.compress(HEADER + bytes(300_000_000), 9),
        f"the content is longer than {CONTENT_BYTES_MAX} bytes",
    ),
}
"""What a file holds, and what is said of it."""


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _circle(path: Path) -> None:
    path.symlink_to(path)


PLACES: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "a directory": (Path.mkdir, "the file cannot be opened: Is a directory"),
    "a pipe without a writer": (_pipe, "this is no regular file"),
    "a device without an end": (_device, "this is no regular file"),
    "a link to itself": (_circle, "the file cannot be opened: Too many levels of symbolic links"),
    "nothing": (lambda _: None, "the file cannot be opened: No such file or directory"),
}
"""What a path leads to, and what is said of it."""


def _row(place: int, value: str) -> bytes:
    fields = ROWS[0].decode().rstrip("\n").split(",")
    return ",".join([*fields[:place], value, *fields[place + 1 :]]).encode()


RECORDS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\\.", TOO_FEW_FIELDS),
    (CANARY.encode(), TOO_FEW_FIELDS),
    (_row(6, f"2027-01-01T00:00:00Z,{CANARY}"), TOO_MANY_FIELDS),
    (_row(1, "m-\0"), NUL_BYTE),
    (_row(1, "m-1").replace(b"m-1", b"m-\xff\xfe"), NOT_UTF8),
    (_row(1, "m-\r1"), BARE_RETURN),
    (_row(1, f'"m-1"{CANARY}'), TEXT_BEHIND_QUOTE),
    (_row(1, "x" * 70_000), TOO_LONG),
    (_row(0, "0123456789abcdef"), RULES["code"]),
    (_row(0, "0123456789ABCDEU"), RULES["code"]),
    (_row(0, "\N{FULLWIDTH DIGIT ONE}123456789ABCDEF"), RULES["code"]),
    (_row(0, "\ufeff123456789ABCDEF"), RULES["code"]),
    (_row(1, "\\."), RULES["member_id"]),
    (_row(1, f'"m-{CANARY}\n\\.\n"'), RULES["member_id"]),
    (_row(1, f"\x1b[31m{CANARY}"), RULES["member_id"]),
    (_row(1, f'"{CANARY}""; drop table coupons; --"'), RULES["member_id"]),
    (_row(2, " rw-coffee"), RULES["reward_id"]),
    (_row(3, ""), RULES["value_cents"]),
    (_row(3, "-1"), RULES["value_cents"]),
    (_row(3, "1.5"), RULES["value_cents"]),
    (_row(3, "1e3"), RULES["value_cents"]),
    (_row(3, "007"), RULES["value_cents"]),
    (_row(3, "\N{ARABIC-INDIC DIGIT ONE}"), RULES["value_cents"]),
    (_row(3, "9" * 40), RULES["value_cents"]),
    (_row(4, "eur"), RULES["currency"]),
    (_row(5, "2026-02-30T00:00:00Z"), RULES["issued_at"]),
    (_row(5, "2026-01-01T00:00:00"), RULES["issued_at"]),
    (_row(5, "1999-12-31T23:59:59Z"), RULES["issued_at"]),
    (_row(6, "3000-01-01T00:00:00Z"), RULES["expires_at"]),
    (_row(6, "2000-01-01T00:00:00Z"), ENDS_BEFORE_IT_BEGINS),
    (f'"{CANARY}'.encode(), NEVER_CLOSED),
)
"""A record, and why it is rejected."""


@pytest.fixture
async def etl(postgres: PostgresServer, databases: MigrateSettings, tmp_path: Path) -> AsyncIterator[EtlCommand]:
    """The ETL's command line on empty tables."""
    async with open_emptied(postgres, databases.coupons_database, *TABLES):
        yield EtlCommand(postgres, databases.coupons_database, tmp_path, LIMIT)


@pytest.mark.fault("B4", "every file that is none, all in one load, between two that are")
async def test_file_that_is_none_is_refused_and_ends_no_other(etl: EtlCommand, fault_report: FaultReport) -> None:
    """Each has status 4 and its one reason, nothing of it is loaded or logged, and the good files are loaded."""
    good = [etl.write(name, list(coupon_rows(50, seed=seed))) for name, seed in (("first.csv", 1), ("last.csv", 2))]
    wanted: dict[str, str] = {}
    for number, (content, reason) in enumerate(CONTENTS.values()):
        path = etl.directory / f"content-{number}"
        path.write_bytes(content)
        wanted[str(path)] = reason
    for number, (make, reason) in enumerate(PLACES.values()):
        path = etl.directory / f"place-{number}"
        make(path)
        wanted[str(path)] = reason
    header = etl.write("header.csv", [])
    ended = await etl.load(good[0], *wanted, header, good[1])
    reports = {one["name"]: one for one in orjson.loads(etl.report_path.read_bytes())["files"]}
    found = {name: (reports[name]["outcome"], reports[name]["detail"]) for name in wanted}
    wrong = [
        f"{name} is {found[name]}, not {reason}"
        for name, reason in wanted.items()
        if found[name][0] != "refused" or not re.fullmatch(reason, found[name][1])
    ]
    fault_report.judge(
        judge(Rule.RIGHT_END, [*wrong, *([] if ended.status == 4 else [f"the status is {ended.status}"])]),
        judge(Rule.RIGHT_CONTENT, faults_in(ended.log.encode())),
        judge(Rule.RIGHT_END, [] if reports[str(header)]["outcome"] == "loaded" else ["a header alone is not loaded"]),
        judge(Rule.NOTHING_LOST, [] if len(await etl.stored()) == 100 else ["good files are not loaded"]),
    )
    fault_report.measure(files=str(len(wanted)))


@pytest.mark.parametrize(
    "line_end",
    [
        pytest.param(b"\n", marks=pytest.mark.fault("B4", "every bad record, each between two good ones")),
        pytest.param(b"\r\n", marks=pytest.mark.fault("B4", "every bad record with CRLF, each between two good ones")),
    ],
)
async def test_record_that_is_none_is_rejected_and_spoils_no_other(
    etl: EtlCommand, fault_report: FaultReport, line_end: bytes
) -> None:
    """Each is in the reject file with its line, its bytes and its one reason; each good row is loaded, none logged."""
    content, wanted, lines = b"\xef\xbb\xbf" + HEADER.rstrip() + line_end, [], {}
    for (raw, reason), good in zip(RECORDS, ROWS[100:], strict=False):
        lines[good[:16].decode()] = content.count(b"\n") + 1
        content += good.rstrip() + line_end
        wanted.append((content.count(b"\n") + 1, raw, reason))
        content += raw + line_end
    path = etl.directory / "records.csv"
    path.write_bytes(content)
    ended = await etl.load(path, "--batch-rows", 7)
    content_sha256 = bytes.fromhex(etl.report()["content_sha256"])
    found = [(row.line, row.raw, row.reason) for row in read_all_rejects(etl.rejects_directory, content_sha256)]
    stored = await etl.stored()
    fault_report.judge(
        judge(Rule.RIGHT_END, [] if ended.status == 3 else [f"the status is {ended.status}: {ended.log}"]),
        judge(Rule.NOTHING_LOST, [f"not rejected: {one}" for one in wanted if one not in found]),
        judge(Rule.NOTHING_INVENTED, [f"rejected: {one}" for one in found if one not in wanted]),
        judge(
            Rule.RIGHT_CONTENT, [*faults_in(ended.log.encode()), *([] if stored == lines else [f"stored: {stored}"])]
        ),
    )
    fault_report.measure(records=str(len(wanted)))
