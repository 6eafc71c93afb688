"""
Calls of a project whose providers are, some of them, simulated: who needs one starts it.

A command that makes calls in this process runs its own for as long as it takes, on a free port, unless one listens at
the provider's `base_url` already. `serve` starts one there beside its processes.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tidegate import compose
from tidegate.config import Config, Project, Provider
from tidegate.ports import Caller
from tidegate.prompts.registry import Registry

if TYPE_CHECKING:
    from tidegate.prompts.remote import RemoteRegistry
    from tidegate.simulate.server import Simulator

CONNECT_S = 1.0


@asynccontextmanager
async def caller(project: Project, registry: Registry | RemoteRegistry) -> AsyncIterator[Caller]:
    """As compose.caller, with the simulated providers that the project asks for."""
    async with started(project) as there, compose.caller(there, registry) as made:
        yield made


@asynccontextmanager
async def started(project: Project) -> AsyncIterator[Project]:
    """The project with the simulated providers that it asks for, as long as the block lasts."""
    missing = {} if project.server is not None else unstarted(project.config)
    if not missing:
        yield project
        return
    from tidegate.simulate.server import Simulator

    async with Simulator(seed=7) as simulator:
        providers = {
            name: provider.model_copy(update={"base_url": _base(provider, simulator)}) if name in missing else provider
            for name, provider in project.config.providers.items()
        }
        config = project.config.model_copy(update={"providers": providers})
        yield Project(project.root, config, project.file)


def _base(provider: Provider, simulator: Simulator) -> str:
    """Anthropic's clients want it bare, all others with `/v1`."""
    return simulator.origin if provider.dialect == "anthropic" else simulator.url


def unstarted(config: Config) -> dict[str, int]:
    """Simulated provider → its port, where nothing listens yet."""
    wanted = {name: urlsplit(provider.url).port or 80 for name, provider in _simulated(config)}
    return {name: port for name, port in wanted.items() if not _listens(port)}


def commands(config: Config) -> Mapping[str, Sequence[str]]:
    """The processes that `serve` starts for them: name → command line. One serves all providers on its port."""
    ports = dict.fromkeys(unstarted(config).values())
    base = [sys.executable, "-m", "tidegate.simulate", "--stdin-is-lifeline", "--port"]
    return {f"simulated provider on {port}": [*base, str(port)] for port in ports}


def _simulated(config: Config) -> list[tuple[str, Provider]]:
    return [(name, provider) for name, provider in config.providers.items() if provider.simulated]


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), CONNECT_S):
            return True
    except OSError:
        return False
