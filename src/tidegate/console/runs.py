"""One run: its verdict first, then its figures against what was asked, then every case down to its calls."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from tidegate.console import format as human
from tidegate.console.calibrations import calibration_answer
from tidegate.console.cases import SHOWS, CaseFilter, case_page
from tidegate.console.page import Pages
from tidegate.console.run_lines import run_lines, shown
from tidegate.core.errors import BadInput, NotFound
from tidegate.core.evaluation import GateReport, Run
from tidegate.core.run_lines import RunFilter
from tidegate.evals.compared import Compared, compared, document, stored_cases
from tidegate.evals.judges.stored import is_calibration, judges_of
from tidegate.evals.judges.tally import tallies
from tidegate.evals.regate import Asked, asked, known_judges, regate
from tidegate.evals.reports import figures
from tidegate.evals.reports.judged import measured
from tidegate.evals.reports.page import metric_view, slice_view
from tidegate.evals.said import label, passed_cases, passing, per_call, usable
from tidegate.evals.summary import KAPPA, summarise
from tidegate.prompts.files import check_name
from tidegate.prompts.registry import Registry

MAX_SLICES = 40
KEPT = 32
"""Comparisons in memory."""
CHOICES = 30
"""Other runs of the prompt that a page offers to compare with."""


class CaseQuery(BaseModel):
    """Which cases are shown, as an address writes it."""

    show: str = ""
    tag: str = ""
    q: str = ""
    page: int = 1

    def wanted(self) -> CaseFilter:
        """The filter. Raises BadInput."""
        return CaseFilter(self.show, self.tag, self.q[:200], self.page)


class CompareQuery(CaseQuery):
    """And which two runs."""

    a: str = ""
    b: str = ""


class RunPages:
    """A run's page, and the page of two."""

    def __init__(self, pages: Pages, registry: Registry) -> None:
        self._pages = pages
        self._registry = registry
        self._known: OrderedDict[tuple[str, str], Compared] = OrderedDict()

    def routes(self) -> APIRouter:
        routes = APIRouter(include_in_schema=False)
        routes.add_api_route("/runs/compare", self.compare)
        routes.add_api_route("/runs/{run_id}", self.detail)
        return routes

    def detail(self, request: Request, run_id: str, query: Annotated[CaseQuery, Query()]) -> Response:
        registry = self._registry
        run = registry.run(run_id)
        suite = _decoded(document(registry, run.suite_digest))
        if is_calibration(suite):
            return calibration_answer(self._pages, registry, request, run, suite)
        golden = document(registry, run.golden_digest)
        cases = stored_cases(golden, run)
        report = _report(run)
        baseline = self._other(run.baseline_run_id) if run.baseline_run_id != run.id else None
        again, problem = self._again(request, run)
        judged = again or report
        summary = summarise(run, document(registry, run.suite_digest), golden)
        return self._pages.answer(
            request,
            "run.html",
            {
                "run": run,
                "name": label(run),
                "gate": run.gate,
                "headline": _headline(run, report),
                "again": None if again is None else _verdict(again),
                "again_problem": problem,
                "asked": _asked_fields(request, report),
                "metrics": [metric_view(metric) for metric in (judged.metrics if judged else ())],
                "judged_by": judged.baseline if judged else None,
                "figures": [shown(one) for one in summary.figures],
                "slices": [slice_view(one) for one in (judged.slices[:MAX_SLICES] if judged else ())],
                "more_slices": max(0, len(judged.slices) - MAX_SLICES) if judged else 0,
                "means": _means(report, run),
                "judges": self._judges(run, suite),
                "baseline": None if baseline is None else {"id": baseline.id, "name": label(baseline)},
                "passed_cases": passed_cases(run),
                "took_s": (human.instant(run.finished_at) - human.instant(run.started_at)).total_seconds(),
                "cost_nano_usd": summary.cost_nano_usd,
                "cases": case_page(
                    report.cases if report and report.cases else measured(run), baseline, run, cases, query.wanted()
                ),
                "shows": SHOWS,
                "wanted": query.wanted(),
                "others": self._others(run.prompt, but=run.id),
            },
            active="runs",
            title=f"{run.prompt} {self._when(run)}",
        )

    def compare(self, request: Request, query: Annotated[CompareQuery, Query()]) -> Response:
        registry = self._registry
        if not (query.a and query.b):
            return self._choose(request, query)
        before, after = registry.run(query.a), registry.run(query.b)
        found = self._compared(before, after)
        cases = [*stored_cases(document(registry, after.golden_digest), after)]
        seen = {case.id for case in cases}
        cases += [
            case for case in stored_cases(document(registry, before.golden_digest), before) if case.id not in seen
        ]
        report = found.report
        return self._pages.answer(
            request,
            "compare.html",
            {
                "a": _headed(before),
                "b": _headed(after),
                "prompt": after.prompt,
                "doubts": found.doubts,
                "unusable": report.reason if report.verdict == "UNUSABLE" else "",
                "report": report,
                "metrics": [metric_view(metric) for metric in report.metrics],
                "slices": [slice_view(one) for one in report.slices[:MAX_SLICES]],
                "more_slices": max(0, len(report.slices) - MAX_SLICES),
                "means": figures.means(report.baseline_per_call, report.per_call),
                "cases": case_page(report.cases, before, after, cases, query.wanted()),
                "shows": SHOWS,
                "wanted": query.wanted(),
            },
            active="runs",
            title=f"{after.prompt}: {self._when(before)} and {self._when(after)}",
        )

    def _when(self, run: Run) -> str:
        """`v2 of 21 Nov 14:03:21`: no two runs are called the same."""
        return f"{label(run)} of {human.local(run.started_at, self._pages.zone, self._pages.now())}"

    def _compared(self, before: Run, after: Run) -> Compared:
        """Runs never change, and the statistics of hundreds of cases take a second: the last comparisons are kept."""
        key = (before.id, after.id)
        found = self._known.get(key) or compared(self._registry, before, after)
        self._known[key] = found
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return found

    def _choose(self, request: Request, query: CompareQuery) -> Response:
        """Two drop-downs, of the runs of one prompt; of the newest run's where none is known yet."""
        given = query.b or query.a
        newest = self._registry.run_lines(RunFilter(), limit=1)
        prompt = self._registry.run(given).prompt if given else newest[0].prompt if newest else ""
        return self._pages.answer(
            request,
            "compare_choose.html",
            {"prompt": prompt, "a": query.a, "b": query.b, "runs": self._others(prompt) if prompt else []},
            active="runs",
            title="Compare two runs",
        )

    def _other(self, run_id: str | None) -> Run | None:
        try:
            return None if run_id is None else self._registry.run(run_id)
        except NotFound:
            return None

    def _others(self, prompt: str, *, but: str = "") -> list[dict[str, Any]]:
        """Newest first; what a drop-down needs."""
        lines = self._registry.run_lines(RunFilter(prompt=prompt), limit=CHOICES)
        return [
            {
                "id": line.id,
                "version": line.version,
                "digest": line.digest,
                "started_at": line.started_at,
                "verdict": line.verdict,
            }
            for line in lines
            if line.id != but
        ]

    def _judges(self, run: Run, suite: Any) -> list[dict[str, Any]]:
        """What each judge said, and the newest calibration of just that judge."""
        specs = {judge.name: judge for judge in judges_of(suite)} if isinstance(suite, dict) else {}
        found = []
        for tally in tallies(run):
            spec = specs.get(tally.name)
            lines = run_lines(self._registry, RunFilter(suite_digest=spec.digest), limit=1) if spec else []
            kappa = lines[0][1].figure(KAPPA) if lines else None
            found.append(
                {
                    **msgspec.to_builtins(tally),
                    "mean_text": figures.figure(tally.mean, spec.scale if spec else (1.0, 5.0)),
                    "kind": spec.kind.name if spec else "",
                    "scale": spec.scale if spec else None,
                    "pass_at": spec.passing if spec else None,
                    "calibration": lines[0][0].id if lines else None,
                    "kappa": None if kappa is None else shown(kappa),
                }
            )
        return found

    def _again(self, request: Request, run: Run) -> tuple[GateReport | None, str]:
        """The run under the margins and floors of the address, or why not; nothing when it has none."""
        try:
            wanted = _asked(request)
            if not wanted:
                return None, ""
            check_name(run.prompt)
            judges = known_judges(self._registry, self._pages.project.prompts / run.prompt)
            return regate(self._registry, run.id, metrics=wanted, judges=judges), ""
        except (BadInput, NotFound) as error:
            return None, str(error).replace("--metric: ", "").replace("--metric ", "")


