"""
What an import makes of whole files, and what it says about the rest.

One file per case: the command, what is given, what is made, what is listed. Names of files are as seen from the folder
the command is run in; what is made can be read, rendered and planned, or the import would have refused it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.importing import made_by

CASES = sorted((Path(__file__).parent / "importing").glob("*.txt"))


def sections(text: str) -> dict[str, str]:
    """`===== heading` lines and the text below each."""
    parts = re.split(r"^===== (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_file_becomes_these_folders(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = sections(path.read_text("utf-8"))
    command, *_ = written
    for heading, text in written.items():
        if heading.startswith("given "):
            Path(heading.removeprefix("given ")).write_text(text, "utf-8")
    expected = {heading: text for heading, text in written.items() if heading.startswith(("made ", "listed"))}
    assert made_by(shlex.split(command)[1:], Path("prompts")) == expected
