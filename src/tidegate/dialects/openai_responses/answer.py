"""Whole answers: read for the record, read into the canonical shape, and written from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import msgspec

from tidegate.core import chat
from tidegate.core.errors import UpstreamProtocol
from tidegate.core.usage import Usage, counted
from tidegate.dialects import loosely
from tidegate.dialects.dialect import Answer
from tidegate.dialects.fields import encode
from tidegate.dialects.openai_responses import items

T = TypeVar("T")
UNFINISHED = ("queued", "in_progress")
"""What a response that runs in the background answers at first."""
_RUN_BY_PROVIDER = frozenset(
    {"web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "mcp_call"}
)


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class Fault(msgspec.Struct):
    """An error: in a response that failed, or in an event."""

    code: Any = None
    type: Any = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class Part(msgspec.Struct):
    """A part of a message: words, or a refusal."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    logprobs: list[Any] | None = None


class Message(msgspec.Struct):
    """A message of an answer."""

    content: list[Part] = []


class Response(msgspec.Struct):
    """The response object, its items not yet read."""

    id: str | None = None
    model: str | None = None
    created_at: float | None = None
    status: str | None = None
    output: list[msgspec.Raw] | None = None
    usage: _Usage | None = None
    service_tier: str | None = None
    error: Fault | None = None
    incomplete_details: _Incomplete | None = None


class Output(msgspec.Struct):
    """What a response's items say."""

    parts: list[chat.Part] = []
    logprobs: list[Any] = []
    server_tools: int = 0
    """Calls of tools that the provider ran itself."""

    @property
    def calls(self) -> bool:
        """It asks for a function."""
        return any(isinstance(part, chat.ToolCall) for part in self.parts)

    @property
    def refuses(self) -> bool:
        """It declines."""
        return any(isinstance(part, chat.Refusal) for part in self.parts)


def read_answer(body: bytes) -> Answer:
    """What the record needs of a whole answer. Raises UpstreamProtocol."""
    return answer_of(_whole(body))


def answer_of(response: Response) -> Answer:
    """What the record needs of a response object."""
    output = read_output(response.output or [])
    words = [part.text for part in output.parts if isinstance(part, chat.Text)]
    declined = [part.text for part in output.parts if isinstance(part, chat.Refusal)]
    return Answer(
        text="".join(words or declined),
        finish_reason=finish_of(response, calls=output.calls, refuses=output.refuses),
        model=response.model,
        usage=usage_in(response, output),
        tool_calls=output.calls,
        running=response.status in UNFINISHED,
    )


def answer_in(body: bytes) -> chat.Response:
    """A whole answer in the canonical shape. Raises UpstreamProtocol."""
    response = _whole(body)
    output = read_output(response.output or [])
    finish = finish_of(response, calls=output.calls, refuses=output.refuses)
    logprobs = {"content": output.logprobs, "refusal": None} if output.logprobs else None
    return chat.Response(
        id=response.id or "",
        model=response.model or "",
        choices=(chat.Choice(tuple(output.parts), finish, logprobs),),
        usage=usage_in(response, output),
        created=int(response.created_at or 0),
    )


def answer_out(response: chat.Response) -> bytes:
    """The canonical answer as a Responses client gets it. It has one choice: this dialect can not ask for more."""
    choice = response.choices[0] if response.choices else chat.Choice((), None)
    status, reason = status_out(choice.finish, refuses=any(isinstance(part, chat.Refusal) for part in choice.parts))
    base = response.id.removeprefix("resp_")
    logprobs: list[Any] = (choice.logprobs or {}).get("content") or []
    return encode(
        response_out(
            response.id,
            model=response.model,
            created=response.created,
            status=status,
            reason=reason,
            output=_output_out(choice.parts, base, status, logprobs),
            usage=response.usage,
        )
    )


def _output_out(parts: Sequence[chat.Part], base: str, status: str, logprobs: list[Any]) -> list[dict[str, Any]]:
    output: list[dict[str, Any]] = []
    for part in parts:
        at = len(output)
        match part:
            case chat.Text() | chat.Refusal():
                if not output or output[-1]["type"] != "message":
                    output.append(items.message(f"msg_{base}_{at}", [], status=status))
                said = items.refusal(part.text)
                if isinstance(part, chat.Text):
                    said, logprobs = items.output_text(part.text, logprobs), []
                output[-1]["content"].append(said)
            case chat.ToolCall():
                output.append(items.function_call(f"fc_{base}_{at}", part, status=status))
            case chat.Thinking():
                output.append(items.reasoning_to_client(f"rs_{base}_{at}", part.text, part.signature, part.redacted))
            case _:  # no dialect's answer holds anything else yet
                continue
    return output


