"""
eval.yaml → the suite: what is checked, how often, and what the gate asks for.

The digest covers all that decides what passing means (checks with their schemas, repeats, the gate's demands); how fast
and at what price it may run is outside it. A suite is planned against its golden set before the first call: a template
that can not be filled in, or a case that nothing checks, costs nothing but a message.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import rfc8785
from pydantic import Field

from tidegate.core.artifact import Tool
from tidegate.core.document import Document, Strict, parse_yaml, validate
from tidegate.core.errors import InvalidFile, NotFound, Problem, nearest
from tidegate.core.place import dotted
from tidegate.evals.checks import Check
from tidegate.evals.golden import GoldenSet, Threshold
from tidegate.evals.judges.kinds import KINDS
from tidegate.evals.judges.spec import JudgeFile, JudgeSpec, look_up, read_judges
from tidegate.evals.readings import RATE
from tidegate.evals.script import DEFAULT_STEPS, NOTHING, Script, Steps, Stop, Tools
from tidegate.evals.spec import CheckSpec, inside, read_checks, read_text
from tidegate.prompts.source import leads_out

FILE = "eval.yaml"

JudgeName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Metric(Strict):
    """What the gate asks of one metric: at most `margin` worse than the baseline, and at least `floor`."""

    margin: Amount | None = None
    floor: Amount | None = None


class GateFile(Strict):
    """`gate:` as its author writes it."""

    must_pass: list[str] = []
    metrics: dict[str, Metric] = {}
    max_cost_usd: Annotated[Decimal, Field(gt=0, le=1_000_000, strict=False)] | None = None


class SuiteFile(Strict):
    """The whole of eval.yaml."""

    golden: str = "golden.jsonl"
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    checks: list[Any] = []
    threshold: Threshold | None = None
    judges: dict[JudgeName, JudgeFile] = {}
    judge_failed: bool = True
    tools: Tools = {}
    max_steps: Steps | None = None
    stop: Stop | None = None
    gate: GateFile = GateFile()
    concurrency: Annotated[int, Field(ge=1, le=256)] = 4


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite, ready to be planned. `text` is its canonical form, and `digest` its sha256."""

    file: str
    golden: Path
    repeats: int
    checks: tuple[CheckSpec, ...]
    must_pass: frozenset[str]
    """Names of checks (not types): `must_pass: [contains]` means each of several."""
    metrics: Mapping[str, Metric]
    max_cost_nano_usd: int | None
    concurrency: int
    digest: str
    text: str
    threshold: float | None = None
    """For cases without one of their own: what the weighted mean of their checks' scores has to reach."""
    judges: tuple[JudgeSpec, ...] = ()
    judge_failed: bool = True
    """Whether an answer is judged although a check of `must_pass` has failed."""
    script: Script = NOTHING
    """The tools of every case, behind the case's own."""


