"""
The control store in SQL: prompts, ledger, runs. SQLite today; no query here is SQLite's own.

Every transaction is short. A writer takes the store for itself before it reads (BEGIN IMMEDIATE, and the row of the
generation), so what it read still holds when it writes; on SQLite others wait up to 10 s for their turn. SQLite runs
with its rollback journal: 3.40's WAL can lose a reset. A commit is on disk when it returns.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Row,
    Select,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError

from tidegate.core.artifact import Artifact, canonical, from_canonical, short
from tidegate.core.errors import BadInput, TidegateError, Unusable
from tidegate.core.evaluation import Repeat, Run
from tidegate.core.ledger import Approval, Deployment, Pointer, Version, seal
from tidegate.stores import schema
from tidegate.stores.schema import (
    approvals,
    artifacts,
    deployments,
    documents,
    meta,
    pointers,
    run_results,
    runs,
    versions,
)

BUSY_S = 10
GENERATION = "generation"
_WRITES = "tidegate_writes"
"""Execution option of a connection whose transactions write."""


def open_control(path: Path, *, project: str = "default") -> SqlControlStore:
    """
    Opens the SQLite file at `path`, makes it when there is none, and brings it to the newest schema.

    Safe when several processes do so at once. Raises BadInput when the file or its folder can not be used, or when a
    newer tidegate wrote it; Unusable when the disk fails.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{path.parent}: this folder can not be made: {error.strerror}.") from error
    engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    store = SqlControlStore(engine, project, str(path))
    try:
        store.migrate()
    except TidegateError:
        store.close()
        raise
    return store


class SqlControlStore:
    """Implements ports.ControlStore. Safe to share between threads."""

    def __init__(self, engine: Engine, project: str, name: str) -> None:
        self._engine = engine
        self._writing = engine.execution_options(**{_WRITES: True})
        self._project = project
        self._name = name

    @contextmanager
    def read(self) -> Iterator[SqlControlTransaction]:
        """One consistent view: nothing that commits meanwhile is seen."""
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield SqlControlTransaction(connection, self._project)

    @contextmanager
    def write(self) -> Iterator[SqlControlTransaction]:
        """Commits when the block ends, rolls back when it raises."""
        with self._translated(), self._writing.connect() as connection, connection.begin():
            # First of all, because on Postgres this row's lock is what makes writers wait for one another.
            connection.execute(update(meta).where(meta.c.name == GENERATION).values(value=meta.c.value + 1))
            yield SqlControlTransaction(connection, self._project)

    def generation(self) -> int:
        """Counts write transactions of all processes."""
        with self._translated(), self._engine.connect() as connection:
            return int(connection.execute(_GENERATION).scalar_one())

    def migrate(self) -> None:
        """Brings the schema to HEAD. Raises BadInput when it is newer, or when the database is not ours."""
        with self._translated(), self._engine.connect() as connection, connection.begin():
            if self._revision(connection) == schema.HEAD:
                return
        with self._translated(), self._writing.connect() as connection, connection.begin():
            if self._revision(connection) != schema.HEAD:  # another process may have been first
                from tidegate.stores.migrate import upgrade  # noqa: PLC0415  # 0.4 s that only a first start needs

                upgrade(connection)

    def _revision(self, connection: Connection) -> str | None:
        tables = inspect(connection).get_table_names()
        if not tables:
            return None
        if "alembic_version" not in tables or meta.name not in tables:
            raise BadInput(f"{self._name}: this is a database of something else. Move it away, and start again.")
        revision = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
        if revision > schema.HEAD:
            raise BadInput(
                f"{self._name}: a newer tidegate wrote this (schema {revision}, this one knows {schema.HEAD})."
                " Update tidegate."
            )
        return revision

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise _translate(self._name, error) from error


