"""
A prompt as an application reads it: `GET /v1/prompts/NAME`, and `POST /v1/prompts/NAME/render` with variables.

For applications that retrieve on their own, or that call a provider themselves: they get the version that a call would
be served by, whole. It is read from memory. Its ETag is the digest, so that asking again costs a 304. This is no call:
it leaves no record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from tidegate.core import split
from tidegate.core.artifact import Artifact
from tidegate.core.errors import InvalidRequest, NotFound, RequestError, TidegateError, nearest
from tidegate.core.keys import Access
from tidegate.core.ledger import Served
from tidegate.core.selector import is_digest
from tidegate.dialects import openai_chat
from tidegate.gateway.edge import Request
from tidegate.gateway.relay import JSON_HEADERS
from tidegate.ports import PromptSource, Reply
from tidegate.prompts.files import is_name
from tidegate.prompts.render import render

PREFIX = "/v1/prompts/"
PATHS = (f"{PREFIX}NAME", f"{PREFIX}NAME/render")
RENDER = "/render"
SELECTORS = ("environment", "version", "digest")
_VERSION = re.compile(r"v?([1-9][0-9]{0,8})")
_HEADERS = (
    JSON_HEADERS,
    ("cache-control", "no-cache"),
    ("vary", "authorization, x-api-key, x-goog-api-key, x-tidegate-user, x-tidegate-conversation"),
)


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    variables: dict[str, Any] = {}


async def answer(request: Request, reply: Reply, prompts: PromptSource, access: Access, caller: str | None) -> None:
    """
    Answers a request below PREFIX.

    Args:
        caller: the user, or the session, for whom a split decides; None gets what the environment points at.
    """
    try:
        name = _name(request.path)
        if request.method == "POST" and name.endswith(RENDER):
            name = name.removesuffix(RENDER)
            variables = _variables(request.body)
            served, environment = await _find(name, request.query, prompts, access, caller)
            page = _page(served, environment, render(served.artifact, variables))
            await reply.start(200, _HEADERS, streamed=False)
            await reply.end(page)
        elif request.method in ("GET", "HEAD"):
            served, environment = await _find(name, request.query, prompts, access, caller)
            await _answer_get(request, reply, served, environment)
        else:
            allowed = "GET, HEAD" if not name.endswith(RENDER) else "GET, HEAD, POST"
            error = RequestError(f"{request.path[:200]} takes {allowed}. Variables go to {PATHS[1]} by POST.")
            await reply.start(405, [JSON_HEADERS, ("allow", allowed)], streamed=False)
            await reply.end(openai_chat.DIALECT.error_body(error))
    except TidegateError as error:
        await reply.start(error.http_status, [JSON_HEADERS], streamed=False)
        await reply.end(openai_chat.DIALECT.error_body(error))


async def _answer_get(request: Request, reply: Reply, served: Served, environment: str | None) -> None:
    headers = [*_HEADERS, ("etag", f'"{served.digest}"')]
    if _known(request.headers.get("if-none-match", ""), served.digest):
        await reply.start(304, headers, streamed=False)
        await reply.end()
        return
    page = _page(served, environment, msgspec.to_builtins(served.artifact.messages))
    await reply.start(200, headers, streamed=False)
    await reply.end(page)


def _name(path: str) -> str:
    try:
        return unquote(path.removeprefix(PREFIX), errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidRequest("the path is not percent-encoded UTF-8.") from error


def _variables(body: bytes) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(body, type=_Body).variables if body.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f'the body must be {{"variables": {{…}}}}: {error}.') from error


async def _find(
    name: str, query: str, prompts: PromptSource, access: Access, caller: str | None
) -> tuple[Served, str | None]:
    """
    What is asked for, and the environment it is live in.

    Raises: Forbidden for what a call with this key would not reach either, NotFound with the nearest names,
        InvalidRequest.
    """
    access.require_prompt(name)
    environment, selector = _asked(query, access.environment)
    access.require_environment(selector)
    if not is_name(name):
        raise NotFound(f"no prompt is named {name[:100]!r}.{nearest(name[:255], prompts.names())}")
    live = prompts.live(name, environment) if environment else None
    if environment and live is not None:
        return split.choose(live, environment, caller, _no_share), environment
    return await prompts.find(name, selector), environment


def _no_share() -> float:
    """What can be asked again must not change by chance: who does not say who they are gets no share of a split."""
    return 1.0


def _asked(query: str, default: str) -> tuple[str | None, str]:
    """The environment, where one is asked for, and the selector of the version."""
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=16) if query else []
    except ValueError as error:
        raise InvalidRequest("the query can not be read: write it as ?environment=production.") from error
    for key, _ in given:
        if key not in SELECTORS:
            raise InvalidRequest(f"there is no parameter {key[:60]!r}.{nearest(key, SELECTORS)}", param=key[:60])
    if len(given) > 1:
        raise InvalidRequest("give one of environment, version and digest, once.", param=given[1][0])
    key, text = given[0] if given else ("environment", default)
    number, digits = _VERSION.fullmatch(text), is_digest(text)
    if key == "version" and number:
        return None, f"v{number[1]}"
    if key == "digest" and digits:
        return None, text
    if key == "environment" and text and not number and not digits:
        return text, text
    forms = {"version": "v3", "digest": "its first 6 or more hex digits", "environment": "a name such as production"}
    raise InvalidRequest(f"{key}: {text[:60]!r} is no {key}; write {forms[key]}.", param=key)


def _known(if_none_match: str, digest: str) -> bool:
    """Whether the client has this content already; `*` stands for any."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return bool(tags & {f'"{digest}"', "*"})


def _page(served: Served, environment: str | None, messages: list[dict[str, Any]]) -> bytes:
    artifact = served.artifact
    return msgspec.json.encode(
        {
            "name": served.prompt,
            "version": served.version,
            "digest": served.digest,
            "environment": environment,
            "messages": messages,
            **_rest(artifact),
        }
    )


def _rest(artifact: Artifact) -> dict[str, Any]:
    """All but the messages; what has a default says so."""
    plain = msgspec.to_builtins
    return {
        "model": artifact.model,
        "params": artifact.params,
        "inputs": {name: {"type": one.type, **plain(one)} for name, one in artifact.inputs.items()},
        "output": {"format": artifact.output.format, **plain(artifact.output)},
        "tools": [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
            for tool in artifact.tools
        ],
        "retrieval": artifact.retrieval,
        "fallbacks": artifact.fallbacks,
        "overridable": artifact.overridable,
    }
