"""
HTTP paths of the gateway: from a request of the edge to a call of the pipeline.

Authorisation is decided on the matched route, never on a URL put together from what the client sent.
"""

from __future__ import annotations

import asyncio
import re
from urllib.parse import unquote

import msgspec

from tidegate.core.budgets import BudgetState
from tidegate.core.errors import (
    InvalidRequest,
    RequestError,
    TidegateError,
    UnknownModel,
    UnknownPath,
    WrongMethod,
    nearest,
)
from tidegate.core.keys import OPEN, Access
from tidegate.dialects.capabilities import Capabilities, capabilities
from tidegate.dialects.dialect import Dialect
from tidegate.gateway import cache_page, listing, prompt_page
from tidegate.gateway.auth import identify
from tidegate.gateway.call import Call, described, label
from tidegate.gateway.edge import Request
from tidegate.gateway.endpoints import CALLS, DIALECTS, GEMINI_PATHS, WIRES, client_key, dialect_of, endpoint
from tidegate.gateway.pipeline import Services, serve
from tidegate.gateway.relay import JSON_HEADERS
from tidegate.ports import Reply

_MODEL = re.compile(r"/v1(?:beta)?/models/(?P<name>.+)")
ANSWERS = ("/v1/models", "/v1beta/models", "/v1/capabilities", "/v1/budgets", "/livez", "/readyz")
"""Paths that are read, without a call."""
READS = ("GET", "HEAD")
KNOWN = (*CALLS, *GEMINI_PATHS, *prompt_page.PATHS, *ANSWERS, "/v1/models/MODEL", cache_page.PATH)
FOR_EVERYBODY = ("/livez", "/readyz")
"""Of them, those that need no key."""


class Routes:
    """The edge's handler. One instance per gateway process."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, request: Request, reply: Reply) -> None:
        try:
            found = endpoint(request)
        except InvalidRequest as error:
            await _error(reply, dialect_of(request.path), error)
            return
        if found is None:
            await self._other(request, reply)
        elif request.method != "POST":
            await _wrong_method(reply, found.dialect, request, "POST")
        else:
            key = client_key(request)
            call = Call(request.body, found.dialect, found.model, found.stream, key, request.peer, request.headers)
            await serve(described(call), found.form(reply), self._services)

    async def _other(self, request: Request, reply: Reply) -> None:
        """Everything that is no call."""
        dialect = dialect_of(request.path)
        try:
            access = self._access(request)
        except RequestError as error:
            await _error(reply, dialect, error)
            return
        if request.path.startswith(prompt_page.PREFIX):
            await prompt_page.answer(request, reply, self._services.prompts, access, _caller(request))
        elif request.path == cache_page.PATH:
            await cache_page.answer(request, reply, self._services.lookup, self._services.prompts, access)
        elif request.method in READS and (asked := _MODEL.fullmatch(request.path)):
            await self._model(unquote(asked["name"]), request, access, reply)
        elif request.path not in ANSWERS:
            path = request.path[:200]
            said = nearest(path, KNOWN, cutoff=0.75) or f" Known: {', '.join(KNOWN)}."
            await _error(reply, dialect, UnknownPath(f"no such path: {path}.{said}"))
        elif request.method not in READS:
            await _wrong_method(reply, dialect, request, ", ".join(READS))
        else:
            await _json(reply, await self._answer(request, access))

    def _access(self, request: Request) -> Access:
        """What the client may do. Raises Unauthenticated, except for what everybody may ask."""
        if request.path in FOR_EVERYBODY:
            return OPEN
        s = self._services
        return identify(client_key(request), s.keys, request.headers, peer=request.peer, clock=s.clock)

    async def _model(self, name: str, request: Request, access: Access, reply: Reply) -> None:
        """One of the names that the client may call: of any other it learns nothing."""
        dialect, names = listing.asker(request), self._names(access)
        if name in names:
            await _json(reply, listing.model(dialect, name))
        else:
            message = f"no route, provider/model or prompt:NAME is called {name[:200]!r}.{nearest(name, names)}"
            await _error(reply, dialect, UnknownModel(message, param="model"))

    async def _answer(self, request: Request, access: Access) -> object:
        match request.path:
            case "/v1/models" | "/v1beta/models":
                return listing.models(listing.asker(request), self._names(access))
            case "/v1/capabilities":
                return {"unsupported": self._services.targets.unsupported, "dialects": await self._capabilities()}
            case "/v1/budgets":
                return {"budgets": self._budgets(access)}
            case "/readyz":
                return self._readiness()
            case _:
                return {"status": "ok"}

    async def _capabilities(self) -> Capabilities:
        # They are found by trying, some 10 ms once.
        return await asyncio.to_thread(capabilities, DIALECTS, WIRES)

    def _readiness(self) -> dict[str, object]:
        """Ready in any case, as calls are served from the last snapshot; but it says how that one stands."""
        prompts = self._services.prompts
        freshness = prompts.freshness()
        return {
            "status": "ok" if freshness.following else "degraded",
            "control_store": "following" if freshness.following else "unreachable",
            "prompts": {"count": len(prompts.names()), "source": freshness.source, "read_at": freshness.read_at},
        }

    def _budgets(self, access: Access) -> list[BudgetState]:
        """All, for a key that may read; else its own."""
        admission = self._services.admission
        known = [] if admission is None else admission.budgets()
        return [state for state in known if access.may("read") or state.scope == f"key {access.name}"]

    def _names(self, access: Access) -> list[str]:
        targets = self._services.targets
        prompts = (f"prompt:{name}" for name in self._services.prompts.names() if access.may_call(prompt=name))
        routes, models = (
            [name for name in names if access.may_call(model=name)] for names in (targets.names(), targets.models())
        )
        return [*routes, *prompts, *models]


def _caller(request: Request) -> str | None:
    """Who a split goes by, as for a call."""
    headers = request.headers
    return label(headers.get("x-tidegate-user")) or label(headers.get("x-tidegate-conversation"))


async def _json(reply: Reply, value: object) -> None:
    await reply.start(200, [JSON_HEADERS], streamed=False)
    await reply.end(msgspec.json.encode(value))


async def _wrong_method(reply: Reply, dialect: Dialect, request: Request, allowed: str) -> None:
    error = WrongMethod(f"{request.path[:200]} takes {allowed}.")
    await reply.start(error.http_status, [JSON_HEADERS, ("allow", allowed)], streamed=False)
    await reply.end(dialect.error_body(error))


async def _error(reply: Reply, dialect: Dialect, error: TidegateError) -> None:
    await reply.start(error.http_status, [JSON_HEADERS], streamed=False)
    await reply.end(dialect.error_body(error))
