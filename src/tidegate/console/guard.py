"""
From where one may talk to the console, and what a browser may do with its answers.

What a web page from elsewhere could make a browser send is refused here. While nobody has to sign in, a foreign name
that resolves to this machine (DNS rebinding) fails on `Host`; with keys it has no session to ride on. A form or script
of another site fails on `Sec-Fetch-Site` or `Origin`. One plain ASGI wrapper around everything.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate.console.access import Doorkeeper
from tidegate.core.browser import host_name, other_site
from tidegate.core.errors import TidegateError
from tidegate.upstream.server import API_HEADER, API_VERSION

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
JSON_SUFFIX = ".json"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: it would blank the Origin of our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    API_HEADER: API_VERSION,
}


class Guard:
    """The wrapper. `host` is the configured one; the usual names of loopback are accepted beside it."""

    def __init__(self, app: ASGIApp, host: str, keeper: Doorkeeper) -> None:
        self.app = app
        self.keeper = keeper
        self.hosts = {"127.0.0.1", "localhost", "::1", host.strip("[]").lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = await self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, guarded)
        else:
            await self.app(scope, receive, guarded)

    async def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        name = host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or (name not in self.hosts and await self._open()):
            names = ", ".join(sorted(self.hosts))
            return PlainTextResponse(f"This console answers to {names} only.\n", 421)
        origins, sites = headers.get("origin", ()), headers.get("sec-fetch-site", ())
        if scope["method"] not in SAFE_METHODS and other_site(hosts[0], origins, sites):
            return PlainTextResponse("This request comes from another site: refused, nothing was changed.\n", 403)
        return None

    async def _open(self) -> bool:
        try:
            return await self.keeper.open()
        except TidegateError:  # nobody can be let in, so what is said of it may be said to those nearby
            return True


class JsonSuffix:
    """`/calls.json` is the page `/calls` with its data as JSON: the suffix leaves the path and is kept in the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.endswith(JSON_SUFFIX) and not path.startswith(("/api/", "/static/")):
            bare = path.removesuffix(JSON_SUFFIX)
            scope = {**scope, "path": bare, "raw_path": bare.encode(), "json": True}
        await self.app(scope, receive, send)
