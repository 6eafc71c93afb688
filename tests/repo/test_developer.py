"""What CONTRIBUTING and CI promise a developer exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.repo.pages import Page, parse, read
from tests.repo.tree import ROOT, markdown, named

CI = ROOT / ".ci" / "run"


def recipes(justfile: str) -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*)[^:=\n]*:(?!=)", justfile, re.M))


def unknown_recipes(page: Page, known: set[str]) -> list[str]:
    """The `just …` that a page names and the justfile does not have."""
    named_here = [code for code in page.code if re.match(r"(?:uv run )?just\b", code)]
    named_here += [
        line for block in page.blocks for line in block.text.splitlines() if re.match(r"(uv run )?just\b", line)
    ]
    asked = [word for code in named_here for word in code.partition("just")[2].split()[:1] if word.isidentifier()]
    return [word for word in asked if word not in known]


def test_every_recipe_that_is_named_exists() -> None:
    known = recipes((ROOT / "justfile").read_text("utf-8"))
    missing = [(named(path), word) for path in markdown() for word in unknown_recipes(read(path), known)]
    assert missing == []


def test_an_unknown_recipe_is_found() -> None:
    page = parse("`uv run just fmt`, `just nosuch`, `uv run just`\n\n```sh\nuv run just other\n```\n")
    assert unknown_recipes(page, recipes("a := b\nfmt:\n    x: y\n")) == ["nosuch", "other"]


def test_the_justfile_can_be_read() -> None:
    just = Path(sys.executable).parent / "just"
    done = subprocess.run([just, "--list"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ci_is_a_script_that_runs_the_readmes_test_line() -> None:
    assert os.access(CI, os.X_OK)
    bash = shutil.which("bash") or "bash"
    assert subprocess.run([bash, "-n", CI], check=False).returncode == 0
    assert "\nuv run pytest " in CI.read_text("utf-8")
    assert "https:" not in CI.read_text("utf-8")
