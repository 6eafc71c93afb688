"""
`tidegate serve`: three processes under one parent. Each can die and come back without the others.

A child that dies is started again, with growing pauses while it keeps dying. Children hold the read end of a pipe from
their parent: when the parent dies, however it dies, the pipe ends and so do they. A gateway that is alive and has not
answered for a minute is ended, and so begins anew.

The parent is a program of its own, `python -m tidegate.supervisor`, in whose place `tidegate serve` puts itself: what
lives as long as the machine does, and never does anything, loads no more than it needs (24 MiB instead of 49).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from tidegate import lifeline
from tidegate.core.errors import BadInput, TidegateError, Unusable
from tidegate.gateway.claim import running_gateway

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
STEADY_S = 10.0
"""A child that has lived this long starts with a short pause again."""
STOP_S = 35.0
INSIST_S = 1.0
"""So long after the first, another signal means that somebody will not wait; before that, it is the same one twice."""
LOOK_S, WORD_S, SILENT_S = 5.0, 10.0, 60.0
"""How often a gateway is asked whether it lives, how long it may take to say so, and how long it may say nothing."""
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

    def __init__(self, commands: Mapping[str, Sequence[str]], *, say: Callable[[str], None]) -> None:
        self.children = {name: Child(name, command) for name, command in commands.items()}
        self._say = say
        self._stopping = asyncio.Event()
        self._told_at = 0.0

    def stop(self) -> None:
        """Asks every child to finish what it is doing; when told again, later, ends those that still do."""
        now = asyncio.get_running_loop().time()
        if not self._stopping.is_set():
            self._told_at = now
            self._stopping.set()
        elif now - self._told_at >= INSIST_S:
            for child in self.children.values():
                if child.process is not None and child.process.returncode is None:
                    child.process.kill()

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
            try:
                child.process = await asyncio.create_subprocess_exec(
                    *child.command,
                    stdin=asyncio.subprocess.PIPE,
                    env={**os.environ, lifeline.VARIABLE: lifeline.STDIN},
                )
            except OSError as error:  # no memory or no process left for it: the others go on
                how = f"can not be started ({error.strerror}), which is tried again"
                if child.restarts == 0:
                    raise Unusable(f"the {child.name} {how.partition(',')[0]}.") from error
            else:
                code = await child.process.wait()
                if self._stopping.is_set():
                    return
                if code in HOPELESS and child.restarts == 0:
                    kind = BadInput if code == 4 else Unusable
                    raise kind(f"the {child.name} could not start (its reason is above).")
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                how += " and is started again"
            lived = loop.time() - began
            pause = FIRST_PAUSE_S if lived > STEADY_S else min(pause * 2, LONGEST_PAUSE_S)
            self._say(f"the {child.name} {how}")
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


class Plan(msgspec.Struct, frozen=True):
    """All that the parent has to know of a project."""

    commands: dict[str, list[str]]
    lock: str
    """Of the folder's gateway."""
    gateway: str
    """`http://host:port`"""
    console: str
    console_at: tuple[str, int]


def become(plan: Plan) -> None:
    """Puts the parent in the place of this process: its id, its standard streams and who waits for it stay."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, [sys.executable, "-m", __name__, msgspec.json.encode(plan).decode()])  # noqa: S606


def main() -> None:
    """`python -m tidegate.supervisor PLAN`"""
    try:
        asyncio.run(_supervise(msgspec.json.decode(sys.argv[1], type=Plan)))
    except TidegateError as error:
        _say(f"tidegate: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before the loop ran
        sys.exit(130)


async def _supervise(plan: Plan) -> None:
    parent = Supervisor(plan.commands, say=_say)
    lifeline.when_told(parent.stop)
    beside = [asyncio.create_task(tell_where(plan)), asyncio.create_task(watch(parent, Path(plan.lock), say=_say))]
    try:
        await parent.run()
    finally:
        for task in beside:
            task.cancel()


async def watch(parent: Supervisor, lock: Path, *, say: Callable[[str], None]) -> None:
    """Kills the gateway when it has said nothing for SILENT_S, until cancelled: `run` starts it again."""
    loop = asyncio.get_running_loop()
    gateway = parent.children["gateway"]
    silent_since = None
    while True:
        await asyncio.sleep(LOOK_S)
        asked_at, address = loop.time(), running_gateway(lock)
        if address is None or address.pid != gateway.pid or not await _silent(address.url):
            silent_since = None
            continue
        silent_since = silent_since or asked_at
        if loop.time() - silent_since >= SILENT_S and gateway.process is not None:
            say(f"the gateway has not answered for {SILENT_S:.0f} s")
            gateway.process.kill()
            silent_since = None


async def _silent(url: str) -> bool:
    """Whether the question is taken and nothing is said; who refuses it is ending, beginning, or has enough to do."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(WORD_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                await reader.read(1)
            finally:
                writer.close()
    except TimeoutError:
        return True
    except OSError:
        return False
    return False


async def tell_where(plan: Plan) -> None:
    """Prints the addresses once both listen: what is printed can be opened, and is this project's."""
    while running_gateway(Path(plan.lock)) is None or not await _listens(*plan.console_at):  # noqa: ASYNC110 - of others
        await asyncio.sleep(0.05)
    print(f"gateway  {plan.gateway}/v1\nconsole  {plan.console}/\nCtrl-C ends all of it.", flush=True)  # noqa: T201


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def commands(config: str) -> dict[str, list[str]]:
    """The command line of each process that serves the project of this tidegate.yaml."""
    base = [sys.executable, "-m", "tidegate", "serve", "--config", config, "--only"]
    return {name: [*base, name] for name in ("gateway", "recorder", "console")}


if __name__ == "__main__":
    main()
