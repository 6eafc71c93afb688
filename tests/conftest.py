"""
Guards that hold for every test: no connection leaves this machine, no setting leaks in from the developer's shell.

The network guard is an audit hook, so it sees every Python socket whatever library opened it. It does not see uvloop's
own connections nor child processes: tests give those addresses on loopback only.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.postgres import Postgres

KEPT = tuple(f"TIDEGATE_REQUIRE_{lane}" for lane in ("BROWSER", "MODEL", "NODE", "POSTGRES"))
LEAKY = ("TIDEGATE_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "AWS_", "AZURE_", "OTEL_")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "no_proxy")
WATCHED = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind")


class NetworkForbidden(Exception):
    """A test tried to reach something it may not."""


class NetworkGuard:
    """The audit hook. Unix sockets pass always, loopback outside tests/unit, everything else never."""

    def __init__(self) -> None:
        self.loopback = True

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            host: Any = args[0]
        elif event in WATCHED:
            if args[0].family not in (socket.AF_INET, socket.AF_INET6) or args[1] is None:
                return
            host = args[1][0]
        else:
            return
        if not is_loopback(host):
            raise NetworkForbidden(f"{event}: tests reach loopback only, not {host!r}")
        if not self.loopback:
            raise NetworkForbidden(f"{event}: tests/unit opens no sockets; this is a contract test")


def is_loopback(host: Any) -> bool:
    """Whether `host` (a name, an address, bytes or None) is this machine's loopback."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name in (None, "localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(str(name).partition("%")[0]).is_loopback
    except ValueError:
        return False


def leaks(name: str) -> bool:
    """Whether an environment variable could change what a test sees."""
    return name not in KEPT and (name.upper().startswith(LEAKY) or name.lower() in PROXIES)


for variable in list(os.environ):
    if leaks(variable):
        del os.environ[variable]

network_guard = NetworkGuard()
sys.addaudithook(network_guard)

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("search", deadline=None, max_examples=5_000)
settings.load_profile("ci")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What did not run here, and why: a line for each reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in reasons.items():
        terminalreporter.write_line(f"not run: {count} tests: {reason}", yellow=True)


@pytest.fixture(autouse=True)
def _unit_tests_open_no_sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    network_guard.loopback = "unit" not in request.path.parts
    yield
    network_guard.loopback = True


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server of this test process. Each test makes a database of its own in it."""
    from tests.postgres import Postgres, PostgresUnavailable  # 0.4 s that few tests need

    folder = Path(tempfile.mkdtemp(prefix="tidegate-postgres-"))  # not pytest's: the user `nobody` has to get there
    folder.chmod(0o755)
    try:
        server = Postgres(folder)
        yield server
        server.stop()
    except PostgresUnavailable as error:
        if "TIDEGATE_REQUIRE_POSTGRES" in os.environ:
            raise
        pytest.skip(f"Postgres can not start here: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
