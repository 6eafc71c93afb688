"""
What a selector means: one version of a prompt, wherever it is kept.

    v3          the registry's number
    3f9a2c1d    a digest, or its first 6 and more hex digits
    production  an environment
    worktree    the files as they are now
    origin/main a git ref, tag or commit: read from git's objects, without a checkout

The first of them that fits wins, in this order; `git:NAME` always means the git ref.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tidegate.core import split
from tidegate.core.artifact import Artifact, digest, short
from tidegate.core.errors import BadInput, InvalidFile, NotFound, Problem, Unusable, nearest
from tidegate.core.ledger import Pointer
from tidegate.core.selector import is_digest, is_number
from tidegate.ports import PromptRegistry
from tidegate.prompts.files import FILE, Written, check_name, load_prompt, place, read_prompt
from tidegate.prompts.git import Failed, Repository, check_ref, find_repository
from tidegate.prompts.objects import FOLDER, Missing, Object, Objects, TreeFolder, unfollowed

WORKTREE = "worktree"
GIT = "git:"
_DEFAULT_BRANCHES = ("refs/remotes/origin/main", "refs/remotes/origin/master", "refs/heads/main", "refs/heads/master")
_REFS_LISTED = 500


Kind = Literal["version", "digest", "environment", "worktree", "git"]


@dataclass(frozen=True, slots=True)
class Side:
    """One version of a prompt: its content, and how it was found."""

    kind: Kind
    label: str
    """What people call it: `v3`, `production`, `working tree`, `origin/main`."""
    artifact: Artifact
    digest: str
    version: int | None
    """The registry's number for its digest, when it has one."""
    commit: str | None = None
    """The commit a git ref names."""
    description: str = ""
    file_sha256: str = ""
    pointer: Pointer | None = None
    """Of an environment."""

    @property
    def shown(self) -> str:
        """`v3 (3f9a2c1d04be)`, `production, v3 (3f9a2c1d04be)`, `origin/main at 1a2b3c4d5e (3f9a2c1d04be)`."""
        if self.pointer and self.pointer.split:
            return f"{self.label}, v{self.version} ({short(self.digest)}) of {split.shown(self.pointer)}"
        number = "" if self.version is None or self.label == f"v{self.version}" else f", v{self.version}"
        return f"{self.origin}{number} ({short(self.digest)})"

    @property
    def origin(self) -> str:
        """`production`, `origin/main at 1a2b3c4d5e`."""
        at = f" at {self.commit[:10]}" if self.commit and self.commit[:7] not in self.label else ""
        return f"{self.label}{at}"


