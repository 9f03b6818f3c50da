"""Run the history of the `coupons` database on the connection that `deploy.migrate` hands over.

There is no other way in: no URL in a file, no engine of its own. It comes inside one transaction, so a history that
fails half-way leaves the database as it was. Forward only: what goes wrong is mended by the next migration.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
