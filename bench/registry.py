"""
A large project on disk, 5,000 prompts each with schema, tool, suite and golden set: how long `tidegate lint` takes.

    uv run python -m bench.registry [--prompts 5000] [--quick]

Every file differs from every other, so that nothing is parsed once and used again. `lint_s` is of the whole command, a
new process that starts with cold modules and warm files; `in_process_s` leaves the start of Python out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.machine import RESULTS, describe
from tidegate.cli.lint import lint

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


def measure_lint(root: Path, rounds: int) -> dict[str, Any]:
    """Seconds of the command and of the work in it, the best of `rounds`: whatever else runs only adds to them."""
    whole, inside = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "tidegate", "lint"], cwd=root, capture_output=True, check=True)
        whole.append(time.perf_counter() - began)
        assert b"nothing to report" in done.stdout, done.stdout
    began = time.perf_counter()
    report = lint(root / "tidegate.yaml")
    inside.append(time.perf_counter() - began)
    assert report.notices == ()
    return {
        "prompts": report.prompts,
        "suites": report.suites,
        "files": 5 * report.prompts,
        "lint_s": round(min(whole), 3),
        "in_process_s": round(min(inside), 3),
        "us_per_prompt": round(min(inside) / report.prompts * 1e6, 1),
    }


def main() -> None:
    """Measures, prints, and keeps the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=5_000)
    parser.add_argument("--quick", action="store_true", help="20 prompts, once; keeps nothing")
    asked = parser.parse_args()
    result = describe()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_project(root, 20 if asked.quick else asked.prompts)
        result["lint"] = measure_lint(root, 1 if asked.quick else 3)
    print(json.dumps(result["lint"], indent=2))
    if not asked.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "registry.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
