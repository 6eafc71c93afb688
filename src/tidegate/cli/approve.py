"""`tidegate approve`: a second person's yes to a version."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import out, print_json, visible, who
from tidegate.config import Project
from tidegate.core.artifact import digest, short
from tidegate.core.ledger import Approval


def approve_(
    name: str,
    /,
    *,
    version: str | None = None,
    env: Annotated[str, Parameter(name=["--env", "-e"])] = "production",
    reason: str = "",
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Say yes to a version as the second person, in an environment that asks for one.

    `gate: {second_approver: [production]}` in tidegate.yaml asks for it. The version must have passed its gate;
    somebody else then deploys it. Your yes holds for this version under this suite and golden set only.

    Example: `tidegate approve support/answer --version v3 --reason "read the diff"`

    Parameters
    ----------
    name
        The prompt.
    version
        `v3` or the beginning of a digest; by default the working tree's prompt.
    env
        The environment it may then go to.
    reason
        What you looked at, for the record.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print the approval as JSON.
    """
    given = approve(compose.project(config), name, version, env, reason)
    if json:
        print_json(given)
        return
    line = Text.assemble((name, "bold"), f" · {env} · ", (f"v{given.version}", "bold green"))
    line.append(f" ({short(given.digest)}) approved by {visible(given.who)}")
    out.print(line)
    option = "" if env == "production" else f" --env {env}"
    out.print(Text(f"somebody else: tidegate deploy {name} --version v{given.version}{option}", "dim"))


def approve(
    project: Project, name: str, version: str | None = None, environment: str = "production", reason: str = ""
) -> Approval:
    """Approves a stored version, by default the working tree's. Raises Refused, NotFound, BadInput, InvalidFile."""
    from tidegate.evals.folder import measure
    from tidegate.prompts.files import check_name, load_prompt

    check_name(name)
    selector = version or digest(load_prompt(project.prompts, name).artifact)
    here = measure(project.prompts / name)
    with closing(compose.registry(project)) as registry:
        return registry.approve(name, selector, environment, who=who(), reason=reason, measure=here)
