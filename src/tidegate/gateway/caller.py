"""
Calls that tidegate itself makes (evals, canaries, judges, the playground), through the same pipeline as everyone's.

While a gateway serves the folder they go to it over HTTP, so that its limits hold for them too; without one they run in
this process. `compose.caller` chooses.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from tidegate.core import chat
from tidegate.core.budgets import BudgetState
from tidegate.core.errors import BadInput, TidegateError, Unauthenticated, Unusable
from tidegate.core.evaluation import ToolUse
from tidegate.core.retries import retry_after_s
from tidegate.dialects import openai_chat
from tidegate.gateway.cache_page import PATH as CACHE_PATH
from tidegate.gateway.call import PROMPT_PREFIX, Call
from tidegate.gateway.pipeline import Services, serve
from tidegate.ports import Clock, PromptAnswer, PromptCall, TokenChance, Upstream, UpstreamRequest

MAX_ANSWER_BYTES = 64 << 20
PATH = "/v1/chat/completions"
TOTAL_S = 600.0
CHECK_S = 15.0
BUDGETS_PATH = "/v1/budgets"


class Collected:
    """A Reply that keeps what it is given. Implements ports.Reply."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    @property
    def started(self) -> bool:
        return self.status != 0

    async def start(self, status: int, headers: Sequence[tuple[str, str]], *, streamed: bool) -> None:
        """Keeps the head."""
        self.status = status
        self.headers = dict(headers)

    def push(self, chunk: bytes) -> bool:
        """Keeps a chunk."""
        self.body += chunk
        return True

    async def drained(self) -> None:
        """Memory is never slow."""

    async def end(self, tail: bytes = b"") -> None:
        """Keeps the rest."""
        self.body += tail


