"""The Overview: what the calls of a window cost, how long they took, how many failed, and which version it was."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from tidegate.console import format as human
from tidegate.console.charts import Marker, overview_charts, shown_groups, sparkline, theme
from tidegate.console.next_step import first_call
from tidegate.console.page import Pages, parse_instant
from tidegate.core.errors import BadInput, nearest
from tidegate.core.ledger import Deployment, Pointer
from tidegate.prompts.registry import Registry
from tidegate.telemetry.overview import (
    AUTO,
    LONGEST_FIT,
    SPLITS,
    WINDOWS,
    Overview,
    Window,
    fitting,
    overview,
    preset,
    span,
)
from tidegate.telemetry.queries import CallLog

PRODUCTION = "production"
THEMES = {"light": theme("light"), "dark": theme("dark")}


class Tile(msgspec.Struct, frozen=True):
    """One headline number."""

    label: str
    value: str
    detail: str
    more: str = ""
    spark: str = ""
    alarm: bool = False


class OverviewQuery(BaseModel):
    """What the page is asked for, as its address writes it."""

    window: str = ""
    since: str = Field(default="", alias="from")
    until: str = Field(default="", alias="to")
    by: str = "version"
    prompt: str = ""
    origin: str = "live"


class OverviewPage:
    """The page and its JSON."""

    def __init__(self, pages: Pages, registry: Registry, call_log: CallLog) -> None:
        self._pages = pages
        self._registry = registry
        self._call_log = call_log

    def routes(self) -> APIRouter:
        routes = APIRouter(include_in_schema=False)
        routes.add_api_route("/overview", self.page)
        return routes

    def page(self, request: Request, query: Annotated[OverviewQuery, Query()]) -> Response:
        split = next((known for known in SPLITS if known == query.by), None)
        if split is None:
            raise BadInput(f"by: there is no split by {query.by!r}.{nearest(query.by, SPLITS)}")
        origin = None if query.origin == "all" or split == "origin" else query.origin
        now, prompt = self._pages.now(), query.prompt or None
        asked = _window(now, query)
        with self._call_log.snapshot(asked.since - asked.length if asked else now - 2 * LONGEST_FIT) as rows:
            window = asked or fitting(rows, now, origin)
            data = overview(rows, window, split=split, prompt=prompt, origin=origin)
        shown = {PRODUCTION, *self._pages.project.config.gate.protects}
        moves, pointers, prompts = self._registry.log(prompt), self._registry.pointers(), self._registry.prompts()
        return self._pages.answer(
            request,
            "overview.html",
            {
                "window": window,
                "windows": [AUTO, *WINDOWS],
                "split": split,
                "splits": SPLITS,
                "prompt": prompt,
                "prompts": prompts,
                "scope": _scope(self._pages, window, origin, prompt),
                "total": data.total,
                "before": data.before,
                "tiles": _tiles(data),
                "charts": overview_charts(data, self._pages.zone, _markers(moves, shown)),
                "themes": THEMES,
                "groups": _groups(data, pointers),
                "regressions": _regressions(data, pointers),
                "next_step": first_call(self._pages.project, self._registry),
            },
            active="overview",
            title="Overview",
        )


def _window(now: datetime, query: OverviewQuery) -> Window | None:
    """The window that was asked for; None: the one that fits the data."""
    if query.since or query.until:
        if not (query.since and query.until):
            raise BadInput("`from` and `to` come together.")
        return span(parse_instant("from", query.since), parse_instant("to", query.until))
    return None if query.window in ("", AUTO) else preset(query.window, now)


def _scope(pages: Pages, window: Window, origin: str | None, prompt: str | None) -> str:
    what = f"{origin} traffic" if origin else "all traffic"
    of = f" of {prompt}" if prompt else ""
    begin, end = (moment.astimezone(pages.zone) for moment in (window.since, window.until))
    if window.name not in (AUTO, "custom"):
        when = f"the last {window.name}"
    elif begin.date() == end.date():
        when = f"{begin:%H:%M} – {end:%H:%M}"
    else:
        when = f"{begin.day} {begin:%b %H:%M} – {end.day} {end:%b %H:%M}"
    return f"{what.capitalize()}{of}, {when}, in buckets of {human.duration_words(window.step)}"


def _markers(moves: Sequence[Deployment], environments: Collection[str]) -> list[Marker]:
    """The moves of the environments that matter; the others would bury them."""
    single = len({move.prompt for move in moves}) == 1
    markers = []
    for move in moves:
        if move.environment not in environments:
            continue
        verb = "rollback" if move.action == "rollback" else "forced" if move.forced else "deploy"
        where = "" if single else f"{move.prompt.rpartition('/')[2]} "
        label = f"{verb} {where}v{move.to_version}"
        markers.append(Marker(human.instant(move.at), label, alarming=move.forced or move.action == "rollback"))
    return markers


def _tiles(data: Overview) -> list[Tile]:
    now, before = data.total, data.before
    points = [numbers for _, numbers in data.buckets]
    whole = points[:-1]  # the last bucket has only begun
    minutes = data.window.length.total_seconds() / 60

    def compared(text: str | None, otherwise: str) -> str:
        return f"{text} on before" if text else otherwise

    return [
        Tile(
            "Calls",
            human.count(now.calls),
            compared(human.change(now.calls, before.calls), f"{now.calls / minutes:.1f} a minute"),
            spark=sparkline([numbers.calls for numbers in whole]),
        ),
        Tile(
            "Error rate",
            human.percent(now.error_rate),
            compared(human.points(now.error_rate, before.error_rate), f"{human.count(now.errors)} failed"),
            spark=sparkline([numbers.error_rate for numbers in points]),
            alarm=(now.error_rate or 0) > 0.05,
        ),
        Tile(
            "Output valid",
            human.percent(now.valid_rate),
            compared(
                human.points(now.valid_rate, before.valid_rate),
                f"{human.count(now.checked - now.valid)} of {human.count(now.checked)} invalid",
            ),
            spark=sparkline([numbers.valid_rate for numbers in points]),
            alarm=(now.valid_rate or 1) < 0.95,
        ),
        Tile(
            "Latency p50",
            human.duration(now.p50_s),
            f"p95 {human.duration(now.p95_s)}",
            spark=sparkline([numbers.p50_s for numbers in points]),
        ),
        Tile(
            "Cost per request",
            human.usd(now.cost_per_call_nano_usd),
            f"{human.usd(now.cost_nano_usd)} in all",
            spark=sparkline([numbers.cost_per_call_nano_usd for numbers in points]),
        ),
        Tile(
            "Tokens",
            human.count(now.input_tokens),
            f"{human.count(now.output_tokens)} out",
            more="in",
            spark=sparkline([numbers.input_tokens for numbers in whole]),
        ),
    ]


def _groups(data: Overview, pointers: Sequence[Pointer]) -> list[dict[str, Any]]:
    colors = {group.label: index for index, group in enumerate(shown_groups(data))}
    regressed = {(item.prompt, item.version): item.before_version for item in data.regressions}
    return [
        {
            "label": group.label,
            "color": colors.get(group.label),
            "prompt": group.prompt,
            "version": group.version,
            "numbers": group.numbers,
            "share": group.numbers.calls / data.total.calls,
            "valid_rate": group.numbers.valid_rate,
            "interval": group.numbers.valid_interval,
            "error_rate": group.numbers.error_rate,
            "cost": group.numbers.cost_per_call_nano_usd,
            "last": group.last,
            "live": _live(pointers, group.prompt, group.version),
            "regressed": regressed.get((group.prompt or "", group.version or 0)),
            "calls_url": f"/calls?{urlencode(_calls_query(data, group.label, group.prompt, group.version))}",
        }
        for group in data.groups
    ]


def _calls_query(data: Overview, label: str, prompt: str | None, version: int | None) -> dict[str, str]:
    span = {"from": f"{data.window.since:%Y-%m-%dT%H:%M:%SZ}", "to": f"{data.window.until:%Y-%m-%dT%H:%M:%SZ}"}
    if data.split == "version":
        return span | {
            key: str(value) for key, value in (("prompt", prompt), ("version", version)) if value is not None
        }
    return span | ({"model": label} if data.split == "model" else {data.split: label})


def _regressions(data: Overview, pointers: Sequence[Pointer]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": item.prompt,
            "version": item.version,
            "numbers": item.numbers,
            "before_version": item.before_version,
            "before": item.before,
            "live": _live(pointers, item.prompt, item.version),
        }
        for item in data.regressions
    ]


def _live(pointers: Sequence[Pointer], prompt: str | None, version: int | None) -> list[str]:
    return [pointer.environment for pointer in pointers if pointer.prompt == prompt and version in pointer.shares]
