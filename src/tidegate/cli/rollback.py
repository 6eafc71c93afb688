"""`tidegate rollback`: point an environment back at its last good version."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import out, print_json, who
from tidegate.config import Project
from tidegate.core.artifact import short
from tidegate.core.ledger import Deployment


def rollback_(
    name: str,
    /,
    *,
    env: Annotated[str, Parameter(name=["--env", "-e"])] = "production",
    to: str | None = None,
    reason: str = "",
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Point an environment back at the last version that was live there and was not itself rolled back.

    Needs no gate and no checkout: the version is stored whole. Running gateways follow within a second.

    Example: `tidegate rollback support/answer --reason "chats before its JSON"`

    Parameters
    ----------
    name
        The prompt.
    env
        The environment to move.
    to
        An earlier version, such as `v1`, instead of the last good one.
    reason
        Why, for the ledger.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print the deployment as JSON.
    """
    move = rollback(compose.project(config), name, env, to=to, reason=reason, quiet=json)
    if json:
        print_json(move)


def rollback(
    project: Project,
    name: str,
    environment: str = "production",
    *,
    to: str | None = None,
    reason: str = "",
    quiet: bool = False,
) -> Deployment:
    """Rolls back, and says so unless `quiet`. Raises NotFound, Refused, BadInput."""
    with closing(compose.registry(project)) as registry:
        move = registry.rollback(name, environment, who=who(), reason=reason, to=to)
    if not quiet:
        out.print(
            Text.assemble(
                (name, "bold"),
                f" · {environment} · v{move.from_version} → ",
                (f"v{move.to_version}", "bold green"),
                f" ({short(move.to_digest)})",
            )
        )
        stays = f"v{move.from_version} stays out of {environment}: deploying it again needs --force and a reason."
        out.print(Text(stays, "dim"))
    return move