class InProcessCaller:
    """Implements ports.Caller with a pipeline in this process."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def call(self, call: PromptCall) -> PromptAnswer:
        """Makes one call; a failed one is an answer with an error, not an exception."""
        reply = Collected()
        began = self._services.clock.monotonic()
        own = Call(body=_body(call), key=self._services.keys.internal, origin=call.origin, tags=call.tags)
        await serve(own, reply, self._services)
        return _answer(reply.status, reply.headers, reply.body, self._services.clock.monotonic() - began)


class HttpCaller:
    """Implements ports.Caller with the gateway that owns the folder."""

    def __init__(self, upstream: Upstream, clock: Clock, *, url: str, key: str | None) -> None:
        """
        Args:
            url: the gateway's address, without `/v1`.
            key: the internal one, or a client's that may evaluate; None where there are no keys.
        """
        parts = urlsplit(url)
        self._upstream = upstream
        self._clock = clock
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._base = parts.path.rstrip("/")
        self._credential = (("authorization", f"Bearer {key}"),) if key is not None else ()

    async def check(self) -> None:
        """Raises Unusable when no gateway answers there, Unauthenticated when it does not accept the key."""
        try:
            async with self._upstream.request(self._request("GET", "/v1/models", (), b"", CHECK_S)) as answer:
                status = answer.status
                await answer.read(MAX_ANSWER_BYTES)
        except TidegateError as error:
            raise Unusable(f"the server's gateway: {error}") from error
        if status == 401:
            raise Unauthenticated(f"the gateway at {self._origin} does not accept the key that its console accepts.")
        if status != 200:
            raise Unusable(f"{self._origin} is not the server's gateway: it answers HTTP {status} to /v1/models.")

    async def purge(self, prompt: str | None, version: str | None) -> int:
        """Has the gateway forget answers that it gives again; returns how many. Raises Unusable, BadInput."""
        asked = urlencode({name: given for name, given in (("prompt", prompt), ("version", version)) if given})
        body = await self._ask("DELETE", f"{CACHE_PATH}?{asked}" if asked else CACHE_PATH)
        purged: int = json.loads(body)["purged"]
        return purged

    async def budgets(self) -> list[BudgetState]:
        """Every budget of the gateway that the key may see. Raises Unusable, BadInput."""
        return msgspec.json.decode(await self._ask("GET", BUDGETS_PATH), type=dict[str, list[BudgetState]])["budgets"]

    async def _ask(self, method: str, path: str) -> bytes:
        """What the gateway says to an operator."""
        try:
            async with self._upstream.request(self._request(method, path, (), b"", CHECK_S)) as answer:
                body = await answer.read(MAX_ANSWER_BYTES)
        except TidegateError as error:
            raise Unusable(f"the gateway: {error}") from error
        if answer.status != 200:
            raise BadInput(_error_message(answer.status, body).removeprefix(f"HTTP {answer.status}: "))
        return body

    async def call(self, call: PromptCall) -> PromptAnswer:
        """Makes one call; a failed one is an answer with an error, not an exception."""
        tags = ",".join(f"{name}={value}" for name, value in call.tags.items())
        headers = (
            ("content-type", "application/json"),
            ("x-tidegate-origin", call.origin),
            *((("x-tidegate-tags", tags),) if tags else ()),
        )
        request = self._request("POST", PATH, headers, _body(call), TOTAL_S)
        began = self._clock.monotonic()
        try:
            async with self._upstream.request(request) as answer:
                body = await answer.read(MAX_ANSWER_BYTES)
                return _answer(answer.status, answer.headers, body, self._clock.monotonic() - began)
        except TidegateError as error:
            return PromptAnswer(output="", error=str(error), code=error.code)

    def _request(
        self, method: str, path: str, headers: tuple[tuple[str, str], ...], body: bytes, patience_s: float
    ) -> UpstreamRequest:
        return UpstreamRequest(
            origin=self._origin,
            method=method,
            path=self._base + path,
            headers=(*headers, *self._credential),
            body=body,
            connect_s=5,
            first_byte_s=patience_s,
            idle_s=patience_s,
        )


def _body(call: PromptCall) -> bytes:
    body: dict[str, Any] = {"model": f"{PROMPT_PREFIX}{call.prompt}@{call.digest}", "variables": call.variables}
    if call.messages:
        body["messages"] = call.messages
    if call.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": call.top_logprobs}
    return msgspec.json.encode(body)


def _answer(status: int, headers: Any, body: bytes, latency_s: float) -> PromptAnswer:
    call_id = headers.get("x-tidegate-call-id")
    if status != 200:
        return PromptAnswer(
            output="",
            error=_error_message(status, body),
            call_id=call_id,
            latency_s=latency_s,
            code=_error_code(status, body),
            status=status,
            retry_after_s=retry_after_s(headers),
        )
    answer = openai_chat.DIALECT.read_answer(body)
    first = openai_chat.DIALECT.answer_in(body).choices[0]
    cost = headers.get("x-tidegate-cost-usd")
    return PromptAnswer(
        output=answer.text,
        call_id=call_id,
        finish_reason=answer.finish_reason,
        cost_nano_usd=round(float(cost) * 1e9) if cost else None,
        latency_s=latency_s,
        input_tokens=answer.usage.input_tokens if answer.usage else None,
        output_tokens=answer.usage.output_tokens if answer.usage else None,
        tool_calls=tuple(_tool_use(part) for part in first.parts if isinstance(part, chat.ToolCall)),
        logprobs=_chances(first.logprobs),
    )


def _tool_use(call: chat.ToolCall) -> ToolUse:
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        arguments = call.arguments
    return ToolUse(call.name, arguments, call.id)


class _Chance(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_Chance] = []


class _Chances(msgspec.Struct):
    content: list[_Chance] | None = None


def _chances(logprobs: Any) -> tuple[TokenChance, ...]:
    """Of an answer's words; none where the provider gave none, or something else by that name."""
    try:
        content = msgspec.convert(logprobs or {}, _Chances).content or []
    except msgspec.ValidationError:
        return ()
    return tuple(
        TokenChance(one.token, one.logprob, tuple((other.token, other.logprob) for other in one.top_logprobs))
        for one in content
    )


def _error_code(status: int, body: bytes) -> str:
    """The error's `code`, or its `type` where a provider gives no code."""
    try:
        error = json.loads(body)["error"]
        return str(error.get("code") or error["type"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"http_{status}"


def _error_message(status: int, body: bytes) -> str:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"
    return f"HTTP {status}: {message}"
