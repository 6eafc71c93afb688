"""A project folder, a registry in memory and scripted models, for the tests of evals."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.core.artifact import Artifact, digest
from tidegate.core.errors import NotFound
from tidegate.core.evaluation import CheckResult, Repeat, Run
from tidegate.core.ledger import Deployment, Pointer, Policy, Version
from tidegate.core.run_lines import RunSummary
from tidegate.evals.golden import GoldenSet, load_golden
from tidegate.evals.suite import Suite, load_suite
from tidegate.ports import PromptAnswer, PromptCall
from tidegate.prompts.render import render

NOW = "2026-03-01T12:00:00.000000Z"
"""FixedClock's beginning."""
EXAMPLE = Path(__file__).parents[2] / "examples" / "support-bot"
FRIENDLY = "Be warm and friendly."


def write(folder: Path, **files: str) -> Path:
    """Writes `eval_yaml="…"` as eval.yaml, and so on."""
    for name, text in files.items():
        (folder / name.replace("_yaml", ".yaml").replace("_jsonl", ".jsonl")).write_text(text, encoding="utf-8")
    return folder


def lines(*cases: dict[str, Any]) -> str:
    return "".join(json.dumps(case) + "\n" for case in cases)


def load(folder: Path) -> tuple[Suite, GoldenSet]:
    suite = load_suite(folder)
    return suite, load_golden(suite.golden)


def version(number: int = 1, key: str = "") -> Version:
    return Version("support/answer", number, key or f"{number:064x}", NOW)


def stored(
    suite: Suite,
    golden: GoldenSet,
    outcomes: dict[str, str],
    *,
    number: int = 1,
    check: str = "is-json",
    cost: int | None = 1_000,
) -> Run:
    """A run from pictures: `{"a": "+-!"}` is case a passing, failing `check`, and ending in an error."""
    results = [
        Repeat(
            case_id=case_id,
            repeat=repeat,
            output="" if mark == "!" else f"{mark} {case_id}",
            checks=()
            if mark == "!"
            else tuple(
                CheckResult(spec.name, mark == "+" or spec.name != check, "" if mark == "+" else "not JSON")
                for spec in suite.checks
            ),
            error="the provider is down" if mark == "!" else None,
            cost_nano_usd=cost,
            input_tokens=100 * number,
        )
        for case_id, marks in outcomes.items()
        for repeat, mark in enumerate(marks)
    ]
    return Run(
        id=f"run-{number}",
        prompt="support/answer",
        version=number,
        digest=f"{number:064x}",
        suite_digest=suite.digest,
        golden_digest=golden.digest,
        started_at=NOW,
        finished_at=NOW,
        repeats=max(map(len, outcomes.values())),
        results=tuple(results),
    )


@dataclass
class MemoryShelf:
    """The registry as a session sees it."""

    versions: list[Version] = field(default_factory=list)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    live: dict[tuple[str, str], Version] = field(default_factory=dict)
    saved: list[Run] = field(default_factory=list)
    summaries: dict[str, RunSummary | None] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)
    moves: list[Deployment] = field(default_factory=list)
    policy: Policy = field(default_factory=lambda: Policy(frozenset({"production"})))
    closed: bool = False

    def close(self) -> None:
        self.closed = True

    def register(self, prompt: str, artifact: Artifact, *, description: str = "", file_sha256: str = "") -> Version:
        key = digest(artifact)
        known = [version for version in self.versions if version.prompt == prompt]
        for one in known:
            if one.digest == key:
                return one
        made = Version(prompt, len(known) + 1, key, NOW, description, file_sha256)
        self.versions.append(made)
        self.artifacts[key] = artifact
        return made

    def resolve(self, prompt: str, selector: str) -> Version:
        for one in self.versions:
            if one.prompt != prompt:
                continue
            if selector in (one.name, one.digest) or self.live.get((prompt, selector)) == one:
                return one
        raise NotFound(f"{prompt} has no {selector}")

    def artifact(self, digest: str) -> Artifact:
        return self.artifacts[digest]

    def pointers(self, prompt: str | None = None) -> Sequence[Pointer]:
        return [
            Pointer(name, environment, live.number, live.digest, NOW, "ada")
            for (name, environment), live in self.live.items()
            if prompt in (None, name)
        ]

    def log(self, prompt: str | None = None) -> Sequence[Deployment]:
        return [move for move in self.moves[::-1] if prompt in (None, move.prompt)]

    def save_run(self, run: Run, *, suite: str, golden: str, summary: RunSummary | None = None) -> None:
        assert run.id not in {known.id for known in self.saved}, "a run is stored once"
        self.documents |= {run.suite_digest: suite, run.golden_digest: golden}
        self.saved.append(run)
        self.summaries[run.id] = summary

    def run(self, run_id: str) -> Run:
        return next(run for run in self.saved if run.id == run_id)

    def runs(self, prompt: str | None = None, limit: int = 100) -> Sequence[Run]:
        return [run for run in self.saved[::-1] if prompt in (None, run.prompt)][:limit]

    def document(self, digest: str) -> str:
        return self.documents[digest]


@dataclass
class ScriptedCaller:
    """Implements ports.Caller over a function; remembers the calls, and how many ran at once."""

    answer: Callable[[PromptCall], PromptAnswer]
    calls: list[PromptCall] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0

    async def call(self, call: PromptCall) -> PromptAnswer:
        self.calls.append(call)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await asyncio.sleep(0)
            return self.answer(call)
        finally:
            self.under_way -= 1


def simulated(shelf: MemoryShelf) -> ScriptedCaller:
    """The support model's documented rule over rendered messages, as examples/support-bot/README.md tells it."""

    def answer(call: PromptCall) -> PromptAnswer:
        messages = render(shelf.artifacts[call.digest], call.variables)
        system = " ".join(message["content"] for message in messages if message["role"] == "system")
        context, _, question = messages[-1]["content"].partition("Question:")
        asked = set(re.findall(r"\w+", question.lower()))
        sentences = re.split(r"(?<=[.!?])\s+", context.partition("Context:")[2].strip())
        best = max(sentences, key=lambda sentence: len(asked & set(re.findall(r"\w+", sentence.lower()))))
        body = json.dumps({"answer": best, "needs_human": False})
        if "warm and friendly" in system.lower() and len(question.strip()) > 160:
            body = f"Hi there! I am so glad you asked.\n\n{body}"
        tokens = len(body) // 4
        return PromptAnswer(body, cost_nano_usd=400 * 150 + 1_600 * tokens, input_tokens=150, output_tokens=tokens)

    return ScriptedCaller(answer)
