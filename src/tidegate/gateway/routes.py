"""
HTTP paths of the gateway: from a request of the edge to a call of the pipeline.

Authorisation is decided on the matched route, never on a URL put together from what the client sent.
"""

from __future__ import annotations

import re

import msgspec

from tidegate.core.errors import RequestError, TidegateError, UnknownModel
from tidegate.dialects import openai_chat
from tidegate.gateway.call import Call, parse_tags
from tidegate.gateway.edge import HttpReply, Request
from tidegate.gateway.pipeline import Services, serve
from tidegate.gateway.relay import JSON_HEADERS

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\Z")
_LABEL = re.compile(r"[\w.:@/+=-]{1,128}\Z")
PATHS = {
    "/v1/chat/completions": "POST",
    "/v1/models": "GET",
    "/livez": "GET",
    "/readyz": "GET",
}


class Routes:
    """The edge's handler. One instance per gateway process."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, request: Request, reply: HttpReply) -> None:
        method = PATHS.get(request.path)
        if request.path == "/v1/chat/completions" and request.method == "POST":
            try:
                call = _call(request)
            except RequestError as error:
                await _error(reply, error)
                return
            await serve(call, reply, self._services)
        elif method is None:
            await _error(reply, UnknownModel(f"no such path: {request.path[:200]}. Known: {', '.join(PATHS)}."))
        elif request.method != method:
            await _error(reply, RequestError(f"{request.path} takes {method}."), status=405, allow=method)
        elif request.path == "/v1/models":
            await _json(reply, {"object": "list", "data": self._models()})
        elif request.path == "/readyz":
            await _json(reply, self._readiness())
        else:
            await _json(reply, {"status": "ok"})

    def _readiness(self) -> dict[str, object]:
        """Ready in any case, as calls are served from the last snapshot; but it says how that one stands."""
        prompts = self._services.prompts
        freshness = prompts.freshness()
        return {
            "status": "ok" if freshness.following else "degraded",
            "control_store": "following" if freshness.following else "unreachable",
            "prompts": {"count": len(prompts.names()), "source": freshness.source, "read_at": freshness.read_at},
        }

    def _models(self) -> list[dict[str, object]]:
        prompts = [f"prompt:{name}" for name in self._services.prompts.names()]
        names = [*self._services.targets.names(), *prompts]
        return [{"id": name, "object": "model", "created": 0, "owned_by": "tidegate"} for name in names]


def _call(request: Request) -> Call:
    headers = request.headers
    scheme, _, token = headers.get("authorization", "").partition(" ")
    trace = _TRACEPARENT.match(headers.get("traceparent", ""))
    return Call(
        body=request.body,
        key=token.strip() if scheme.lower() == "bearer" else None,
        origin=headers.get("x-tidegate-origin"),
        service=_label(headers.get("x-tidegate-service")),
        conversation_id=_label(headers.get("x-tidegate-conversation")),
        user_id=_label(headers.get("x-tidegate-user")),
        trace_id=trace.group(1) if trace else None,
        tags=parse_tags(headers.get("x-tidegate-tags")),
    )


def _label(text: str | None) -> str | None:
    return text if text is not None and _LABEL.match(text) else None


async def _json(reply: HttpReply, value: object) -> None:
    await reply.start(200, [JSON_HEADERS], streamed=False)
    await reply.end(msgspec.json.encode(value))


async def _error(
    reply: HttpReply, error: TidegateError, *, status: int | None = None, allow: str | None = None
) -> None:
    headers = [JSON_HEADERS, *([("allow", allow)] if allow else [])]
    await reply.start(status or error.http_status, headers, streamed=False)
    await reply.end(openai_chat.DIALECT.error_body(error))
