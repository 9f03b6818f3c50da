"""What PostgreSQL makes of the bytes that are written for its COPY."""

from io import BytesIO

import asyncpg
import pytest

from etl.copy_format import COPY_COLUMNS, copy_rows
from etl.coupon_batch import read_batch
from loyalty.coupon import CouponStatus
from tests.support.coupon_csv import HEADER, block_of, good_rows, good_with, lines_of, read_slowly

SOURCE = 'coupons, "neu" é\\.csv'
STORED = f"select {', '.join(COPY_COLUMNS)} from coupons order by source_line"  # noqa: S608 - names of ours


async def copy_in(connection: asyncpg.Connection, data: bytes) -> str:
    """Load the good rows of a block as the store does, and return PostgreSQL's answer."""
    copy_bytes = copy_rows(read_batch(block_of(data), HEADER), SOURCE).encode()
    return await connection.copy_to_table("coupons", source=BytesIO(copy_bytes), columns=COPY_COLUMNS, format="binary")


@pytest.mark.parametrize("is_quoted", [False, True])
async def test_stored_rows_are_what_the_business_types_read(administrator: asyncpg.Connection, is_quoted: bool) -> None:
    """Every good row of a block stands in the table with its values, its source and its line, and no other row does."""
    rows = good_rows(500, seed=3)
    rows[100] = good_with(code="bad")
    rows[200].pop()
    data = lines_of(rows, is_quoted=is_quoted, line_end="\r\n")
    good, bad = read_slowly(block_of(data), HEADER)
    assert (len(good), len(bad)) == (498, 2)

    assert await copy_in(administrator, data) == "COPY 498"

    assert [tuple(row) for row in await administrator.fetch(STORED)] == [
        (
            coupon.code,
            coupon.member_id,
            coupon.reward_id,
            coupon.value.cents,
            coupon.value.currency,
            coupon.issued_at,
            coupon.expires_at,
            CouponStatus.ISSUED,
            coupon.version,
            SOURCE,
            line,
        )
        for line, coupon in good
    ]


async def test_the_bounds_of_every_column_are_stored(administrator: asyncpg.Connection) -> None:
    """The smallest and the largest values that a row may have fit the table's types."""
    rows = [
        good_with(value_cents="0", issued_at="2000-01-01T00:00:00Z", expires_at="2000-01-01T00:00:00.000001Z"),
        good_with(
            code="Z" * 16,
            member_id="m-" + "z" * 39,
            reward_id="rw-" + "z" * 39,
            value_cents="100000000000",
            expires_at="2999-12-31T23:59:59.999999Z",
        ),
    ]
    assert await copy_in(administrator, lines_of(rows)) == "COPY 2"
    good, _ = read_slowly(block_of(lines_of(rows)), HEADER)
    stored = await administrator.fetch(STORED)
    assert [(row["value_cents"], row["issued_at"], row["expires_at"]) for row in stored] == [
        (coupon.value.cents, coupon.issued_at, coupon.expires_at) for _, coupon in good
    ]


async def test_a_batch_without_rows_loads_none(administrator: asyncpg.Connection) -> None:
    """PostgreSQL takes the bytes of an empty batch."""
    assert await copy_in(administrator, b"no\n") == "COPY 0"
