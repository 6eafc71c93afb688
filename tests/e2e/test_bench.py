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


def test_a_run_of_an_eval_costs_next_to_nothing_itself() -> None:
    """At most 1 ms of CPU a repeat, however many there are; and what is kept beside the answers is little."""
    command = [sys.executable, "-m", "bench.eval_runner", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["run"]["repeats"], result["run"]["resumed"], result["resume"]["resumed"]) == (6_000, 0, 6_000)
    assert 0 < result["run"]["cpu_ms_per_repeat"] < 1
    assert 0 < result["resume"]["cpu_ms_per_repeat"] < 1
    assert result["memory"]["bytes_per_repeat_beside_answer"] < 1_500
    assert result["memory"]["held_mib"] < 2 * result["memory"]["answers_mib"], "no answer is kept twice"