def load_suite(folder: Path) -> Suite:
    """
    Reads `folder`/eval.yaml.

    Raises: NotFound when the prompt has no suite; InvalidFile with every problem, each on its line.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        raise NotFound(f"{path}: no such file, so there is nothing to evaluate this prompt by.")
    if leads_out(folder, FILE):
        raise InvalidFile([Problem(str(path), 0, "", "is a link that leads out of the prompt's folder.")])
    document = parse_yaml(read_text(path), str(path))
    if not isinstance(document.data, dict):
        raise InvalidFile([document.problem((), "a suite is a map with the keys golden, repeats, checks, gate.")])
    if isinstance(gate := document.data.get("gate"), dict) and "protects" in gate:
        message = "decides nothing here: tidegate.yaml, on the server that deploys, names protected environments."
        raise InvalidFile([document.problem(("gate", "protects"), message)])
    written = validate(document, SuiteFile)
    checks, problems = read_checks(
        written.checks,
        folder,
        lambda index, type_: document.problem(("checks", index, *([type_] if type_ else [])), ""),
    )
    golden = folder / written.golden
    try:
        golden = inside(folder, written.golden, "a golden set")
    except ValueError as error:
        problems.append(document.problem(("golden",), str(error)))
    # A misspelt check is one problem, not a second one in must_pass.
    must_pass = frozenset() if problems else _must_pass(document, written.gate.must_pass, checks, problems)
    judges, wrong = read_judges(written.judges, folder, document)
    problems += wrong
    shares = dict.fromkeys([RATE, *(name for check in checks for name in (check.name, check.type))], (0.0, 1.0))
    scales = {name: KINDS[kind].scale for name, file in written.judges.items() if (kind := file.kind) is not None}
    for name in scales.keys() & shares.keys():
        message = f"{name!r} is a metric already; call the judge something else."
        problems.append(document.problem(("judges", name), message))
    _metrics(document, written.gate.metrics, shares | scales, problems)
    if problems:
        raise InvalidFile(problems)
    text = _canonical(document, written, checks, judges)
    cost = written.gate.max_cost_usd
    return Suite(
        file=str(path),
        golden=golden,
        repeats=written.repeats,
        checks=checks,
        must_pass=must_pass,
        metrics=written.gate.metrics,
        max_cost_nano_usd=None if cost is None else int(cost * 10**9),
        concurrency=written.concurrency,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        text=text,
        threshold=written.threshold,
        judges=judges,
        judge_failed=written.judge_failed,
        script=Script(written.tools, written.max_steps, written.stop),
    )


def plan(suite: Suite, golden: GoldenSet) -> dict[str, tuple[Check, ...]]:
    """
    Case id → its checks, ready to run.

    Raises: InvalidFile with every template that can not be filled in (file:line of the check and the case's id), and
        every case that nothing checks: it would pass whatever the answer.
    """
    planned: dict[str, tuple[Check, ...]] = {}
    problems: list[Problem] = []
    for case in golden.cases:
        checks = []
        for spec in (*suite.checks, *case.checks):
            try:
                checks.append(spec.bind(case.id, case.variables))
            except InvalidFile as error:
                problems += error.problems
        planned[case.id] = tuple(checks)
    problems += unfed(suite.judges, golden)
    if not suite.checks and not suite.judges:
        for case in golden.cases:
            if not case.checks:
                message = f"nothing checks the case {case.id!r}; add checks to it or to {FILE}."
                problems.append(Problem(golden.file, case.line, "checks", message))
    if problems:
        raise InvalidFile(problems)
    return planned


def unfed(judges: Sequence[JudgeSpec], golden: GoldenSet) -> Iterator[Problem]:
    """What judges need of a case, and not one case has: most likely a misspelt path."""
    for judge in judges:
        for name in sorted(judge.needed):
            path = judge.fields[name]
            values = [{"inputs": case.inputs, "expected": case.expected} for case in golden.cases]
            if path.split(".")[0] in ("inputs", "expected") and all(look_up(path, one) is None for one in values):
                message = f"no case has {path}, which the judge {judge.name!r} needs for its input {name!r}."
                yield Problem(golden.file, 0, path, message)


def longest(suite: Suite, golden: GoldenSet) -> int | None:
    """The most calls that one case may take; None where no case has tools that are scripted."""
    scripts = (case.script.over(suite.script) for case in golden.cases)
    return max((script.max_steps or DEFAULT_STEPS for script in scripts if script.tools), default=None)


def misplayed(suite: Suite, golden: GoldenSet, declared: Sequence[Tool]) -> Iterator[Problem]:
    """What is scripted, in the suite or in a case, for tools and arguments that the prompt does not declare."""
    if misfits := list(suite.script.misfits(declared)):
        document = parse_yaml(read_text(Path(suite.file)), suite.file)
        yield from (document.problem(path, message) for path, message in misfits)
    for case in golden.cases:
        for path, message in case.script.misfits(declared):
            yield Problem(golden.file, case.line, dotted(path), f"{message.removesuffix('.')} (in case {case.id!r}).")
        if case.script is not NOTHING and not case.script.over(suite.script).tools:
            message = f"no tool is scripted for the case {case.id!r}, so it is one call, and no loop to be ended."
            yield Problem(golden.file, case.line, "max_steps" if case.script.max_steps else "stop", message)


def _must_pass(
    document: Document, written: list[str], checks: tuple[CheckSpec, ...], problems: list[Problem]
) -> frozenset[str]:
    names: set[str] = set()
    for index, wanted in enumerate(written):
        meant = {check.name for check in checks if wanted in (check.name, check.type)}
        if not meant:
            hint = nearest(wanted, {name for check in checks for name in (check.name, check.type)})
            message = f"no check of this suite is called {wanted!r}.{hint}"
            problems.append(document.problem(("gate", "must_pass", index), message))
        elif any(check.weight == 0 for check in checks if check.name in meant):
            message = f"{wanted!r} has the weight 0: it is reported and decides nothing."
            problems.append(document.problem(("gate", "must_pass", index), message))
        names |= meant
    return frozenset(names)


def _metrics(
    document: Document,
    metrics: Mapping[str, Metric],
    scales: Mapping[str, tuple[float, float]],
    problems: list[Problem],
) -> None:
    """Each metric is one that the suite has, and what is asked of it lies on its scale."""
    for name, metric in metrics.items():
        path = ("gate", "metrics", name)
        if name not in scales:
            message = f"no metric is called {name!r}. Known: {', '.join(scales)}."
            problems.append(document.problem(path, message))
            continue
        low, high = scales[name]
        if metric.margin is None and metric.floor is None:
            problems.append(document.problem(path, "needs a margin, a floor, or both."))
        if metric.margin is not None and metric.margin >= high - low:
            message = f"is {metric.margin:g}, and this metric can fall by {high - low:g} at most: it would always pass."
            problems.append(document.problem((*path, "margin"), message))
        if metric.floor is not None and not low <= metric.floor <= high:
            message = f"is outside of this metric's scale, {low:g} to {high:g} (it is {metric.floor:g})."
            problems.append(document.problem((*path, "floor"), message))


def _canonical(
    document: Document, written: SuiteFile, checks: tuple[CheckSpec, ...], judges: tuple[JudgeSpec, ...]
) -> str:
    plain: dict[str, Any] = {
        "repeats": written.repeats,
        "checks": [check.plain for check in checks],
        "gate": written.gate.model_dump(include={"must_pass", "metrics"}, exclude_none=True),
    }
    if written.threshold is not None:
        plain["threshold"] = written.threshold
    if judges:
        plain["judges"] = {judge.name: judge.plain for judge in judges}
        plain["judge_failed"] = written.judge_failed
    plain |= written.model_dump(include={"tools", "max_steps", "stop"}, exclude_defaults=True)
    try:
        return rfc8785.dumps(plain).decode()
    except rfc8785.CanonicalizationError as error:
        raise InvalidFile([document.problem((), f"can not be written as canonical JSON: {error}.")]) from error
