"""Signing in with a key, once; the browser then holds a session and never the key."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from tidegate.console.access import Doorkeeper
from tidegate.console.form import Form
from tidegate.console.page import Pages
from tidegate.console.sessions import cookie
from tidegate.core.errors import Saturated

START = "/overview"


def sign_in_url(request: Request) -> str:
    """The address of the sign-in page that leads back to where somebody wanted to go."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    back = wanted if request.method == "GET" and wanted not in ("/", START) else ""
    return "/sign-in" + (f"?{urlencode({'next': back})}" if back else "")


class SignIn:
    """The page, what it sends, and the way out."""

    def __init__(self, pages: Pages, keeper: Doorkeeper) -> None:
        self._pages = pages
        self._keeper = keeper

    def routes(self) -> APIRouter:
        routes = APIRouter(include_in_schema=False)
        routes.add_api_route("/sign-in", self.page)
        routes.add_api_route("/sign-in", self.sign_in, methods=["POST"])
        routes.add_api_route("/sign-out", self.sign_out, methods=["POST"])
        return routes

    async def page(self, request: Request, next: str = "") -> Response:  # noqa: A002 - the name in the address
        if await self._keeper.open():
            return RedirectResponse(START, status_code=303)
        return self._page(request, next)

    async def sign_in(self, request: Request, fields: Form) -> Response:
        back = fields.get("next", "")
        peer = request.client.host if request.client else ""
        try:
            access = await self._keeper.signed_in(fields.get("key", "").strip(), peer)
        except Saturated as error:
            return self._page(request, back, str(error), error.http_status)
        if access is None:
            return self._page(request, back, "This key is not valid: it is unknown, expired or revoked.", 401)
        if not access.may("read"):
            return self._page(request, back, f"{access.name} may make calls, and see nothing here.", 403)
        answer = RedirectResponse(back if _is_here(back) else START, status_code=303)
        answer.headers["set-cookie"] = cookie(self._keeper.session(access), secure=_by_https(request))
        return answer

    def sign_out(self, request: Request) -> Response:
        answer = RedirectResponse("/sign-in", status_code=303)
        answer.headers["set-cookie"] = cookie("", secure=_by_https(request), lasts_s=0)
        return answer

    def _page(self, request: Request, back: str, error: str = "", status: int = 200) -> Response:
        data = {"next": back, "error": error}
        return self._pages.answer(request, "sign_in.html", data, active="", title="Sign in", status=status)


def _is_here(address: str) -> bool:
    """Whether an address is a page of ours, and nothing that a browser takes for another site's."""
    return address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()


def _by_https(request: Request) -> bool:
    """As the browser sees it: TLS may end at a proxy before us."""
    return request.headers.get("origin", "").startswith("https://") or request.url.scheme == "https"
