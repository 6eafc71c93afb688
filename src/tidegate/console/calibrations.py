"""A judge's calibration: how far it agrees with people, whether it may gate, and every answer they disagree on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tidegate.console import format as human
from tidegate.console.page import Pages
from tidegate.console.run_lines import run_lines, shown
from tidegate.core.agreement import Estimate
from tidegate.core.errors import InvalidFile
from tidegate.core.evaluation import Run, Score
from tidegate.core.run_lines import Figure, RunFilter, RunSummary
from tidegate.evals.compared import document
from tidegate.evals.judges.calibration import MIN_LABELS, Calibration, Label, Labels, measured, read_labels
from tidegate.evals.judges.spec import JudgeSpec
from tidegate.evals.judges.stored import judges_of, stored
from tidegate.evals.reports.plain import cut
from tidegate.evals.summary import KAPPA
from tidegate.prompts.registry import Registry

SUITES = 200
"""Runs, newest first, among whose suites the one is looked for that says from which score on an answer passes."""
SHOWN = 60
MAX_TEXT = 4_000


def calibration_answer(
    pages: Pages, registry: Registry, request: Request, run: Run, plain: Mapping[str, Any]
) -> Response:
    """
    Args:
        plain: the judge, as the run was stored under it.
    """
    judge, used_by = _held(registry, stored(run.prompt, plain))
    labels: Labels | None
    try:
        labels = read_labels(document(registry, run.golden_digest), "stored labels", judge)
    except InvalidFile:
        labels = None
    found = None if labels is None else measured(judge, labels, run)
    rows = [] if labels is None else _rows(labels, run)
    return pages.answer(
        request,
        "calibration.html",
        {
            "run": run,
            "judge": {
                "name": judge.name,
                "prompt": run.prompt,
                "kind": judge.kind.name,
                "votes": judge.votes,
                "scale": judge.scale,
                "pass_at": judge.passing,
                "min_kappa": judge.min_kappa,
                "jurors": len(plain["prompts"]),
                "digest": judge.digest,
            },
            "used_by": used_by,
            "calibration": found,
            "min_labels": MIN_LABELS,
            "estimates": [] if found is None else _estimates(found),
            "confusion": None if found is None else _confusion(found),
            "answers": rows[:SHOWN],
            "more": max(0, len(rows) - SHOWN),
            "apart": sum(row["gap"] > 0 for row in rows if row["gap"] is not None),
            "took_s": (human.instant(run.finished_at) - human.instant(run.started_at)).total_seconds(),
            "others": [
                {"id": line.id, "started_at": line.started_at, "same": line.suite_digest == run.suite_digest}
                | {"kappa": _kappa(summary)}
                for line, summary in run_lines(registry, RunFilter(prompt=run.prompt, kind="calibration"), limit=20)
                if line.id != run.id
            ],
        },
        active="runs",
        title=f"Calibration of {judge.name}, {human.local(run.started_at, pages.zone, pages.now())}",
    )


def _held(registry: Registry, judge: JudgeSpec) -> tuple[JudgeSpec, list[tuple[str, str]]]:
    """The judge as the newest suite that has it holds it against people, and (prompt, its name there) of those."""
    found: dict[str, str] = {}
    held: JudgeSpec | None = None
    seen: set[str] = set()
    for line in registry.run_lines(RunFilter(), limit=SUITES):
        if line.suite_digest in seen:
            continue
        seen.add(line.suite_digest)
        try:
            suite = json.loads(document(registry, line.suite_digest))
        except (ValueError, RecursionError):
            continue
        for one in judges_of(suite) if isinstance(suite, dict) else ():
            if one.digest == judge.digest:
                held = held or one
                found.setdefault(line.prompt, one.name)
    return (
        judge if held is None else replace(judge, name=held.name, pass_at=held.pass_at, min_kappa=held.min_kappa)
    ), [*found.items()]


def _kappa(summary: RunSummary) -> dict[str, Any] | None:
    figure = summary.figure(KAPPA)
    return None if figure is None else shown(figure)


def _estimates(found: Calibration) -> list[dict[str, Any]]:
    """What people look at first, each with its interval; those that this judge does not have are left out."""

    def one(name: str, said: str, estimate: Estimate, scale: tuple[float, float], limit: float | None) -> Any:
        figure = Figure(name, estimate.value, estimate.low, estimate.high, found.scored, 0, scale)
        drawn = shown(figure)
        bottom, top = scale
        place = None if limit is None else round(100 * (limit - bottom) / (top - bottom), 2)
        text = "–" if estimate.value is None else f"{estimate.value:.2f}" if name == "κ" else drawn["text"]
        interval = drawn["interval"]
        if name == "κ" and estimate.low is not None and estimate.high is not None:
            interval = f"{estimate.low:.2f} to {estimate.high:.2f}"
        return drawn | {"said": said, "limit": place, "text": text, "interval": interval}

    rows = [one("κ", "agreement with people beyond chance", found.kappa, (-1.0, 1.0), found.min_kappa)]
    if found.pass_at is not None:
        share = (0.0, 1.0)
        rows.append(one("TPR", "of what people pass, the judge passes", found.true_positive_rate, share, None))
        rows.append(one("TNR", "of what people fail, the judge fails", found.true_negative_rate, share, None))
    if found.swap_consistency.value is not None:
        rows.append(one("order", "decided alike in both orders", found.swap_consistency, (0.0, 1.0), None))
    return [row for row in rows if row["value"] is not None]


def _confusion(found: Calibration) -> dict[str, Any] | None:
    """Rows are people's scores, columns the judge's, from low to high."""
    if not found.confusion:
        return None
    counts = {(cell.human, cell.judge): cell.count for cell in found.confusion}
    values = sorted({value for pair in counts for value in pair}, key=_by_value)
    most = max(counts.values())
    rows = [
        {
            "human": human,
            "cells": [
                {"count": (count := counts.get((human, said), 0)), "same": human == said, "heat": -(-4 * count // most)}
                for said in values
            ],
            "total": sum(counts.get((human, said), 0) for said in values),
        }
        for human in values
    ]
    return {"values": values, "rows": rows}


def _by_value(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float(text == "pass"), text


def _rows(labels: Labels, run: Run) -> list[dict[str, Any]]:
    """Every labelled answer, those on which judge and people are furthest apart first."""
    scores: dict[str, Score] = {result.case_id: result.scores[0] for result in run.results if result.scores}
    rows = [_row(label, scores.get(label.id)) for label in labels.labels]
    return sorted(rows, key=lambda row: -1.0 if row["gap"] is None else row["gap"], reverse=True)


def _row(label: Label, score: Score | None) -> dict[str, Any]:
    value = None if score is None else score.value
    return {
        "id": label.id,
        "people": sorted(label.human.items()),
        "consensus": label.consensus,
        "judge": value,
        "reason": "" if score is None else cut(score.reason, MAX_TEXT)[0],
        "gap": None if value is None else round(abs(value - label.consensus), 6),
        "output": cut(str(label.values["output"]), MAX_TEXT)[0],
        "rival": cut(str(label.values["rival"]), MAX_TEXT)[0] if label.values.get("rival") is not None else None,
        "given": [
            (name, cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), MAX_TEXT)[0])
            for name, value in label.values["inputs"].items()
        ],
        "calls": [] if score is None else list(score.call_ids),
        "parts": [] if score is None else list(score.parts),
    }
