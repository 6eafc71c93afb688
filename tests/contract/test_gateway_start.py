"""What a gateway has done by the time it takes its first call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

START = """
import asyncio, sys
from pathlib import Path
from tidegate import compose
from tidegate.config import load
from tidegate.prompts.snapshot_file import SnapshotFile

async def main():
    project = load(Path(sys.argv[1]))
    snapshot = SnapshotFile(project.snapshot, "default")
    async with compose.services(project, compose.own_registry(project), internal_key="k" * 40, snapshot=snapshot):
        print("genai_prices.data" in sys.modules)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("provider", "loaded"),
    [("{dialect: openai, api_key: sk-x}", "True"), ('{dialect: openai, base_url: "http://127.0.0.1:9/v1"}', "False")],
    ids=["one that the catalogue prices", "one that it does not"],
)
def test_the_price_catalogue_is_loaded_before_the_first_call(tmp_path: Path, provider: str, loaded: str) -> None:
    """Loading it takes 0.4 s of the loop; no call waits for that, and who does not need it does not load it."""
    file = tmp_path / "tidegate.yaml"
    file.write_text(f"providers:\n  mine: {provider}\n")
    script = [sys.executable, "-W", "ignore", "-c", START, str(file)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, loaded), done.stderr
