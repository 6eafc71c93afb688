"""What the contract suites share: the databases that a control store can stand on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

DATABASES = ["sqlite", "postgres"]
Sql = Callable[[str], None]


@pytest.fixture(params=DATABASES)
def control(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where an empty control store of this test is: a file, or the URL of a Postgres database."""
    return empty_control(request, tmp_path)


def empty_control(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """What `control` is, for a suite that chooses the databases itself."""
    if request.param == "sqlite":
        return tmp_path / "control.db"
    url: str = request.getfixturevalue("postgres").database()
    return url


@pytest.fixture(params=DATABASES)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """As `control`, but nobody made the tables yet; on SQLite not even the folder."""
    if request.param == "sqlite":
        return tmp_path / "state" / "control.db"
    url: str = request.getfixturevalue("postgres").empty()
    return url


@pytest.fixture
def raw(control: Path | str, request: pytest.FixtureRequest) -> Sql:
    """Runs SQL behind the control store's back."""

    def run(statement: str) -> None:
        if isinstance(control, str):
            request.getfixturevalue("postgres").sql(control, statement)
        else:
            with closing(sqlite3.connect(control)) as connection:
                connection.executescript(statement)

    return run
