"""What the model said, as parts: in the history a provider gets, and in the answer a client gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tidegate.core import chat
from tidegate.dialects.anthropic.request_out import tool_input
from tidegate.dialects.gemini import signatures
from tidegate.dialects.gemini.request_in import MADE_ID
from tidegate.dialects.losses import Losses

PartOut = dict[str, Any]


def to_client(parts: Sequence[chat.Part]) -> list[PartOut]:
    """An answer's parts; another provider's signatures travel inside ours."""
    return _signed(_spoken(part, foreign=True) for part in parts)


def to_provider(parts: Sequence[chat.Part], place: str, losses: Losses) -> list[PartOut]:
    """An assistant's message; Gemini takes back only its own signatures."""
    for part in parts:
        if isinstance(part, chat.Thinking) and part.redacted is not None:
            losses.add(place, "Gemini can not read another provider's redacted reasoning")
        elif isinstance(part, chat.Thinking) and part.signature and signatures.unsealed(part.signature) is None:
            losses.add(place, "Gemini takes back only its own signatures of reasoning")
        elif isinstance(part, chat.ToolCall) and bytes(tool_input(part.arguments)).startswith(b'{"INVALID_JSON"'):
            losses.add(place, "arguments that are not a JSON object are sent inside one")
        elif isinstance(part, chat.File | chat.Audio | chat.ToolResult) or _is_elsewhere(part):
            losses.add(place, "an assistant's message to Gemini has no files, addresses, audio or results of tools")
    return _signed(_spoken(part, foreign=False) for part in parts)


def _is_elsewhere(part: chat.Part) -> bool:
    return isinstance(part, chat.Image) and part.data is None


def call_out(call: chat.ToolCall) -> PartOut:
    """A whole tool call. An id that only we have made says nothing to Gemini."""
    function: dict[str, Any] = {"name": call.name, "args": tool_input(call.arguments)}
    return {"functionCall": function if call.id.startswith(MADE_ID) else {"id": call.id, **function}}


def signed(part: PartOut, signature: str) -> PartOut:
    """The part with Gemini's signature, which stands on the words or the call that followed the thought."""
    return {**part, "thoughtSignature": signature}


class _Signature(msgspec.Struct):
    """Waits for the part that it belongs on."""

    text: str


def _spoken(part: chat.Part, *, foreign: bool) -> list[PartOut | _Signature]:
    match part:
        case chat.Text() | chat.Refusal():
            return [{"text": part.text}]
        case chat.ToolCall():
            return [call_out(part)]
        case chat.Image() if part.data is not None:
            return [{"inlineData": {"mimeType": part.media_type or "image/png", "data": part.data}}]
        case chat.Thinking():
            thought: PartOut = {"text": part.text, "thought": True}
            own = signatures.unsealed(part.signature)
            if own is not None:
                return [*([thought] if part.text else []), _Signature(own)]
            wrapped = signatures.wrapped(part.signature, part.redacted) if foreign else None
            if wrapped is not None:
                return [signed(thought, wrapped)]
            return [thought] if part.text else []
        case _:
            return []


def _signed(groups: Iterable[list[PartOut | _Signature]]) -> list[PartOut]:
    written: list[PartOut] = []
    waiting: str | None = None
    for part in (part for group in groups for part in group):
        if isinstance(part, _Signature):
            if waiting is not None:
                written.append(signed({"text": ""}, waiting))
            waiting = part.text
        elif waiting is not None and "thought" not in part:
            written.append(signed(part, waiting))
            waiting = None
        else:
            written.append(part)
    return written if waiting is None else [*written, signed({"text": ""}, waiting)]
