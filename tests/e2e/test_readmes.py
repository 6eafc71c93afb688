"""
What a newcomer types, typed: every fence marked `sh run`, in order, with the exit codes that the page says.

A README is followed in a copy of its example, a guide in an empty folder. `# exit code 3` on a line is what it ends
with; others end with 0.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.pages import read
from tests.repo.tree import ROOT, named

EXAMPLES = [ROOT / "examples" / name / "README.md" for name in ("rag", "support-bot")]
GUIDES = [ROOT / "docs" / "guides" / "evals.md"]
SAME = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
"""That the program is the one under test."""
END = re.compile(r"# exit code (\d+)")


def lines(path: Path) -> list[tuple[str, int]]:
    """The command lines of a page, each with the exit code it ends with."""
    typed = [line for block in read(path).blocks if block.run for line in block.text.splitlines() if line.strip()]
    return [(line, int(end[1]) if (end := END.search(line)) else 0) for line in typed]


@pytest.mark.parametrize("path", [*EXAMPLES, *GUIDES], ids=named)
def test_what_the_page_says_to_type_does_what_it_says(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    if path in EXAMPLES:
        shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns(".tidegate", "report"))
        config = folder / "tidegate.yaml"
        config.write_text(config.read_text().replace("127.0.0.1:4010", "127.0.0.1:1"))  # nobody else's provider
    else:
        folder.mkdir()
    program = tmp_path / "bin" / "tidegate"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tidegate "$@"\n')
    program.chmod(0o755)
    typed = lines(path)
    assert typed
    script = "".join(f"{line}\n[ $? -eq {code} ] || exit 99\n" for line, code in typed)
    done = subprocess.run(
        ["bash", "-x", "-c", script],
        cwd=folder,
        env={"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "LANG": "C.UTF-8", **SAME},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for name in re.findall(r"--(?:html|junit|markdown) (\S+)", "\n".join(line for line, _ in typed)):
        assert list(folder.rglob(name)), name


@pytest.mark.parametrize("path", EXAMPLES, ids=named)
def test_every_command_of_an_example_is_run(path: Path) -> None:
    page = read(path)
    idle = [block.text for block in page.blocks if not block.run and re.search(r"^ *tidegate ", block.text, re.M)]
    assert idle == []
