"""
Who may do what here, decided on the route that was matched.

Every route stands in the table below with what it needs; one that does not, is not served: the application can not be
made. Without keys everybody may do everything, and then only this machine reaches the console. Once a key was made,
every request needs one: as `Authorization: Bearer KEY` or `x-api-key`, or as a browser's session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate.console.sessions import Sessions, value_of
from tidegate.console.who import who_runs_it
from tidegate.core.errors import InternalError, TooLarge, Unauthenticated, Unusable
from tidegate.core.failures import Failures
from tidegate.core.keys import OPEN, Access, KeyRing, Right
from tidegate.prompts.keys import KeyBook

MAX_BODY_BYTES = 64 << 20
"""Of a run with all that was answered; most of the rest is far smaller."""
NO_KEY = "no valid API key. Send one as `Authorization: Bearer KEY` or `x-api-key: KEY`, or sign in with a browser."
NOBODY = Access(rights=frozenset())
Need = Right | Literal["nothing", "a key"]

NEEDS: Mapping[tuple[str, str], Need] = {
    ("GET", "/livez"): "nothing",
    ("GET", "/static/{digest}/{name}"): "nothing",
    ("GET", "/sign-in"): "nothing",
    ("POST", "/sign-in"): "nothing",
    ("POST", "/sign-out"): "nothing",
    ("GET", "/"): "a key",
    ("GET", "/overview"): "read",
    ("GET", "/calls"): "read",
    ("GET", "/calls/previews"): "read",
    ("GET", "/calls/{call_id}"): "read",
    ("GET", "/prompts"): "read",
    ("GET", "/prompts/{name:path}"): "read",
    ("GET", "/deploy/{name:path}"): "move",
    ("POST", "/deploy/{name:path}"): "move",
    ("GET", "/rollback/{name:path}"): "move",
    ("POST", "/rollback/{name:path}"): "move",
    ("GET", "/runs"): "read",
    ("GET", "/runs/trend"): "read",
    ("GET", "/runs/compare"): "read",
    ("GET", "/runs/{run_id}"): "read",
    ("GET", "/api/v1/openapi.json"): "a key",
    ("GET", "/api/v1/server"): "a key",
    ("GET", "/api/v1/status"): "read",
    ("GET", "/api/v1/prompts"): "read",
    ("GET", "/api/v1/versions/{prompt:path}"): "read",
    ("POST", "/api/v1/versions"): "evaluate",
    ("GET", "/api/v1/version"): "read",
    ("GET", "/api/v1/artifacts/{digest}"): "read",
    ("GET", "/api/v1/pointers"): "read",
    ("GET", "/api/v1/deployments"): "read",
    ("POST", "/api/v1/deployments"): "move",
    ("GET", "/api/v1/rollbacks/target"): "read",
    ("POST", "/api/v1/rollbacks"): "move",
    ("GET", "/api/v1/approvals"): "read",
    ("POST", "/api/v1/approvals"): "move",
    ("GET", "/api/v1/faults"): "read",
    ("GET", "/api/v1/runs"): "read",
    ("POST", "/api/v1/runs"): "evaluate",
    ("GET", "/api/v1/runs/{run_id}"): "read",
    ("GET", "/api/v1/documents/{digest}"): "read",
    ("GET", "/api/v1/calls"): "read",
    ("GET", "/api/v1/calls/{call_id}"): "read",
    ("GET", "/api/v1/records"): "read",
    ("GET", "/api/v1/traffic"): "read",
    ("POST", "/api/v1/sql"): "read",
    ("GET", "/api/v1/keys"): "keys",
    ("POST", "/api/v1/keys"): "keys",
    ("POST", "/api/v1/keys/revocations"): "keys",
}
"""Method and path, as the route writes it. `overrule` is asked for where a deploy is forced."""


class Doorkeeper:
    """Tells who asks. Belongs to one event loop."""

    def __init__(self, book: KeyBook, *, loopback: bool) -> None:
        """
        Args:
            loopback: only this machine reaches the console: then it is open as long as there are no keys.
        """
        self.sessions = Sessions()
        self._book = book
        self._loopback = loopback
        self._failures = Failures()
        self._last: KeyRing | None = None

    async def open(self) -> bool:
        """Whether nobody is asked for a key. Raises Unusable when the keys were never read and can not be."""
        return self._loopback and (await self._ring()).empty

    async def admit(self, scope: Scope, need: Need) -> Access:
        """Raises Unauthenticated, Saturated after too many tries, Forbidden, Unusable."""
        if need == "nothing":
            return NOBODY
        if await self.open():
            return OPEN
        token, cookie = _credentials(scope)
        access = None
        if token is not None:
            access = await self.signed_in(token, _peer(scope))
        elif cookie is not None:
            prefix = self.sessions.read(cookie, self._book.now_ns())
            access = (await self._ring()).access(prefix, self._book.now_ns()) if prefix else None
        if access is None:
            raise Unauthenticated(NO_KEY)
        if need != "a key":
            access.require(need)
        return access

    async def signed_in(self, token: str, peer: str) -> Access | None:
        """What this key may do; None for a text that is none. Raises Saturated after too many tries."""
        ring = await self._ring()
        owner = ring.owner(token)
        access = ring.access(owner.prefix, self._book.now_ns()) if owner else None
        if access is None:
            self._failures.count(peer, token, asyncio.get_running_loop().time())
        return access

    def session(self, access: Access) -> str:
        """A cookie's value for whoever holds this key."""
        return self.sessions.issue(access.prefix, self._book.now_ns())

    async def _ring(self) -> KeyRing:
        """The keys; the last known ones while the store can not be read, as a gateway does."""
        try:
            self._last = await asyncio.to_thread(self._book.ring)
        except Unusable:
            if self._last is None:
                raise
        return self._last


