"""The workflow that `tidegate init` makes: what it may do, and its shell lines run as GitHub runs them."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.repository import Repo
from tidegate.cli.init import WORKFLOW, make

ROOT = Path(__file__).parents[2]
GH = '''#!{python}
"""A `gh` that keeps comments in a file: what `gh api` does with the arguments of the workflow."""
import json, pathlib, sys
store = pathlib.Path({store!r})
comments = json.loads(store.read_text()) if store.exists() else []
words = sys.argv[1:]
assert words.pop(0) == "api", words
if "--jq" in words:
    assert words[:1] == ["--paginate"] and words[1] == "repos/shop/bots/issues/7/comments", words
    assert words[3].startswith('.[] | select(.user.login == "github-actions[bot]") | "\\\\(.id) '), words
    for one in comments:
        if one["login"] == "github-actions[bot]":
            print(one["id"], one["body"].split("\\n")[0])
    sys.exit()
silent, _, method, path, _, field = words
name, _, file = field.partition("=@")
assert (silent, name) == ("--silent", "body"), words
body = pathlib.Path(file).read_text()
if method == "POST":
    assert path == "repos/shop/bots/issues/7/comments", path
    comments.append({{"id": 100 + len(comments), "login": "github-actions[bot]", "body": body}})
else:
    next(one for one in comments if path == f"repos/shop/bots/issues/comments/{{one['id']}}")["body"] = body
store.write_text(json.dumps(comments))
'''


def load(text: str) -> dict[str, Any]:
    """YAML 1.1 takes `on` for true."""
    document: dict[Any, Any] = yaml.safe_load(text)
    return {"on" if key is True else key: value for key, value in document.items()}


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return load((ROOT / "examples" / "support-bot" / WORKFLOW).read_text("utf-8"))


def steps(workflow: dict[str, Any], job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workflow["jobs"][job]["steps"]
    return found


def test_a_strangers_files_never_meet_secrets_or_a_token_that_writes(workflow: dict[str, Any]) -> None:
    assert set(workflow["on"]) == {"pull_request"}
    assert workflow["permissions"] == {}
    assert {name: job["permissions"] for name, job in workflow["jobs"].items()} == {
        "gate": {"contents": "read"},
        "comment": {"pull-requests": "write"},
    }
    checkout = steps(workflow, "gate")[0]
    assert checkout["with"] == {"fetch-depth": 0, "persist-credentials": False}
    assert "head.repo.full_name == github.repository" in workflow["jobs"]["comment"]["if"]
    for step in steps(workflow, "comment"):
        assert "checkout" not in step.get("uses", "")
        assert "tidegate " not in step.get("run", "")


def test_no_value_of_a_pull_request_becomes_shell(workflow: dict[str, Any]) -> None:
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 30
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|[0-9a-f]{40})", step.get("uses", "a/b@v1"))
            assert "continue-on-error" not in step


def test_it_installs_this_version(workflow: dict[str, Any]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    (install,) = [step["run"] for step in steps(workflow, "gate") if "uv tool" in step.get("run", "")]
    assert install == f'uv tool install "tidegate=={version}"'


class Runner:
    """Runs a job's `run` steps as GitHub does: one after the other, with `bash -e`, until one fails."""

    def __init__(self, folder: Path) -> None:
        self.repo = Repo(folder / "repo").init()
        self.folder = self.repo.root
        make(self.folder)
        config = self.folder / "tidegate.yaml"
        config.write_text(config.read_text().replace("127.0.0.1:4010", "127.0.0.1:1"))  # nobody else's provider
        self.repo.commit("start")
        self.repo.git("update-ref", "refs/remotes/origin/main", "HEAD")
        self.bin, self.store, self.summary = folder / "bin", folder / "comments.json", folder / "summary.md"
        self.bin.mkdir()
        self.tool("uv", "#!/bin/sh\n")
        self.tool("tidegate", f'#!/bin/sh\nexec "{sys.executable}" -m tidegate "$@"\n')
        self.tool("gh", GH.format(python=sys.executable, store=str(self.store)))
        self.out = ""

    def tool(self, name: str, text: str) -> None:
        file = self.bin / name
        file.write_text(text)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def run(self, job: str) -> int:
        self.out = ""
        values = {"github.base_ref": "main", "github.event.pull_request.number": "7", "github.token": "t"}
        for step in steps(load((self.folder / WORKFLOW).read_text("utf-8")), job):
            if "run" not in step:
                continue
            set_here = {
                name: re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda match: values[match[1]], value)
                for name, value in step.get("env", {}).items()
            }
            done = subprocess.run(
                ["bash", "-e", "-c", step["run"]],
                cwd=self.folder,
                env={
                    "PATH": f"{self.bin}:{os.environ['PATH']}",
                    "HOME": str(self.folder.parent),
                    "GITHUB_ACTIONS": "true",
                    "GITHUB_WORKSPACE": str(self.folder),
                    "GITHUB_STEP_SUMMARY": str(self.summary),
                    "GITHUB_REPOSITORY": "shop/bots",
                    **set_here,
                },
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            self.out += done.stdout + done.stderr
            if done.returncode:
                return done.returncode
        return 0

    def edit(self, old: str, new: str, name: str = "prompts/support/answer/prompt.md") -> None:
        file = self.folder / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        self.repo.commit("edit")

    @property
    def comments(self) -> list[str]:
        return [comment["body"] for comment in json.loads(self.store.read_text())]


def test_a_pull_requests_life(tmp_path: Path) -> None:
    """A harmless edit, a harmful one and a malformed one: exit codes, annotations, report files, one comment."""
    runner = Runner(tmp_path)
    runner.edit("You are the support assistant", "You are the helpful support assistant")
    assert runner.run("gate") == 0, runner.out
    assert runner.run("comment") == 0, runner.out
    assert "✅ PASS" in runner.comments[0]
    assert "PASS" in runner.summary.read_text("utf-8")

    runner.edit("Reply with", "Be warm and friendly. Reply with")
    assert runner.run("gate") == 1, runner.out
    assert "::error file=prompts/support/answer/golden.jsonl,line=3,title=broken%3A password-new-phone::" in runner.out
    assert sorted(path.name for path in (runner.folder / "report").iterdir()) == ["gate.html", "gate.md", "gate.xml"]
    assert runner.run("comment") == 0, runner.out
    assert len(runner.comments) == 1, "the comment is updated in place"
    assert "❌ FAIL" in runner.comments[0]

    runner.edit("model: simulated/", "model: nosuch/")
    assert runner.run("gate") == 4, runner.out
    assert "::error file=prompts/support/answer/prompt.md,line=3" in runner.out


def test_without_its_key_a_forks_gate_fails_closed(tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    old = '{simulated: true, base_url: "http://127.0.0.1:1/v1"}'
    runner.edit(old, '{api_key: "${env:OPENAI_API_KEY}", base_url: "http://127.0.0.1:1/v1"}', "tidegate.yaml")
    runner.repo.git("update-ref", "refs/remotes/origin/main", "HEAD")
    assert runner.run("gate") in (3, 4), runner.out
    assert "OPENAI_API_KEY" in runner.out
    assert "::error" in runner.out
    comment = (runner.folder / "report" / "gate.md").read_text("utf-8")
    assert "PASS" not in comment