class Sides:
    """Finds sides of one project's prompts. Blocking."""

    def __init__(self, registry: PromptRegistry | None, prompts: Path, *, environments: Collection[str] = ()) -> None:
        """
        Args:
            registry: None where nothing was ever registered.
            prompts: the folder of all prompts.
            environments: names that mean an environment even when nothing was deployed to it.
        """
        self._registry = registry
        self._prompts = prompts
        self._environments = frozenset(environments)

    def find(self, name: str, selector: str) -> Side:
        """
        The side that a selector means.

        Raises: NotFound with the nearest names, BadInput for what can be no selector, InvalidFile with the problems of
            files in the working tree or at the git ref, Unusable when git can not answer.
        """
        check_name(name)
        kind = self._kind(name, selector)
        if kind == "worktree":
            return self._worktree(name)
        if kind != "git":
            return self._registered(name, selector, kind)
        found = self.at(name, selector)
        if found is None:
            ref = selector.removeprefix(GIT)
            raise NotFound(f"{ref} holds no prompt {name!r}: there is no {place(self._prompts, name)}/{FILE} in it.")
        return found

    def is_git(self, name: str, selector: str) -> bool:
        """Whether `find` would take it for a git ref."""
        return self._kind(name, selector) == "git"

    def at(self, name: str, ref: str) -> Side | None:
        """A prompt at a git ref; None when the commit does not hold it. Raises as `find`."""
        ref = ref.removeprefix(GIT)
        check_ref(ref)
        repository = self._repository()
        if repository is None:
            raise NotFound(f"{self._prompts.parent} is not in a git work tree, so there is no git ref {ref!r}.")
        with Objects(repository.git) as objects:
            return self._read(objects, repository, name, ref, ref)

    def fork(self, name: str) -> tuple[Side | None, str]:
        """
        A prompt where this branch left the default branch, and where that is; None, and why there is none.

        What the working tree holds unchanged is no baseline for itself.
        """
        try:
            return self._fork(name)
        except (BadInput, InvalidFile, Unusable) as error:
            return None, f"nothing is live, and git can not say what was before: {error}"

    def _fork(self, name: str) -> tuple[Side | None, str]:
        repository = self._repository()
        if repository is None:
            return None, "nothing is live, and the project is not in a git work tree"
        with Objects(repository.git) as objects:
            default = self._default_branch(repository, objects)
            if default is None:
                return None, "nothing is live, and git has no branch origin/HEAD, main or master"
            branch, tip = default
            try:
                base = repository.git.run("merge-base", "--end-of-options", "HEAD", tip).decode().strip()
            except Failed:
                more = "; this clone is shallow: `git fetch --unshallow`" if repository.shallow else ""
                return None, f"nothing is live, and this branch has no common commit with {branch}{more}"
            found = self._read(objects, repository, name, base, f"{branch}@{base[:10]}")
        if found is None:
            return None, f"nothing is live, and {branch} does not hold this prompt yet"
        if found.digest == digest(load_prompt(self._prompts, name).artifact):
            return None, f"nothing is live, and the prompt is the one of {branch}"
        return found, f"nothing is live, so the baseline is where this branch left {branch}"

    def _kind(self, name: str, selector: str) -> Kind:
        if selector.startswith(GIT):
            return "git"
        if is_number(selector):
            return "version"
        if is_digest(selector) and self._has_digest(name, selector):
            return "digest"
        if selector in self._known_environments():
            return "environment"
        if selector == WORKTREE:
            return "worktree"
        return "environment" if self._repository() is None else "git"

    def _registered(self, name: str, selector: str, kind: Kind) -> Side:
        if self._registry is None:
            raise NotFound(f"nothing of {name} is registered yet, so there is no {selector!r}.{self._also(selector)}")
        try:
            version = self._registry.resolve(name, selector)
        except NotFound as error:
            raise NotFound(f"{error}{self._also(selector)}") from error
        artifact = self._registry.artifact(version.digest)
        label = version.name if kind == "digest" else selector
        return Side(
            kind,
            label,
            artifact,
            version.digest,
            version.number,
            description=version.description,
            file_sha256=version.file_sha256,
            pointer=next((one for one in self._registry.pointers(name) if one.environment == selector), None),
        )

    def _worktree(self, name: str) -> Side:
        written = load_prompt(self._prompts, name)
        key = digest(written.artifact)
        return Side(
            "worktree",
            "working tree",
            written.artifact,
            key,
            self._number(name, key),
            description=written.description,
            file_sha256=written.file_sha256,
        )

    def _read(self, objects: Objects, repository: Repository, name: str, ref: str, label: str) -> Side | None:
        try:
            commit = objects.find(f"{ref}^{{commit}}")
            if commit is None:
                raise self._unknown(repository, ref)
            written = written_at(objects, commit, self._path(repository, name), f"{label}:{place(self._prompts, name)}")
        except Missing as error:
            raise Unusable(
                f"this clone does not hold the files of {ref}: it was cloned with a filter, and tidegate fetches"
                f" nothing. `git archive {shlex.quote(ref)} > /dev/null` fetches them."
            ) from error
        if written is None:
            return None
        key = digest(written.artifact)
        return Side(
            "git",
            label,
            written.artifact,
            key,
            self._number(name, key),
            commit=commit.id,
            description=written.description,
            file_sha256=written.file_sha256,
        )

    def _path(self, repository: Repository, name: str) -> bytes:
        return repository.prefix + os.fsencode(place(self._prompts, name))

    def _unknown(self, repository: Repository, ref: str) -> NotFound:
        remote, slash, branch = ref.partition("/")
        fetch = f"git fetch {remote} {branch}:refs/remotes/{ref}" if slash else f"git fetch origin {ref}"
        plain = re.fullmatch(r"[\w./+-]+", ref) is not None
        if repository.shallow:
            get = f"`{fetch.replace('fetch', 'fetch --depth=1', 1)}` gets it, " if plain else ""
            return NotFound(
                f"git knows no commit {ref!r}, and this clone is shallow: its history was cut off when it was cloned."
                f" {get}`git fetch --unshallow` gets all of it.".replace("  ", " ")
            )
        names = repository.git.run("for-each-ref", f"--count={_REFS_LISTED}", "--format=%(refname:short)")
        known = [*names.decode("utf-8", "replace").split(), *self._known_environments(), WORKTREE]
        get = f" If it is on the server: `{fetch}`." if plain and slash else ""
        return NotFound(
            f"{ref!r} is no version, digest or environment, and git knows no such commit.{nearest(ref, known)}{get}"
        )

    def _default_branch(self, repository: Repository, objects: Objects) -> tuple[str, str] | None:
        """Its name for people, and its tip's commit."""
        try:
            head = repository.git.run("symbolic-ref", "--quiet", "refs/remotes/origin/HEAD").decode().strip()
        except Failed:
            head = ""
        for ref in (head, *_DEFAULT_BRANCHES):
            found = objects.find(f"{ref}^{{commit}}") if ref else None
            if found is not None:
                return ref.removeprefix("refs/remotes/").removeprefix("refs/heads/"), found.id
        return None

    def _repository(self) -> Repository | None:
        return find_repository(self._prompts.parent)

    def _known_environments(self) -> set[str]:
        live = self._registry.pointers() if self._registry else []
        return {*self._environments, *(pointer.environment for pointer in live)}

    def _has_digest(self, name: str, prefix: str) -> bool:
        return self._registry is not None and any(
            version.digest.startswith(prefix) for version in self._registry.versions(name)
        )

    def _number(self, name: str, key: str) -> int | None:
        versions = self._registry.versions(name) if self._registry else []
        return next((version.number for version in versions if version.digest == key), None)

    def _also(self, selector: str) -> str:
        return f" For a git ref of that name write {GIT}{selector}." if self._repository() else ""


def written_at(objects: Objects, commit: Object, path: bytes, label: str) -> Written | None:
    """
    The prompt in the folder `path` of a commit; None when there is no prompt.

    Raises: InvalidFile, its problems named under `label`; Missing.
    """
    tree = objects.tree_of(commit)
    entry = objects.walk(tree, path)
    if entry is None:
        return None
    if complaint := unfollowed(entry, os.fsdecode(path)):
        raise InvalidFile([Problem(label, 0, "", complaint)])
    if entry.mode != FOLDER or FILE.encode() not in objects.tree(entry.id):
        return None
    return read_prompt(TreeFolder(objects, entry.id, label))
