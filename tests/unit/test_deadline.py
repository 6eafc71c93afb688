"""The shared total deadline: it ends what is late, says whose doing it was, and rests when nothing runs."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.core.errors import UpstreamTimeout
from tidegate.gateway.deadline import TICK_S, Deadlines


async def test_a_block_that_is_late_ends_in_a_timeout_and_the_others_go_on() -> None:
    deadlines = Deadlines()

    async def other() -> str:
        with deadlines.within(60):
            await asyncio.sleep(3 * TICK_S)
        return "done"

    beside = asyncio.create_task(other())
    with pytest.raises(UpstreamTimeout, match="total_s") as caught, deadlines.within(0.01):
        await asyncio.sleep(60)
    assert caught.value.phase == "total"
    assert await beside == "done"
    assert len(deadlines) == 0


async def test_what_ends_in_time_is_not_watched_any_more() -> None:
    deadlines = Deadlines()
    with deadlines.within(0.01):
        assert len(deadlines) == 1
    await asyncio.sleep(3 * TICK_S)
    assert len(deadlines) == 0


async def test_its_own_error_comes_through() -> None:
    deadlines = Deadlines()
    with pytest.raises(ValueError, match="mine"), deadlines.within(60):
        raise ValueError("mine")
    assert len(deadlines) == 0


async def test_a_cancel_from_outside_stays_a_cancel() -> None:
    """The client left: that is not a call that was late."""
    deadlines = Deadlines()

    async def call() -> None:
        with deadlines.within(60):
            await asyncio.sleep(60)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel("the client has left")
    with pytest.raises(asyncio.CancelledError, match="the client has left"):
        await task
    assert len(deadlines) == 0


async def test_a_client_that_leaves_when_the_time_is_up_too_is_a_cancel() -> None:
    deadlines = Deadlines()

    async def call() -> None:
        with deadlines.within(0.01):
            try:
                await asyncio.sleep(60)
            finally:
                task.cancel("the client has left")

    task = asyncio.create_task(call())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_thousand_calls_share_one_timer() -> None:
    deadlines = Deadlines()

    async def call() -> None:
        with deadlines.within(0.02):
            await asyncio.sleep(60)

    results = await asyncio.gather(*(call() for _ in range(1_000)), return_exceptions=True)
    assert all(isinstance(result, UpstreamTimeout) for result in results)
    assert len(deadlines) == 0
