"""A call as the pipeline gets it: parsed, from any edge or from tidegate itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from tidegate.core.errors import InvalidRequest, RequestError
from tidegate.dialects import openai_chat
from tidegate.dialects.dialect import Dialect
from tidegate.gateway.cache_control import EVERYTHING, CacheControl, cache_control
from tidegate.telemetry.record import Origin

PROMPT_PREFIX = "prompt:"
ORIGINS: frozenset[Origin] = frozenset({"eval", "canary", "judge", "playground"})
MAX_TAGS = 32
DESCRIBING = frozenset(
    {
        "cache-control",
        "traceparent",
        "x-request-id",
        "x-tidegate-cache",
        "x-tidegate-conversation",
        "x-tidegate-origin",
        "x-tidegate-service",
        "x-tidegate-tags",
        "x-tidegate-user",
    }
)
"""Headers that say something of a call; most calls have none."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\Z")
_LABEL = re.compile(r"[\w.:@/+=-]{1,128}\Z")
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Call(msgspec.Struct, frozen=True):
    """One client request."""

    body: bytes
    dialect: Dialect = openai_chat.DIALECT
    model: str | None = None
    """Where the URL says it (Gemini)."""
    stream: bool | None = None
    """Likewise."""
    key: str | None = None
    """The credential the client sent; never goes upstream."""
    peer: str = ""
    """The client's IP address."""
    headers: Mapping[str, str] = _NOTHING
    """All that it sent, by lower-case names: what of them goes up, a provider's configuration says."""
    origin: str | None = None
    """What the caller says it is; live, or what its key allows."""
    service: str | None = None
    conversation_id: str | None = None
    user_id: str | None = None
    trace_id: str | None = None
    tags: Mapping[str, str] = _NOTHING
    request_id: str | None = None
    """The client's own name for this request."""
    wrong: RequestError | None = None
    """What can not be understood of its headers: it is refused for that, once it is known who calls."""
    cache: CacheControl = EVERYTHING

    def __repr__(self) -> str:  # the body is what was said, and the key opens the gateway
        return f"Call({self.dialect.name}, {len(self.body)} bytes)"


def described(call: Call) -> Call:
    """The call with what its headers say of it; never raises, but may be wrong then."""
    headers = call.headers
    if DESCRIBING.isdisjoint(headers):
        return call
    trace = _TRACEPARENT.match(headers.get("traceparent", ""))
    tags: Mapping[str, str] = _NOTHING
    cache, wrong = EVERYTHING, None
    try:
        tags = parse_tags(headers.get("x-tidegate-tags"))
        cache = cache_control(headers)
    except RequestError as error:
        wrong = error
    return msgspec.structs.replace(
        call,
        origin=headers.get("x-tidegate-origin"),
        service=label(headers.get("x-tidegate-service")),
        conversation_id=label(headers.get("x-tidegate-conversation")),
        user_id=label(headers.get("x-tidegate-user")),
        trace_id=trace.group(1) if trace else None,
        tags=tags,
        request_id=label(headers.get("x-request-id")),
        wrong=wrong,
        cache=cache,
    )


def label(text: str | None) -> str | None:
    """A name that a client gives to something of its own, or None where that is no plain one."""
    return text if text is not None and _LABEL.match(text) else None


class PromptName(msgspec.Struct, frozen=True):
    """`prompt:NAME[@SELECTOR]`; the selector is an environment, `vN` or a digest prefix."""

    prompt: str
    selector: str | None


def parse_prompt_name(model: str) -> PromptName | None:
    """The prompt that a model name asks for, or None when it asks for a route or a model."""
    if not model.startswith(PROMPT_PREFIX):
        return None
    prompt, at, selector = model.removeprefix(PROMPT_PREFIX).partition("@")
    if not prompt or (at and not selector):
        raise InvalidRequest("a prompt is called as prompt:NAME or prompt:NAME@VERSION.", param="model")
    return PromptName(prompt, selector or None)


def parse_tags(text: str | None) -> dict[str, str]:
    """`team=support,tier=gold` → a dict. Raises InvalidRequest."""
    if not text:
        return {}
    tags: dict[str, str] = {}
    for item in text.split(","):
        name, equals, value = item.strip().partition("=")
        if not equals or not name:
            raise InvalidRequest("x-tidegate-tags must look like name=value,name=value.", param="x-tidegate-tags")
        tags[name[:64]] = value[:256]
    if len(tags) > MAX_TAGS:
        raise InvalidRequest(f"x-tidegate-tags has more than {MAX_TAGS} tags.", param="x-tidegate-tags")
    return tags
