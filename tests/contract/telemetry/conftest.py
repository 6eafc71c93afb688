"""One project's telemetry folders for a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.telemetry.records import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)
