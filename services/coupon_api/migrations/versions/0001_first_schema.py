"""First schema: coupons, idempotency keys, stored offsets, dead letters, and who may do what with them."""

from typing import Final

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Spelling is checked where a coupon comes in: here a regular expression a column would cost the bulk inserts dearly.
COUPONS: Final = """
create table coupons (
    code          text primary key check (length(code) = 16),
    member_id     text not null,
    reward_id     text not null,
    redemption_id uuid,
    value_cents   bigint not null check (value_cents between 0 and 100000000000),
    currency      text not null check (length(currency) = 3),
    issued_at     timestamptz not null,
    expires_at    timestamptz not null,
    status        text not null check (status in ('issued', 'redeemed', 'cancelled')),
    redeemed_at   timestamptz,
    version       bigint not null check (version >= 1),
    source        text not null,
    source_line   bigint,
    updated_at    timestamptz not null default now(),
    check (expires_at > issued_at),
    check ((status = 'redeemed') = (redeemed_at is not null))
)
"""

# Serves the pages of one member's coupons, newest first, walking the index backwards.
COUPONS_BY_MEMBER: Final = "create index coupons_by_member on coupons (member_id, issued_at, code)"

IDEMPOTENCY_KEYS: Final = """
create table idempotency_keys (
    subject    text not null,
    route      text not null,
    key        text not null,
    body_hash  bytea not null,
    status     smallint not null,
    response   bytea not null,
    created_at timestamptz not null default now(),
    primary key (subject, route, key)
)
"""

IDEMPOTENCY_KEYS_BY_AGE: Final = "create index idempotency_keys_by_age on idempotency_keys (created_at)"

CONSUMER_OFFSETS: Final = """
create table consumer_offsets (
    consumer_group text not null,
    topic          text not null,
    topic_id       text not null,
    partition      integer not null check (partition >= 0),
    next_offset    bigint not null check (next_offset >= 0),
    updated_at     timestamptz not null default now(),
    primary key (consumer_group, topic, topic_id, partition)
)
"""

DEAD_LETTERS: Final = """
create table dead_letters (
    id             uuid primary key,
    consumer_group text not null,
    topic          text not null,
    topic_id       text not null,
    partition      integer not null,
    record_offset  bigint not null,
    key            bytea,
    payload        bytea,
    headers        jsonb not null,
    error_class    text not null,
    error_detail   text not null,
    failed_at      timestamptz not null default now(),
    replayed_at    timestamptz,
    unique (consumer_group, topic, topic_id, partition, record_offset)
)
"""

DEAD_LETTERS_BY_AGE: Final = "create index dead_letters_by_age on dead_letters (failed_at)"

# Least rights: nobody removes a coupon, and only the API may spend one. The consumer writes whole versions of a coupon,
# so it may change all but the code and the time of redemption, without which no row can become redeemed.
GRANTS: Final = (
    "grant select, insert, update (status, redeemed_at, version, updated_at) on coupons to coupon_api",
    "grant select, insert, delete on idempotency_keys to coupon_api",
    """
    grant select, insert, update
        (member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at, status, version, source,
         updated_at)
    on coupons to coupon_consumer
    """,
    "grant select, insert, update on consumer_offsets to coupon_consumer",
    "grant select, insert, update (replayed_at), delete on dead_letters to coupon_consumer",
)


def upgrade() -> None:
    """Make the tables and give each service's role what it needs; the roles are made by `deploy.migrate`."""
    for statement in (
        COUPONS,
        COUPONS_BY_MEMBER,
        IDEMPOTENCY_KEYS,
        IDEMPOTENCY_KEYS_BY_AGE,
        CONSUMER_OFFSETS,
        DEAD_LETTERS,
        DEAD_LETTERS_BY_AGE,
        *GRANTS,
    ):
        op.execute(statement)
