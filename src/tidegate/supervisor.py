"""
`tidegate serve`: three processes under one parent. Each can die and come back without the others.

A child that dies is started again, with growing pauses while it keeps dying. Children hold the read end of a pipe from
their parent: when the parent dies, however it dies, the pipe ends and so do they.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tidegate.core.errors import BadInput, Unusable

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
STEADY_S = 10.0
"""A child that has lived this long starts with a short pause again."""
STOP_S = 35.0
HOPELESS = frozenset({1, 2, 3, 4})
"""Exit codes of errors that trying again does not mend (core/errors.py)."""


@dataclass
class Child:
    """One supervised process."""

    name: str
    command: Sequence[str]
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    ever_ready: bool = field(default=False)

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pid


class Supervisor:
    """Owns the children. `run` returns when told to stop, or raises when a child can not start at all."""

    def __init__(self, commands: dict[str, Sequence[str]], *, say: Callable[[str], None]) -> None:
        self.children = {name: Child(name, command) for name, command in commands.items()}
        self._say = say
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Asks every child to finish what it is doing."""
        self._stopping.set()

    async def run(self) -> None:
        """Keeps the children alive until `stop`. Raises BadInput or Unusable when one refuses to start."""
        keepers = [asyncio.create_task(self._keep(child)) for child in self.children.values()]
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([*keepers, stopped], return_when=asyncio.FIRST_COMPLETED)
            for keeper in keepers:
                if keeper.done():
                    keeper.result()
        finally:
            stopped.cancel()
            self._stopping.set()
            await asyncio.gather(*(self._end(child) for child in self.children.values()))
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, stopped, return_exceptions=True)

    async def _keep(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = loop.time()
            child.process = await asyncio.create_subprocess_exec(
                *child.command,
                stdin=asyncio.subprocess.PIPE,
                env={**os.environ, "TIDEGATE_LIFELINE": "stdin"},
            )
            code = await child.process.wait()
            if self._stopping.is_set():
                return
            if code in HOPELESS and child.restarts == 0:
                kind = BadInput if code == 4 else Unusable
                raise kind(f"the {child.name} could not start (its reason is above).")
            lived = loop.time() - began
            pause = FIRST_PAUSE_S if lived > STEADY_S else min(pause * 2, LONGEST_PAUSE_S)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            self._say(f"the {child.name} {how} and is started again")
            child.restarts += 1
            await asyncio.sleep(pause)

    async def _end(self, child: Child) -> None:
        process = child.process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def commands(config: str) -> dict[str, Sequence[str]]:
    """The command line of each process that serves the project of this tidegate.yaml."""
    base = [sys.executable, "-m", "tidegate", "serve", "--config", config, "--only"]
    return {name: [*base, name] for name in ("gateway", "recorder", "console")}
