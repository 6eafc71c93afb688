"""The wheel holds the package, all of it, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.repo.tree import ROOT, SOURCE, tracked

ALLOWED = re.compile(
    r"tidegate/(?:[\w-]+/)*[\w.-]+\.(?:py|html|css|js|json|svg|sql|mako|ini|woff2|ico|jinja|py\.typed)"
    r"|tidegate/py\.typed"
    r"|tidegate/examples/[\w-]+/(?:prompts/[\w/-]+\.\w[\w.]*|README\.md|tidegate\.yaml|\.gitignore|\.github/workflows/\w+\.yml)"
    r"|tidegate-[^/]+\.dist-info/(?:METADATA|WHEEL|RECORD|entry_points\.txt|licenses/LICENSE)"
)


def unexpected(names: Iterable[str]) -> list[str]:
    """What has no business in the wheel: start-up hooks (.pth), tests, caches, state."""
    return [name for name in names if not ALLOWED.fullmatch(name) or "__pycache__" in name]


def missing(names: Iterable[str], source: Iterable[Path]) -> list[str]:
    """Files of the package that the wheel forgot: a template or a migration, say."""
    packed = set(names)
    return [name for path in source if (name := path.relative_to(SOURCE.parent).as_posix()) not in packed]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel built from this tree, without the network."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed: the wheel can not be built")
    folder = tmp_path_factory.mktemp("wheel")
    command = [uv, "build", "--wheel", "--offline", "--no-config", "--out-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "network was disabled" in done.stderr:
        pytest.skip("the build backend is not in uv's cache: the wheel can not be built offline")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


def test_the_wheel_holds_nothing_unexpected(wheel: list[str]) -> None:
    assert unexpected(wheel) == []


def test_the_wheel_holds_the_whole_package(wheel: list[str]) -> None:
    assert missing(wheel, [path for path in tracked() if SOURCE in path.parents]) == []


def test_the_checks_can_fail() -> None:
    good = ["tidegate/__init__.py", "tidegate/py.typed", "tidegate/console/static/app.css"]
    bad = ["tidegate.pth", "tests/conftest.py", "tidegate/.env", "tidegate/control.db", "tidegate/__pycache__/a.py"]
    assert unexpected([*good, *bad]) == bad
    assert missing(good, [SOURCE / "__init__.py", SOURCE / "console" / "page.html"]) == ["tidegate/console/page.html"]
