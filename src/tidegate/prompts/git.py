"""
Asks git about the repository a project is in, and runs nothing of that repository.

Whoever wrote a repository wrote its configuration too, and git's configuration names programs: hooks, a file system
monitor, filters, a signature checker, transports. All of them are switched off here, the reader's own configuration is
not read, no object is fetched, nothing is asked on a terminal, and every answer is bounded in bytes and in seconds.
What a user typed as a ref is looked at first (`check_ref`) and goes to git's standard input, never to its arguments.
"""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from tidegate.core.errors import BadInput, Unusable

TIMEOUT_S = 15.0
STATE_TIMEOUT_S = 2.0
MAX_ANSWER = 4 << 20
"""Bytes of one answer."""
_MAX_REF = 255
_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.bigFileThreshold": "1m",  # larger blobs are streamed, so that one which is refused costs no memory
    "protocol.allow": "never",
    "safe.bareRepository": "explicit",  # a folder that looks like a repository is a folder
}
_OPTIONS = [word for name, value in _CONFIG.items() for word in ("-c", f"{name}={value}")]
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # a repository's protocol.ext.allow outranks protocol.allow, but not this
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "LC_ALL": "C",
}


_DUBIOUS = "dubious ownership"
_FILTERS = r"^filter\..*\.(clean|process|required)$"


@dataclass(frozen=True, slots=True)
class GitState:
    """The commit, and whether the folder holds anything else than what is committed."""

    commit: str
    dirty: bool


def git_state(folder: Path) -> GitState | None:
    """The state of the work tree that `folder` is in; None outside of one, without git, or when git does not answer."""
    git = Git(folder, seconds=STATE_TIMEOUT_S)
    try:
        commit = git.run("rev-parse", "--verify", "HEAD^{commit}")
        git.switch_filters_off()
        question = ("status", "--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=all", "--no-renames")
        with git.start(*question, "--", ".") as process:
            dirty = bool(process.read_some())
            if not dirty and process.end() != 0:
                return None
    except (Failed, Unusable):
        return None
    return GitState(commit.decode().strip(), dirty)


@dataclass(frozen=True, slots=True)
class Repository:
    """The repository whose work tree a folder is in."""

    git: Git
    prefix: bytes
    """The folder's path inside the repository: empty, or ending in `/`."""
    shallow: bool


def find_repository(folder: Path) -> Repository | None:
    """
    The repository that `folder` is in; None when it is in no work tree, or when there is no git on this machine.

    Raises: BadInput when git does not trust the folder's owner, Unusable when it does not answer.
    """
    git = Git(folder)
    try:
        answer = git.run("rev-parse", "--is-inside-work-tree", "--is-shallow-repository", "--show-prefix")
    except Failed as error:
        if _DUBIOUS in error.complaint:
            raise BadInput(
                f"git does not read {folder}, because it belongs to another user. If you trust it:"
                f" `git config --global --add safe.directory {shlex.quote(str(folder.resolve()))}`"
            ) from error
        return None
    inside, shallow, prefix = answer.split(b"\n", 2)
    return Repository(git, prefix.removesuffix(b"\n"), shallow == b"true") if inside == b"true" else None


def check_ref(ref: str) -> None:
    """Raises BadInput for what can not be the name of one commit, before git is asked."""
    if ref.startswith("-"):
        wrong = "begins with '-'"
    elif ".." in ref:
        wrong = "holds '..', and one commit is needed, not a range"
    elif ":" in ref:
        wrong = "holds ':'"
    elif not ref or len(ref) > _MAX_REF or any(char.isspace() or not char.isprintable() for char in ref):
        wrong = "is empty, too long, or holds a space or a control character"
    else:
        return
    raise BadInput(f"{ref[:80]!r} can not be a git ref: it {wrong}.")


class Failed(Exception):
    """Git could not be run, or ended with an error; `complaint` is what it said."""

    def __init__(self, complaint: str) -> None:
        super().__init__(complaint)
        self.complaint = complaint


