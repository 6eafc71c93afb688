"""Keys: what happened to them, as a chain of lines of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """From 0003."""
    op.create_table(
        "key_lines",
        sa.Column("seq", sequence, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("role", sa.Text),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("prompts", sa.Text),
        sa.Column("models", sa.Text),
        sa.Column("environments", sa.Text),
        sa.Column("expires_at", sa.Text),
        sa.Column("prev_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_key_lines"),
        sa.UniqueConstraint("id", name="uq_key_lines_id"),
        sa.UniqueConstraint("project", "prefix", "action", name="uq_key_lines_project_prefix_action"),
    )
