"""
The items that requests and answers share: messages, function calls and reasoning, read and written.

Reasoning belongs to the provider that made it: nobody else can take its signature back. So a signature of OpenAI's is
sealed with this dialect's name when it enters the canonical shape, and only a sealed one is ever sent to OpenAI. What
another dialect signed reaches a Responses client under a mark of ours, and comes back to that dialect as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tidegate.core import chat

SEAL = "openai_responses:"
_SIGNATURE = "signature:"
_REDACTED = "redacted:"
BETWEEN_PARTS = "\n\n"
"""Stands between the parts of one reasoning: canonical reasoning is one text."""


class Kind(msgspec.Struct):
    """What tells items apart. An input message may leave its type out, and so may a reference to a stored item."""

    type: str | None = None
    role: str | None = None
    id: str | None = None

    @property
    def name(self) -> str | None:
        """The item's type, also where it is left out; None when nothing tells it."""
        if self.type is not None:
            return self.type
        if self.role is not None:
            return "message"
        return None if self.id is None else "item_reference"


class FunctionCall(msgspec.Struct):
    """The model asks for a function. `call_id` is what its result refers to, `id` is only the item's."""

    call_id: str
    name: str
    arguments: str = ""
    namespace: str | None = None


class Words(msgspec.Struct):
    """A part of a reasoning's summary or content."""

    text: str = ""


class Reasoning(msgspec.Struct):
    """Reasoning: a summary, or for open models the content itself, and what lets the provider take it back."""

    id: str | None = None
    summary: list[Words] | None = None
    content: list[Words] | None = None
    encrypted_content: str | None = None


def thinking_in(item: Reasoning) -> chat.Thinking | None:
    """The reasoning in the canonical shape; None when it neither says anything nor can be given back."""
    text = BETWEEN_PARTS.join(words.text for words in [*(item.summary or []), *(item.content or [])] if words.text)
    signature, redacted = signature_in(item, shown=bool(text))
    if not text and signature is None and redacted is None:
        return None
    return chat.Thinking(text, signature, redacted)


def signature_in(item: Reasoning, *, shown: bool) -> tuple[str | None, str | None]:
    """`encrypted_content` as (signature, redacted); of a reasoning that shows no words it is the latter."""
    given = item.encrypted_content
    if not given:
        return None, None
    if given.startswith(_SIGNATURE):
        return given.removeprefix(_SIGNATURE), None
    if given.startswith(_REDACTED):
        return None, given.removeprefix(_REDACTED)
    sealed = f"{SEAL}{item.id or ''}:{given}"
    return (sealed, None) if shown else (None, sealed)


def reasoning_to_provider(thinking: chat.Thinking) -> dict[str, Any] | None:
    """The reasoning as the provider that made it takes it back; None when that is not a provider of this dialect."""
    sealed = thinking.signature or thinking.redacted or ""
    if not sealed.startswith(SEAL):
        return None
    item_id, _, encrypted = sealed.removeprefix(SEAL).partition(":")
    item: dict[str, Any] = {"type": "reasoning", "summary": _summary(thinking.text), "encrypted_content": encrypted}
    return {**item, "id": item_id} if item_id else item


def reasoning_to_client(
    item_id: str, text: str, signature: str | None, redacted: str | None, *, status: str = "completed"
) -> dict[str, Any]:
    """Reasoning as a client of this dialect gets it, and sends it back."""
    item: dict[str, Any] = {"id": item_id, "type": "reasoning", "summary": _summary(text), "status": status}
    if signature is not None:
        item["encrypted_content"] = _SIGNATURE + signature
    elif redacted is not None:
        item["encrypted_content"] = _REDACTED + redacted
    return item


def _summary(text: str) -> list[dict[str, str]]:
    return [{"type": "summary_text", "text": text}] if text else []


def message(item_id: str, content: Sequence[dict[str, Any]], *, status: str = "completed") -> dict[str, Any]:
    """A message of an answer."""
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": list(content)}


def output_text(text: str, logprobs: list[Any] | None = None) -> dict[str, Any]:
    """Words of an answer."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def refusal(text: str) -> dict[str, Any]:
    """Words that decline."""
    return {"type": "refusal", "refusal": text}


def function_call(item_id: str, call: chat.ToolCall, *, status: str = "completed") -> dict[str, Any]:
    """A function call of an answer."""
    return {
        "id": item_id,
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }
