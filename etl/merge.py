"""Put rows into the coupons table: by COPY where their codes are free, and by way of a temporary table where not.

Whoever loads takes the codes without a committed row first, in their order, and then those with one, in theirs. A
transaction that waits has a lower place in that order than the one it waits for, so none waits in a circle.
"""

import asyncio
from typing import Final

from etl.copy_format import COPY_COLUMNS, CopyRows
from etl.settings import Duplicates
from runtime.postgres import Connection

_COLUMNS: Final = ", ".join(COPY_COLUMNS)
_SETS: Final = ", ".join(
    f"{column} = fresh.{column}" for column in COPY_COLUMNS if column not in {"code", "status", "version"}
)
_UNTOUCHED: Final = "known.status = 'issued' and known.version = 1 and known.redeemed_at is null"

# Room to sort a batch in memory, whatever the server gives others.
_STAGE: Final = f"""
set local work_mem = '64MB';
create temporary table etl_batch on commit drop as select {_COLUMNS} from coupons with no data
"""  # noqa: S608 - of this file's own texts

_ORDER: Final = {Duplicates.FIRST: "asc", Duplicates.LAST: "desc"}
_IS_BETTER: Final = {Duplicates.FIRST: "<", Duplicates.LAST: ">"}
_BEST: Final = {
    rule: f"select distinct on (code) {_COLUMNS} from etl_batch {{where}} order by code, source_line {order}"  # noqa: S608
    for rule, order in _ORDER.items()
}

# In the order of the codes, as COPY has them. What is met is committed: this has waited for whoever was about to
# bring the same code.
_INSERT: Final = {
    rule: f"""
with best as materialized ({rows.format(where="")}), written as (
    insert into coupons ({_COLUMNS}) select * from best on conflict do nothing returning code
)
select (select count(*) from written) as inserted,
    array(select code from best where code not in (select code from written)) as met
"""  # noqa: S608 - of this file's own texts
    for rule, rows in _BEST.items()
}

# Also in the order of the codes. Whatever may be changed below is newest by then.
_LOCK: Final = """
select count(*) from (select from coupons where code = any ($1::text[]) order by code for no key update) as locked
"""

_DOUBLED: Final = "select array(select code from etl_batch group by code having count(*) > 1)"

_VALUES: Final = ("member_id", "reward_id", "value_cents", "currency", "issued_at", "expires_at")
# Two ways to give both tables the codes, for a plan that is made once and kept: an index looks an array up, and a scan
# would go through all of it at each row. Before `_IMPROVE`, so that of two rows the one that comes second conflicts,
# whichever is the better one.
_CONFLICTS: Final = f"""
select count(*) from etl_batch as fresh join coupons as known using (code)
where fresh.code in (select unnest($1::text[])) and known.code = any ($1::text[])
    and ({", ".join(f"fresh.{name}" for name in _VALUES)}) <> ({", ".join(f"known.{name}" for name in _VALUES)})
"""  # noqa: S608 - of this file's own texts

_REPLACE: Final = {
    rule: f"""
update coupons as known set {_SETS}, updated_at = now()
from ({rows.format(where="where code in (select unnest($1::text[]))")}) as fresh
where known.code = fresh.code and known.code = any ($1::text[]) and {_UNTOUCHED} and
"""  # noqa: S608 - of this file's own texts
    for rule, rows in _BEST.items()
}

# The numbers of files are in the order of their begin: whose batch comes when does not matter.
_TAKE_OVER: Final = f"""
with taken as (
    {_REPLACE[Duplicates.LAST]}
        case when starts_with(known.source, 'etl:') then
            split_part(known.source, ':', 2)::bigint < split_part(fresh.source, ':', 2)::bigint else false end
    returning known.code
)
select array(select code from taken)
"""  # noqa: S608 - of this file's own texts

_IMPROVE: Final = {
    rule: f"{replace} known.source = fresh.source and fresh.source_line {_IS_BETTER[rule]} known.source_line"
    for rule, replace in _REPLACE.items()
}


async def stage(connection: Connection, rows: CopyRows) -> None:
    """Put rows into the temporary table `etl_batch`, which ends with the transaction."""
    await connection.execute(_STAGE)
    await copy_into(connection, "etl_batch", await asyncio.to_thread(rows.encode), len(rows))


async def copy_into(connection: Connection, table: str, copy_bytes: bytes, rows: int) -> None:
    """Send the bytes of so many rows to a table.

    Raises:
        ValueError: The server counts other rows.
        asyncpg.UniqueViolationError: A code has a committed row, or got one while this waited for it.
    """
    # The driver takes bytes for a path.
    tag = await connection.copy_to_table(
        table,
        source=memoryview(copy_bytes),  # type: ignore[arg-type] # the stubs know no buffers
        columns=COPY_COLUMNS,
        format="binary",
    )
    if tag != f"COPY {rows}":
        raise ValueError(f"of {rows} rows the server took others: {tag}")


async def merge(connection: Connection, rule: Duplicates, rows: CopyRows) -> tuple[int, int]:
    """Insert rows by a rule, whatever is there.

    Returns:
        how many came in under a code without a row of their file, and how many of the others have other values than
        the row that they found.
    """
    await stage(connection, rows)
    row = await connection.fetchrow(_INSERT[rule])
    assert row is not None  # noqa: S101 - a select without a from
    inserted, met = row
    if met:
        await connection.execute(_LOCK, met)
        if rule is Duplicates.LAST:
            taken = set(await connection.fetchval(_TAKE_OVER, met))
            inserted += len(taken)
            met = [code for code in met if code not in taken]
    skipped = len(rows) - inserted
    if not skipped:
        return inserted, 0
    doubled = await connection.fetchval(_DOUBLED) if skipped > len(met) else []
    conflicting = await connection.fetchval(_CONFLICTS, [*met, *doubled])
    if met:
        await connection.execute(_IMPROVE[rule], met)
    return inserted, conflicting
