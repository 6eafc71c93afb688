"""
Where a prompt's files are read from: relative paths of one folder become bytes, and nothing outside of it does.

The same reader (files.py) takes a folder of the working tree or, through objects.py, a tree of any commit; each says
for itself which paths it refuses to follow.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tidegate.core.errors import InvalidFile, Problem

MAX_BYTES = 1 << 20
"""Of prompt.md, and of each file it refers to."""
FILES_LISTED = 1_000
TOO_LARGE = "is larger than 1 MiB."


class Source(Protocol):
    """One prompt's folder, wherever it is kept."""

    @property
    def label(self) -> str:
        """What problems call it: `prompts/support/answer`, `origin/main:prompts/support/answer`."""
        ...

    def complaint(self, name: str) -> str | None:
        """Why the path `name` may not be followed, or None."""
        ...

    def has(self, name: str) -> bool:
        """Whether a regular file stands at `name`, a path without a complaint."""
        ...

    def read(self, name: str) -> bytes:
        """The file at `name`. Raises InvalidFile when it may not be followed, is no regular file, or is too large."""
        ...

    def files(self) -> Sequence[str]:
        """Paths of files in it, at most 1,000: what a misspelt name may have meant."""
        ...


class Folder:
    """Implements Source over a folder of the working tree; links may lead to places inside of it."""

    def __init__(self, path: Path, label: str) -> None:
        self._path = path
        self._base = str(path)
        self._label = label

    @property
    def label(self) -> str:
        return self._label

    def complaint(self, name: str) -> str | None:
        if escapes(name):
            return f"{name!r} must be the path of a file inside the prompt's folder."
        if leads_out(self._path, name):
            return f"{name!r} is a link that leads out of the prompt's folder."
        return None

    def has(self, name: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(f"{self._base}/{name}").st_mode)  # noqa: PTH116  # Path takes four times as long
        except OSError:
            return False

    def read(self, name: str) -> bytes:
        if complaint := self.complaint(name):
            raise self._invalid(name, complaint)
        try:
            body = read_regular(f"{self._base}/{name}", MAX_BYTES)
        except OSError as error:
            raise self._invalid(name, f"can not be read: {error.strerror}.") from error
        if body is None:
            raise self._invalid(name, "is not a regular file.")
        if len(body) > MAX_BYTES:
            raise self._invalid(name, TOO_LARGE)
        return body

    def files(self) -> Sequence[str]:
        return [path.relative_to(self._path).as_posix() for path in sorted(self._path.rglob("*"))[:FILES_LISTED]]

    def _invalid(self, name: str, message: str) -> InvalidFile:
        return InvalidFile([Problem(f"{self._label}/{name}", 0, "", message)])


def escapes(name: str) -> bool:
    """Whether a path is none that stays below where it starts, by its look alone."""
    encodable = name.isascii() or name == name.encode("utf-8", "replace").decode()
    return not name or not encodable or "\0" in name or name.startswith("/") or ".." in name.split("/")


def leads_out(base: Path, name: str) -> bool:
    """Whether `name` lies outside of `base` once links are followed; so does what a link that goes in circles names."""
    at = str(base)
    for part in name.split("/"):
        at = f"{at}/{part}"
        if part == ".." or _is_link(at):
            try:
                return not (base / name).resolve().is_relative_to(base.resolve())
            except (OSError, RuntimeError):
                return True
    return False


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False


def read_regular(path: Path | str, limit: int) -> bytes | None:
    """
    The file's bytes, or its first `limit` + 1 when it has more; None when it is no regular file.

    A pipe is never waited for. Raises OSError.
    """
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            return None
        body = os.read(opened, limit + 1)
        while len(body) < min(found.st_size, limit + 1) and (more := os.read(opened, limit + 1 - len(body))):
            body += more
        return body
    finally:
        os.close(opened)
