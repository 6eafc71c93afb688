"""Which proxy the environment's words mean, for whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.config import load
from tidegate.core.errors import BadInput, InvalidFile
from tidegate.upstream.proxy import Proxies, Proxy


def test_small_letters_come_before_large_ones_and_both_before_all() -> None:
    read = Proxies.read({"HTTPS_PROXY": "http://big:1", "https_proxy": "small:2", "ALL_PROXY": "http://all:3"})
    assert read.before("api.example", 443, secure=True) == Proxy("small", 2)
    assert read.before("api.example", 80, secure=False) == Proxy("all", 3)
    assert Proxies.read({}).before("api.example", 443, secure=True) is None


def test_a_password_is_decoded_and_shown_nowhere() -> None:
    read = Proxies.read({"https_proxy": "http://ada:p%40ss@proxy.example:3128"})
    proxy = read.before("api.example", 443, secure=True)
    assert proxy is not None
    assert proxy.authorization == "Basic YWRhOnBAc3M="
    assert "YWRh" not in repr(read)
    assert "ss" not in repr(read)


@pytest.mark.parametrize("text", ["socks5://a:1", "https://a:1", "http://", "http://a:port", "http://u:hunter2@"])
def test_what_is_no_http_proxy_is_refused_by_name_and_not_repeated(text: str) -> None:
    with pytest.raises(BadInput, match="all_proxy in the environment is not http://") as caught:
        Proxies.read({"ALL_PROXY": text})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "host", "direct"),
    [
        ("example.com", "example.com", True),
        ("example.com", "API.example.com.", True),
        (".example.com", "api.example.com", True),
        ("*.example.com", "api.example.com", True),
        ("example.com", "notexample.com", False),
        ("a, example.com:443", "example.com", True),
        ("example.com:80", "example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("[2001:db8::1]", "2001:db8::1", True),
        ("*", "anything.example", True),
        ("", "localhost", True),
        ("", "127.0.0.9", True),
        ("", "::1", True),
        (",,", "example.com", False),
    ],
)
def test_who_is_reached_without_a_proxy(rules: str, host: str, direct: bool) -> None:
    read = Proxies.read({"https_proxy": "http://p:1", "NO_PROXY": rules})
    assert (read.before(host, 443, secure=True) is None) is direct


def problems(folder: Path, text: str) -> list[str]:
    file = folder / "tidegate.yaml"
    file.write_text(text)
    with pytest.raises(InvalidFile) as caught:
        load(file)
    return [str(problem).removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_files_of_a_provider_are_looked_for_when_it_is_read(tmp_path: Path) -> None:
    found = problems(tmp_path, "providers:\n  a:\n    ca_file: no.pem\n    client_key: tidegate.yaml\n")
    assert found == [
        f"tidegate.yaml:3: providers.a.ca_file: there is no file {tmp_path / 'no.pem'}.",
        "tidegate.yaml:4: providers.a.client_key: needs a client_cert, whose key it is.",
    ]


def test_two_providers_at_one_address_are_reached_in_one_way(tmp_path: Path) -> None:
    [found] = problems(tmp_path, "providers:\n  a: {max_connections: 5}\n  b: {max_connections: 6}\n")
    assert "tidegate.yaml:3: providers.b: is at the same address as 'a': give both the same" in found
