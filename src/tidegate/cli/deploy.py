"""`tidegate deploy`: point an environment at a version."""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import err, out, print_json, visible, who
from tidegate.config import Project
from tidegate.core.artifact import short
from tidegate.core.evaluation import GateReport
from tidegate.core.ledger import Deployment
from tidegate.core.split import parse_weight, percent, sides


class Deployed(msgspec.Struct, frozen=True):
    """What a deploy came to."""

    deployment: Deployment
    changed: bool
    """False when the version was live already: nothing was written."""


def deploy_(
    name: str,
    /,
    *,
    env: Annotated[str, Parameter(name=["--env", "-e"])] = "production",
    version: str | None = None,
    weight: str | None = None,
    gate: bool = False,
    force: bool = False,
    reason: str = "",
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Point an environment at a version; running gateways follow within a second.

    A protected environment takes only a version that passed `tidegate gate` under the suite and golden set
    that are in its folder now; some ask for a second person too (`tidegate approve`). What was rolled back
    stays out.

    With --gate it is gated first, and deployed only on PASS: one command for a CI job. Otherwise the exit code is
    the gate's, and nothing is moved.

    With --weight the version gets that share of the calls and what is live keeps the rest; each user or
    conversation stays on one side. Again with another weight moves the share, without one ends the split.

    Example: `tidegate deploy support/answer --env production --weight 10%`

    Parameters
    ----------
    name
        The prompt: its folder under prompts/.
    env
        The environment to move.
    version
        `v3` or the beginning of a digest; by default the working tree's prompt, registered if it is new.
    weight
        The share of the environment's calls it gets, such as `10%`; by default all of them.
    gate
        Run `tidegate gate` on it first.
    force
        Overrule the policy. Needs --reason, and the ledger shows it as forced.
    reason
        Why, for the ledger.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print the deployment as JSON; with --gate also the report, as `gate`.
    """
    share = None if weight is None else parse_weight(weight)
    project = compose.project(config)
    report = asyncio.run(_gated(project, name, version, quiet=json)) if gate else None
    if report is not None and report.verdict != "PASS":
        if json:
            print_json({"deployment": None, "changed": False, "gate": report})
        else:
            err.print(Text(f"{name} was not deployed: its gate says {report.verdict}.", "red"))
        sys.exit(report.exit_code)
    deployed = deploy(project, name, env, version=version, weight=share, force=force, reason=reason)
    if json:
        judged = {} if report is None else {"gate": report}
        print_json({**msgspec.to_builtins(deployed.deployment), "changed": deployed.changed, **judged})
    else:
        print_deployed(deployed)


async def _gated(project: Project, name: str, version: str | None, *, quiet: bool) -> GateReport:
    from tidegate.cli.gate import gate_prompts

    return (await gate_prompts(project, [name], version=version, quiet=quiet))[0]


def print_deployed(deployed: Deployed) -> None:
    """What happened, for people."""
    move = deployed.deployment
    name, env = move.prompt, move.environment
    if not deployed.changed:
        share = f" for {percent(move.weight)} of its calls" if move.weight is not None else ""
        out.print(Text(f"{name} v{move.to_version} ({short(move.to_digest)}) is live in {env} already{share}."))
        return
    before, after = sides(move)
    line = Text.assemble((name, "bold"), f" · {env} · {before}", (after, "bold green"))
    line.append(f" ({short(move.to_digest)})")
    if move.forced:
        line.append("  FORCED", "bold red")
    out.print(line)
    if move.run_id:
        second = f" and {visible(move.approved_by)}" if move.approved_by else ""
        out.print(Text(f"approved by gate run {move.run_id}{second}", "dim"))
    option = "" if env == "production" else f" --env {env}"
    if move.weight is not None:
        out.print(Text(f"all calls:  tidegate deploy {name} --version v{move.to_version}{option}", "dim"))
    if move.from_version:
        out.print(Text(f"back again: tidegate rollback {name}{option}", "dim"))


def deploy(
    project: Project,
    name: str,
    environment: str = "production",
    *,
    version: str | None = None,
    weight: float | None = None,
    force: bool = False,
    reason: str = "",
) -> Deployed:
    """Deploys a stored version, or the working tree's prompt. Raises InvalidFile, NotFound, Refused, BadInput."""
    from tidegate.evals.folder import measure
    from tidegate.prompts.files import check_name, load_prompt
    from tidegate.prompts.git import git_state

    check_name(name)
    prompt = load_prompt(project.prompts, name) if version is None else None
    git = git_state(prompt.folder) if prompt else None
    with closing(compose.registry(project)) as registry:
        here = measure(project.prompts / name, strict=environment in registry.policy.protects and not force)
        if prompt:
            registered = registry.register(
                name, prompt.artifact, description=prompt.description, file_sha256=prompt.file_sha256
            )
            version = registered.digest
        known = {move.id for move in registry.log(name)}
        move = registry.deploy(
            name,
            version or "",
            environment,
            who=who(),
            reason=reason,
            force=force,
            git_commit=git.commit if git else None,
            git_dirty=git.dirty if git else None,
            measure=here,
            weight=weight,
        )
    return Deployed(move, changed=move.id not in known)
