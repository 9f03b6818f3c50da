"""The ledger of the ETL: which files are known, which parts of them are loaded, and what the role `etl` may do."""

from typing import Final

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ETL_FILES: Final = """
create table etl_files (
    file_id        bigint generated always as identity primary key,
    content_sha256 bytea not null unique check (length(content_sha256) = 32),
    content_bytes  bigint not null check (content_bytes >= 0),
    name           text not null check (length(name) between 1 and 255),
    duplicates     text not null check (duplicates in ('first', 'last', 'fail')),
    state          text not null default 'loading' check (state in ('loading', 'loaded')),
    created_at     timestamptz not null default now(),
    loaded_at      timestamptz,
    check ((state = 'loaded') = (loaded_at is not null))
)
"""

# The exclusion is the last guard against loading a row twice, whatever became of locks. A range of one id stands for
# the id itself, which GiST could compare by an extension only; it costs one row a batch.
ETL_RANGES: Final = """
create table etl_ranges (
    file_id    bigint not null references etl_files,
    byte_start bigint not null check (byte_start >= 0),
    byte_end   bigint not null,
    line_start bigint not null check (line_start >= 1),
    line_end   bigint not null,
    inserted   bigint not null check (inserted >= 0),
    skipped    bigint not null check (skipped >= 0),
    rejected   bigint not null check (rejected >= 0),
    loaded_at  timestamptz not null default now(),
    primary key (file_id, byte_start),
    check (byte_end > byte_start),
    check (line_end >= line_start),
    constraint etl_ranges_apart exclude using gist (
        int8range(file_id, file_id, '[]') with &&, int8range(byte_start, byte_end) with &&
    )
)
"""

TEMPORARY_TABLES: Final = """
do $$ begin execute format('grant temporary on database %I to etl', current_database()); end $$
"""

# Least rights: a loaded row comes as issued, and one that replaces another changes neither code, status nor version. So
# what is redeemed cannot become spendable, and a row that the ETL touches stays as old as it was.
GRANTS: Final = (
    """
    grant select, insert
        (code, member_id, reward_id, value_cents, currency, issued_at, expires_at, status, version, source,
         source_line),
    update
        (member_id, reward_id, value_cents, currency, issued_at, expires_at, source, source_line, updated_at)
    on coupons to etl
    """,
    """
    grant select, insert (content_sha256, content_bytes, name, duplicates), update (state, loaded_at)
    on etl_files to etl
    """,
    "grant select, insert, update (inserted, skipped) on etl_ranges to etl",
)


def upgrade() -> None:
    """Make the ledger's tables, and give the ETL's role what it needs."""
    for statement in (ETL_FILES, ETL_RANGES, TEMPORARY_TABLES, *GRANTS):
        op.execute(statement)
