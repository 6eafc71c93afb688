"""The admin API's records: calls, SQL over them, and what traffic was served by."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from tidegate.console.api import Body, Limit
from tidegate.console.calls import LAST_DAY, CallQuery, search
from tidegate.console.json_answer import json_answer
from tidegate.console.page import Pages, parse_instant
from tidegate.console.prompts import RECENT, served_by_now
from tidegate.core.errors import NotFound
from tidegate.prompts.registry import Registry
from tidegate.telemetry.queries import MAX_ROWS, CallLog

Rows = Annotated[int, Query(ge=1, le=MAX_ROWS)]


class Question(Body):
    """One SELECT over the tables `calls` and `content`."""

    query: str = Field(max_length=100_000)
    limit: int = Field(default=MAX_ROWS, ge=1, le=MAX_ROWS)


class RecordsApi:
    """Reads only."""

    def __init__(self, pages: Pages, registry: Registry, call_log: CallLog) -> None:
        self._pages = pages
        self._registry = registry
        self._call_log = call_log

    def routes(self) -> APIRouter:
        routes = APIRouter(prefix="/api/v1")
        for path, endpoint, summary in (
            ("/status", self.status, "What is live where, and what recent live traffic was served by"),
            ("/traffic", self.traffic, "Live calls since an instant, by prompt, environment and version"),
            ("/calls", self.calls, "Calls that a filter leaves, newest first; `older` is the next page's `before`"),
            ("/calls/{call_id}", self.call, "One call with its content"),
            ("/records", self.records, "Calls for which a SQL condition holds, newest first, every column"),
        ):
            routes.add_api_route(path, endpoint, summary=summary)
        routes.add_api_route("/sql", self.sql, summary="The answer to one SELECT", methods=["POST"])
        return routes

    def status(self) -> Response:
        served = served_by_now(self._call_log, self._pages.now() - RECENT)
        return json_answer(
            [
                msgspec.to_builtins(pointer)
                | {
                    "served": {
                        f"v{item.version}": item.calls
                        for item in served
                        if (item.prompt, item.environment) == (pointer.prompt, pointer.environment)
                    }
                }
                for pointer in self._registry.pointers()
            ]
        )

    def traffic(self, since: str, prompt: str | None = None) -> Response:
        return json_answer(served_by_now(self._call_log, parse_instant("since", since), prompt))

    def calls(self, query: Annotated[CallQuery, Query()], limit: Limit = 50) -> Response:
        now = self._pages.now()
        with self._call_log.snapshot(now - LAST_DAY) as recent:
            page = search(self._call_log, recent, now, query.wanted(), limit=limit, before=query.before or None)
        return json_answer(page)

    def call(self, call_id: str) -> Response:
        found = self._call_log.call(call_id)
        if found is None:
            raise NotFound(f"There is no call {call_id!r}.")
        return json_answer(found)

    def records(self, where: str | None = None, limit: Rows = 50) -> Response:
        return json_answer(self._call_log.calls(where, limit))

    def sql(self, question: Question) -> Response:
        return json_answer(self._call_log.sql(question.query, limit=question.limit))
