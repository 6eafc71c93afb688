"""The provider's side of Anthropic Messages, as far as batches and their stragglers need it: whole answers of text."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.simulate.wire import Answer, ChatMessage, ChatRequest, Failure, Part, decode, no_such_model

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessagesRequest(msgspec.Struct):
    """The body's fields that mean something here."""

    model: str
    max_tokens: int
    messages: list[ChatMessage]
    system: str | list[Part] | None = None
    stream: bool | None = False


def answer(body: bytes, *, seed: int, models: tuple[str, ...]) -> bytes:
    """The JSON answer to one request. Raises Failure."""
    asked = decode(body, MessagesRequest)
    if asked.model not in models:
        raise no_such_model(asked.model)
    if asked.stream:
        raise Failure(400, "Streams of Messages are not simulated.", param="stream")
    system = [] if asked.system is None else [ChatMessage("system", asked.system)]
    request = ChatRequest(asked.model, [*system, *asked.messages], max_tokens=asked.max_tokens)
    said: dict[str, Any] = msgspec.json.decode(Answer(request, seed=seed, body=body).whole())
    choice, usage = said["choices"][0], said["usage"]
    message = {
        "id": said["id"].replace("chatcmpl-", "msg_"),
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [{"type": "text", "text": choice["message"]["content"] or ""}],
        "stop_reason": STOP_REASONS[choice["finish_reason"]],
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "service_tier": "standard",
        },
    }
    return msgspec.json.encode(message)


def error_object(failure: Failure) -> dict[str, Any]:
    """Anthropic's error shape."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}
    kind = kinds.get(failure.status, "api_error" if failure.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": str(failure)}}
