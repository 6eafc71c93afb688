"""
Files of any commit, read from git's objects without a checkout.

One `git cat-file --batch` answers everything: names go in on its standard input, objects come out. Trees are walked
here, entry by entry, so a link or a submodule on the way is seen and refused, and a path never leaves its tree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from types import TracebackType
from typing import Self

from tidegate.core.errors import InvalidFile, Problem, Unusable
from tidegate.prompts.git import Failed, Git
from tidegate.prompts.source import FILES_LISTED, MAX_BYTES, TOO_LARGE, escapes

MAX_TREE = 16 << 20
"""Bytes of one tree object: some 400,000 entries."""
FOLDER, LINK, SUBMODULE = 0o040000, 0o120000, 0o160000
_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class Object:
    """One object; `body` is None when it is too large to be read."""

    id: str
    kind: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a tree."""

    mode: int
    id: str


class Missing(Exception):
    """The clone does not hold an object that another one refers to."""


class Objects:
    """The objects of one repository. A context manager; not safe to share between threads."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._process = git.start("cat-file", "--batch")
        self._trees = lru_cache(maxsize=1_024)(self._read_tree)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.close()

    def find(self, name: str) -> Object | None:
        """
        The object of a name without line breaks (`check_ref`), or None when there is none, or several.

        Raises: Missing when git would have to fetch it, Unusable when it takes too long.
        """
        try:
            self._process.write(os.fsencode(name) + b"\n")
            head = self._process.read_line()
            if head.endswith((b" missing", b" ambiguous")):
                return None
            id_, kind, size = head.decode().split(" ")
            if int(size) > (MAX_TREE if kind == "tree" else MAX_BYTES):
                self._process.close()  # rather than read what nobody wants
                self._process = self._git.start("cat-file", "--batch")
                return Object(id_, kind, None)
            body = self._process.read_exactly(int(size) + 1)[:-1]
        except (Failed, ValueError) as error:
            raise Missing from error
        return Object(id_, kind, body)

    def tree_of(self, commit: Object) -> str:
        """The id of a commit's tree."""
        return (commit.body or b"").partition(b"\n")[0].removeprefix(b"tree ").decode()

    def tree(self, id_: str) -> dict[bytes, Entry]:
        """The entries of a tree by name. Raises Missing."""
        return self._trees(id_)

    def walk(self, tree: str, path: bytes) -> Entry | None:
        """What stands at `path` below a tree, or the link or submodule on the way to it; None when there is nothing."""
        at = Entry(FOLDER, tree)
        for part in path.split(b"/"):
            if part in (b"", b"."):
                continue
            if at.mode != FOLDER:
                return at if at.mode in (LINK, SUBMODULE) else None
            found = self.tree(at.id).get(part)
            if found is None:
                return None
            at = found
        return at

    def paths(self, tree: str, depth: int = 0) -> Iterator[str]:
        """The paths of all files below a tree, in git's order."""
        if depth > _DEEPEST:
            return
        for name, entry in self.tree(tree).items():
            shown = os.fsdecode(name)
            if entry.mode == FOLDER:
                yield from (f"{shown}/{below}" for below in self.paths(entry.id, depth + 1))
            elif entry.mode not in (LINK, SUBMODULE):
                yield shown

    def _read_tree(self, id_: str) -> dict[bytes, Entry]:
        found = self.find(id_)
        if found is None:
            raise Missing
        if found.body is None or found.kind != "tree":
            raise Unusable(f"the git tree {id_[:12]} can not be read: it is larger than {MAX_TREE >> 20} MiB.")
        try:
            return dict(_entries(found.body, len(id_) // 2))
        except ValueError as error:
            raise Unusable(f"the git tree {id_[:12]} is damaged: `git fsck` says more.") from error


class TreeFolder:
    """Implements source.Source over a folder of a commit. Links and submodules are not followed."""

    def __init__(self, objects: Objects, tree: str, label: str) -> None:
        self._objects = objects
        self._tree = tree
        self._label = label

    @property
    def label(self) -> str:
        return self._label

    def complaint(self, name: str) -> str | None:
        if escapes(name):
            return f"{name!r} must be the path of a file inside the prompt's folder."
        entry = self._at(name)
        return None if entry is None else unfollowed(entry, name)

    def has(self, name: str) -> bool:
        entry = self._at(name)
        return entry is not None and entry.mode != FOLDER

    def read(self, name: str) -> bytes:
        entry = None if escapes(name) else self._at(name)
        if entry is None or entry.mode == FOLDER:
            raise self._invalid(name, self.complaint(name) or "is not a regular file.")
        if complaint := unfollowed(entry, name):
            raise self._invalid(name, complaint)
        found = self._objects.find(entry.id)
        if found is None:
            raise Missing
        if found.body is None:
            raise self._invalid(name, TOO_LARGE)
        return found.body

    def files(self) -> list[str]:
        return [path for path, _ in zip(self._objects.paths(self._tree), range(FILES_LISTED), strict=False)]

    def _at(self, name: str) -> Entry | None:
        return self._objects.walk(self._tree, os.fsencode(str(PurePosixPath(name))))

    def _invalid(self, name: str, message: str) -> InvalidFile:
        return InvalidFile([Problem(f"{self._label}/{name}", 0, "", message)])


def unfollowed(entry: Entry, name: str) -> str | None:
    """Why what stands at, or on the way to, `name` is not followed; None for files and folders."""
    if entry.mode == LINK:
        return f"{name!r} is a symbolic link, or is reached through one; in git's history tidegate follows none."
    if entry.mode == SUBMODULE:
        return f"{name!r} is in a submodule; tidegate reads the repository itself only."
    return None


def _entries(body: bytes, id_size: int) -> Iterator[tuple[bytes, Entry]]:
    at = 0
    while at < len(body):
        space, nul = body.index(b" ", at), body.index(b"\0", at)
        end = nul + 1 + id_size
        yield body[space + 1 : nul], Entry(int(body[at:space], 8), body[nul + 1 : end].hex())
        at = end
