"""The measurements still run: a bench that broke unseen measures nothing when it is needed."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.repo.tree import ROOT


def test_the_registry_bench_runs_on_a_small_project() -> None:
    command = [sys.executable, "-m", "bench.registry", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["prompts"], result["files"]) == (20, 100)
    assert 0 < result["lint_s"] < 30
