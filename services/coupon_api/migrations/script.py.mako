"""${message}."""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Expand only: what the previous release needs stays until the release after next."""
    ${upgrades if upgrades else "raise NotImplementedError"}

