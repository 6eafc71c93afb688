"""
One way to answer: a page's data becomes HTML, or, when the path ended in `.json`, the same data as JSON.

Templates escape everything; nothing in `data` is ever marked as safe. What a template needs to show a value (format,
time zone, links) is set up here once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tidegate.config import Project
from tidegate.console import format as human
from tidegate.console.assets import Assets
from tidegate.console.json_answer import json_answer
from tidegate.core.artifact import short
from tidegate.core.errors import BadInput
from tidegate.evals.reports.plain import plain

Now = Callable[[], datetime]
NAVIGATION = (
    ("overview", "/overview", "Overview"),
    ("calls", "/calls", "Calls"),
    ("prompts", "/prompts", "Prompts"),
    ("runs", "/runs", "Evals"),
)


def wants_json(request: Request) -> bool:
    """Whether the address ended in `.json`."""
    return bool(request.scope.get("json"))


class Pages:
    """Renders. One per application; safe for concurrent calls."""

    def __init__(self, project: Project, assets: Assets, now: Now) -> None:
        self.project = project
        self.zone = ZoneInfo(project.config.timezone)
        self.now = now
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            asset=assets.url,
            navigation=NAVIGATION,
            prompt_url=prompt_url,
            folder=project.root.name,
            project=project,
            zone_name=project.config.timezone,
            signed_in=signed_in,
        )
        self._environment.filters.update(
            count=human.count,
            duration=human.duration,
            usd=human.usd,
            percent=human.percent,
            short=short,
            local=lambda value: human.local(value, self.zone, self.now()),
            local_minute=lambda value: human.local_minute(value, self.zone, self.now()),
            ago=lambda value: human.ago(value, self.now()),
            exact=self._exact,
            utc=lambda value: human.instant(value).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC",
            iso=lambda value: human.instant(value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            pretty=human.pretty_json,
            plain=plain,
            figure=lambda value: human.DASH if value is None else f"{value:.3g}",
        )

    def answer(
        self, request: Request, template: str, data: Mapping[str, Any], *, active: str, title: str, status: int = 200
    ) -> Response:
        """
        Args:
            data: JSON values, structs, dataclasses and datetimes: what the template shows and `.json` gives.
            active: the entry of the navigation that is lit.
        """
        if wants_json(request):
            return json_answer(data, status, indent=2)
        html = self._environment.get_template(template).render(
            **data, request=request, active=active, title=title, link=lambda **changed: link(request, **changed)
        )
        # Half an emoji is no UTF-8: it stands there as an escape.
        return HTMLResponse(html.encode("utf-8", "backslashreplace"), status)

    def error(self, request: Request, status: int, message: str, code: str) -> Response:
        """An error as a page that says what to do, or in the API's shape."""
        if self.for_programs(request):
            body = msgspec.json.encode({"error": {"code": code, "message": message}})
            return Response(body, status, media_type="application/json")
        phrase = HTTPStatus(status).phrase
        data = {"phrase": phrase, "message": message}
        return self.answer(request, "error.html", data, active="", title=phrase, status=status)

    def for_programs(self, request: Request) -> bool:
        """Whether the answer is read by a program: JSON, also when it is an error."""
        return wants_json(request) or request.url.path.startswith("/api/")

    def _exact(self, value: str | datetime) -> str:
        return human.instant(value).astimezone(self.zone).strftime("%Y-%m-%d %H:%M:%S %Z")


def signed_in(request: Request) -> str:
    """The name of the key that somebody signed in with; empty where nobody has to."""
    return getattr(request.scope.get("access"), "name", "")


def link(request: Request, **changed: Any) -> str:
    """This page's address with some of its parameters changed; None drops one."""
    query = {key: value for key, value in request.query_params.items() if key not in changed}
    query |= {key: str(value) for key, value in changed.items() if value is not None}
    path = quote(request.scope["path"])
    return f"{path}?{urlencode(query)}" if query else path


def parse_instant(name: str, text: str) -> datetime:
    """An ISO 8601 instant of an address; without a zone it is UTC. Raises BadInput."""
    try:
        return human.instant(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{name}: {text[:40]!r} is not an instant such as 2026-03-02T09:30:00Z.") from error


def prompt_url(name: str, page: str = "prompts", **query: Any) -> str:
    """The address of a prompt's page, or of its rollback or deploy page."""
    kept = {key: value for key, value in query.items() if value is not None}
    return f"/{page}/{quote(name)}" + (f"?{urlencode(kept)}" if kept else "")
