"""The control store on Postgres: what people are told when it fails, and that no message holds the password."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from threading import Timer

import psycopg
import pytest
from sqlalchemy import text

from tests.postgres import PASSWORD, QUOTED, Postgres
from tidegate.core.errors import BadInput, TidegateError, Unusable
from tidegate.ports import ControlStore
from tidegate.stores import control, postgres
from tidegate.stores.control import open_control


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
def store(url: str) -> Iterator[ControlStore]:
    with closing(open_control(url, busy_s=0.3)) as store:
        yield store


def named(url: str) -> str:
    """As people see it."""
    return url.replace(f"tidegate:{QUOTED}@", "")


def failure(url: str) -> TidegateError:
    """What opening and writing is told; neither it nor what caused it names the password."""
    with pytest.raises(TidegateError) as caught, closing(open_control(url, busy_s=0.3)) as store:
        put(store)
    error: BaseException | None = caught.value
    while error is not None:
        assert PASSWORD not in repr(error) + str(error)
        assert QUOTED not in repr(error) + str(error)
        error = error.__cause__
    return caught.value


def put(store: ControlStore, body: str = "") -> None:
    with store.write() as tx:
        tx.put_document("d1", "suite", body)


@pytest.mark.parametrize(
    "wrong",
    ["mysql://u:s3cret-pa%3Ass%40word@h/d", "s3cret-pa:ss@word", "postgresql://u:s3cret-pa:ss@word@h:port/d", ""],
)
def test_what_is_no_postgres_url_is_not_repeated(wrong: str) -> None:
    error = failure(wrong)
    assert isinstance(error, BadInput)
    assert str(error).startswith("control.url: ")
    assert "postgresql://user:password@host:5432/database" in str(error)


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    error = failure(f"postgres://tidegate:{QUOTED}@127.0.0.1:1/shop")
    assert isinstance(error, Unusable)
    assert str(error) == "postgresql://127.0.0.1:1/shop: the control store can not be reached: Connection refused."


def test_a_wrong_password_is_one_sentence(url: str) -> None:
    error = failure(url.replace(QUOTED, QUOTED + "x"))
    assert isinstance(error, BadInput)
    assert str(error) == (
        f'{named(url)}: the control store does not let us in: password authentication failed for user "tidegate".'
    )


def test_a_database_that_is_not_there_is_one_sentence(url: str) -> None:
    error = failure(url + "x")
    name = url.rpartition("/")[2]
    assert isinstance(error, BadInput)
    assert str(error) == f'{named(url)}x: the control store does not let us in: database "{name}x" does not exist.'


def test_an_option_that_libpq_does_not_know_is_one_sentence(url: str) -> None:
    assert 'invalid connection option "sslmod"' in str(failure(url + "?sslmod=require"))


def test_a_user_who_may_not_make_tables_is_told_so(postgres: Postgres) -> None:
    url = postgres.empty()
    postgres.sql(url, "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    error = failure(url.replace(f"tidegate:{QUOTED}", "guest:guest"))
    assert isinstance(error, BadInput)
    assert str(error) == f"{named(url)}: the control store does not let us in: permission denied for schema public."


def test_a_standby_is_told_from_a_primary(url: str, postgres: Postgres) -> None:
    postgres.sql(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    error = failure(url)
    assert isinstance(error, BadInput)
    assert "is read-only (a standby?); nothing was changed" in str(error)


def test_a_database_of_something_else_is_left_alone(postgres: Postgres) -> None:
    url = postgres.empty()
    postgres.sql(url, "CREATE TABLE recipes (name text)")
    assert str(failure(url)) == (
        f"{named(url)}: this is a database of something else. Give tidegate a database of its own."
    )


def test_a_store_of_a_newer_tidegate_is_left_alone(url: str, postgres: Postgres) -> None:
    postgres.sql(url, "UPDATE alembic_version SET version_num = '0999'")
    error = failure(url)
    assert isinstance(error, BadInput)
    assert "a newer tidegate wrote this (schema 0999" in str(error)


def test_a_writer_that_never_ends_is_one_sentence(store: ControlStore, url: str) -> None:
    with closing(open_control(url)) as other, other.write():
        began = time.monotonic()
        with pytest.raises(Unusable) as caught:
            put(store)
        assert time.monotonic() - began < 2
    assert str(caught.value) == (
        f"{named(url)}: another process has been writing for 0.3 s; nothing was changed. Try again."
    )
    put(store)


def test_writers_of_other_projects_do_not_wait(store: ControlStore, url: str) -> None:
    with closing(open_control(url, project="other")) as other, other.write():
        put(store)


def test_a_statement_that_takes_too_long_is_ended(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "STATEMENT_S", 0.2)
    with (
        closing(open_control(url)) as store,
        pytest.raises(Unusable, match=r"the database took longer than 0\.2 s; nothing was changed"),
        store.read() as tx,
    ):
        tx._connection.execute(text("SELECT pg_sleep(30)"))


def interrupted(store: ControlStore, by: Callable[[], object]) -> str:
    """What a writer is told when its transaction is broken in its middle."""

    def write() -> None:
        with store.write() as tx:
            by()
            tx.put_document("d2", "suite", "")

    with pytest.raises(Unusable) as caught:
        write()
    with store.read() as tx:
        assert tx.document("d2") is None
    return str(caught.value)


def test_a_transaction_that_hangs_gives_up_its_turn(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a process that was stopped in its middle."""
    monkeypatch.setattr(postgres, "IDLE_S", 0.2)
    with closing(open_control(url)) as hanging, closing(open_control(url)) as store:
        said = interrupted(hanging, lambda: put(store))
        assert "the connection to the control store was lost" in said
        with store.read() as tx:
            assert tx.document("d1") == ""


