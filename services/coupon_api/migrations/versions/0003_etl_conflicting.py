"""How many skipped rows of a batch contradict what is there: see `etl/store.py`."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the count, which is 0 for the batches of before, and let the ETL's role set it."""
    op.execute(
        "alter table etl_ranges add conflicting bigint not null default 0 check (conflicting between 0 and skipped)"
    )
    op.execute("grant update (conflicting) on etl_ranges to etl")
