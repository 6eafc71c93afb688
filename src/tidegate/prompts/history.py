"""
The digests of a prompt through git's history: which commits changed what the model is told.

One `git log` names the commits that touched the prompt's folder, one `git cat-file` reads their trees; a folder that
several commits share is read once. A commit counts when its digest differs from that of every parent, so an edit of a
comment, of a golden set or of a description is not in here, and a mere merge is not either.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from tidegate.core.artifact import digest
from tidegate.core.errors import InvalidFile, NotFound, Unusable
from tidegate.core.instant import iso_utc
from tidegate.prompts.files import check_name, place
from tidegate.prompts.git import Failed, Repository, find_repository
from tidegate.prompts.objects import Missing, Object, Objects
from tidegate.prompts.sides import written_at

_FORMAT = "--format=tformat:%H%x00%P%x00%an%x00%ct%x00%s"
_FIELDS = 5
_LAST_SECOND = 253_402_300_799
"""9999-12-31: git takes any number for a date."""


class Commit(msgspec.Struct, frozen=True):
    """A commit that changed a prompt's digest."""

    id: str
    author: str
    at: str
    """When it was committed: UTC, ISO 8601."""
    subject: str
    digest: str | None
    """None when it took the prompt away, or left it broken."""
    problem: str | None = None
    """What is wrong with the prompt in it."""


@dataclass(frozen=True, slots=True)
class History:
    """Commits, newest first, and what may hide older ones."""

    commits: tuple[Commit, ...]
    cut: Literal["limit", "shallow"] | None
    """`limit`: older commits were not looked at; `shallow`: the clone does not hold them."""


def history(prompts: Path, name: str, limit: int) -> History:
    """
    The commits up to HEAD that changed the digest of `name`, among the last `limit` that touched its folder.

    Empty outside of a git work tree. Raises: BadInput for an impossible name, or when git does not trust the folder;
    NotFound when a filtered clone lacks the files, Unusable when git takes too long.
    """
    check_name(name)
    repository = find_repository(prompts.parent)
    if repository is None or limit < 1:
        return History((), None)
    folder = place(prompts, name)
    lines = _log(repository, folder, limit)
    with Objects(repository.git) as objects:
        reader = _Reader(objects, repository.prefix, folder)
        try:
            found = [line.commit(reader) for line in lines if line.changes(reader)]
        except Missing as error:
            raise NotFound(
                "this clone does not hold the files of its history: it was cloned with a filter, and tidegate"
                " fetches nothing."
            ) from error
    cut: Literal["limit", "shallow"] | None = "limit" if len(lines) == limit else None
    return History(tuple(found), cut or ("shallow" if repository.shallow else None))


class _Reader:
    """What each commit makes of the prompt: a digest, a problem, or nothing."""

    def __init__(self, objects: Objects, prefix: bytes, folder: str) -> None:
        self._objects = objects
        self._path = prefix + os.fsencode(folder)
        self._label = folder
        self._states: dict[str, _State] = {}
        self._folders: dict[str, _State] = {}

    def state(self, commit_id: str) -> _State:
        if commit_id not in self._states:
            commit = self._objects.find(commit_id)
            if commit is None:
                raise Missing
            self._states[commit_id] = self._of(commit)
        return self._states[commit_id]

    def _of(self, commit: Object) -> _State:
        folder = self._objects.walk(self._objects.tree_of(commit), self._path)
        key = f"{folder.mode:o} {folder.id}" if folder else ""
        if key not in self._folders:
            try:
                written = written_at(self._objects, commit, self._path, f"{commit.id[:10]}:{self._label}")
                self._folders[key] = _State(digest(written.artifact) if written else None, None)
            except InvalidFile as error:
                self._folders[key] = _State(None, str(error.problems[0]))
        return self._folders[key]


@dataclass(frozen=True, slots=True)
class _State:
    digest: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class _Line:
    id: str
    parents: tuple[str, ...]
    author: str
    second: int
    subject: str

    def changes(self, reader: _Reader) -> bool:
        before = [reader.state(parent) for parent in self.parents] or [_State(None, None)]
        return reader.state(self.id) not in before

    def commit(self, reader: _Reader) -> Commit:
        state = reader.state(self.id)
        at = iso_utc(min(max(self.second, 0), _LAST_SECOND) * 10**9)
        return Commit(self.id, self.author, at, self.subject, state.digest, state.problem)


def _log(repository: Repository, path: str, limit: int) -> list[_Line]:
    options = ("-z", "--parents", "--no-follow", "--no-show-signature", "--no-color", "--no-notes", "--no-decorate")
    try:
        answer = repository.git.run(
            "log", *options, "--encoding=UTF-8", _FORMAT, f"--max-count={limit}", "--end-of-options", "HEAD", "--", path
        )
    except Failed:  # a repository without a commit
        return []
    fields = answer.decode("utf-8", "replace").split("\0")[:-1]
    rows = [fields[at : at + _FIELDS] for at in range(0, len(fields), _FIELDS)]
    try:
        return [
            _Line(id_, tuple(parents.split()), author, int(at), subject) for id_, parents, author, at, subject in rows
        ]
    except ValueError as error:
        raise Unusable("git's log can not be read: its history is damaged (`git fsck` says more).") from error
