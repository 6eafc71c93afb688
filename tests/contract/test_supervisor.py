"""Three processes under one parent: restarts, refusals, and nobody left behind. Real processes."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tidegate import supervisor
from tidegate.core.errors import BadInput, Unusable
from tidegate.gateway.claim import running_gateway
from tidegate.supervisor import Child, Supervisor

LIVES = "import sys; sys.stdin.read()"
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); sys.stdin.read()"

DEAF = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.stdin.read()"

LISTENS = """
import asyncio, sys
from pathlib import Path
from tidegate.gateway.claim import Claim

async def serve(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    if sys.argv[2] == "answers":
        writer.write(b"HTTP/1.1 503 X\\r\\ncontent-length: 0\\r\\n\\r\\n")
        writer.close()

async def main():
    claim = Claim(Path(sys.argv[1]))
    claim.take()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    claim.publish("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1])
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
"""What holds a folder as its gateway, and answers when it is asked whether it lives, or does not."""


def python(code: str) -> Sequence[str]:
    return [sys.executable, "-c", code]


async def until(true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():  # noqa: ASYNC110 - it waits for a process, which sets no event
            await asyncio.sleep(0.01)


async def started(child: Child) -> int:
    await until(lambda: child.pid is not None)
    assert child.pid is not None
    return child.pid


async def test_a_killed_child_is_started_again_and_the_others_stay() -> None:
    said: list[str] = []
    parent = Supervisor({"a": python(LIVES), "b": python(LIVES)}, say=said.append)
    running = asyncio.create_task(parent.run())
    first, other = await started(parent.children["a"]), await started(parent.children["b"])
    os.kill(first, signal.SIGKILL)
    await until(lambda: parent.children["a"].pid not in (None, first))
    assert parent.children["b"].pid == other
    assert said == ["the a was killed by SIGKILL and is started again"]
    parent.stop()
    await running


@pytest.mark.parametrize(("code", "error"), [(4, BadInput), (3, Unusable), (1, Unusable)])
async def test_a_child_that_can_not_start_ends_everything(code: int, error: type[Exception]) -> None:
    parent = Supervisor({"good": python(LIVES), "bad": python(f"raise SystemExit({code})")}, say=print)
    with pytest.raises(error, match="the bad could not start"):
        await parent.run()
    good = parent.children["good"].process
    assert good is not None
    assert good.returncode is not None


async def test_stop_asks_first() -> None:
    parent = Supervisor({"a": python(STUBBORN)}, say=print)
    running = asyncio.create_task(parent.run())
    await started(parent.children["a"])
    await asyncio.sleep(0.3)  # until its handler stands
    parent.stop()
    await asyncio.wait_for(running, 10)
    process = parent.children["a"].process
    assert process is not None
    assert process.returncode == 0


async def test_who_insists_need_not_wait_for_calls_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same signal twice at once, as from a terminal and a program that passes it on, is no insisting."""
    monkeypatch.setattr(supervisor, "INSIST_S", 0.2)
    parent = Supervisor({"a": python(DEAF)}, say=print)
    running = asyncio.create_task(parent.run())
    await started(parent.children["a"])
    process = parent.children["a"].process
    assert process is not None
    await asyncio.sleep(0.5)  # until it is deaf
    parent.stop()
    parent.stop()
    await asyncio.sleep(0.3)
    assert process.returncode is None
    parent.stop()
    await asyncio.wait_for(running, 5)
    assert process.returncode == -signal.SIGKILL


async def test_a_child_that_can_not_be_started_again_is_tried_until_it_can(tmp_path: Path) -> None:
    """Where there is no memory for another process, the others must go on."""
    said: list[str] = []
    program = tmp_path / "program"
    program.symlink_to(sys.executable)
    parent = Supervisor({"a": [str(program), "-c", LIVES], "b": python(LIVES)}, say=said.append)
    running = asyncio.create_task(parent.run())
    first, other = await started(parent.children["a"]), await started(parent.children["b"])
    program.unlink()
    os.kill(first, signal.SIGKILL)
    await until(lambda: len(said) > 1)
    program.symlink_to(sys.executable)
    await until(lambda: parent.children["a"].pid not in (None, first))
    assert said[1] == "the a can not be started (No such file or directory), which is tried again"
    assert parent.children["b"].pid == other
    parent.stop()
    await running


async def test_a_child_that_can_not_even_be_started_is_said_in_one_sentence() -> None:
    with pytest.raises(Unusable, match=r"^the a can not be started \(No such file or directory\)\.$"):
        await Supervisor({"a": ["/nowhere/program"]}, say=print).run()


@pytest.mark.parametrize(("does", "killed"), [("answers", False), ("hangs", True)])
async def test_a_gateway_that_says_nothing_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, killed: bool
) -> None:
    """A template, a pattern or a bug may hold its loop for ever; that it has too much to do is an answer."""
    for name, seconds in {"LOOK_S": 0.05, "WORD_S": 0.2, "SILENT_S": 0.6}.items():
        monkeypatch.setattr(supervisor, name, seconds)
    said: list[str] = []
    lock = tmp_path / "gateway.lock"
    parent = Supervisor({"gateway": [*python(LISTENS), str(lock), does]}, say=said.append)
    running = asyncio.create_task(parent.run())
    watching = asyncio.create_task(supervisor.watch(parent, lock, say=said.append))
    first = await started(parent.children["gateway"])
    await until(lambda: running_gateway(lock) is not None)
    if killed:
        await until(lambda: parent.children["gateway"].pid != first)
        assert said[:2] == [
            "the gateway has not answered for 1 s",
            "the gateway was killed by SIGKILL and is started again",
        ]
    else:
        await asyncio.sleep(1.5)
        assert (parent.children["gateway"].pid, said) == (first, [])
    watching.cancel()
    parent.stop()
    await running