class SqlControlTransaction:
    """Implements ports.ControlTransaction over one connection inside one transaction."""

    def __init__(self, connection: Connection, project: str) -> None:
        self._connection = connection
        self._project = project

    def artifact(self, digest: str) -> Artifact | None:
        """Raises Unusable when the stored text is not what its digest says."""
        where = (artifacts.c.project == self._project, artifacts.c.digest == digest)
        body = self._connection.execute(select(artifacts.c.body).where(*where)).scalar_one_or_none()
        if body is None:
            return None
        if hashlib.sha256(body.encode()).hexdigest() != digest:
            raise Unusable(f"the stored artifact {short(digest)} is damaged: restore the control store from a backup.")
        return from_canonical(body)

    def put_artifact(self, digest: str, artifact: Artifact) -> None:
        where = (artifacts.c.project == self._project, artifacts.c.digest == digest)
        if self._connection.execute(select(artifacts.c.digest).where(*where)).first() is None:
            self._insert(artifacts, digest=digest, body=canonical(artifact).decode())

    def prompts(self) -> list[str]:
        query = select(versions.c.prompt).distinct().where(versions.c.project == self._project)
        return list(self._connection.execute(query.order_by(versions.c.prompt)).scalars())

    def versions(self, prompt: str) -> list[Version]:
        """Newest first."""
        query = select(*_VERSION).where(versions.c.project == self._project, versions.c.prompt == prompt)
        return [Version(**row._mapping) for row in self._rows(query.order_by(versions.c.number.desc()))]

    def version_of(self, prompt: str, digest: str) -> Version | None:
        query = select(*_VERSION).where(
            versions.c.project == self._project, versions.c.prompt == prompt, versions.c.digest == digest
        )
        return next((Version(**row._mapping) for row in self._rows(query)), None)

    def add_version(self, version: Version) -> None:
        self._insert(versions, **msgspec.structs.asdict(version))

    def pointers(self, prompt: str | None = None) -> list[Pointer]:
        """By prompt, then environment."""
        query = select(*_POINTER).where(pointers.c.project == self._project)
        if prompt is not None:
            query = query.where(pointers.c.prompt == prompt)
        return [
            Pointer(**row._mapping) for row in self._rows(query.order_by(pointers.c.prompt, pointers.c.environment))
        ]

    def move(self, deployment: Deployment) -> None:
        """Appends to the ledger and moves the pointer. Each row's hash covers the row before it."""
        row = msgspec.structs.asdict(deployment)
        last = select(deployments.c.hash).where(deployments.c.project == self._project)
        last = last.order_by(deployments.c.seq.desc()).limit(1)
        prev_hash = self._connection.execute(last).scalar_one_or_none() or ""
        self._insert(deployments, **row, prev_hash=prev_hash, hash=seal(deployment, self._project, prev_hash))
        values = {
            "version": deployment.to_version,
            "digest": deployment.to_digest,
            "since": deployment.at,
            "who": deployment.who,
        }
        moved = self._connection.execute(
            update(pointers)
            .where(
                pointers.c.project == self._project,
                pointers.c.prompt == deployment.prompt,
                pointers.c.environment == deployment.environment,
            )
            .values(**values)
        )
        if moved.rowcount == 0:
            self._insert(pointers, prompt=deployment.prompt, environment=deployment.environment, **values)

    def deployments(self, prompt: str | None = None, environment: str | None = None) -> list[Deployment]:
        """The ledger, oldest first."""
        query = select(*_DEPLOYMENT).where(deployments.c.project == self._project)
        if prompt is not None:
            query = query.where(deployments.c.prompt == prompt)
        if environment is not None:
            query = query.where(deployments.c.environment == environment)
        return [Deployment(**row._mapping) for row in self._rows(query.order_by(deployments.c.seq))]

    def add_approval(self, approval: Approval) -> None:
        self._insert(approvals, **msgspec.structs.asdict(approval))

    def approvals(self, prompt: str | None = None, environment: str | None = None) -> list[Approval]:
        """Oldest first."""
        query = select(*_APPROVAL).where(approvals.c.project == self._project)
        if prompt is not None:
            query = query.where(approvals.c.prompt == prompt)
        if environment is not None:
            query = query.where(approvals.c.environment == environment)
        return [Approval(**row._mapping) for row in self._rows(query.order_by(approvals.c.seq))]

    def save_run(self, run: Run) -> None:
        """Raises BadInput when a run of this id is stored already: a run never changes."""
        if self._connection.execute(select(runs.c.id).where(runs.c.id == run.id)).first() is not None:
            raise BadInput(f"the run {run.id} is stored already.")
        row = msgspec.structs.asdict(run)
        results: tuple[Repeat, ...] = row.pop("results")
        self._insert(runs, **{**row, "gate": None if run.gate is None else _json(run.gate)})
        if results:
            self._connection.execute(
                insert(run_results),
                [
                    {
                        "run_id": run.id,
                        "position": position,
                        "case_id": result.case_id,
                        "repeat": result.repeat,
                        "passed": result.passed,
                        "cost_nano_usd": result.cost_nano_usd,
                        "latency_s": result.latency_s,
                        "body": _json(msgspec.to_builtins(result)),
                    }
                    for position, result in enumerate(results)
                ],
            )

    def run(self, run_id: str) -> Run | None:
        query = select(*_RUN).where(runs.c.project == self._project, runs.c.id == run_id)
        row = next(iter(self._rows(query)), None)
        if row is None:
            return None
        bodies = select(run_results.c.body).where(run_results.c.run_id == run_id).order_by(run_results.c.position)
        results = [msgspec.convert(json.loads(body), Repeat) for body in self._connection.execute(bodies).scalars()]
        return _run(row, tuple(results))

    def runs(self, prompt: str | None = None, digest: str | None = None, limit: int = 100) -> list[Run]:
        """Last stored first, without their results."""
        query = select(*_RUN).where(runs.c.project == self._project)
        if prompt is not None:
            query = query.where(runs.c.prompt == prompt)
        if digest is not None:
            query = query.where(runs.c.digest == digest)
        return [_run(row, ()) for row in self._rows(query.order_by(runs.c.seq.desc()).limit(limit))]

    def put_document(self, digest: str, kind: str, body: str) -> None:
        if self.document(digest) is None:
            self._insert(documents, digest=digest, kind=kind, body=body)

    def document(self, digest: str) -> str | None:
        where = (documents.c.project == self._project, documents.c.digest == digest)
        return self._connection.execute(select(documents.c.body).where(*where)).scalar_one_or_none()

    def _insert(self, table: Any, **values: Any) -> None:
        self._connection.execute(insert(table).values(project=self._project, **values))

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        return self._connection.execute(query).all()


