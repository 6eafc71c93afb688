"""ControlStore and ControlTransaction, on every adapter: transactions, order, projects apart, failures."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import msgspec
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, inspect

from tests.contract.conftest import Sql
from tidegate.core.artifact import Artifact, Message, digest
from tidegate.core.errors import BadInput, TidegateError, Unusable
from tidegate.core.evaluation import CheckResult, Repeat, Run
from tidegate.core.ledger import YOUNGER_FIELDS, Approval, Deployment, Pointer, Version, seal
from tidegate.ports import ControlStore, ControlTransaction
from tidegate.stores import control as control_module
from tidegate.stores import schema, sqlite
from tidegate.stores.control import open_control
from tidegate.stores.migrate import MIGRATIONS

Open = Callable[..., ControlStore]


@pytest.fixture
def open_store(control: Path | str) -> Iterator[Open]:
    """Opens the one database of this test, for any project, any number of times."""
    opened: list[ControlStore] = []

    def open_it(project: str = "default") -> ControlStore:
        opened.append(open_control(control, project=project))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> ControlStore:
    return open_store()


def artifact(text: str = "Hello") -> Artifact:
    return Artifact(messages=(Message("user", text),), model="a/b")


def version(number: int = 1, text: str = "Hello", prompt: str = "p") -> Version:
    return Version(prompt, number, digest(artifact(text)), "2026-03-01T12:00:00.000000Z", "what it is", "ab" * 32)


def deployment(number: int = 1, to: Version | None = None, **fields: object) -> Deployment:
    to = to or version()
    made = Deployment(
        id=f"d{number}",
        prompt=to.prompt,
        environment="production",
        action="deploy",
        from_version=None,
        to_version=to.number,
        to_digest=to.digest,
        who="someone@here",
        reason="because",
        at=f"2026-03-01T12:00:0{number}.000000Z",
        forced=True,
        run_id="r1",
        git_commit="c" * 40,
        git_dirty=False,
    )
    return msgspec.structs.replace(made, **fields)


def approval(number: int, **fields: object) -> Approval:
    made = Approval(
        f"a{number}", "p", "production", 1, version().digest, "other@here", "read it", "2026-03-01T12:00:00.000000Z"
    )
    return msgspec.structs.replace(made, **fields)


RESULT = Repeat(
    case_id="long password",
    repeat=1,
    output='{"answer": "é\u2028\0\ud800"}',
    checks=(CheckResult("is-json", False, "not JSON: é"),),
    call_id="c1",
    cost_nano_usd=2**60,
    latency_s=0.25,
    input_tokens=10,
    output_tokens=5,
)


def run(number: int = 1, **fields: object) -> Run:
    made = Run(
        id=f"r{number}",
        prompt="p",
        version=1,
        digest=digest(artifact()),
        suite_digest="s" * 64,
        golden_digest="g" * 64,
        started_at="2026-03-01T12:00:00.000000Z",
        finished_at="2026-03-01T12:01:00.000000Z",
        repeats=2,
        results=(RESULT, Repeat("short", 0, "", error="provider down")),
        gate={"reason": "is-json broke", "metrics": [{"delta": -0.5}]},
        verdict="FAIL",
        baseline_run_id="r0",
        git_commit="c" * 40,
        git_dirty=True,
    )
    return msgspec.structs.replace(made, **fields)


def add(store: ControlStore, *versions: Version) -> None:
    with store.write() as tx:
        for one in versions:
            text = "Hello" if one.digest == digest(artifact()) else "Bye"
            tx.put_artifact(one.digest, artifact(text))
            tx.add_version(one)


def seen(tx: ControlTransaction) -> list[object]:
    """What `tx` finds of everything this suite stores."""
    return [
        tx.artifact(version().digest),
        tx.prompts(),
        tx.versions("p"),
        tx.pointers(),
        tx.deployments(),
        tx.approvals(),
        tx.runs(),
        tx.run("r1"),
        tx.document("d1"),
    ]


def test_artifacts_are_kept_by_digest(store: ControlStore) -> None:
    key = digest(artifact())
    with store.write() as tx:
        assert tx.artifact(key) is None
        tx.put_artifact(key, artifact())
        tx.put_artifact(key, artifact())
    with store.read() as tx:
        assert tx.artifact(key) == artifact()


def test_versions_read_back_whole_newest_first(store: ControlStore) -> None:
    add(store, version(1), version(2, "Bye"), version(1, prompt="o"))
    with store.read() as tx:
        assert list(tx.prompts()) == ["o", "p"]
        assert list(tx.versions("p")) == [version(2, "Bye"), version(1)]
        assert tx.version_of("p", version(2, "Bye").digest) == version(2, "Bye")
        assert tx.version_of("o", version(2, "Bye").digest) is None
        assert list(tx.versions("nobody")) == []


@pytest.mark.parametrize("twice", [version(1, "Bye"), version(2)])
def test_neither_a_number_nor_a_digest_is_given_twice(store: ControlStore, twice: Version) -> None:
    add(store, version(1))
    with pytest.raises(Unusable):
        add(store, twice)
    with store.read() as tx:
        assert list(tx.versions("p")) == [version(1)]


def test_a_version_needs_its_artifact(store: ControlStore) -> None:
    with pytest.raises(Unusable), store.write() as tx:
        tx.add_version(version())


def test_a_move_appends_to_the_ledger_and_moves_the_pointer(store: ControlStore) -> None:
    first, second = version(1), version(2, "Bye")
    add(store, first, second)
    moves = [
        deployment(1, first),
        deployment(2, second, from_version=1, run_id=None, git_commit=None, git_dirty=None, forced=False),
        deployment(3, first, from_version=2, action="rollback", reason=""),
        deployment(4, first, environment="staging"),
    ]
    with store.write() as tx:
        for move in moves:
            tx.move(move)
    with store.read() as tx:
        assert list(tx.deployments()) == moves
        assert list(tx.deployments("p", "staging")) == moves[3:]
        assert list(tx.deployments("nobody")) == []
        assert list(tx.pointers()) == [
            Pointer("p", "production", 1, first.digest, moves[2].at, "someone@here"),
            Pointer("p", "staging", 1, first.digest, moves[3].at, "someone@here"),
        ]
        assert list(tx.pointers("nobody")) == []


def test_runs_read_back_to_the_last_character(store: ControlStore) -> None:
    plain = run(2, version=None, results=(), gate=None, verdict=None, baseline_run_id=None, git_dirty=None)
    with store.write() as tx:
        tx.save_run(run())
        tx.save_run(plain)
    with store.read() as tx:
        assert tx.run("r1") == run()
        assert tx.run("r2") == plain
        assert tx.run("r3") is None


def test_runs_are_listed_last_stored_first_without_results(store: ControlStore) -> None:
    with store.write() as tx:
        tx.save_run(run(2))
        tx.save_run(run(1))
        tx.save_run(run(3, digest="f" * 64))
        tx.save_run(run(4, prompt="o"))
    with store.read() as tx:
        assert [found.id for found in tx.runs()] == ["r4", "r3", "r1", "r2"]
        assert [found.id for found in tx.runs(limit=2)] == ["r4", "r3"]
        assert list(tx.runs("p", digest(artifact()))) == [run(1, results=()), run(2, results=())]


def test_a_run_is_stored_once(store: ControlStore) -> None:
    with store.write() as tx:
        tx.save_run(run())
    with pytest.raises(BadInput, match="r1 is stored already"), store.write() as tx:
        tx.save_run(run(verdict="PASS"))
    with store.read() as tx:
        assert tx.run("r1") == run()


def test_documents_are_kept_by_digest(store: ControlStore) -> None:
    with store.write() as tx:
        tx.put_document("d1", "suite", "checks: [é]")
        tx.put_document("d1", "suite", "something else")
    with store.read() as tx:
        assert tx.document("d1") == "checks: [é]"
        assert tx.document("d2") is None


def test_nothing_crosses_projects(open_store: Open) -> None:
    ours, theirs = open_store("ours"), open_store("theirs")
    add(ours, version())
    with ours.write() as tx:
        tx.move(deployment())
        tx.save_run(run())
        tx.put_document("d1", "suite", "ours")
        tx.add_approval(approval(1))
    with theirs.read() as tx:
        assert seen(tx) == [None, [], [], [], [], [], [], None, None]
    with ours.read() as tx:
        assert all(seen(tx))
    add(theirs, version())


def test_a_write_that_raises_leaves_nothing(store: ControlStore) -> None:
    before = store.generation()
    with suppress(RuntimeError), store.write() as tx:
        tx.put_artifact(version().digest, artifact())
        raise RuntimeError
    with store.read() as tx:
        assert tx.artifact(version().digest) is None
    assert store.generation() == before


def test_the_generation_changes_with_every_commit_of_anybody(open_store: Open) -> None:
    one, other = open_store(), open_store()
    seen = [one.generation()]
    for writer in (one, other, one):
        with writer.write() as tx:
            tx.put_document(f"d{len(seen)}", "suite", "")
        seen.append(one.generation())
        assert other.generation() == seen[-1]
    assert len(set(seen)) == 4
    with one.read() as tx:
        tx.prompts()
    assert one.generation() == seen[-1]


def _count_up(control: Path | str, times: int) -> None:
    with closing(open_control(control)) as store:
        for _ in range(times):
            with store.write() as tx:
                seen = len(tx.runs(limit=1_000))
                tx.save_run(run(0, id=f"run {seen + 1}", results=()))


def test_writers_of_many_processes_take_turns(empty: Path | str) -> None:
    """Each reads how many there are and writes the next: a lost turn would give one id twice. All make the store."""
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(_count_up, empty, 10) for _ in range(4)]:
            future.result()
    with closing(open_control(empty)) as store, store.read() as tx:
        assert {found.id for found in tx.runs(limit=1_000)} == {f"run {number}" for number in range(1, 41)}
        assert store.generation() == 41


def test_the_first_two_writers_of_a_project_take_turns(open_store: Open) -> None:
    """When there is not even a row yet that both would change."""
    one, other = open_store(), open_store()
    with ThreadPoolExecutor(1) as thread:
        with one.write() as tx:
            second = thread.submit(add, other, version())
            time.sleep(0.2)
            assert not second.done()
            tx.put_document("d1", "suite", "")
        second.result(10)
    assert one.generation() == 3


def test_a_reader_sees_one_instant(open_store: Open) -> None:
    """Also when a writer commits between two of its statements; then he waits for nobody."""
    one, other = open_store(), open_store()
    writing = Thread(target=add, args=(other, version()))
    with one.read() as tx:
        assert tx.prompts() == []
        writing.start()
        writing.join(0.2)  # SQLite's commit waits for the reader, Postgres's does not
        assert tx.prompts() == []
        assert tx.versions("p") == []
    writing.join()
    with one.read() as tx:
        assert tx.prompts() == ["p"]


def test_writers_of_different_projects_count_apart(open_store: Open) -> None:
    ours, theirs = open_store("ours"), open_store("theirs")
    before = theirs.generation()
    add(ours, version())
    assert theirs.generation() == before
    assert ours.generation() != before


def test_a_wait_ends_with_the_change(open_store: Open) -> None:
    store, other = open_store(), open_store()
    before = store.generation()
    store.wait_for_change(before, 0.3)  # on Postgres, the listener connects meanwhile
    began = time.monotonic()
    writing = Timer(0.3, add, (other, version()))
    writing.start()
    after = store.wait_for_change(before, 20)
    took = time.monotonic() - began
    writing.join()
    assert after == store.generation() != before
    assert 0.29 < took < 0.75


def test_a_change_between_two_waits_is_not_missed(open_store: Open) -> None:
    store, other = open_store(), open_store()
    before = store.wait_for_change(store.generation(), 0.2)
    add(other, version())
    began = time.monotonic()
    after = store.wait_for_change(before, 20)
    assert after != before
    assert store.wait_for_change(after, 0.05) == after
    assert time.monotonic() - began < 0.5


def test_a_wait_without_a_change_ends_in_time(store: ControlStore) -> None:
    began = time.monotonic()
    assert store.wait_for_change(store.generation(), 0.3) == store.generation()
    assert 0.29 < time.monotonic() - began < 1.0


def test_the_tables_are_what_the_migrations_make(control: Path | str) -> None:
    open_control(control).close()
    url = f"sqlite:///{control}" if isinstance(control, Path) else control.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_the_code_knows_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


def failure(control: Path | str, **options: Any) -> TidegateError:
    """What a writer is told."""
    with (
        pytest.raises(TidegateError) as caught,
        closing(open_control(control, **options)) as store,
        store.write() as tx,
    ):
        tx.put_document("d1", "suite", "x" * 200_000)
    return caught.value


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    path.write_text("my shopping list\n" * 100)
    error = failure(path)
    assert isinstance(error, BadInput)
    assert str(error) == f"{path}: this is not a database. Move it away, and start again."
    assert path.read_text().startswith("my shopping list")


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    assert str(failure(path)) == f"{path}: this is a database of something else. Move it away, and start again."


def test_a_store_of_a_newer_tidegate_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    open_control(path).close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '0999'")
        newer.commit()
    error = failure(path)
    assert isinstance(error, BadInput)
    assert str(error).startswith(f"{path}: a newer tidegate wrote this (schema 0999,")


def test_a_folder_in_its_place_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    path.mkdir()
    assert str(failure(path)) == f"{path}: can not be opened: its folder is read-only, or it is not a file."


def test_a_file_in_the_folders_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    error = failure(tmp_path / "state" / "control.db")
    assert str(error) == f"{tmp_path / 'state'} is a file; tidegate keeps its state in a folder of that name."


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page limit makes SQLite fail as a full disk does."""
    path = tmp_path / "control.db"
    with closing(open_control(path)) as store:
        add(store, version())

    def small(file: sqlite.SqliteFile) -> sqlite3.Connection:
        connection = connect(file)
        connection.execute("PRAGMA max_page_count = 44")
        return connection

    connect = sqlite.SqliteFile._connect
    monkeypatch.setattr(sqlite.SqliteFile, "_connect", small)
    error = failure(path)
    assert isinstance(error, Unusable)
    assert str(error) == f"{path}: the disk is full; nothing was changed. Free some space, and try again."
    monkeypatch.undo()
    with closing(open_control(path)) as store, store.read() as tx:
        assert list(tx.versions("p")) == [version()]
        assert tx.document("d1") is None


