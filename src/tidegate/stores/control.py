"""
The control store in SQL: prompts, ledger, runs. The same code on SQLite and Postgres.

Every transaction is short. A writer takes its project for itself before it reads, so what it read still holds when it
writes; others wait up to `BUSY_S` for their turn. How it does so, and what else the two databases do not share, is in
`sqlite.py` and `postgres.py`. A commit is on disk when it returns.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
from sqlalchemy import Connection, Engine, Row, Select, delete, insert, inspect, select, text, tuple_, update
from sqlalchemy.exc import SQLAlchemyError

from tidegate.core.artifact import Artifact, canonical, from_canonical, short
from tidegate.core.chain import Line, SealedKeyLine
from tidegate.core.errors import BadInput, TidegateError, Unusable
from tidegate.core.evaluation import Repeat, Run
from tidegate.core.keys import KeyLine, seal_key
from tidegate.core.ledger import Approval, Deployment, Head, Pointer, Split, Version, after, seal
from tidegate.core.run_lines import SUMMARY_FORMAT, RunFilter, RunLine, RunSummary
from tidegate.stores import schema
from tidegate.stores.schema import (
    approvals,
    artifacts,
    deployments,
    documents,
    key_lines,
    meta,
    pointers,
    run_results,
    run_summaries,
    runs,
    versions,
)
from tidegate.stores.sqlite import SqliteFile

BUSY_S = 10.0
JUDGES = "judges"
"""Prompts whose names begin with `judges/` are judges (prompts/files.py)."""
MANY = 500
"""Values in one IN (…); when more pointers than that have moved, all are read."""


class Database(Protocol):
    """What SQLite and Postgres do not share."""

    name: str
    """For people, without a credential."""
    advice: str
    """What to do when it is not ours."""
    engine: Engine
    reading: Engine
    """Its transactions see one instant."""
    writing: Engine
    """Its transactions see what is committed, and may write."""
    looking: Engine
    """For a single statement."""

    def replaced(self) -> bool:
        """Whether this is another database than at the last call; raises when it is gone."""
        ...

    def take_turn(self, connection: Connection) -> None: ...
    def take_migration_turn(self, connection: Connection) -> None: ...
    def wait(self, timeout_s: float) -> None:
        """Returns when there may be a change, at the latest when the time is up."""
        ...

    def translate(self, error: SQLAlchemyError, *, writing: bool) -> TidegateError: ...
    def close(self) -> None: ...


def open_control(
    where: Path | str, *, project: str = "default", busy_s: float = BUSY_S, lazy: bool = False, make: bool = True
) -> SqlControlStore:
    """
    Opens the SQLite file at a path, or the Postgres database of a URL, and brings it to the newest schema.

    A file that is not there is made if `make`. With `lazy` nothing is opened before the first use, so that a process
    can start without its store. `busy_s` is how long a transaction waits for its turn. Safe when several processes
    do so at once.

    Raises: BadInput when it can not be used, or when a newer tidegate wrote it; Unusable when it is not there or fails.
    """
    store = SqlControlStore(_database(where, project, busy_s, make), project)
    if not lazy:
        try:
            store.prepare()
        except TidegateError:
            store.close()
            raise
    return store


def _database(where: Path | str, project: str, busy_s: float, make: bool) -> Database:
    if isinstance(where, Path):
        return SqliteFile(where, busy_s=busy_s, make=make)
    from tidegate.stores.postgres import PostgresDatabase  # noqa: PLC0415  # a driver that SQLite's users need not load

    return PostgresDatabase(where, project=project, busy_s=busy_s)


class SqlControlStore:
    """Implements ports.ControlStore. Safe to share between threads."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project
        self._current = False
        self._generation = select(meta.c.value).where(meta.c.name == f"generation/{project}")

    @contextmanager
    def read(self) -> Iterator[SqlControlTransaction]:
        """One consistent view: nothing that commits meanwhile is seen."""
        self.prepare()
        with self._translated(), self._database.reading.connect() as connection, connection.begin():
            yield SqlControlTransaction(connection, self._project)

    @contextmanager
    def write(self) -> Iterator[SqlControlTransaction]:
        """Commits when the block ends, rolls back when it raises."""
        self.prepare()
        with self._translated(writing=True), self._database.writing.connect() as connection, connection.begin():
            self._database.take_turn(connection)
            counter = meta.c.name == f"generation/{self._project}"
            if connection.execute(update(meta).where(counter).values(value=meta.c.value + 1)).rowcount == 0:
                connection.execute(insert(meta).values(name=f"generation/{self._project}", value=2))
            yield SqlControlTransaction(connection, self._project)

    def generation(self) -> int:
        """Counts the project's write transactions of all processes, from 1."""
        self.prepare()
        with self._translated(), self._database.looking.connect() as connection:
            return int(connection.execute(self._generation).scalar_one_or_none() or 1)

    def wait_for_change(self, generation: int, timeout_s: float) -> int:
        """The present generation: as soon as it is not `generation`, at the latest when the time is up."""
        end = time.monotonic() + timeout_s
        while (now := self.generation()) == generation and (left := end - time.monotonic()) > 0:
            self._database.wait(left)
        return now

    def prepare(self) -> None:
        """Brings the schema to HEAD. Raises BadInput when it is newer, or when the database is not ours."""
        if self._database.replaced():
            self._database.engine.dispose()
            self._current = False
        if self._current:
            return
        with self._translated(), self._database.reading.connect() as connection, connection.begin():
            self._current = self._revision(connection) == schema.HEAD
        if self._current:
            return
        with self._translated(), self._database.writing.connect() as connection, connection.begin():
            self._database.take_migration_turn(connection)
            if self._revision(connection) != schema.HEAD:  # another process may have been first
                from tidegate.stores.migrate import upgrade  # noqa: PLC0415  # 0.4 s that only a first start needs

                upgrade(connection)
        self._current = True

    def _revision(self, connection: Connection) -> str | None:
        tables = inspect(connection).get_table_names()
        if not tables:
            return None
        name = self._database.name
        if "alembic_version" not in tables or meta.name not in tables:
            raise BadInput(f"{name}: this is a database of something else. {self._database.advice}")
        revision = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
        if revision > schema.HEAD:
            raise BadInput(
                f"{name}: a newer tidegate wrote this (schema {revision}, this one knows {schema.HEAD})."
                " Update tidegate."
            )
        return revision

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _translated(self, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise self._database.translate(error, writing=writing) from error


class SqlControlTransaction:
    """Implements ports.ControlTransaction over one connection inside one transaction."""

    def __init__(self, connection: Connection, project: str) -> None:
        self._connection = connection
        self._project = project

    def artifact(self, digest: str) -> Artifact | None:
        """Raises Unusable when the stored text is not what its digest says."""
        found = self.texts([digest])
        return from_canonical(found[digest]) if found else None

    def texts(self, digests: Collection[str]) -> dict[str, str]:
        """The canonical text of each stored artifact. Raises Unusable when one is not what its digest says."""
        found: dict[str, str] = {}
        wanted = list(digests)
        for at in range(0, len(wanted), MANY):
            where = (artifacts.c.project == self._project, artifacts.c.digest.in_(wanted[at : at + MANY]))
            for row in self._rows(select(artifacts.c.digest, artifacts.c.body).where(*where)):
                found[row.digest] = row.body
        for digest, body in found.items():
            if hashlib.sha256(body.encode()).hexdigest() != digest:
                raise Unusable(
                    f"the stored artifact {short(digest)} is damaged: restore the control store from a backup."
                )
        return found

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
        return [_pointer(row) for row in self._rows(query.order_by(pointers.c.prompt, pointers.c.environment))]

    def move(self, deployment: Deployment) -> None:
        """Appends to the ledger and moves the pointer. Each row's hash covers the row before it."""
        row = msgspec.structs.asdict(deployment)
        last = select(deployments.c.hash).where(deployments.c.project == self._project)
        last = last.order_by(deployments.c.seq.desc()).limit(1)
        prev_hash = self._connection.execute(last).scalar_one_or_none() or ""
        self._insert(deployments, **row, prev_hash=prev_hash, hash=seal(deployment, self._project, prev_hash))
        here = (
            pointers.c.project == self._project,
            pointers.c.prompt == deployment.prompt,
            pointers.c.environment == deployment.environment,
        )
        before = next((_pointer(found) for found in self._rows(select(*_POINTER).where(*here))), None)
        values = msgspec.structs.asdict(after(before, deployment))
        values |= {"who": values.pop("by"), "split": values["split"] and _json(msgspec.to_builtins(values["split"]))}
        if before is None:
            self._insert(pointers, **values)
        else:
            self._connection.execute(update(pointers).where(*here).values(**values))

    def deployments(self, prompt: str | None = None, environment: str | None = None) -> list[Deployment]:
        """The ledger, oldest first."""
        query = select(*_DEPLOYMENT).where(deployments.c.project == self._project)
        if prompt is not None:
            query = query.where(deployments.c.prompt == prompt)
        if environment is not None:
            query = query.where(deployments.c.environment == environment)
        return [Deployment(**row._mapping) for row in self._rows(query.order_by(deployments.c.seq))]

    def head(self) -> Head:
        query = select(deployments.c.seq, deployments.c.hash).where(deployments.c.project == self._project)
        row = next(iter(self._rows(query.order_by(deployments.c.seq.desc()).limit(1))), None)
        return Head() if row is None else Head(row.seq, row.hash)

    def moved(self, since: Head) -> list[Pointer] | None:
        """The pointers that moved after this head, or all when many did; None when the ledger does not hold it."""
        ours = deployments.c.project == self._project
        held = select(deployments.c.hash).where(ours, deployments.c.seq == since.number)
        if self._connection.execute(held).scalar_one_or_none() != since.hash:
            return None
        names = select(deployments.c.prompt, deployments.c.environment).where(ours, deployments.c.seq > since.number)
        keys = [(row.prompt, row.environment) for row in self._rows(names.distinct().limit(MANY + 1))]
        if len(keys) > MANY:
            return self.pointers()
        which = tuple_(pointers.c.prompt, pointers.c.environment).in_(keys)
        query = select(*_POINTER).where(pointers.c.project == self._project, which)
        return [_pointer(row) for row in self._rows(query)]

    def lines(self) -> list[Line]:
        """The ledger with its hashes, oldest first."""
        sealed = [deployments.c[name] for name in ("seq", "project", "prev_hash", "hash")]
        query = select(*sealed, *_DEPLOYMENT).where(deployments.c.project == self._project)
        return [
            Line(row.seq, row.project, Deployment(**dict(zip(_MOVE, row[4:], strict=True))), row.prev_hash, row.hash)
            for row in self._rows(query.order_by(deployments.c.seq))
        ]

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

    def add_key_line(self, line: KeyLine) -> None:
        """Appends to the chain of keys. Each row's hash covers the row before it."""
        last = select(key_lines.c.hash).where(key_lines.c.project == self._project)
        last = last.order_by(key_lines.c.seq.desc()).limit(1)
        prev_hash = self._connection.execute(last).scalar_one_or_none() or ""
        row = msgspec.structs.asdict(line)
        lists = {name: row[name] and _json(row[name]) for name in _KEY_LISTS}
        self._insert(key_lines, **{**row, **lists}, prev_hash=prev_hash, hash=seal_key(line, self._project, prev_hash))

    def key_lines(self) -> list[SealedKeyLine]:
        """The chain of keys, oldest first."""
        sealed = [key_lines.c[name] for name in ("seq", "project", "prev_hash", "hash")]
        query = select(*sealed, *(key_lines.c[name] for name in KeyLine.__struct_fields__))
        rows = self._rows(query.where(key_lines.c.project == self._project).order_by(key_lines.c.seq))
        return [SealedKeyLine(row.seq, row.project, _key_line(row), row.prev_hash, row.hash) for row in rows]

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

    def run_lines(self, wanted: RunFilter, *, limit: int, before: str | None = None) -> list[RunLine]:
        """Last stored first; of one page, those that were stored before the run `before`."""
        summary = (run_summaries.c.run_id == runs.c.id) & (run_summaries.c.format == SUMMARY_FORMAT)
        query = select(*_RUN_LINE, run_summaries.c.body.label("summary")).outerjoin_from(runs, run_summaries, summary)
        query = query.where(runs.c.project == self._project)
        for name in ("prompt", "version", "verdict", "suite_digest"):
            value = getattr(wanted, name)
            if value is not None:
                query = query.where(runs.c[name] == value)
        if wanted.since is not None:
            query = query.where(runs.c.started_at >= wanted.since)
        if wanted.kind is not None:
            of_a_judge = runs.c.prompt.like(f"{JUDGES}/%")
            query = query.where(runs.c.verdict.is_not(None) if wanted.kind == "gate" else runs.c.verdict.is_(None))
            if wanted.kind != "gate":
                query = query.where(of_a_judge if wanted.kind == "calibration" else ~of_a_judge)
        if before is not None:
            query = query.where(runs.c.seq < select(runs.c.seq).where(runs.c.id == before).scalar_subquery())
        return [_run_line(row) for row in self._rows(query.order_by(runs.c.seq.desc()).limit(limit))]

    def put_summary(self, run_id: str, summary: RunSummary) -> None:
        """Replaces the one that is there."""
        self._connection.execute(delete(run_summaries).where(run_summaries.c.run_id == run_id))
        body = _json(msgspec.to_builtins(summary))
        self._connection.execute(insert(run_summaries).values(run_id=run_id, format=SUMMARY_FORMAT, body=body))

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


_VERSION = [versions.c[name] for name in Version.__struct_fields__]
_MOVE = Deployment.__struct_fields__
_DEPLOYMENT = [deployments.c[name] for name in _MOVE]
_APPROVAL = [approvals.c[name] for name in Approval.__struct_fields__]
_POINTER = [pointers.c["who"].label("by") if name == "by" else pointers.c[name] for name in Pointer.__struct_fields__]
_RUN = [runs.c[name] for name in Run.__struct_fields__ if name != "results"]
_RUN_LINE = [runs.c[name] for name in RunLine.__struct_fields__ if name != "summary"]


def _pointer(row: Row[Any]) -> Pointer:
    values = dict(row._mapping)
    split = values.pop("split")
    try:
        return Pointer(**values, split=None if split is None else msgspec.json.decode(split, type=Split))
    except msgspec.MsgspecError as error:
        raise Unusable(
            f"what {row.environment} of {row.prompt} points at is damaged: restore the control store from a backup."
        ) from error


_KEY_LISTS = ("prompts", "models", "environments")


def _key_line(row: Row[Any]) -> KeyLine:
    """What is damaged is no key: a line that can not be read stops everything rather than opening something."""
    values = {name: row._mapping[name] for name in KeyLine.__struct_fields__}
    try:
        lists = {name: values[name] and json.loads(values[name]) for name in _KEY_LISTS}
        line = msgspec.convert({**values, **lists}, KeyLine)
        bytes.fromhex(line.sha256)
        return line
    except ValueError as error:  # msgspec's ValidationError is one
        raise Unusable(f"line {row.seq} about keys is damaged: restore the control store from a backup.") from error


def _run(row: Row[Any], results: tuple[Repeat, ...]) -> Run:
    values = dict(row._mapping)
    gate = values.pop("gate")
    return Run(**values, gate=None if gate is None else json.loads(gate), results=results)


def _run_line(row: Row[Any]) -> RunLine:
    """A summary that can not be read is none: it is made anew from the run."""
    values = dict(row._mapping)
    body = values.pop("summary")
    try:
        summary = None if body is None else msgspec.convert(json.loads(body), RunSummary)
    except ValueError:  # msgspec's ValidationError is one
        summary = None
    return RunLine(**values, summary=summary)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
