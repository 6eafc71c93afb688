"""Prompts, ledger and runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None

sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """From an empty database."""
    op.create_table(
        "meta",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_meta"),
    )
    op.create_table(
        "artifacts",
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("project", "digest", name="pk_artifacts"),
    )
    op.create_table(
        "versions",
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("file_sha256", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("project", "prompt", "number", name="pk_versions"),
        sa.UniqueConstraint("project", "prompt", "digest", name="uq_versions_project_prompt_digest"),
        sa.ForeignKeyConstraint(
            ["project", "digest"], ["artifacts.project", "artifacts.digest"], name="fk_versions_artifacts"
        ),
    )
    _ledger()
    _runs()
    op.create_table(
        "documents",
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("project", "digest", name="pk_documents"),
    )


def _ledger() -> None:
    op.create_table(
        "deployments",
        sa.Column("seq", sequence, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("from_version", sa.Integer),
        sa.Column("to_version", sa.Integer, nullable=False),
        sa.Column("to_digest", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("forced", sa.Boolean, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.Column("git_commit", sa.Text),
        sa.Column("git_dirty", sa.Boolean),
        sa.Column("prev_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_deployments"),
        sa.UniqueConstraint("id", name="uq_deployments_id"),
        sa.ForeignKeyConstraint(
            ["project", "prompt", "to_version"],
            ["versions.project", "versions.prompt", "versions.number"],
            name="fk_deployments_versions",
        ),
    )
    op.create_index("ix_deployments_project_prompt_environment", "deployments", ["project", "prompt", "environment"])
    op.create_table(
        "pointers",
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("since", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("project", "prompt", "environment", name="pk_pointers"),
        sa.ForeignKeyConstraint(
            ["project", "prompt", "version"],
            ["versions.project", "versions.prompt", "versions.number"],
            name="fk_pointers_versions",
        ),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("seq", sequence, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("suite_digest", sa.Text, nullable=False),
        sa.Column("golden_digest", sa.Text, nullable=False),
        sa.Column("started_at", sa.Text, nullable=False),
        sa.Column("finished_at", sa.Text, nullable=False),
        sa.Column("repeats", sa.Integer, nullable=False),
        sa.Column("gate", sa.Text),
        sa.Column("verdict", sa.Text),
        sa.Column("baseline_run_id", sa.Text),
        sa.Column("git_commit", sa.Text),
        sa.Column("git_dirty", sa.Boolean),
        sa.PrimaryKeyConstraint("seq", name="pk_runs"),
        sa.UniqueConstraint("id", name="uq_runs_id"),
    )
    op.create_index("ix_runs_project_prompt_digest", "runs", ["project", "prompt", "digest"])
    op.create_table(
        "run_results",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("case_id", sa.Text, nullable=False),
        sa.Column("repeat", sa.Integer, nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("cost_nano_usd", sa.BigInteger),
        sa.Column("latency_s", sa.Float),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "position", name="pk_run_results"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_results_runs"),
    )