def test_a_connection_that_breaks_in_a_write_leaves_the_change_unknown(store: ControlStore, url: str) -> None:
    """The commit may have arrived: nobody can know, so nobody is told that nothing was changed."""
    said = interrupted(store, lambda: kill_others(url))
    assert said.endswith(" Whether the change was made is not known: look with `tidegate log`.")
    put(store)


def test_connections_that_broke_while_nobody_used_them_are_not_noticed(store: ControlStore, url: str) -> None:
    put(store)
    kill_others(url)
    put(store, "x")


def test_text_that_postgres_can_not_hold_is_one_sentence(store: ControlStore) -> None:
    with pytest.raises(BadInput, match="can not hold this text"):
        put(store, "a\0b")


def test_the_listener_comes_back(store: ControlStore, url: str) -> None:
    """Its connection breaks; the wait goes on by looking, and the next one listens again."""
    generation = store.wait_for_change(store.generation(), 0.2)
    kill_others(url)
    with closing(open_control(url)) as other:
        Timer(0.1, put, (other,)).start()
        after = store.wait_for_change(generation, 1.5)
        assert after != generation
        store.wait_for_change(after, postgres.FIRST_PAUSE_S + 0.2)
        began = time.monotonic()
        writing = Timer(0.2, put, (other, "x"))
        writing.start()
        store.wait_for_change(after, 10)
        assert time.monotonic() - began < 0.5
        writing.join()


def test_more_threads_than_connections_wait_their_turn(url: str) -> None:
    with closing(open_control(url, busy_s=0.2)) as store, ExitStack() as opened:
        for _ in range(15):
            opened.enter_context(store.read())
        with pytest.raises(Unusable, match="every connection of this process is in use"):
            store.generation()


def kill_others(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_the_url_may_leave_things_to_libpq() -> None:
    database = control._database("postgresql:///shop?host=/run/postgresql&connect_timeout=9", "default", 1.0, True)
    assert database.name == "postgresql:///run/postgresql/shop"
    database.close()
