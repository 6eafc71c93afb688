"""What `tidegate serve` says of where it listens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tidegate.config import load
from tidegate.gateway.claim import Claim
from tidegate.supervisor import Plan, tell_where


async def test_addresses_are_said_once_they_are_this_projects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else listens on both ports all the time."""
    other = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    file = tmp_path / "tidegate.yaml"
    file.write_text("")
    claim = Claim(load(file).lock)
    url = f"http://127.0.0.1:{port}"
    plan = Plan({}, str(load(file).lock), url, url, ("127.0.0.1", port))
    async with other:
        saying = asyncio.create_task(tell_where(plan))
        claim.take()
        await asyncio.sleep(0.15)
        assert capsys.readouterr().out == ""
        claim.publish(url)
        await asyncio.wait_for(saying, 5)
        claim.release()
    assert capsys.readouterr().out.startswith(f"gateway  {url}/v1\nconsole  {url}/\n")
