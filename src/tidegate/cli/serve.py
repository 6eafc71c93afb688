"""`tidegate serve`: gateway, recorder and console of one project."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tidegate import compose, supervisor
from tidegate.cli import simulated
from tidegate.cli.output import err, out
from tidegate.config import Listen, Project
from tidegate.gateway.claim import Claim, running_gateway


def serve_(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    only: Literal["gateway", "recorder", "console"] | None = None,
) -> None:
    """
    Serve this project: the gateway for calls, the console for people, the recorder between them.

    Each is a process of its own; one that dies is started again. Ctrl-C ends all three, after the calls under way.

    Example: `tidegate serve --config ./tidegate.yaml`

    Parameters
    ----------
    config
        The tidegate.yaml to serve; by default the nearest one upwards from here.
    only
        Run just this process, here, without the others: for containers.
    """
    project = compose.own_project(config)
    if only is not None:
        compose.run_process(only, project)
        return
    claim = Claim(project.lock)
    claim.take()  # says why it can not be served here once, and before anything is promised
    claim.release()
    processes = {**simulated.commands(project.config), **supervisor.commands(str(project.file))}
    parent = supervisor.Supervisor(processes, say=err.print)
    asyncio.run(_supervise(parent, project))


async def _supervise(parent: supervisor.Supervisor, project: Project) -> None:
    async def stop_when_told() -> None:
        await compose.until_told_to_stop()
        parent.stop()

    beside = [asyncio.create_task(stop_when_told()), asyncio.create_task(_say_where(project))]
    try:
        await parent.run()
    finally:
        for task in beside:
            task.cancel()


async def _say_where(project: Project) -> None:
    """Prints the addresses once both listen: what is printed can be opened, and is this project's."""
    config = project.config
    while running_gateway(project.lock) is None or not await _listens(config.console):  # noqa: ASYNC110 - of others
        await asyncio.sleep(0.05)
    out.print(f"gateway  http://{config.gateway.host}:{config.gateway.port}/v1")
    out.print(f"console  http://{config.console.host}:{config.console.port}/")
    out.print("[dim]Ctrl-C ends all of it.[/dim]")


async def _listens(listen: Listen) -> bool:
    try:
        _, writer = await asyncio.open_connection(listen.host, listen.port)
    except OSError:
        return False
    writer.close()
    return True
