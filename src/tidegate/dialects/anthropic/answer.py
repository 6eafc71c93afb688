"""Whole answers: read for the record, read into the canonical shape, written from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.core import chat
from tidegate.core.errors import UpstreamProtocol
from tidegate.core.usage import Usage
from tidegate.dialects.anthropic import wire
from tidegate.dialects.anthropic.request_out import tool_id, tool_input
from tidegate.dialects.dialect import Answer
from tidegate.dialects.fields import arguments, encode


def read_answer(body: bytes) -> Answer:
    """What the record needs of a whole answer. Raises UpstreamProtocol."""
    message = _whole(body)
    blocks = [block for raw in message.content or () if (block := wire.known_block(raw)) is not None]
    return Answer(
        text="".join(block.text for block in blocks if block.type == "text"),
        finish_reason=_finish(message.stop_reason),
        model=message.model or None,
        usage=wire.usage_in(message.usage),
        tool_calls=any(block.type == "tool_use" for block in blocks),
    )


def answer_in(body: bytes) -> chat.Response:
    """A whole answer in the canonical shape. Raises UpstreamProtocol."""
    message = _whole(body)
    parts = [part for raw in message.content or () for part in _part_in(wire.known_block(raw))]
    if message.stop_details is not None and message.stop_details.explanation:
        parts.append(chat.Refusal(message.stop_details.explanation))
    return chat.Response(
        id=message.id,
        model=message.model,
        choices=(chat.Choice(tuple(parts), _finish(message.stop_reason)),),
        usage=wire.usage_in(message.usage),
    )


def answer_out(response: chat.Response) -> bytes:
    """The canonical answer as an Anthropic client gets it: the first choice, without usage all counts 0."""
    choice = response.choices[0]
    body = {
        "id": response.id,
        "type": "message",
        "role": "assistant",
        "model": response.model,
        "content": [block for part in choice.parts for block in _blocks_out(part)],
        "stop_reason": _stop_reason(choice),
        "stop_sequence": None,
        "usage": wire.usage_out(response.usage or Usage()),
    }
    return encode(body)


def _whole(body: bytes) -> wire.Message:
    message = wire.decode(wire.message_decoder, body)
    if message.type != "message" or message.error is not None:
        raise wire.reported(message.error)
    if message.content is None:
        raise UpstreamProtocol("the provider answered 200 without any content")
    return message


def _finish(stop_reason: str | None) -> chat.FinishReason | None:
    return None if stop_reason is None else wire.FINISH.get(stop_reason, "stop")


def _part_in(block: wire.Block | None) -> Iterator[chat.Part]:
    match block:
        case wire.Block(type="text", text=text) if text:
            yield chat.Text(text)
        case wire.Block(type="tool_use"):
            yield chat.ToolCall(block.id, block.name, arguments(block.input))
        case wire.Block(type="thinking"):
            yield chat.Thinking(block.thinking, block.signature or None)
        case wire.Block(type="redacted_thinking"):
            yield chat.Thinking(redacted=block.data)


def _blocks_out(part: chat.Part) -> Iterator[dict[str, Any]]:
    match part:
        case chat.Text(text=text) | chat.Refusal(text=text) if text:
            yield {"type": "text", "text": text}
        case chat.Thinking(redacted=str(data)):
            yield {"type": "redacted_thinking", "data": data}
        case chat.Thinking():
            yield {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
        case chat.ToolCall():
            given = tool_input(part.arguments)
            yield {"type": "tool_use", "id": tool_id(part.id), "name": part.name, "input": given}


def _stop_reason(choice: chat.Choice) -> str | None:
    kinds = {type(part) for part in choice.parts}
    return stop_reason(choice.finish, refused=chat.Refusal in kinds, called=chat.ToolCall in kinds)


def stop_reason(finish: chat.FinishReason | None, *, refused: bool, called: bool) -> str | None:
    """Some providers say `stop` after a refusal or a tool call; Anthropic's clients go by the reason alone."""
    if finish == "stop" and (refused or called):
        return "refusal" if refused else "tool_use"
    return None if finish is None else wire.STOP_REASON[finish]
