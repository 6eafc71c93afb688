"""The admin API: what pages and CLI can do, as JSON with OpenAPI. Errors are `{"error": {"code", "message"}}`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tidegate.console.calls import CallQuery, search
from tidegate.console.page import Pages
from tidegate.console.prompts import RECENT, known_versions, served_by_now
from tidegate.console.who import who
from tidegate.core.errors import NotFound
from tidegate.prompts.registry import Registry
from tidegate.telemetry.queries import CallLog

Limit = Annotated[int, Query(ge=1, le=1_000)]


class Move(BaseModel):
    """What both moves take."""

    model_config = ConfigDict(extra="forbid")

    prompt: str
    environment: str = "production"
    reason: str = Field(default="", max_length=2_000)


class Deploy(Move):
    """Points an environment at a version: `v3`, a digest prefix, or an environment."""

    version: str
    weight: float | None = Field(default=None, gt=0, lt=1)
    """The share of the calls it gets while what is live keeps the rest; by default all of them."""
    force: bool = False


class Rollback(Move):
    """Points an environment back."""

    to: str | None = None


class Api:
    """Everything below /api/v1."""

    def __init__(self, pages: Pages, registry: Registry, call_log: CallLog) -> None:
        self._pages = pages
        self._registry = registry
        self._call_log = call_log

    def routes(self) -> APIRouter:
        routes = APIRouter(prefix="/api/v1")
        for path, endpoint, summary in (
            ("/status", self.status, "What is live where, and what recent live traffic was served by"),
            ("/prompts", self.prompts, "Names of all prompts"),
            ("/versions/{prompt:path}", self.versions, "Versions of a prompt, newest first"),
            ("/deployments", self.deployments, "The ledger, newest first"),
            ("/runs", self.runs, "Stored eval runs without their results, newest first"),
            ("/runs/{run_id}", self.run, "One run with its results and the gate's verdict"),
            ("/calls", self.calls, "Calls that a filter leaves, newest first; `older` is the next page's `before`"),
            ("/calls/{call_id}", self.call, "One call with its content"),
        ):
            routes.add_api_route(path, endpoint, summary=summary)
        post: dict[str, Any] = {"methods": ["POST"], "status_code": 201}
        routes.add_api_route("/deployments", self.deploy, summary="Point an environment at a version", **post)
        routes.add_api_route("/rollbacks", self.rollback, summary="Point an environment back", **post)
        return routes

    def status(self) -> Response:
        served = served_by_now(self._call_log, self._pages.now() - RECENT)
        return _json(
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

    def prompts(self) -> list[str]:
        return self._registry.prompts()

    def versions(self, prompt: str) -> Response:
        return _json(known_versions(self._registry, prompt))

    def deployments(self, prompt: str | None = None) -> Response:
        return _json(self._registry.log(prompt))

    def deploy(self, move: Deploy) -> Response:
        done = self._registry.deploy(
            move.prompt,
            move.version,
            move.environment,
            who=who(),
            reason=move.reason,
            force=move.force,
            weight=move.weight,
        )
        return _json(done, 201)

    def rollback(self, move: Rollback) -> Response:
        done = self._registry.rollback(move.prompt, move.environment, who=who(), reason=move.reason, to=move.to)
        return _json(done, 201)

    def runs(self, prompt: str | None = None, limit: Limit = 100) -> Response:
        return _json(self._registry.runs(prompt, limit))

    def run(self, run_id: str) -> Response:
        return _json(self._registry.run(run_id))

    def calls(self, query: Annotated[CallQuery, Query()], limit: Limit = 50) -> Response:
        page = search(self._call_log, self._pages.now(), query.wanted(), limit=limit, before=query.before or None)
        return _json(page)

    def call(self, call_id: str) -> Response:
        found = self._call_log.call(call_id)
        if found is None:
            raise NotFound(f"There is no call {call_id!r}.")
        return _json(found)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
