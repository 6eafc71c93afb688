"""What `tidegate serve` says of where it listens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tidegate.cli.serve import _say_where
from tidegate.config import load
from tidegate.gateway.claim import Claim


async def test_addresses_are_said_once_they_are_this_projects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else listens on both ports all the time."""
    other = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    file = tmp_path / "tidegate.yaml"
    file.write_text(f"gateway: {{port: {port}}}\nconsole: {{port: {port}}}\n")
    project = load(file)
    claim = Claim(project.lock)
    async with other:
        saying = asyncio.create_task(_say_where(project))
        claim.take()
        await asyncio.sleep(0.15)
        assert capsys.readouterr().out == ""
        claim.publish(f"http://127.0.0.1:{port}")
        await asyncio.wait_for(saying, 5)
        claim.release()
    assert f"gateway  http://127.0.0.1:{port}/v1" in capsys.readouterr().out
