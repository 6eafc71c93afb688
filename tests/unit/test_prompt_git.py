"""The git state of a prompt's folder, asked for without running anything of the repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tidegate.prompts.git import git_state


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    """A committed prompt's folder in a repository of its own."""
    folder = tmp_path / "prompts" / "a"
    folder.mkdir(parents=True)
    (folder / "prompt.md").write_text("one")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    return folder


def test_a_committed_folder_is_clean(prompt: Path) -> None:
    state = git_state(prompt)
    assert state is not None
    assert (state.commit, state.dirty) == (git(prompt, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize("name", ["prompt.md", "new.json"])
def test_a_change_in_the_folder_is_dirty_and_one_beside_it_is_not(prompt: Path, name: str) -> None:
    (prompt.parent / "other.txt").write_text("beside")
    state = git_state(prompt)
    assert state is not None
    assert not state.dirty
    (prompt / name).write_text("two")
    state = git_state(prompt)
    assert state is not None
    assert state.dirty


def test_outside_of_git_there_is_no_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    assert git_state(tmp_path / "none") is None


def test_nothing_of_the_repository_is_run(prompt: Path, tmp_path: Path) -> None:
    """A hostile repository names a program as its file system monitor."""
    trace = tmp_path / "was-run"
    script = tmp_path / "monitor.sh"
    script.write_text(f"#!/bin/sh\ntouch '{trace}'\n")
    script.chmod(0o755)
    git(prompt, "config", "core.fsmonitor", str(script))
    assert git_state(prompt) is not None
    assert not trace.exists()
