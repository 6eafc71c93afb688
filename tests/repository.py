"""Real git repositories for tests: made with a scrubbed environment, on a clock of their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PROMPT = """---
model: simulated/support-2026-03-01
inputs: {{question: string}}
output: {{schema: output.schema.json}}
tools: [tools/look_up.json]
---
system:
{text}

user:
{{{{ question }}}}
"""
TOOL = '{"name": "look_up", "description": "Finds an order.", "parameters": {"type": "object"}}'


class Repo:
    """A repository in a folder; commits are a minute apart."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._minutes = 0

    def git(self, *arguments: str, check: bool = True) -> str:
        """What git prints; with `check`, it must end well."""
        at = f"2026-03-01T12:{self._minutes:02}:00Z"
        names = {"GIT_AUTHOR_NAME": "Anna", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_AUTHOR_DATE": at}
        names |= {"GIT_COMMITTER_NAME": "Anna", "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_COMMITTER_DATE": at}
        alone = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}
        done = subprocess.run(
            ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *arguments],
            cwd=self.root,
            env={**names, **alone},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr.decode()
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def init(self) -> Repo:
        """Begins the repository."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q")
        return self

    def commit(self, subject: str = "a commit") -> str:
        """Commits everything, and gives the commit's id."""
        self._minutes += 1
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", subject)
        return self.git("rev-parse", "HEAD")

    def write(self, path: str, body: str | bytes) -> None:
        """Writes a file, without committing it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body.encode() if isinstance(body, str) else body)

    def prompt(self, text: str = "Answer briefly.", name: str = "support/answer", under: str = "") -> None:
        """Writes a whole prompt: message, schema and tool."""
        folder = f"{under}prompts/{name}"
        self.write(f"{folder}/prompt.md", PROMPT.format(text=text))
        self.write(f"{folder}/output.schema.json", '{"type": "object"}')
        self.write(f"{folder}/tools/look_up.json", TOOL)
