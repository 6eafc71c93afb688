"""
How a process of ours learns that it is to end: by a signal, or by the end of standard input, which its parent holds.

A parent that dies, however it dies, takes its end of the pipe along.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

VARIABLE = "TIDEGATE_LIFELINE"
STDIN = "stdin"


def when_told(end: Callable[[], None]) -> None:
    """Calls `end` at each SIGTERM and SIGINT, and when standard input ends. Belongs to the running loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if os.environ.get(VARIABLE) == STDIN:

        def readable() -> None:
            if not os.read(0, 1024):
                loop.remove_reader(0)
                end()

        loop.add_reader(0, readable)


async def until_told_to_stop() -> None:
    """Returns when told for the first time."""
    told = asyncio.Event()
    when_told(told.set)
    await told.wait()
