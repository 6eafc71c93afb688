"""`tidegate serve`: gateway, recorder and console of one project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tidegate import compose, supervisor
from tidegate.cli import simulated
from tidegate.config import Listen
from tidegate.gateway.claim import Claim


def serve_(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    only: Literal["gateway", "recorder", "console"] | None = None,
) -> None:
    """
    Serve this project: the gateway for calls, the console for people, the recorder between them.

    Each is a process of its own; one that dies is started again. Ctrl-C ends all three, after the calls under way;
    a second one, at once.

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
    supervisor.become(
        supervisor.Plan(
            {name: list(command) for name, command in processes.items()},
            str(project.lock),
            _url(project.config.gateway),
            _url(project.config.console),
            (project.config.console.host, project.config.console.port),
        )
    )


def _url(listen: Listen) -> str:
    return f"http://{listen.host}:{listen.port}"
