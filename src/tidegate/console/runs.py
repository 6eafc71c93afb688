"""Evals: stored runs, and one run case by case with outputs, reasons and the gate's verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from tidegate.console import format as human
from tidegate.console.page import Pages
from tidegate.console.prompts import run_line
from tidegate.core.evaluation import Repeat, Run
from tidegate.prompts.registry import Registry

SHOWN_OUTPUTS = 5


class RunPages:
    """The list and the detail page."""

    def __init__(self, pages: Pages, registry: Registry) -> None:
        self._pages = pages
        self._registry = registry

    def routes(self) -> APIRouter:
        routes = APIRouter(include_in_schema=False)
        routes.add_api_route("/runs", self.index)
        routes.add_api_route("/runs/{run_id}", self.detail)
        return routes

    def index(self, request: Request) -> Response:
        runs = [run_line(run) for run in self._registry.runs()]
        return self._pages.answer(request, "runs.html", {"runs": runs}, active="runs", title="Evals")

    def detail(self, request: Request, run_id: str) -> Response:
        run = self._registry.run(run_id)
        cases = _cases(run)
        return self._pages.answer(
            request,
            "run.html",
            {
                "run": run,
                "gate": run.gate,
                "cases": cases,
                "passed_cases": sum(case["passed"] for case in cases),
                "took_s": (human.instant(run.finished_at) - human.instant(run.started_at)).total_seconds(),
                "cost_nano_usd": sum(repeat.cost_nano_usd or 0 for repeat in run.results),
            },
            active="runs",
            title=f"Run of {run.prompt}",
        )


def _cases(run: Run) -> list[dict[str, Any]]:
    """Cases in the order of the golden set, each with its repeats; those that failed come with why."""
    judged = {case["id"]: case for case in (run.gate or {}).get("cases") or []}
    repeats: dict[str, list[Repeat]] = {}
    for repeat in run.results:
        repeats.setdefault(repeat.case_id, []).append(repeat)
    return [_case(case_id, found, judged.get(case_id) or {}) for case_id, found in repeats.items()]


def _case(case_id: str, repeats: Sequence[Repeat], judged: dict[str, Any]) -> dict[str, Any]:
    failed = [repeat for repeat in repeats if not repeat.passed]
    reasons = [check.reason for repeat in failed for check in repeat.checks if not check.passed]
    errors = [repeat.error for repeat in failed if repeat.error]
    return {
        "id": case_id,
        "repeats": list(repeats),
        "passed": not failed,
        "passed_repeats": len(repeats) - len(failed),
        "change": judged.get("change"),
        "reason": judged.get("reason") or next(iter([*reasons, *errors]), ""),
        "baseline_output": judged.get("baseline_output"),
        "shown": _distinct(failed or repeats)[:SHOWN_OUTPUTS],
    }


def _distinct(repeats: Sequence[Repeat]) -> list[tuple[Repeat, str]]:
    """Repeats with the same answer and the same checks stand there once: `Repeats 1, 2, 3`."""
    same: dict[tuple[object, ...], list[Repeat]] = {}
    for repeat in repeats:
        same.setdefault((repeat.output, repeat.error, repeat.checks), []).append(repeat)
    return [
        (found[0], f"Repeat{'s' if len(found) > 1 else ''} {', '.join(str(repeat.repeat) for repeat in found)}")
        for found in same.values()
    ]
