"""Approvals: what a ledger line was approved under, and second approvers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """From 0001; the ledger's older lines know nothing of it, and their hashes stay."""
    for name in ("suite_digest", "golden_digest", "approved_by"):
        op.add_column("deployments", sa.Column(name, sa.Text))
    op.create_table(
        "approvals",
        sa.Column("seq", sequence, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.Column("suite_digest", sa.Text),
        sa.Column("golden_digest", sa.Text),
        sa.PrimaryKeyConstraint("seq", name="pk_approvals"),
        sa.UniqueConstraint("id", name="uq_approvals_id"),
        sa.ForeignKeyConstraint(
            ["project", "prompt", "version"],
            ["versions.project", "versions.prompt", "versions.number"],
            name="fk_approvals_versions",
        ),
    )
    op.create_index("ix_approvals_project_prompt_environment", "approvals", ["project", "prompt", "environment"])
