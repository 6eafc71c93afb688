"""Which commit a prompt's folder is at. Asks git and runs nothing of the repository: no hooks, no monitor, no pager."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 2.0
_OPTIONS = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--no-pager", "--no-optional-locks")


@dataclass(frozen=True, slots=True)
class GitState:
    """The commit, and whether the folder holds anything else than what is committed."""

    commit: str
    dirty: bool


def git_state(folder: Path) -> GitState | None:
    """The state of the work tree that `folder` is in; None outside of one, without git, or when git does not answer."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD^{commit}")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", ".")
    if commit is None or changes is None:
        return None
    return GitState(commit.strip(), bool(changes.strip()))


def _git(folder: Path, *arguments: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *_OPTIONS, "-C", str(folder), *arguments],
            env={**environment, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
