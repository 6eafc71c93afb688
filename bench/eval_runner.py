"""
What the runner itself costs: `uv run python -m bench.eval_runner [--cases 10000] [--quick]`.

10,000 cases, three times each, against a model that answers at once and in this process, with a journal on disk, three
checks and 1 KiB of answer. CPU is of this process, journal's writes included; memory is what is in use beside the
answers themselves once the run is over, and at most while it runs. `resume` is the same run again, with every answer in
its journal. Writes results/eval-runner.json.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from bench.machine import RESULTS, describe
from tidegate.core.evaluation import Run
from tidegate.core.ledger import Version
from tidegate.evals.budget import Budget
from tidegate.evals.golden import load_golden
from tidegate.evals.journal import Journals, RunKey
from tidegate.evals.runner import run_suite
from tidegate.evals.suite import load_suite
from tidegate.ports import PromptAnswer, PromptCall
from tidegate.system import SystemClock

SUITE = """
checks: [is-json, {contains: "{{ expected.word }}"}, {output-tokens: {max: 400}}]
repeats: 3
concurrency: 16
gate: {max_cost_usd: 1000}
"""
ANSWER_CHARS = 1_000


class AtOnce:
    """Implements ports.Caller: every answer is a new text of about 1 KiB."""

    async def call(self, call: PromptCall) -> PromptAnswer:
        text = json.dumps({"answer": f"{call.tags['case']} {call.tags['repeat']} " + "word " * (ANSWER_CHARS // 5)})
        return PromptAnswer(
            text,
            call_id=f"call-{call.tags['case']}-{call.tags['repeat']}",
            cost_nano_usd=1_000,
            latency_s=0.1,
            input_tokens=200,
            output_tokens=200,
        )


def project(folder: Path, cases: int) -> None:
    """A suite and its golden set."""
    (folder / "eval.yaml").write_text(SUITE)
    question = "How long do I have to return a pair of shoes that do not fit? " * 4
    with (folder / "golden.jsonl").open("w") as file:
        for number in range(cases):
            case = {"id": f"case-{number}", "inputs": {"question": question}, "expected": {"word": f"{number}"}}
            file.write(json.dumps(case) + "\n")


async def measured(folder: Path) -> tuple[Run, dict[str, float]]:
    """One run of the folder's suite, its CPU and its memory."""
    suite = load_suite(folder)
    golden = load_golden(suite.golden)
    version, clock, budget = Version("bench/runner", 1, "0" * 64, "now"), SystemClock(), Budget(suite.max_cost_nano_usd)
    journals = Journals(folder / "runs", clock)
    key = RunKey(version.prompt, version.digest, suite.digest, golden.digest)
    gc.collect()
    began, wall = time.process_time(), time.monotonic()
    journal = journals.open(key, run_id=f"run-{time.time_ns()}", budget=budget)
    resumed = journal.resumed
    run = await run_suite(suite, golden, version, AtOnce(), run_id="r", clock=clock, budget=budget, journal=journal)
    cpu, wall = time.process_time() - began, time.monotonic() - wall
    journals.close()
    count = len(run.results)
    return run, {
        "resumed": resumed,
        "repeats": count,
        "cpu_ms_per_repeat": round(1e3 * cpu / count, 4),
        "wall_s": round(wall, 2),
    }


async def memory(folder: Path) -> dict[str, float]:
    """What a run holds at its end and at its peak, beside the answers' own text."""
    tracemalloc.start()
    try:
        run, _ = await measured(folder)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    answers = sum(sys.getsizeof(result.output) for result in run.results)
    count = len(run.results)
    return {
        "answers_mib": round(answers / 2**20, 2),
        "held_mib": round(held / 2**20, 2),
        "peak_mib": round(peak / 2**20, 2),
        "bytes_per_repeat_beside_answer": round((held - answers) / count),
    }


def measure(cases: int) -> dict[str, Any]:
    """All of it, for so many cases."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder, cases)
        _, first = asyncio.run(measured(folder))
        _, again = asyncio.run(measured(folder))
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for file in (folder / "runs").iterdir():
            file.unlink()
        return {
            "run": first,
            "resume": again,
            "max_resident_mib": round(resident, 1),
            "memory": asyncio.run(memory(folder)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="2,000 cases; keeps nothing")
    options = parser.parse_args()
    cases = 2_000 if options.quick else options.cases
    result = {"machine": describe(), "cases": cases, **measure(cases)}
    print(json.dumps(result, indent=1))
    if not options.quick:
        (RESULTS / "eval-runner.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