class Git:
    """Git, run in one folder."""

    def __init__(self, folder: Path, *, seconds: float = TIMEOUT_S) -> None:
        self.folder = folder
        self._seconds = seconds
        self._config: list[tuple[str, str]] = []

    def run(self, *arguments: str) -> bytes:
        """What git prints. Raises Failed when it ends with an error, Unusable when it is too slow or says too much."""
        try:
            return self._run(arguments)
        except Failed as error:
            if _DUBIOUS not in error.complaint or self._config:
                raise
            # The reader's own list of folders to trust is the one thing of their configuration that still counts.
            self._config = [("safe.directory", folder) for folder in _trusted()]
            return self._run(arguments)

    def start(self, *arguments: str) -> Process:
        """A git process; use it as a context manager."""
        return Process(self.folder, arguments, self._config, self._seconds)

    def switch_filters_off(self) -> None:
        """Before a question that makes git read files of the work tree, which it would do through filter programs."""
        try:
            names = self.run("config", "--null", "--name-only", "--get-regexp", _FILTERS)
        except Failed:  # there are none
            return
        for name in sorted(set(os.fsdecode(names).split("\0")) - {""}):
            self._config.append((name, "false" if name.endswith(".required") else ""))

    def _run(self, arguments: Sequence[str]) -> bytes:
        with self.start(*arguments) as process:
            answer = process.read_all()
            if process.end() != 0:
                raise Failed(process.complaint())
        return answer


class Process:
    """One git process under a deadline. Its end is the end of the block, whatever it is doing then."""

    def __init__(
        self, folder: Path, arguments: Sequence[str], config: Sequence[tuple[str, str]], seconds: float
    ) -> None:
        self._deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._held = b""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        extra = {"GIT_CONFIG_COUNT": str(len(config))}
        for index, (name, value) in enumerate(config):
            extra |= {f"GIT_CONFIG_KEY_{index}": name, f"GIT_CONFIG_VALUE_{index}": value}
        try:
            self._child = subprocess.Popen(
                ["git", *_OPTIONS, "--no-pager", "--no-optional-locks", "-C", str(folder), *arguments],
                env={**outside, **_ENVIRONMENT, **extra},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
            )
        except OSError as error:
            self._errors.close()
            raise Failed(f"git can not be run: {error.strerror}") from error
        self._stdin = cast("IO[bytes]", self._child.stdin)
        self._stdout = cast("IO[bytes]", self._child.stdout)
        self._ready = select.poll()
        self._ready.register(self._stdout, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, and lets go of its pipes."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        for pipe in (self._stdin, self._stdout, self._errors):
            pipe.close()

    def write(self, line: bytes) -> None:
        """Sends one short line. Raises Failed when it has ended."""
        try:
            self._stdin.write(line)
        except BrokenPipeError as error:
            raise Failed(self.complaint()) from error

    def read_some(self) -> bytes:
        """The next bytes, or none at the end."""
        left = self._deadline - time.monotonic()
        if left <= 0 or not self._ready.poll(1_000 * left):
            raise Unusable(f"git did not answer within {self._seconds:g} s: try again when the machine is less busy.")
        return os.read(self._stdout.fileno(), 1 << 16)

    def read_all(self) -> bytes:
        """Everything up to the end. Raises Unusable above 4 MiB."""
        parts, size = [], 0
        while part := self.read_some():
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER:
                raise Unusable(f"git's answer is larger than {MAX_ANSWER >> 20} MiB.")
        return b"".join(parts)

    def read_line(self) -> bytes:
        """The next line without its end; what is left when it ends without one."""
        while b"\n" not in self._held and len(self._held) < MAX_ANSWER and (part := self.read_some()):
            self._held += part
        line, _, self._held = self._held.partition(b"\n")
        return line

    def read_exactly(self, size: int) -> bytes:
        """The next `size` bytes. Raises Failed when it ends before."""
        parts, have = [self._held], len(self._held)
        while have < size:
            part = self.read_some()
            if not part:
                raise Failed(self.complaint())
            parts.append(part)
            have += len(part)
        whole = b"".join(parts)
        self._held = whole[size:]
        return whole[:size]

    def end(self) -> int:
        """Its exit code, once it has said everything. Raises Unusable when it does not end."""
        self._stdin.close()
        try:
            return self._child.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise Unusable(f"git did not end within {self._seconds:g} s.") from error

    def complaint(self) -> str:
        """What it said on standard error so far, as one line."""
        self._errors.seek(0)
        return " ".join(self._errors.read(2_000).decode("utf-8", "replace").split())


def _trusted() -> list[str]:
    """The folders that the reader of a repository told git to trust, in their own or the machine's configuration."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    found: list[str] = []
    for scope in ("--system", "--global"):
        try:
            done = subprocess.run(
                ["git", "config", scope, "--null", "--get-all", "safe.directory"],
                cwd="/",
                env=outside,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=STATE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unusable(f"git config did not end within {STATE_TIMEOUT_S:g} s.") from error
        found += [os.fsdecode(folder) for folder in done.stdout.split(b"\0") if folder]
    return found
