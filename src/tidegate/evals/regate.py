"""
A stored run, judged again: under what its suite asked, or under other margins and floors, without a call.

All it needs was stored with the run: its results, the texts of its suite and golden set, and its baseline's run. What
comes out is not stored, so it approves nothing: an approval takes a run of the suite that stands in the folder.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from tidegate.core.diff import diff
from tidegate.core.errors import BadInput, InvalidFile, NotFound, nearest
from tidegate.core.evaluation import GateReport, Recheck, Run
from tidegate.core.stats import ALPHA
from tidegate.evals.gate import gate, planned_mde
from tidegate.evals.golden import Case
from tidegate.evals.judges.calibration import barred
from tidegate.evals.judges.judging import at_par, settled
from tidegate.evals.judges.spec import JudgeSpec
from tidegate.evals.readings import RATE, type_of
from tidegate.evals.shelf import Shelf
from tidegate.evals.suite import Metric, load_suite


@dataclass(frozen=True, slots=True)
class Asked:
    """One `--metric`: `pass-rate.margin=0.05`."""

    metric: str
    field: str
    amount: float


@dataclass(frozen=True, slots=True)
class _Demands:
    must_pass: frozenset[str]
    metrics: Mapping[str, Metric]
    judges: Collection[JudgeSpec]


@dataclass(frozen=True, slots=True)
class _Cases:
    cases: tuple[Case, ...]


def asked(text: str) -> Asked:
    """Reads one `--metric`. Raises BadInput."""
    path, equals, amount = text.partition("=")
    metric, _, field = path.rpartition(".")
    try:
        value = float(amount)
    except ValueError:
        value = -1.0
    if not equals or not metric or field not in ("margin", "floor") or not 0 <= value < float("inf"):
        raise BadInput(f"--metric {text!r}: write NAME.margin=AMOUNT or NAME.floor=AMOUNT, as pass-rate.margin=0.05.")
    return Asked(metric, field, value)


def known_judges(shelf: Shelf, folder: Path) -> Sequence[JudgeSpec]:
    """The judges of the suite in a prompt's folder, with what is known of each; none where there is no such suite."""
    try:
        return [replace(judge, gates=barred(shelf, judge)) for judge in load_suite(folder).judges]
    except (InvalidFile, NotFound):
        return []


def regate(
    shelf: Shelf,
    run_id: str,
    *,
    against: str | None = None,
    metrics: Collection[Asked] = (),
    judges: Collection[JudgeSpec] = (),
) -> GateReport:
    """
    Judges the stored run `run_id` again.

    Args:
        against: another baseline's run; without it the one it was judged by, if it was.
        metrics: what to ask instead of, or beside, what its suite asks.
        judges: those of today's suite, with what is known of them. One that is not the run's own decides nothing.
    Raises: NotFound, and BadInput for a metric that the run does not have and runs that do not compare.
    """
    run = shelf.run(run_id)
    suite = _suite(run, shelf.document(run.suite_digest))
    chosen = against or run.baseline_run_id
    baseline = run if chosen == run.id else shelf.run(chosen) if chosen else None
    if baseline is not None:
        measured = shelf.document(baseline.suite_digest)
        check_comparable(
            baseline,
            measured,
            prompt=run.prompt,
            suite=shelf.document(run.suite_digest),
            golden_digest=run.golden_digest,
        )
    own = [judge for judge in judges if (suite.get("judges") or {}).get(judge.name) == judge.plain]
    demands = _demands(suite, run, metrics, own)
    golden = _golden(shelf, run)
    stored = run.gate or {}
    tried = stored.get("rechecks", ()) if chosen == run.baseline_run_id else ()
    rival = None if baseline is None or baseline.digest == run.digest else baseline
    changes = () if rival is None else diff(shelf.artifact(rival.digest), shelf.artifact(run.digest)).lines()
    other = "under other demands than its suite's" if metrics else "as its suite asks"
    return gate(
        settled(run, own),
        None if baseline is None else at_par(settled(baseline, own), own),
        demands,
        golden,
        mde=None if rival is None else planned_mde(golden, run.repeats, rival),
        diff=changes,
        alpha=stored.get("alpha", ALPHA),
        notes=[f"a stored run, judged again {other}: nothing was called, and nothing is approved by it."],
        rechecks=msgspec.convert(tried, tuple[Recheck, ...]),
    )


def check_comparable(baseline: Run, measured: str, *, prompt: str, suite: str, golden_digest: str) -> None:
    """
    Raises BadInput unless a stored run is of this prompt, on the same cases, and was checked in the same way.

    Args:
        measured: the text of its suite.
        suite: the text of the suite to compare by; other demands of the gate and other repeats do not matter.
    """
    if baseline.prompt != prompt:
        raise BadInput(f"the run {baseline.id} is of {baseline.prompt}, not of {prompt}.")
    if baseline.golden_digest != golden_digest:
        raise BadInput(f"the run {baseline.id} is of another golden set: its cases are not the same.")
    if _checks(baseline, measured) != _checks(baseline, suite):
        raise BadInput(f"the run {baseline.id} was checked by another suite: to pass did not mean the same.")


def _checks(run: Run, text: str) -> dict[str, Any]:
    return {key: value for key, value in _suite(run, text).items() if key not in ("gate", "repeats")}


def _suite(run: Run, text: str) -> dict[str, Any]:
    suite = json.loads(text)
    if not isinstance(suite, dict) or "checks" not in suite:
        raise BadInput(f"the run {run.id} is a judge's calibration: there is nothing to gate.")
    return suite


def _demands(suite: Mapping[str, Any], run: Run, metrics: Collection[Asked], judges: Collection[JudgeSpec]) -> _Demands:
    written = suite.get("gate") or {}
    checks = {check.name for result in run.results for check in result.checks if not check.name.startswith("case/")}
    wanted = set(written.get("must_pass") or ())
    demanded: dict[str, dict[str, float]] = {name: dict(one) for name, one in (written.get("metrics") or {}).items()}
    known = {RATE, *(suite.get("judges") or {}), *checks, *map(type_of, checks)}
    for one in metrics:
        if one.metric not in known:
            raise BadInput(f"--metric: this run has no metric {one.metric!r}.{nearest(one.metric, known)}")
        demanded.setdefault(one.metric, {})[one.field] = one.amount
    seen = {judge.name for judge in judges}
    for name in demanded:
        if name in (suite.get("judges") or {}) and name not in seen:
            raise BadInput(f"the judge {name!r} is not in today's suite as it was: nobody can say whether it may gate.")
    return _Demands(
        frozenset(name for name in checks if name in wanted or type_of(name) in wanted),
        {name: Metric(**one) for name, one in demanded.items()},
        judges,
    )


def _golden(shelf: Shelf, run: Run) -> _Cases:
    """The cases in the order in which they were run, as far as the statistics care."""
    lines = shelf.document(run.golden_digest).split("\n")
    order = {case_id: index for index, case_id in enumerate(dict.fromkeys(result.case_id for result in run.results))}
    cases = [
        Case(
            id=plain["id"],
            line=0,
            inputs={},
            expected=None,
            checks=(),
            tags=tuple(plain.get("tags") or ()),
            cluster=plain.get("cluster"),
            critical=plain.get("critical", False),
        )
        for plain in map(json.loads, filter(None, lines))
    ]
    return _Cases(tuple(sorted(cases, key=lambda case: order.get(case.id, len(order)))))
