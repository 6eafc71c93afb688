"""A client that leaves: its provider is left at once, whatever the two speak and however far the call is."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.contract.bad_requests import WIRES
from tests.contract.test_records import CHAT_HALF, body, silent, stalls, url
from tests.contract.whole import Whole, whole

TIMES = 25
"""Of each of four dialects: a hundred in all."""
AT_ONCE = 0.25
PATIENT = {"first_byte_s": 60, "idle_s": 60, "total_s": 60}


async def _leave(here: Whole, request: bytes, *, first: bool, reset: bool) -> None:
    """Asks, waits for the provider or for the first of its answer, and goes, by FIN or by RST."""
    asked = len(here.asked)
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(request)
    if first:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(1)
    else:
        async with asyncio.timeout(2):
            while len(here.asked) == asked:  # noqa: ASYNC110  the provider does not tell
                await asyncio.sleep(0.001)
    if reset:
        writer.transport.abort()
    else:
        writer.close()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_provider_is_left_within_a_quarter_of_a_second(stream: bool) -> None:
    """p99 over a hundred calls, of all four clients' dialects, passed through and translated, by FIN and by RST."""
    took: list[float] = []
    routes = {"r": {"targets": ["oai/m"], "retries": 0, "timeouts": PATIENT}}
    async with whole(stalls(CHAT_HALF) if stream else silent, routes=routes) as here:
        for at in range(TIMES):
            for wire in WIRES:
                more = {"stream": True} if stream and wire.name != "gemini" else {}
                content = body(wire, "r", **more)
                path = url(wire, "r", stream=stream)
                head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(content)}\r\n\r\n".encode()
                here.gone.clear()
                await _leave(here, head + content, first=stream, reset=at % 2 == 0)
                began = time.monotonic()
                async with asyncio.timeout(2):
                    await here.gone.wait()
                took.append(time.monotonic() - began)
        await here.recorded(len(took))
        outcomes = {entry.call.outcome for entry in here.entries()}
        assert (len(here.entries()), outcomes) == (len(took), {"client_closed"})
    assert sorted(took)[int(len(took) * 0.99) - 1] <= AT_ONCE, sorted(took)[-5:]