def _asked(request: Request) -> list[Asked]:
    """`?pass-rate.margin=0.05`. Raises BadInput."""
    return [
        asked(f"{key}={value.strip()}")
        for key, value in request.query_params.items()
        if key.rpartition(".")[2] in ("margin", "floor") and value.strip()
    ]


def _asked_fields(request: Request, report: GateReport | None) -> list[dict[str, Any]]:
    """A row of the form for each metric: what was asked, and what the address asks instead."""
    rows = []
    for metric in report.metrics if report else ():
        fields: dict[str, Any] = {"name": metric.name, "scale": metric.scale}
        for field in ("margin", "floor"):
            said: float | None = getattr(metric, field)
            fields[field] = request.query_params.get(f"{metric.name}.{field}", "")
            fields[f"{field}_was"] = "" if said is None else f"{said:g}"
        rows.append(fields)
    return rows


def _report(run: Run) -> GateReport | None:
    """None where no gate judged it, or one whose report has another shape than today's."""
    try:
        return None if run.gate is None else msgspec.convert(run.gate, GateReport, strict=False)
    except msgspec.ValidationError:
        return None


def _verdict(report: GateReport) -> dict[str, Any]:
    return {"verdict": report.verdict, "reason": report.reason, "notes": report.notes}


def _headline(run: Run, report: GateReport | None) -> dict[str, Any]:
    """The sentence that everything else explains."""
    if report is not None:
        return _verdict(report) | {"baseline": report.baseline}
    errors = sum(result.error is not None for result in run.results)
    reason = f"{passing(run)} Measured, not gated."
    if not usable(run):
        reason = f"{errors} of {len(run.results)} calls ended in errors: nothing can be said of this run."
    return {"verdict": run.verdict, "reason": (run.gate or {}).get("reason") or reason, "notes": (), "baseline": None}


def _headed(run: Run) -> dict[str, Any]:
    """A run at the head of the comparison."""
    return {
        "id": run.id,
        "name": label(run),
        "version": run.version,
        "digest": run.digest,
        "started_at": run.started_at,
        "verdict": run.verdict,
        "repeats": run.repeats,
        "passed": passed_cases(run),
        "total": len({result.case_id for result in run.results}),
    }


def _means(report: GateReport | None, run: Run) -> list[tuple[str, str, str, float | None]]:
    if report is not None and report.per_call is not None:
        return figures.means(report.baseline_per_call, report.per_call)
    return figures.means(None, per_call(run))


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
