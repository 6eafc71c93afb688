"""`tidegate log`: every move of a prompt: what changed, when, by whom, and why."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter, validators
from rich.padding import Padding
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import diff_text, moment, out, print_json, visible
from tidegate.config import Project
from tidegate.core.diff import ArtifactDiff, diff
from tidegate.core.ledger import Deployment
from tidegate.prompts.registry import Registry


class Move(msgspec.Struct, frozen=True):
    """A line of the ledger, and what it changed."""

    deployment: Deployment
    diff: ArtifactDiff | None
    """None for the first deployment to an environment: there was nothing before."""


def log_(
    name: str | None = None,
    /,
    *,
    diff: Annotated[bool, Parameter(name=["--diff", "-d"])] = False,
    limit: Annotated[int, Parameter(name=["--limit", "-n"], validator=validators.Number(gte=1))] = 20,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Show every move, newest first: what changed, when, by whom, why, and which gate run approved it.

    Example: `tidegate log support/answer --diff`

    Parameters
    ----------
    name
        One prompt; by default all of them.
    diff
        Show the whole field-by-field diff of each move.
    limit
        How many moves.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print the deployments as JSON, each with its `diff`.
    """
    project = compose.project(config)
    moves = log(project, name, limit)
    if json:
        print_json([{**msgspec.to_builtins(move.deployment), "diff": move.diff} for move in moves])
        return
    if not moves:
        of = f" of {name}" if name else ""
        out.print(Text(f"Nothing{of} was deployed yet. `tidegate deploy {name or 'NAME'}` writes the first line."))
    for move in moves:
        _print(move, project.config.timezone, whole=diff)


def log(project: Project, name: str | None = None, limit: int = 20) -> list[Move]:
    """The last moves, newest first. Raises NotFound for a prompt that nobody knows."""
    if not project.has_control:
        return []
    with closing(compose.registry(project)) as registry:
        if name is not None and name not in registry.prompts():
            registry.resolve(name, "production")  # says which names there are
        return [Move(move, _changes(registry, move)) for move in registry.log(name)[:limit]]


def _changes(registry: Registry, move: Deployment) -> ArtifactDiff | None:
    if move.from_version is None:
        return None
    before = registry.served(move.prompt, f"v{move.from_version}")
    return diff(before.artifact, registry.artifact(move.to_digest))


def _print(move: Move, timezone: str, *, whole: bool) -> None:
    deployment = move.deployment
    before = f"v{deployment.from_version} → " if deployment.from_version else ""
    head = Text.assemble(
        (moment(deployment.at, timezone), "dim"),
        f"  {deployment.prompt} · {deployment.environment} · {before}",
        (f"v{deployment.to_version}", "bold green" if deployment.action == "deploy" else "bold yellow"),
        f"  {deployment.action}",
    )
    if deployment.forced:
        head.append("  FORCED", "bold red")
    out.print(head)
    out.print(Padding(_about(deployment), (0, 0, 0, 4), expand=False), soft_wrap=False)
    if move.diff is not None:
        if whole:
            out.print(Padding(diff_text(move.diff.lines()), (0, 0, 0, 4), expand=False), soft_wrap=False)
        else:
            fields = [message.title for message in move.diff.messages] + [change.path for change in move.diff.changes]
            out.print(Padding(Text(f"changed: {', '.join(fields)}"), (0, 0, 0, 4), expand=False), soft_wrap=False)
    out.print()


def _about(deployment: Deployment) -> Text:
    text = Text(f"by {visible(deployment.who)}")
    if deployment.git_commit:
        text.append(f" at {deployment.git_commit[:10]}{' with uncommitted changes' if deployment.git_dirty else ''}")
    if deployment.run_id:
        text.append(f", approved by gate run {deployment.run_id}")
    if deployment.reason:
        text.append(f"\n“{visible(deployment.reason)}”", "italic")
    return text