def response_out(
    response_id: str,
    *,
    model: str,
    created: int,
    status: str,
    reason: str | None = None,
    output: Sequence[dict[str, Any]] = (),
    usage: Usage | None = None,
) -> dict[str, Any]:
    """The response object. It does not echo the request: tools, instructions and parameters are this API's defaults."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": None if reason is None else {"reason": reason},
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": list(output),
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None if usage is None else usage_out(usage),
    }


def status_out(finish: chat.FinishReason | None, *, refuses: bool) -> tuple[str, str | None]:
    """(status, why incomplete). A refusal without words of its own is what this dialect calls content_filter."""
    if finish == "length":
        return "incomplete", "max_output_tokens"
    if finish == "content_filter" or (finish == "refusal" and not refuses):
        return "incomplete", "content_filter"
    return "completed", None


def finish_of(response: Response, *, calls: bool, refuses: bool) -> chat.FinishReason | None:
    """Why the answer ended; None while it runs in the background."""
    if response.status in UNFINISHED:
        return None
    if response.status == "incomplete":
        why = response.incomplete_details.reason if response.incomplete_details else None
        return "content_filter" if why == "content_filter" else "length"
    if calls:
        return "tool_calls"
    return "refusal" if refuses else "stop"


def usage_in(response: Response, output: Output) -> Usage | None:
    """OpenAI's arithmetic is ours: input includes what was cached, output the reasoning."""
    usage = response.usage
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    given, made = usage.input_tokens_details or _InputDetails(), usage.output_tokens_details or _OutputDetails()
    return Usage(
        input_tokens=counted(usage.input_tokens),
        output_tokens=counted(usage.output_tokens),
        cache_read_input_tokens=counted(given.cached_tokens),
        cache_write_input_tokens=counted(given.cache_write_tokens),
        reasoning_output_tokens=counted(made.reasoning_tokens),
        server_tool_requests=output.server_tools,
        audio_input_tokens=counted(given.audio_tokens),
        audio_output_tokens=counted(made.audio_tokens),
        service_tier=response.service_tier,
    )


def usage_out(usage: Usage) -> dict[str, Any]:
    """The counts as OpenAI writes them."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_output_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def read_output(raws: Sequence[msgspec.Raw]) -> Output:
    """What the items say. Tools that the provider ran itself are counted. Raises UpstreamProtocol."""
    output = Output()
    for raw in raws:
        kind = decode(raw, items.Kind).name
        if kind == "message":
            for part in decode(raw, Message).content:
                output.logprobs += part.logprobs or []
                if part.text is not None:
                    output.parts.append(chat.Text(part.text))
                elif part.refusal is not None:
                    output.parts.append(chat.Refusal(part.refusal))
        elif kind == "function_call":
            call = decode(raw, items.FunctionCall)
            output.parts.append(chat.ToolCall(call.call_id, call.name, call.arguments))
        elif kind == "reasoning":
            thinking = items.thinking_in(decode(raw, items.Reasoning))
            output.parts += [] if thinking is None else [thinking]
        elif kind in _RUN_BY_PROVIDER:
            output.server_tools += 1
    return output


def _whole(body: bytes) -> Response:
    response = decode(body, Response)
    if response.error is not None:
        fail("the provider answered 200 with an error inside", response.error)
    if response.status in ("failed", "cancelled"):
        raise UpstreamProtocol(f"the provider answered 200 with a response that is {response.status}")
    if response.output is None:
        raise UpstreamProtocol("the provider answered 200 without any output")
    return response


def fail(what: str, fault: Fault) -> NoReturn:
    """Raises UpstreamProtocol with the provider's own name for the error; its words may hold anything, so not those."""
    name = next((name for name in (fault.code, fault.type) if isinstance(name, str) and _NAME.fullmatch(name)), None)
    raise UpstreamProtocol(what if name is None else f"{what}: {name}")


_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def decode(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    """`body` as a `kind`, also where a look-alike says it a little differently. Raises UpstreamProtocol."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return loosely.read(body, kind, "one of the Responses API")
