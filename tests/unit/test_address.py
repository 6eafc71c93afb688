"""Where commands go when TIDEGATE_URL is set, and what is never sent unencrypted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate import config
from tidegate.core.address import Address, from_environment
from tidegate.core.errors import BadInput


def test_without_a_url_there_is_no_server() -> None:
    assert from_environment({"TIDEGATE_API_KEY": "tg_x"}) is None
    assert from_environment({"TIDEGATE_URL": "  "}) is None


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://tidegate.example.com", "https://tidegate.example.com", ""),
        ("https://example.com:8443/ops/tidegate/", "https://example.com:8443", "/ops/tidegate"),
        (" http://127.0.0.1:4001/ ", "http://127.0.0.1:4001", ""),
        ("http://[::1]:4001", "http://[::1]:4001", ""),
        ("http://localhost:4001", "http://localhost:4001", ""),
    ],
)
def test_an_address_is_an_origin_and_a_path(url: str, origin: str, path: str) -> None:
    assert from_environment({"TIDEGATE_URL": url, "TIDEGATE_API_KEY": " k "}) == Address(origin, path, "k")


@pytest.mark.parametrize("url", ["http://example.com", "http://127.0.0.1.evil.test", "http://10.0.0.1:4001"])
def test_a_key_goes_to_another_machine_only_encrypted_or_by_order(url: str) -> None:
    with pytest.raises(BadInput, match=r"would send the key unencrypted\. Use https://, or set TIDEGATE_ALLOW_HTTP=1"):
        from_environment({"TIDEGATE_URL": url})
    allowed = from_environment({"TIDEGATE_URL": url, "TIDEGATE_ALLOW_HTTP": "1"})
    assert allowed is not None
    assert allowed.plain


@pytest.mark.parametrize(
    "url",
    [
        "tidegate.example.com",
        "ftp://example.com",
        "https://",
        "https://user:secret@example.com",
        "https://example.com?key=secret",
        "https://example.com:port",
        "https://exa mple.com",
        "https://[::1",
        "https://example.com/\n",
    ],
)
def test_what_is_no_address_is_said_without_repeating_it(url: str) -> None:
    with pytest.raises(BadInput, match="TIDEGATE_URL: is not an address such as") as error:
        from_environment({"TIDEGATE_URL": f"{url}\x00" if url.endswith("\n") else url})
    assert "secret" not in str(error.value)


def test_a_key_with_a_line_in_it_is_refused_unseen() -> None:
    with pytest.raises(BadInput, match="TIDEGATE_API_KEY: holds characters that no key has") as error:
        from_environment({"TIDEGATE_URL": "https://example.com", "TIDEGATE_API_KEY": "tg_a\r\nx-evil: 1"})
    assert "evil" not in str(error.value)
    assert "tg_" not in repr(from_environment({"TIDEGATE_URL": "https://example.com", "TIDEGATE_API_KEY": "tg_a"}))


def test_a_folder_with_prompts_is_enough_for_a_server(tmp_path: Path) -> None:
    server = Address("https://example.com")
    prompts = tmp_path / "repo" / "prompts" / "support"
    prompts.mkdir(parents=True)
    found = config.find_for(server, prompts)
    assert (found.root, found.server, found.has_control) == (tmp_path / "repo", server, True)
    assert config.find_for(server, tmp_path).root == tmp_path
    (tmp_path / "repo" / "tidegate.yaml").write_text("timezone: Europe/Berlin\n")
    assert config.find_for(server, prompts).config.timezone == "Europe/Berlin"
    with pytest.raises(BadInput, match="no such file"):
        config.find_for(server, tmp_path, tmp_path / "tidegate.yaml")
