"""Prompts that have files in this project and no version yet: they are no mistake, and their next step is a command."""

from __future__ import annotations

from collections.abc import Collection

from tidegate.config import Project
from tidegate.console.next_step import NextStep
from tidegate.core.errors import InvalidFile, NotFound, TidegateError, nearest
from tidegate.core.ledger import Version
from tidegate.prompts.files import PromptFile, list_prompts, load_prompt
from tidegate.prompts.registry import Registry

UNREGISTERED = "has files here and no version yet: its first gate, eval or deploy gives it one."


def unregistered(project: Project, registered: Collection[str]) -> list[str]:
    """Their names; none where the folder can not be listed."""
    try:
        return [name for name in list_prompts(project.prompts) if name not in registered]
    except TidegateError:
        return []


def file_of(project: Project, name: str) -> PromptFile | None:
    """The prompt as it stands on disk, None where there is none. Raises InvalidFile with all that is wrong with it."""
    try:
        return load_prompt(project.prompts, name)
    except InvalidFile:
        raise
    except TidegateError:
        return None


def versions_here(project: Project, registry: Registry, name: str) -> list[Version]:
    """A prompt's versions, newest first. Raises NotFound: with the next step where it is on disk, else the nearest."""
    versions = registry.versions(name)
    if versions:
        return versions
    known = registry.prompts()
    waiting = unregistered(project, known)
    if name in waiting:
        raise NotFound(f"{name} {UNREGISTERED} Run `{first_gate(name).command}`.")
    raise NotFound(f"There is no prompt named {name!r}.{nearest(name, [*known, *waiting])}")


def first_gate(name: str, *, has_suite: bool = True) -> NextStep:
    """How it gets its first version."""
    if has_suite:
        return NextStep("Run its gate:", f"tidegate gate {name}")
    return NextStep(
        "It has no eval.yaml, so no gate can pass it. Deploy it where none is asked for:",
        f"tidegate deploy {name} --env staging",
    )