class Door:
    """Stands before one route, or before what answers where there is none."""

    def __init__(self, app: ASGIApp, keeper: Doorkeeper, needs: Mapping[str, Need]) -> None:
        self._app = app
        self._keeper = keeper
        self._needs = needs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            need = self._needs.get(scope["method"], self._needs.get("*", "a key"))
            scope["access"] = await self._keeper.admit(scope, need)
        await self._app(scope, _bounded(scope, receive), send)


def hang_doors(app: FastAPI, keeper: Doorkeeper) -> None:
    """Before every route of a finished application. Raises InternalError for one that the table does not know."""
    for route in app.routes:
        if not isinstance(route, Route):
            raise InternalError(f"console/access.py can hang no door before {route!r}")
        methods = (route.methods or set()) - {"HEAD", "OPTIONS"}
        missing = [f"{method} {route.path}" for method in methods if (method, route.path) not in NEEDS]
        if missing:
            raise InternalError(f"console/access.py does not say who may use {', '.join(missing)}")
        route.app = Door(route.app, keeper, {method: NEEDS[method, route.path] for method in methods})
    app.router.default = Door(app.router.default, keeper, {"*": "a key"})


def asking(request: Request) -> Access:
    """Who asks, and what they may do."""
    access: Access = request.scope["access"]
    return access


Asking = Annotated[Access, Depends(asking)]


def check_move(access: Access, prompt: str, environment: str, *, force: bool = False) -> None:
    """Raises Forbidden unless this prompt may be moved there, and forced."""
    access.require_prompt(prompt)
    access.require_environment(environment)
    if force:
        access.require("overrule")


def who(access: Access) -> str:
    """Who the ledger says it was: the key's holder; without keys whoever runs the console."""
    return access.name or who_runs_it()


def _credentials(scope: Scope) -> tuple[str | None, str | None]:
    """A key, and a session's cookie."""
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name, value.decode("latin-1"))
    scheme, _, token = headers.get(b"authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip(), None
    if given := headers.get(b"x-api-key", "").strip():
        return given, None
    return None, value_of(headers.get(b"cookie", ""))


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """The body's messages. Raises TooLarge at once for a length that is too large, else when that much has come."""
    size = 0
    for name, value in scope.get("headers", ()):
        if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
            raise TooLarge(f"a body is at most {MAX_BODY_BYTES >> 20} MiB.")

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise TooLarge(f"a body is at most {MAX_BODY_BYTES >> 20} MiB.")
        return message

    return bounded
