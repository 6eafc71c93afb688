"""Alembic's entry: runs the migrations on the connection, and inside the transaction, it was handed."""

from __future__ import annotations

from alembic import context

from tidegate.stores.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
