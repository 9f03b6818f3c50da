"""Members, rewards, redemptions, the outbox and the idempotency keys.

Revision ID: 0001
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    create table members (
        member_id text primary key check (member_id ~ '^m-[a-z0-9][a-z0-9-]{0,38}$'),
        points bigint not null check (points >= 0)
    )
    """,
    """
    create table rewards (
        reward_id text primary key check (reward_id ~ '^rw-[a-z0-9][a-z0-9-]{0,38}$'),
        title text not null check (title <> ''),
        points_cost bigint not null check (points_cost > 0),
        stock bigint not null check (stock >= 0),
        value_cents bigint not null check (value_cents between 0 and 100000000000),
        currency text not null check (currency ~ '^[A-Z]{3}$'),
        coupon_days integer not null check (coupon_days between 1 and 3650)
    )
    """,
    # What a redemption cost and was worth is written down in it: a reward may change its price later.
    """
    create table redemptions (
        redemption_id uuid primary key,
        member_id text not null references members,
        reward_id text not null references rewards,
        coupon_code text not null unique check (coupon_code ~ '^[0-9A-HJKMNP-TV-Z]{16}$'),
        points_spent bigint not null check (points_spent > 0),
        status text not null default 'issued' check (status in ('issued', 'cancelling', 'cancelled')),
        value_cents bigint not null check (value_cents between 0 and 100000000000),
        currency text not null,
        created_at timestamptz not null,
        expires_at timestamptz not null check (expires_at > created_at),
        cancelled_at timestamptz,
        cancelling_since timestamptz,
        cancel_claimed_until timestamptz,
        check ((status = 'cancelled') = (cancelled_at is not null)),
        check ((status = 'cancelling') = (cancelling_since is not null)),
        check ((status = 'cancelling') = (cancel_claimed_until is not null))
    )
    """,
    # The rows the finisher looks for: few at any time, whatever the table holds.
    "create index redemptions_cancelling on redemptions (cancel_claimed_until) where status = 'cancelling'",
    """
    create table idempotency_keys (
        subject text not null,
        route text not null,
        key text not null,
        body_hash bytea not null,
        status smallint not null,
        response bytea not null,
        created_at timestamptz not null default now(),
        primary key (subject, route, key)
    )
    """,
    "create index idempotency_keys_by_age on idempotency_keys (created_at)",
    # `version` is the coupon's, so it orders the events of one key, and no clock does. Rows change twice and go: pages
    # have room for a claim, and statistics follow the backlog, since the claim's plan depends on them.
    """
    create table outbox (
        id uuid primary key,
        topic text not null,
        key text not null,
        version integer not null check (version > 0),
        payload bytea not null,
        headers jsonb not null,
        created_at timestamptz not null,
        claimed_until timestamptz,
        published_at timestamptz,
        unique (key, version)
    ) with (
        fillfactor = 80,
        autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_analyze_scale_factor = 0,
        autovacuum_analyze_threshold = 5000
    )
    """,
    "create index outbox_unpublished on outbox (created_at, id) where published_at is null",
    "create index outbox_published_at on outbox (published_at) where published_at is not null",
    # The service may do what it does, and nothing else: it sets no prices, gives no points to strangers' tables.
    "grant select on members, rewards, redemptions, idempotency_keys, outbox to reward_store",
    "grant insert on redemptions, idempotency_keys, outbox to reward_store",
    "grant update (points) on members to reward_store",
    "grant update (stock) on rewards to reward_store",
    "grant update (status, cancelled_at, cancelling_since, cancel_claimed_until) on redemptions to reward_store",
    "grant update (claimed_until, published_at) on outbox to reward_store",
    "grant delete on idempotency_keys, outbox to reward_store",
)


def upgrade() -> None:
    """Create everything the first flow needs."""
    for statement in _STATEMENTS:
        op.execute(statement)
