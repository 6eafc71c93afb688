"""`tidegate diff`: two versions of a prompt, field by field."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import out, print_json
from tidegate.config import Project

if TYPE_CHECKING:
    from tidegate.prompts.sides import Side


def diff_(
    name: str,
    a: str = "production",
    b: str = "worktree",
    /,
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Show what turns A into B, field by field: messages word by word, everything else as values before and after.

    A and B are each `v3`, the beginning of a digest, an environment, `worktree` or a git ref, whichever fits first;
    `git:NAME` is always a git ref. Git refs are read without a checkout.

    Example: `tidegate diff support/answer origin/main worktree`

    Parameters
    ----------
    name
        The prompt.
    a
        The older side.
    b
        The newer side; by default the working tree.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print `{name, a, b, diff: {messages, changes}}`.
    """
    from tidegate.cli.changes import changes_text
    from tidegate.core.diff import diff

    older, newer = sides(compose.project(config), name, a, b)
    changes = diff(older.artifact, newer.artifact)
    if json:
        print_json({"name": name, "a": _plain(a, older), "b": _plain(b, newer), "diff": changes})
        return
    out.print(Text(f"{name}: {older.shown} → {newer.shown}", "bold"))
    out.print(changes_text(changes, marks=out.color_system is None) if not changes.empty else Text("no difference"))


def sides(project: Project, name: str, a: str, b: str) -> tuple[Side, Side]:
    """Both sides. Raises as Sides.find."""
    from tidegate.prompts.sides import Sides

    with ExitStack() as stack:
        registry = stack.enter_context(closing(compose.registry(project))) if project.has_control else None
        protected = registry.policy.protects if registry else project.config.gate.protects
        found = Sides(registry, project.prompts, environments=protected)
        return found.find(name, a), found.find(name, b)


def _plain(selector: str, side: Side) -> dict[str, Any]:
    return {
        "selector": selector,
        "kind": side.kind,
        "version": side.version,
        "digest": side.digest,
        "commit": side.commit,
    }
