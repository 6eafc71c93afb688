"""Evals: the list of runs that a filter leaves, and how one prompt's figures went from run to run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from tidegate.console.calls import Select
from tidegate.console.next_step import first_version
from tidegate.console.on_disk import versions_here
from tidegate.console.overview import THEMES
from tidegate.console.page import Pages, parse_instant
from tidegate.console.run_lines import run_lines, shown_line
from tidegate.console.trend import breaks, moves_after, trend_charts
from tidegate.core.errors import BadInput, nearest
from tidegate.core.run_lines import RunFilter, RunKind
from tidegate.prompts.files import JUDGES
from tidegate.prompts.registry import Registry

PAGE = 50
TREND = 500
"""Runs on a trend, the newest ones."""
LISTED = 100
"""Of them in the table; `.json` has all."""
VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE", "UNUSABLE")
SPANS = {
    "1d": (timedelta(days=1), "the last day"),
    "7d": (timedelta(days=7), "the last week"),
    "30d": (timedelta(days=30), "the last month"),
}
KINDS: dict[RunKind, str] = {"gate": "gates", "eval": "evals", "calibration": "judge calibrations"}


class RunQuery(BaseModel):
    """A filter as an address writes it; an empty text means any."""

    prompt: str = ""
    version: str = ""
    verdict: str = ""
    kind: str = ""
    since: str = ""
    before: str = ""

    def wanted(self, now: datetime) -> RunFilter:
        """The filter. Raises BadInput for a value that can not be one."""
        verdict = next((known for known in VERDICTS if known == self.verdict), None)
        if self.verdict and verdict is None:
            raise BadInput(f"verdict: {self.verdict[:40]!r} is none.{nearest(self.verdict, VERDICTS)}")
        kind = next((known for known in KINDS if known == self.kind), None)
        if self.kind and kind is None:
            raise BadInput(f"kind: {self.kind[:40]!r} is none.{nearest(self.kind, list(KINDS))}")
        number = self.version.removeprefix("v")
        if self.version and not (number.isascii() and number.isdigit() and len(number) < 10):
            raise BadInput(f"version: {self.version[:40]!r} is not a version such as v3.")
        since = None
        if self.since:
            since = now - SPANS[self.since][0] if self.since in SPANS else parse_instant("since", self.since)
        return RunFilter(
            prompt=self.prompt or None,
            version=int(number) if number else None,
            verdict=verdict,  # type: ignore[arg-type]  # one of VERDICTS
            kind=kind,
            since=None if since is None else f"{since:%Y-%m-%dT%H:%M:%S}",
        )


class RunListPages:
    """The list and the trend."""

    def __init__(self, pages: Pages, registry: Registry) -> None:
        self._pages = pages
        self._registry = registry

    def routes(self) -> APIRouter:
        routes = APIRouter(include_in_schema=False)
        routes.add_api_route("/runs", self.index)
        routes.add_api_route("/runs/trend", self.trend)
        return routes

    def index(self, request: Request, query: Annotated[RunQuery, Query()]) -> Response:
        wanted = query.wanted(self._pages.now())
        found = run_lines(self._registry, wanted, limit=PAGE + 1, before=query.before or None)
        lines = found[:PAGE]
        prompts = self._registry.prompts()
        return self._pages.answer(
            request,
            "runs.html",
            {
                "runs": [shown_line(line, summary) for line, summary in lines],
                "older": lines[-1][0].id if len(found) > PAGE else None,
                "before": query.before,
                "wanted": wanted,
                "filtered": wanted != RunFilter(),
                "selects": self._selects(wanted, query.since, prompts),
                "command": self._command(wanted, prompts),
            },
            active="runs",
            title="Evals",
        )

    def trend(self, request: Request, *, prompt: str = "", kind: str = "") -> Response:
        prompts = self._registry.prompts()
        name = prompt or self._usual(prompts)
        if name:
            versions_here(self._pages.project, self._registry, name)
        wanted = RunQuery(prompt=name, kind=kind).wanted(self._pages.now())
        lines = run_lines(self._registry, wanted, limit=TREND)[::-1] if name else []
        rows = [shown_line(line, summary) for line, summary in lines]
        moves = self._registry.log(name) if name else []
        bare = [line for line, _ in lines]
        for row, why, made in zip(rows, breaks(bare), moves_after(bare, moves), strict=True):
            row |= {"break": why, "moves": made}
        return self._pages.answer(
            request,
            "trend.html",
            {
                "prompt": name,
                "prompts": prompts,
                "kind": kind,
                "kinds": KINDS,
                "charts": trend_charts(lines, moves, self._pages.zone) if len(lines) > 1 else [],
                "themes": THEMES,
                "runs": rows[::-1],
                "listed": LISTED,
                "cut": len(lines) == TREND,
                "command": self._command(wanted, prompts),
            },
            active="runs",
            title=f"Trend of {name}" if name else "Trend",
        )

    def _usual(self, prompts: Sequence[str]) -> str:
        """The prompt of the newest run, where no other is asked for."""
        newest = self._registry.run_lines(RunFilter(), limit=1)
        return newest[0].prompt if newest else next(iter(prompts), "")

    def _selects(self, wanted: RunFilter, since: str, prompts: Sequence[str]) -> list[Select]:
        offered = [*prompts, *([wanted.prompt] if wanted.prompt and wanted.prompt not in prompts else [])]
        selects = [
            Select("prompt", "Prompt", wanted.prompt or "", [("", "any prompt"), *((name, name) for name in offered)]),
        ]
        numbers = [version.number for version in self._registry.versions(wanted.prompt)] if wanted.prompt else []
        if wanted.version is not None and wanted.version not in numbers:
            numbers.append(wanted.version)
        if numbers:
            versions = [("", "any version"), *((str(number), f"v{number}") for number in numbers)]
            chosen = "" if wanted.version is None else str(wanted.version)
            selects.append(Select("version", "Version", chosen, versions))
        verdicts = [("", "any verdict"), *((verdict, verdict) for verdict in VERDICTS)]
        kinds = [("", "any kind"), *KINDS.items()]
        spans = [("", "any time"), *((key, label) for key, (_, label) in SPANS.items())]
        if since and since not in SPANS:
            spans.append((since, f"since {since}"))
        return [
            *selects,
            Select("verdict", "Verdict", wanted.verdict or "", verdicts),
            Select("kind", "Kind", wanted.kind or "", [(str(key), label) for key, label in kinds]),
            Select("since", "Since", since, spans),
        ]

    def _command(self, wanted: RunFilter, prompts: Sequence[str]) -> str:
        """What makes a run where there is none."""
        if wanted.kind == "calibration":
            return "tidegate judge calibrate JUDGE --labels labels.jsonl"
        name = wanted.prompt or next((name for name in prompts if not name.startswith(f"{JUDGES}/")), None)
        if name is None:
            return first_version(self._pages.project, self._registry).command
        return f"tidegate eval {name}" if wanted.kind == "eval" else f"tidegate gate {name}"
