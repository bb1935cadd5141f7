"""Run by Alembic for every command: over the connection that ``migrating`` has opened."""

from __future__ import annotations

from alembic import context

from testbed.storage.tasklog.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot change a column: a table is copied there.
    render_as_batch=True,
    # ``migrating`` holds the transaction around all of it, where the database has one for tables.
    transactional_ddl=False,
)
context.run_migrations()
