"""
Any two stored runs of one prompt beside each other, by the gate's own statistics. It compares; it decides nothing.

The metrics are the pass rate and the judges that both runs have. Margins and floors, where the newer run's suite asks
for any, are shown with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate.core.diff import diff
from tidegate.core.errors import BadInput, NotFound
from tidegate.core.evaluation import GateReport, Run
from tidegate.evals.gate import gate
from tidegate.evals.golden import Case
from tidegate.evals.judges.judging import at_par
from tidegate.evals.judges.spec import JudgeSpec
from tidegate.evals.judges.stored import is_calibration, judges_of
from tidegate.evals.readings import RATE
from tidegate.evals.shelf import Shelf
from tidegate.evals.suite import Metric


@dataclass(frozen=True, slots=True)
class Compared:
    """Two runs. The report's verdict means nothing: nothing was asked."""

    report: GateReport
    doubts: tuple[str, ...]
    """Why they do not quite compare, a sentence each."""


@dataclass(frozen=True, slots=True)
class _Demands:
    metrics: Mapping[str, Metric]
    judges: Sequence[JudgeSpec]
    must_pass: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Cases:
    cases: Sequence[Case]


def compared(shelf: Shelf, before: Run, after: Run) -> Compared:
    """What changed from one run to the other. Raises BadInput for runs of two prompts, and for calibrations."""
    if before.prompt != after.prompt:
        raise BadInput(
            f"the run {before.id} is of {before.prompt}, and {after.id} of {after.prompt}: compare two of one prompt."
        )
    old, new = (_suite(shelf, run) for run in (before, after))
    theirs = {judge.name: judge.digest for judge in judges_of(old)}
    judges = [
        judge
        for judge in judges_of(new)
        if theirs.get(judge.name) == judge.digest and (not judge.relative or after.baseline_run_id == before.id)
    ]
    asked = {name: _asked(new, name) for name in (RATE, *(judge.name for judge in judges))}
    mine = stored_cases(document(shelf, after.golden_digest), after)
    seen = {case.id for case in mine}
    gone = [case for case in stored_cases(document(shelf, before.golden_digest), before) if case.id not in seen]
    # One version run twice is compared like two: what differs then is noise, and the interval says how much.
    rival = (
        msgspec.structs.replace(before, digest=f"{before.digest}/again") if before.digest == after.digest else before
    )
    report = gate(
        after,
        at_par(rival, judges),
        _Demands(asked, judges),
        _Cases([*mine, *gone]),
        diff=diff(shelf.artifact(before.digest), shelf.artifact(after.digest)).lines(),
    )
    return Compared(report, tuple(_doubts(before, after, old, new)))


def stored_cases(golden: str, run: Run) -> list[Case]:
    """The cases of a stored golden set in the order in which they were run; without the text those that were run."""
    plain = {line["id"]: line for line in map(_line, golden.split("\n")) if "id" in line}
    return [
        Case(
            id=case_id,
            line=0,
            inputs=plain.get(case_id, {}).get("inputs") or {},
            expected=plain.get(case_id, {}).get("expected"),
            checks=(),
            tags=tuple(plain.get(case_id, {}).get("tags") or ()),
            cluster=plain.get(case_id, {}).get("cluster"),
            critical=bool(plain.get(case_id, {}).get("critical")),
        )
        for case_id in dict.fromkeys(result.case_id for result in run.results)
    ]


def document(shelf: Shelf, digest: str) -> str:
    """A stored text; empty where there is none."""
    try:
        return shelf.document(digest)
    except NotFound:
        return ""


def _doubts(before: Run, after: Run, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if before.golden_digest != after.golden_digest:
        ids = [{result.case_id for result in run.results} for run in (before, after)]
        yield (
            f"The golden sets differ: {len(ids[0] & ids[1])} cases are in both, {len(ids[0] - ids[1])} only in the "
            f"first, {len(ids[1] - ids[0])} only in the second. Cases of one id may ask different things."
        )
    if _measures(old) != _measures(new):
        yield "The suites check differently: to pass did not mean the same in both runs."
    theirs = {judge.name: judge.digest for judge in judges_of(old)}
    for judge in judges_of(new):
        if judge.name in theirs and theirs[judge.name] != judge.digest:
            yield f"The judge {judge.name} is another one in each run: its scores are not compared."
    if before.digest == after.digest:
        yield "Both runs are of one version: what differs between them is noise."


def _asked(suite: Mapping[str, Any], name: str) -> Metric:
    """What the suite asks of a metric; nothing where it does not, or says it in another way than today."""
    try:
        return Metric.model_validate(suite["gate"]["metrics"][name])
    except (KeyError, TypeError, ValueError):
        return Metric()


def _measures(suite: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in suite.items() if key not in ("gate", "repeats", "judges")}


def _suite(shelf: Shelf, run: Run) -> Mapping[str, Any]:
    suite = _line(document(shelf, run.suite_digest))
    if is_calibration(suite):
        raise BadInput(f"the run {run.id} is a judge's calibration: it compares with people, not with another run.")
    return suite


def _line(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
