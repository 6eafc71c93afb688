"""
The tables of the control store, as the newest migration leaves them.

Portable types only, so that SQLite and Postgres share one code. Structured values are JSON text: a column never needs
to look inside them, and the text keeps every character (NUL and lone surrogates are written as escapes).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

HEAD = "0005"
"""The revision that this code reads and writes."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)
Sequence = BigInteger().with_variant(Integer, "sqlite")
"""A key that counts up by itself; SQLite does so for INTEGER only."""

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("project", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("project", "digest"),
)

versions = Table(
    "versions",
    metadata,
    Column("project", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("file_sha256", Text, nullable=False),
    PrimaryKeyConstraint("project", "prompt", "number"),
    UniqueConstraint("project", "prompt", "digest"),
    ForeignKeyConstraint(["project", "digest"], ["artifacts.project", "artifacts.digest"]),
)

deployments = Table(
    "deployments",
    metadata,
    Column("seq", Sequence, primary_key=True),
    Column("project", Text, nullable=False),
    Column("id", Text, nullable=False, unique=True),
    Column("prompt", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("from_version", Integer),
    Column("to_version", Integer, nullable=False),
    Column("to_digest", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("forced", Boolean, nullable=False),
    Column("run_id", Text),
    Column("git_commit", Text),
    Column("git_dirty", Boolean),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("suite_digest", Text),
    Column("golden_digest", Text),
    Column("approved_by", Text),
    Column("weight", Float),
    Index(None, "project", "prompt", "environment"),
    ForeignKeyConstraint(
        ["project", "prompt", "to_version"], ["versions.project", "versions.prompt", "versions.number"]
    ),
)

approvals = Table(
    "approvals",
    metadata,
    Column("seq", Sequence, primary_key=True),
    Column("project", Text, nullable=False),
    Column("id", Text, nullable=False, unique=True),
    Column("prompt", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("run_id", Text),
    Column("suite_digest", Text),
    Column("golden_digest", Text),
    Index(None, "project", "prompt", "environment"),
    ForeignKeyConstraint(["project", "prompt", "version"], ["versions.project", "versions.prompt", "versions.number"]),
)

pointers = Table(
    "pointers",
    metadata,
    Column("project", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("since", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("split", Text),
    PrimaryKeyConstraint("project", "prompt", "environment"),
    ForeignKeyConstraint(["project", "prompt", "version"], ["versions.project", "versions.prompt", "versions.number"]),
)

runs = Table(
    "runs",
    metadata,
    Column("seq", Sequence, primary_key=True),
    Column("project", Text, nullable=False),
    Column("id", Text, nullable=False, unique=True),
    Column("prompt", Text, nullable=False),
    Column("version", Integer),
    Column("digest", Text, nullable=False),
    Column("suite_digest", Text, nullable=False),
    Column("golden_digest", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("finished_at", Text, nullable=False),
    Column("repeats", Integer, nullable=False),
    Column("gate", Text),
    Column("verdict", Text),
    Column("baseline_run_id", Text),
    Column("git_commit", Text),
    Column("git_dirty", Boolean),
    Index(None, "project", "prompt", "digest"),
)

run_results = Table(
    "run_results",
    metadata,
    Column("run_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("case_id", Text, nullable=False),
    Column("repeat", Integer, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("cost_nano_usd", BigInteger),
    Column("latency_s", Float),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("run_id", "position"),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
)

run_summaries = Table(
    "run_summaries",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("format", Integer, nullable=False),
    Column("body", Text, nullable=False),
    ForeignKeyConstraint(["run_id"], ["runs.id"]),
)

key_lines = Table(
    "key_lines",
    metadata,
    Column("seq", Sequence, primary_key=True),
    Column("project", Text, nullable=False),
    Column("id", Text, nullable=False, unique=True),
    Column("action", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("role", Text),
    Column("sha256", Text, nullable=False),
    Column("prompts", Text),
    Column("models", Text),
    Column("environments", Text),
    Column("expires_at", Text),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    UniqueConstraint("project", "prefix", "action"),
)

documents = Table(
    "documents",
    metadata,
    Column("project", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("project", "digest"),
)
