"""References to secrets become secrets, or one sentence that shows no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.core.errors import BadInput
from tidegate.upstream.credentials import resolve

FIELD = "providers.openai.api_key"


def test_a_value_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_OURS", " sk-secret\n")
    assert resolve("${env:KEY_OF_OURS}", FIELD) == "sk-secret"


def test_a_value_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-secret\n")
    assert resolve(f"${{file:{tmp_path}/key}}", FIELD) == "sk-secret"


def test_a_value_that_is_written_out() -> None:
    assert resolve("sk-secret", FIELD) == "sk-secret"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("${env:NOT_SET_ANYWHERE}", r"\$\{env:NOT_SET_ANYWHERE\} is not set\. Set NOT_SET_ANYWHERE in the environment"),
        ("${file:/no/such/key}", r"\$\{file:/no/such/key\} can not be read: No such file"),
        ("${vault:secret}", r"a reference is \$\{env:NAME\} or \$\{file:/absolute/path\}"),
        ("${file:relative}", r"a reference is"),
        ("${env:KEY_OF_OURS", r"a reference is"),
        ("${env:EMPTY}", r"\$\{env:EMPTY\} is empty or holds characters"),
        ("${env:TWO_LINES}", r"\$\{env:TWO_LINES\} is empty or holds characters"),
        ("", r"the value is empty or holds characters"),
        ("sk-secret\r\nx: y", r"the value is empty or holds characters"),
    ],
)
def test_what_can_not_be_used_is_told_with_its_place_and_without_its_value(
    reference: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("TWO_LINES", "sk-secret\r\nx-evil: 1")
    with pytest.raises(BadInput, match=rf"^providers\.openai\.api_key: {words}") as caught:
        resolve(reference, FIELD)
    assert "sk-secret" not in str(caught.value)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="is not a text file"):
        resolve(f"${{file:{tmp_path}/key}}", FIELD)
