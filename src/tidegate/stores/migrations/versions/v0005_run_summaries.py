"""Runs in figures, so that a list of runs does not read every answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """From 0004."""
    op.create_table(
        "run_summaries",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_run_summaries"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_summaries_runs"),
    )
