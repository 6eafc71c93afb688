"""Splits: a move's weight, and the second version of a pointer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """From 0002; no older line has a weight, so their hashes stay."""
    op.add_column("deployments", sa.Column("weight", sa.Float))
    op.add_column("pointers", sa.Column("split", sa.Text))