def test_a_writer_that_never_ends_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    open_control(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        error = failure(path, busy_s=0.05)
    assert isinstance(error, Unusable)
    assert "another process has been writing for" in str(error)


def test_a_damaged_artifact_is_not_served(store: ControlStore, raw: Sql) -> None:
    add(store, version())
    raw("UPDATE artifacts SET body = replace(body, 'Hello', 'Hallo')")
    with pytest.raises(Unusable, match="is damaged"), store.read() as tx:
        tx.artifact(version().digest)


def test_what_a_line_was_approved_under_is_sealed_once_it_is_known() -> None:
    plain = deployment()
    fields = dict.fromkeys(YOUNGER_FIELDS, "x")
    seals = {seal(msgspec.structs.replace(plain, **{name: "x"}), "shop", "") for name in fields}
    assert len(seals | {seal(plain, "shop", "")}) == 1 + len(fields)


def test_a_ledger_of_the_first_schema_keeps_its_hashes(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("INSERT INTO artifacts VALUES ('shop', ?, 'x')", [version().digest])
        raw.execute("INSERT INTO versions VALUES ('shop', 'p', 1, ?, 'at', '', '')", [version().digest])
        old = {k: v for k, v in msgspec.structs.asdict(deployment()).items() if k not in YOUNGER_FIELDS}
        old |= {"project": "shop", "prev_hash": "", "hash": seal(deployment(), "shop", "")}
        names, marks = ",".join(old), ",".join("?" * len(old))
        raw.execute(f"INSERT INTO deployments ({names}) VALUES ({marks})", [*old.values()])  # noqa: S608
    with closing(open_control(path, project="shop")) as store, store.read() as tx:
        assert list(tx.deployments()) == [deployment()]
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT hash FROM deployments").fetchall() == [(seal(deployment(), "shop", ""),)]


def test_approvals_read_back_whole_oldest_first(store: ControlStore) -> None:
    add(store, version())
    first = approval(1, run_id="r1", suite_digest="s" * 64, golden_digest="g" * 64)
    second = approval(2, environment="staging")
    with store.write() as tx:
        tx.add_approval(first)
        tx.add_approval(second)
    with store.read() as tx:
        assert list(tx.approvals()) == [first, second]
        assert list(tx.approvals("p", "staging")) == [second]
        assert list(tx.approvals("nobody")) == []


def test_each_line_of_the_ledger_seals_itself_and_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    moves = [deployment(1), deployment(2)]
    with closing(open_control(path, project="shop")) as store:
        add(store, version())
        with store.write() as tx:
            for move in moves:
                tx.move(move)
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT prev_hash, hash FROM deployments ORDER BY seq").fetchall()
    before = ""
    for move, row in zip(moves, rows, strict=True):
        fields = {name: value for name, value in msgspec.structs.asdict(move).items() if name not in YOUNGER_FIELDS}
        sealed = {**fields, "project": "shop", "prev_hash": before}
        body = json.dumps(sealed, sort_keys=True, separators=(",", ":"))
        assert row == (before, hashlib.sha256(body.encode()).hexdigest())
        before = row[1]


def test_a_migration_that_breaks_off_leaves_nothing(empty: Path | str) -> None:
    """The second start finds nothing half-made and makes it all."""

    def broken(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "CREATE TABLE pointers" in statement:
            raise RuntimeError("power cut")

    database = control_module._database(empty, "default", 1.0, True)
    event.listen(database.engine, "before_cursor_execute", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        control_module.SqlControlStore(database, "default").prepare()
    with database.looking.connect() as connection:
        assert inspect(connection).get_table_names() == []
    database.close()
    with closing(open_control(empty)) as store:
        assert store.generation() == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from tidegate.stores import control

def die(connection, cursor, statement, *rest):
    if "CREATE TABLE pointers" in statement:
        os.kill(os.getpid(), signal.SIGKILL)

where = Path(sys.argv[1]) if sys.argv[1].startswith("/") else sys.argv[1]
database = control._database(where, "default", 1.0, True)
event.listen(database.engine, "before_cursor_execute", die)
control.SqlControlStore(database, "default").prepare()
"""


def test_a_kill_in_the_middle_of_a_migration_costs_nothing(empty: Path | str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(empty)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with closing(open_control(empty)) as store:
        add(store, version())
        with store.read() as tx:
            assert list(tx.versions("p")) == [version()]


def test_a_file_that_is_moved_away_is_missed_and_never_made_again(tmp_path: Path) -> None:
    path, away = tmp_path / "control.db", tmp_path / "away.db"
    with closing(open_control(path)) as store:
        add(store, version())
        path.rename(away)
        for use in (store.generation, lambda: add(store, version(2, "Bye"))):
            with pytest.raises(Unusable) as caught:
                use()
            assert str(caught.value) == f"{path}: the control store is gone: No such file or directory."
        assert not path.exists()
        away.rename(path)
        with store.read() as tx:
            assert list(tx.versions("p")) == [version()]


def test_a_file_that_is_put_in_its_place_is_followed(tmp_path: Path) -> None:
    """As when a backup is restored under running processes."""
    path = tmp_path / "control.db"
    with closing(open_control(tmp_path / "backup.db")) as backup:
        add(backup, version(1, "Bye", "old"))
    with closing(open_control(path)) as store:
        add(store, version())
        (tmp_path / "backup.db").replace(path)
        with store.read() as tx:
            assert list(tx.prompts()) == ["old"]


def test_a_lazy_store_is_opened_at_its_first_use(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    with closing(open_control(path, lazy=True)) as store:
        assert not path.exists()
        assert store.generation() == 1
    with closing(open_control(tmp_path / "other.db", lazy=True, make=False)) as store:
        with pytest.raises(Unusable, match=r"other\.db: the control store is gone"):
            store.generation()
        assert not (tmp_path / "other.db").exists()


READ_ONLY = """
import sys
from pathlib import Path
from tidegate.core.errors import BadInput
from tidegate.stores.control import open_control
store = open_control(Path(sys.argv[1]))
with store.read() as tx:
    print(len(tx.versions("p")))
try:
    with store.write() as tx:
        tx.put_document("d1", "suite", "")
except BadInput as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="a read-only mount needs root")
def test_a_read_only_folder_can_be_read_and_says_why_it_can_not_be_written(tmp_path: Path) -> None:
    with closing(open_control(tmp_path / "control.db")) as store:
        add(store, version())
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" -c "$3" "$1/control.db"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, READ_ONLY],
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.stdout.splitlines() == [
        "1",
        f"{tmp_path}/control.db: can not be written, its folder or itself is read-only; nothing was changed.",
    ]
