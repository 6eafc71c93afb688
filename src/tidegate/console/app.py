"""
The console: pages and the admin API of one project, as an ASGI application.

Server-rendered pages over the registry and the call log; what they need is handed in, nothing is looked up. Endpoints
are plain functions, so they run in threads: both parts block. `guard.py` stands before everything.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse

from tidegate.config import Project
from tidegate.console.access import Doorkeeper, hang_doors
from tidegate.console.api import Api
from tidegate.console.api_keys import KeysApi
from tidegate.console.api_records import RecordsApi
from tidegate.console.assets import Assets
from tidegate.console.calls import CallPages
from tidegate.console.guard import Guard, JsonSuffix
from tidegate.console.moves import MovePages
from tidegate.console.overview import OverviewPage
from tidegate.console.page import NAVIGATION, Now, Pages
from tidegate.console.prompts import PromptPages
from tidegate.console.run_list import RunListPages
from tidegate.console.runs import RunPages
from tidegate.console.sign_in import SignIn, sign_in_url
from tidegate.core.address import is_loopback
from tidegate.core.errors import TidegateError, Unauthenticated, nearest
from tidegate.gateway.auth import check_bind
from tidegate.prompts.registry import Registry
from tidegate.telemetry.queries import CallLog

log = logging.getLogger("tidegate.console")


def _utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(*, registry: Registry, call_log: CallLog, project: Project, now: Now = _utc_now) -> FastAPI:
    """
    The application; serve it on `project.config.console`'s host.

    Raises: BadInput when that host is not loopback and there are no keys: nobody would have to sign in; Unusable when
        there it can not be told.
    """
    host = project.config.console.host
    if not is_loopback(host):
        check_bind(host, "console", registry.keys.ring())
    keeper = Doorkeeper(registry.keys, loopback=is_loopback(host))
    assets = Assets(project.state / "cache")
    pages = Pages(project, assets, now)
    app = FastAPI(
        title="tidegate console", version="1", openapi_url="/api/v1/openapi.json", docs_url=None, redoc_url=None
    )

    @app.get("/", include_in_schema=False)
    def start() -> RedirectResponse:
        return RedirectResponse("/overview")

    @app.get("/livez", include_in_schema=False)
    def livez() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/static/{digest}/{name}", include_in_schema=False)
    def static(request: Request, digest: str, name: str) -> Response:
        return assets.respond(digest, name, request.headers.get("accept-encoding", ""))

    for part in (
        OverviewPage(pages, registry, call_log),
        CallPages(pages, registry, call_log),
        PromptPages(pages, registry, call_log),
        MovePages(pages, registry),
        RunListPages(pages, registry),
        RunPages(pages, registry),
        SignIn(pages, keeper),
        Api(pages, registry),
        RecordsApi(pages, registry, call_log),
        KeysApi(registry),
    ):
        app.router.routes.extend(part.routes().routes)
    hang_doors(app, keeper)
    _answer_errors(app, pages)
    app.add_middleware(JsonSuffix)
    app.add_middleware(Guard, host=host, keeper=keeper)
    return app


def _answer_errors(app: FastAPI, pages: Pages) -> None:
    """Every error is a page (or JSON) with one sentence; a traceback goes to the log only."""

    def ours(request: Request, error: Exception) -> Response:
        known = cast("TidegateError", error)
        if isinstance(known, Unauthenticated) and not pages.for_programs(request):
            return RedirectResponse(sign_in_url(request), status_code=303)
        return pages.error(request, known.http_status, str(known), known.code)

    def http(request: Request, error: Exception) -> Response:
        status = cast("HTTPException", error).status_code
        message = str(cast("HTTPException", error).detail)
        if status == 404:
            first = request.scope["path"].split("/")[1]
            hint = nearest(first, [address.strip("/") for _, address, _ in NAVIGATION])
            # The page has a link to each of them: only a guess is worth saying.
            message = f"There is no page at this address.{hint if '?' in hint else ''}"
        return pages.error(request, status, message, "not_found" if status == 404 else "invalid_request_error")

    def invalid(request: Request, error: Exception) -> Response:
        problems = cast("RequestValidationError", error).errors()
        said = "; ".join(f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}" for item in problems)
        return pages.error(request, 400, f"{said}.", "invalid_request_error")

    def bug(request: Request, error: Exception) -> Response:
        log.error("%s %s", request.method, request.scope["path"], exc_info=error)
        return pages.error(request, 500, "The console has a bug here. Its log has the details.", "internal_error")

    app.add_exception_handler(TidegateError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, bug)
