"""
A prompt's digest never changes, whatever tidegate learns (docs/design/0002-digest.md).

One file per case: prompt.md, a line of ten dashes, the digest. A digest that moved is a bug, not a file to rewrite.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.core.artifact import canonical, digest, from_canonical
from tidegate.prompts.files import load_prompt

CASES = sorted((Path(__file__).parent / "digest").glob("*.txt"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_digest_of_a_prompt_stays(path: Path, tmp_path: Path) -> None:
    text, _, expected = path.read_text("utf-8").partition("----------\n")
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "prompt.md").write_text(text, "utf-8")
    artifact = load_prompt(tmp_path, "case").artifact
    assert digest(artifact) == expected.strip()
    assert from_canonical(canonical(artifact)) == artifact


def test_writing_a_default_down_changes_nothing() -> None:
    expected = {path.stem: path.read_text("utf-8").rpartition("----------\n")[2] for path in CASES}
    assert expected["minimal"] == expected["minimal-defaults-written-down"]
    assert expected["minimal"] != expected["everything"]
