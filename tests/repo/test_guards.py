"""The guards in tests/conftest.py hold."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.conftest import NetworkForbidden, is_loopback, leaks, network_guard
from tests.repo.tree import ROOT


def test_a_connection_off_this_machine_is_refused() -> None:
    with socket.socket() as sock, pytest.raises(NetworkForbidden, match=r"192\.0\.2\.1"):
        sock.connect(("192.0.2.1", 80))


def test_a_name_is_not_even_looked_up() -> None:
    with pytest.raises(NetworkForbidden, match=r"example\.org"):
        socket.getaddrinfo("example.org", 443)


def test_a_server_does_not_listen_on_all_interfaces() -> None:
    with socket.socket() as sock, pytest.raises(NetworkForbidden):
        sock.bind(("0.0.0.0", 0))


def test_loopback_is_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass


def test_unit_tests_may_not_use_loopback_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_guard, "loopback", False)
    with socket.socket() as sock, pytest.raises(NetworkForbidden, match="contract test"):
        sock.bind(("127.0.0.1", 0))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), (b"localhost", True), ("::1", True), (None, True), ("", False), ("10.0.0.1", False)],
)
def test_loopback_is_recognised(host: object, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_settings_and_proxies_of_the_shell_do_not_leak_in() -> None:
    assert [name for name in os.environ if leaks(name)] == []
    assert leaks("TIDEGATE_URL")
    assert leaks("HTTPS_PROXY")
    assert not leaks("PATH")


def test_mocks_are_banned() -> None:
    """Ruff refuses unittest.mock: fakes keep their contract, mocks agree with anything."""
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", "tests/unit/test_x.py", "-"]
    source = "from unittest.mock import Mock\n\nMock()\n"
    done = subprocess.run(ruff, input=source, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "TID251" in done.stdout
