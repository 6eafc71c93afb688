"""Imports point one way, and no two modules need each other: also not through an import inside a function."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

from tests.repo.tree import ROOT

LINT = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--config"]


def cycle(imports: Mapping[str, set[str]]) -> list[str]:
    """One cycle of modules, the first of them repeated at the end; empty when there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_layers_hold() -> None:
    done = subprocess.run([*LINT, "pyproject.toml"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_upward_import_breaks_the_layers(tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    for name, body in {"__init__": "", "top": "", "bottom": "def late():\n    import pkg.top\n"}.items():
        (package / f"{name}.py").write_text(body)
    contract = "name = 'x'\ntype = 'layers'\nlayers = ['pkg.top', 'pkg.bottom']\n"
    config = tmp_path / "layers.toml"
    config.write_text(f"[tool.importlinter]\nroot_package = 'pkg'\n[[tool.importlinter.contracts]]\n{contract}")
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*LINT, str(config)], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "pkg.bottom -> pkg.top" in done.stdout


def test_no_module_needs_itself() -> None:
    graph = grimp.build_graph("tidegate", cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert cycle(imports) == []


@pytest.mark.parametrize(
    ("imports", "found"),
    [({"a": {"b"}, "b": set()}, 0), ({"a": {"b"}, "b": {"a"}}, 3), ({"a": {"b"}, "b": {"c"}, "c": {"a"}}, 4)],
)
def test_a_cycle_is_found(imports: dict[str, set[str]], found: int) -> None:
    assert len(cycle(imports)) == found
