"""
What a newcomer types, typed: every fence marked `sh run`, in order, with the exit codes that the page says.

A README is followed in a copy of its example, a guide in a project as `tidegate init` makes it, cloned from a
repository. `# exit code 3` on a line is what it ends with; others end with 0.
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
from tests.repository import Repo
from tidegate.cli.init import make

EXAMPLES = [ROOT / "examples" / name / "README.md" for name in ("agent", "rag", "support-bot")]
GUIDES = [ROOT / "docs" / "guides" / f"{name}.md" for name in ("evals", "gate-a-pull-request", "golden-sets", "import")]
FOREIGN = {
    "greet.prompt": "---\nmodel: openai/gpt-4.1-2025-04-14\ninput: {schema: {name: string}}\n---\nHello {{name}}!\n",
    "answer.prompty": "---\nname: answer\ndescription: Answers\ninputs: {question: {type: string}}\n---\n"
    "user:\n{{question}}\n",
    "promptfooconfig.yaml": "description: Tests\nprompts: ['{{ a }}']\nproviders: [openai:gpt-4.1-2025-04-14]\n"
    "tests: [{vars: {a: x}, assert: [{type: contains, value: x}, {type: javascript, value: 'true'}]}]\n",
}
"""What the guide to importing speaks of."""
SAME = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
"""That the program is the one under test."""
END = re.compile(r"# exit code (\d+)")


def lines(path: Path) -> list[tuple[str, int]]:
    """The command lines of a page, each with the exit code it ends with."""
    text = "\n".join(block.text for block in read(path).blocks if block.run).replace("\\\n", "")
    typed = [line for line in text.splitlines() if line.strip()]
    return [(line, int(end[1]) if (end := END.search(line)) else 0) for line in typed]


@pytest.mark.parametrize("path", [*EXAMPLES, *GUIDES], ids=named)
def test_what_the_page_says_to_type_does_what_it_says(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    if path in EXAMPLES:
        shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns(".tidegate", "report"))
        _nobody_elses_provider(folder)
    else:
        origin = Repo(tmp_path / "origin").init()
        make(origin.root)
        _nobody_elses_provider(origin.root)
        origin.commit("start")
        subprocess.run(["git", "clone", "--quiet", origin.root, folder], check=True)
        for name, text in FOREIGN.items():
            (folder / name).write_text(text)
    (tmp_path / "bin").mkdir()
    for name, text in {"tidegate": f'exec "{sys.executable}" -m tidegate "$@"', "uv": 'shift && exec "$@"'}.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    typed = lines(path)
    assert typed
    script = "".join(f"{line}\n[ $? -eq {code} ] || exit 99\n" for line, code in typed)
    done = subprocess.run(
        ["bash", "-x", "-c", script],
        cwd=folder,
        env={
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "BASE": "main",
            **SAME,
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for name in re.findall(r"--(?:html|junit|markdown) (\S+)", "\n".join(line for line, _ in typed)):
        assert list(folder.rglob(name)), name


def _nobody_elses_provider(folder: Path) -> None:
    config = folder / "tidegate.yaml"
    config.write_text(config.read_text().replace("127.0.0.1:4010", "127.0.0.1:1"))


@pytest.mark.parametrize("path", EXAMPLES, ids=named)
def test_every_command_of_an_example_is_run(path: Path) -> None:
    page = read(path)
    idle = [block.text for block in page.blocks if not block.run and re.search(r"^ *tidegate ", block.text, re.M)]
    assert idle == []
