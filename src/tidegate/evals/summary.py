"""A run in figures, each with its interval: what lists and trends of runs show. Pure."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from statistics import NormalDist, fmean
from typing import Any

from tidegate.core.agreement import wilson
from tidegate.core.errors import InvalidFile
from tidegate.core.evaluation import Run
from tidegate.core.run_lines import Figure, RunSummary
from tidegate.core.stats import bounded_interval
from tidegate.evals.judges.calibration import measured, read_labels
from tidegate.evals.judges.spec import JudgeSpec
from tidegate.evals.judges.stored import is_calibration, judges_of, stored
from tidegate.evals.readings import RATE, Gauge, gauge
from tidegate.evals.said import by_case, passed_cases

KAPPA = "kappa"
FEW = 30
NORMAL = NormalDist().inv_cdf(0.975)
HALF = 0.025
"""On each side of an interval of 95 %."""


def summarise(run: Run, suite: str, golden: str) -> RunSummary:
    """
    A run with its answers → its figures.

    Args:
        suite: the stored text of its suite, or of the judge that it calibrates.
        golden: that of its golden set, or of its labels. Texts that can not be read tell of no judges and clusters.
    """
    demands = _json(suite)
    if is_calibration(demands):
        return _calibration(run, stored(run.prompt, demands), golden)
    judges = judges_of(demands if isinstance(demands, dict) else {})
    items = clusters(golden)
    gauges = [gauge(name, judges) for name in (RATE, *(judge.name for judge in judges))]
    return _summary(run, "eval" if run.verdict is None else "gate", tuple(_figure(one, run, items) for one in gauges))


def clusters(golden: str) -> dict[str, str]:
    """Case id → its cluster, of those that have one."""
    lines = [_json(line) for line in golden.split("\n") if line.strip()]
    return {
        line["id"]: line["cluster"]
        for line in lines
        if isinstance(line, dict) and line.get("id") and line.get("cluster")
    }


def _summary(run: Run, kind: Any, figures: tuple[Figure, ...]) -> RunSummary:
    gate = run.gate or {}
    costs = [result.cost_nano_usd for result in run.results if result.error is None]
    if kind != "calibration":  # there the judge's cost is the answer's
        costs += [score.cost_nano_usd for result in run.results for score in result.scores]
    return RunSummary(
        kind=kind,
        cases=len(by_case(run.results)),
        passed=passed_cases(run),
        answers=len(run.results),
        errors=sum(result.error is not None for result in run.results),
        figures=figures,
        reason=gate.get("reason") or "",
        baseline=gate.get("baseline"),
        cost_nano_usd=None if None in costs else sum(cost or 0 for cost in costs),
    )


def _figure(one: Gauge, run: Run, items: dict[str, str]) -> Figure:
    readings = one.readings(run)
    groups: dict[tuple[bool, str], list[float]] = defaultdict(list)
    for case_id, mean in readings.means().items():
        groups[case_id in items, items.get(case_id, case_id)].append(mean)
    values = list(groups.values())
    if not values:
        return Figure(one.name, None, None, None, 0, readings.missing, one.scale)
    mean = fmean(value for group in values for value in group)
    if one.is_score:
        low, high = _interval(values, mean, one.scale)
    else:
        share = wilson(mean * len(values), len(values))
        low, high = share.low or 0.0, 1.0 if share.high is None else share.high
    return Figure(one.name, mean, low, high, len(values), readings.missing, one.scale)


def _interval(groups: list[list[float]], mean: float, scale: tuple[float, float]) -> tuple[float, float]:
    """Of few values the gate's own; of many a normal one with a cluster-robust error: a list has hundreds of runs."""
    if len(groups) <= FEW:
        return bounded_interval(groups, scale, alpha=HALF)
    squares = math.fsum(math.fsum(value - mean for value in group) ** 2 for group in groups)
    count = sum(map(len, groups))
    spread = NORMAL * math.sqrt(squares * len(groups) / (len(groups) - 1)) / count
    return max(scale[0], mean - spread), min(scale[1], mean + spread)


def _calibration(run: Run, judge: JudgeSpec, labels: str) -> RunSummary:
    try:
        found = measured(judge, read_labels(labels, "stored labels", judge), run)
    except InvalidFile:
        return _summary(run, "calibration", ())
    kappa = found.kappa
    figure = Figure(KAPPA, kappa.value, kappa.low, kappa.high, found.scored, found.unscored, (-1.0, 1.0))
    return _summary(run, "calibration", (figure,))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