_GENERATION = select(meta.c.value).where(meta.c.name == GENERATION)
_VERSION = [versions.c[name] for name in Version.__struct_fields__]
_DEPLOYMENT = [deployments.c[name] for name in Deployment.__struct_fields__]
_APPROVAL = [approvals.c[name] for name in Approval.__struct_fields__]
_POINTER = [pointers.c["who"].label("by") if name == "by" else pointers.c[name] for name in Pointer.__struct_fields__]
_RUN = [runs.c[name] for name in Run.__struct_fields__ if name != "results"]


def _run(row: Row[Any], results: tuple[Repeat, ...]) -> Run:
    values = dict(row._mapping)
    gate = values.pop("gate")
    return Run(**values, gate=None if gate is None else json.loads(gate), results=results)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_begin_sqlite` says when, and how
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _translate(name: str, error: DBAPIError) -> TidegateError:
    """A driver's error as one sentence. The transaction it broke was rolled back."""
    code = str(getattr(error.orig, "sqlite_errorname", ""))
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Unusable(f"{name}: another process has been writing for {BUSY_S} s; nothing was changed. Try again.")
    if code.startswith("SQLITE_READONLY"):
        return BadInput(f"{name}: can not be written, its folder or itself is read-only; nothing was changed.")
    if code.startswith("SQLITE_CANTOPEN"):
        return BadInput(f"{name}: can not be opened: its folder is read-only, or it is not a file.")
    if code == "SQLITE_NOTADB":
        return BadInput(f"{name}: this is not a database. Move it away, and start again.")
    if code == "SQLITE_FULL":
        return Unusable(f"{name}: the disk is full; nothing was changed. Free some space, and try again.")
    if code.startswith("SQLITE_CORRUPT"):
        return Unusable(f"{name}: the control store is damaged: restore it from a backup.")
    return Unusable(f"{name}: the control store failed, nothing was changed: {error.orig}.")
