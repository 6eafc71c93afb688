"""
The scale promise: 5,000 prompts × 20 versions. How long `tidegate lint`, a gateway's start and a snapshot swap take.

    uv run python -m bench.registry [--prompts 5000] [--versions 20] [--quick]

On disk each prompt has a schema, a tool, a suite and a golden set of its own, so that nothing is parsed once and used
again. `lint_s` is of the whole command, from the start of its process to its end, the best of three; `files` says how
many it read. Gateway and swap are measured as bench.propagation does, on SQLite. `--quick` lints 20 prompts and keeps
nothing: it shows that this still runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.machine import RESULTS, describe
from bench.propagation import fill, starts, swaps

CONFIG = """\
providers: {openai: {dialect: openai, api_key: "${env:OPENAI_API_KEY}"}}
"""
PROMPT = """\
---
description: Answers question number NUMBER from the help-centre context.
model: openai/gpt-4.1-2025-04-14
fallbacks: [openai/gpt-4.1-mini-2025-04-14]
params: {temperature: 0.2, max_output_tokens: 300}
inputs:
  question: {type: string, max_chars: 4000}
  context: string
  tone: {type: enum, values: [warm, plain], default: plain}
output: {schema: output.schema.json}
tools: [tools/lookup.json]
retrieval: {index: help-centre-NUMBER, top_k: 5}
---
system:
You are support assistant NUMBER of a web shop. Answer only from the context, in a {{ tone }} tone.
Reply with one JSON object and nothing else: {"answer": "...", "needs_human": false}.
If the context does not hold the answer, set "needs_human" to true.

user:
Context: The shop opens at nine.

Question: When does it open?

assistant:
{"answer": "At nine.", "needs_human": false}

user:
Context: {{ context }}

Question: {{ question }}
"""
SCHEMA = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Answer NUMBER",
  "type": "object",
  "properties": {
    "answer": {"type": "string", "minLength": 1},
    "needs_human": {"type": "boolean"}
  },
  "required": ["answer", "needs_human"],
  "additionalProperties": false
}
"""
TOOL = """\
{
  "name": "lookup_NUMBER",
  "description": "Finds an order by its number.",
  "parameters": {
    "type": "object",
    "properties": {"order": {"type": "string", "description": "The order's number."}},
    "required": ["order"]
  }
}
"""
SUITE = """\
# Suite NUMBER
repeats: 3
checks:
  - is-json: output.schema.json
  - contains: "{{ expected.must_mention }}"
  - output-tokens: {max: 300}
gate:
  must_pass: [is-json]
  max_cost_usd: 1
"""
CASE = {"question": "When is NUMBER open?", "context": "Shop NUMBER is open from 9 to 17.", "tone": "warm"}
CASES = 3


def write_project(root: Path, prompts: int) -> None:
    """A project of `prompts` valid prompts without a single notice."""
    (root / "tidegate.yaml").write_text(CONFIG, "utf-8")
    for number in range(prompts):
        folder = root / "prompts" / f"team-{number % 50}" / f"prompt-{number}"
        (folder / "tools").mkdir(parents=True)
        golden = "".join(
            json.dumps({"id": f"case-{case}", "inputs": CASE, "expected": {"must_mention": f"{case}"}}) + "\n"
            for case in range(CASES)
        )
        files = {"prompt.md": PROMPT, "output.schema.json": SCHEMA, "tools/lookup.json": TOOL, "eval.yaml": SUITE}
        for name, text in {**files, "golden.jsonl": golden}.items():
            (folder / name).write_text(text.replace("NUMBER", str(number)), "utf-8")


def lint_seconds(root: Path, rounds: int) -> list[float]:
    """Of the whole command, each time."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "tidegate", "lint"], cwd=root, capture_output=True, check=True)
        seconds.append(round(time.perf_counter() - began, 3))
        assert b"nothing to report" in done.stdout, done.stdout
    return seconds


def serving(prompts: int, versions: int) -> dict[str, Any]:
    """A gateway's start and its snapshot swaps, over a store of this size."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        control = folder / ".tidegate" / "control.db"
        control.parent.mkdir()
        fill(control, prompts, versions)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            swapped = runner.run(swaps(control, folder))
        started = starts(control, folder)
    return {"gateway_start_s": max(started["start_s"]), "snapshot_swap_ms": swapped["swap_ms"]}


def main() -> None:
    """Measures, prints, and keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=5_000)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="20 prompts, once")
    options = parser.parse_args()
    prompts = 20 if options.quick else options.prompts
    result: dict[str, Any] = {"machine": describe(), "prompts": prompts, "versions": options.versions}
    with tempfile.TemporaryDirectory() as scratch:
        write_project(Path(scratch), prompts)
        seconds = lint_seconds(Path(scratch), 1 if options.quick else 3)
    result |= {"files": 5 * prompts, "lint_s": min(seconds), "lint_each_s": seconds}
    if not options.quick:
        result |= serving(prompts, options.versions)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "registry.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
