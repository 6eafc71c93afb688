"""
Which dialect a path speaks: the table of the gateway's endpoints, and what the URL of one says about the call.

Also a path that nobody serves has a dialect: that of the client which asked for it, so that its SDK understands the
error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qs, unquote

import msgspec

from tidegate.core.errors import InvalidRequest
from tidegate.dialects import anthropic, bedrock, counting, gemini, openai_chat, openai_embeddings, openai_responses
from tidegate.dialects.dialect import Dialect, Wire
from tidegate.gateway.edge import Request
from tidegate.gateway.json_array import JsonArrayReply
from tidegate.ports import Reply


def _as_is(reply: Reply) -> Reply:
    return reply


class Endpoint(msgspec.Struct, frozen=True):
    """Where calls of one dialect come in."""

    dialect: Dialect
    model: str | None = None
    """Where the URL says it, percent-decoded."""
    stream: bool | None = None
    """Likewise."""
    form: Callable[[Reply], Reply] = _as_is
    """What stands before the reply when the client wants another form of the stream."""


CALLS = {
    "/v1/chat/completions": Endpoint(openai_chat.DIALECT),
    "/v1/responses": Endpoint(openai_responses.DIALECT),
    "/v1/messages": Endpoint(anthropic.DIALECT),
    "/v1/messages/count_tokens": Endpoint(counting.ANTHROPIC),
    "/v1/embeddings": Endpoint(openai_embeddings.DIALECT),
}
"""Paths of calls whose body says everything else."""
_METHODS = "generateContent|streamGenerateContent|countTokens"
GEMINI = re.compile(rf"/v1(?:beta|alpha)?/models/(?P<model>.+):(?P<method>{_METHODS})")
"""The model may hold slashes and colons (`prompt:NAME`): the last colon parts it from the method."""
GEMINI_PATHS = tuple(f"/v1beta/models/MODEL:{method}" for method in _METHODS.split("|"))
_FAMILIES: dict[str, Dialect] = {
    "/v1beta/": gemini.DIALECT,
    "/v1alpha/": gemini.DIALECT,
    "/v1/models/": gemini.DIALECT,
    "/v1/messages": anthropic.DIALECT,
}
DIALECTS: tuple[Dialect, ...] = (
    openai_chat.DIALECT,
    openai_responses.DIALECT,
    anthropic.DIALECT,
    gemini.DIALECT,
)
"""What conversations are held in."""
WIRES: tuple[Wire, ...] = (*DIALECTS, bedrock.DIALECT)
"""What providers are spoken to in."""


def endpoint(request: Request) -> Endpoint | None:
    """The endpoint of a path, or None when calls do not come in there. Raises InvalidRequest for a bad encoding."""
    known = CALLS.get(request.path)
    if known is not None:
        return known
    try:
        found = GEMINI.fullmatch(unquote(request.path, errors="strict"))
    except UnicodeDecodeError as error:
        raise InvalidRequest("the path is not percent-encoded UTF-8.") from error
    if found is None:
        return None
    if found["method"] == "countTokens":
        return Endpoint(counting.GEMINI, found["model"], stream=False)
    stream = found["method"] == "streamGenerateContent"
    array = stream and _query(request, "alt") != "sse"
    return Endpoint(gemini.DIALECT, found["model"], stream, JsonArrayReply if array else _as_is)


def dialect_of(path: str) -> Dialect:
    """What whoever asks for `path` understands; OpenAI's error shape where nothing tells."""
    known = CALLS.get(path)
    if known is not None:
        return known.dialect
    return next((family for prefix, family in _FAMILIES.items() if path.startswith(prefix)), openai_chat.DIALECT)


def client_key(request: Request) -> str | None:
    """The credential of a client, where the SDK of its dialect puts it. It is never logged and never goes upstream."""
    headers = request.headers
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and (given := token.strip()):
        return given
    for name in ("x-api-key", "x-goog-api-key"):
        if given := headers.get(name, "").strip():
            return given
    return _query(request, "key")


def _query(request: Request, name: str) -> str | None:
    if name not in request.query:
        return None
    try:
        values = parse_qs(request.query, max_num_fields=64).get(name)
    except ValueError:
        return None
    return values[0] if values else None
