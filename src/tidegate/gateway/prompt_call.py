"""
The request that a prompt makes: rendered messages, then the client's; the artifact's params, tools and format.

The artifact wins. What it lists as `overridable` is the client's when it sends it; the bound on output can always be
lowered and never raised; anything else that the artifact decides is refused, naming the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tidegate.core import chat
from tidegate.core.artifact import Artifact
from tidegate.core.errors import InvalidRequest
from tidegate.dialects.dialect import Incoming
from tidegate.dialects.openai_chat.request import messages_in

MAX_OUTPUT_TOKENS = "max_output_tokens"
OWNED: Mapping[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "stop": ("stop", "stop_sequences"),
    "seed": ("seed",),
    "count": ("n",),
    "presence_penalty": ("presence_penalty",),
    "frequency_penalty": ("frequency_penalty",),
    "tools": ("tools",),
    "tool_choice": ("tool_choice",),
    "parallel_tool_calls": ("parallel_tool_calls",),
    "format": ("response_format", "text", "output_format", "output_config"),
    "reasoning_effort": ("reasoning_effort", "reasoning"),
    "reasoning_tokens": ("thinking",),
    "logprobs": (),
}
"""Field of the canonical request → what clients call it. A prompt decides these; logprobs are the client's."""
OWNED_UNREAD = frozenset({"logit_bias", "functions", "function_call", "system", "instructions"})
"""What no canonical field holds, and a prompt decides all the same."""
BOUNDS = ("max_completion_tokens", "max_tokens", MAX_OUTPUT_TOKENS)


def compose(
    artifact: Artifact, rendered: list[dict[str, Any]], incoming: Incoming, client: chat.Request
) -> chat.Request:
    """
    The canonical request of a prompt call.

    Args:
        rendered: the artifact's messages (prompts/render.py).
        incoming: the client's request as it came; says what it calls its fields.
        client: the same in the canonical shape.
    Raises: InvalidRequest, with the field's name as the client spells it.
    """
    _refuse_owned(artifact, incoming, client)
    given: dict[str, Any] = {
        field: value for field in OWNED if (value := getattr(client, field)) not in (None, ()) or _sent(incoming, field)
    }
    tools = tuple(chat.Tool(tool.name, tool.description, tool.parameters) for tool in artifact.tools)
    schema = artifact.output.schema
    own: dict[str, Any] = {name: value for name, value in artifact.params.items() if name != MAX_OUTPUT_TOKENS}
    own["stop"] = _stop(own.get("stop"))
    own["tools"] = tools
    if artifact.output.constrain:
        own["format"] = chat.Format("schema", schema, "output", True)
    return msgspec.structs.replace(
        client,
        **{**own, **given},
        messages=(*messages_in(rendered), *filter(_says_something, client.messages)),
        max_output_tokens=_output_bound(artifact, incoming, client),
    )


def _refuse_owned(artifact: Artifact, incoming: Incoming, client: chat.Request) -> None:
    free = set(artifact.overridable)
    for field, names in OWNED.items():
        for name in names:
            if name in incoming.fields and not free & {field, *names}:
                raise InvalidRequest(f"{name} is decided by the prompt; leave it out.", param=name)
        # Gemini's clients say these one level deeper.
        if names and getattr(client, field) not in (None, ()) and not free & {field, *names}:
            raise InvalidRequest(f"{field} is decided by the prompt; leave it out.", param=field)
    for name in sorted(OWNED_UNREAD & incoming.fields.keys() - free):
        raise InvalidRequest(f"{name} is decided by the prompt; leave it out.", param=name)
    if "system" in free:
        return
    for index, message in enumerate(client.messages):
        if message.role in ("system", "developer"):
            raise InvalidRequest(
                "the prompt decides the system messages; send only what follows them.", param=f"messages[{index}].role"
            )


def _says_something(message: chat.Message) -> bool:
    """Google's SDK always sends contents: empty ones are how it calls a prompt that needs no more."""
    return any(not isinstance(part, chat.Text) or part.text for part in message.parts)


def _sent(incoming: Incoming, field: str) -> bool:
    """An empty list of tools is also an answer to which tools there are."""
    return field == "tools" and "tools" in incoming.fields


def _output_bound(artifact: Artifact, incoming: Incoming, client: chat.Request) -> int | None:
    most: int | None = artifact.params.get(MAX_OUTPUT_TOKENS)
    asked = client.max_output_tokens
    if asked is None:
        return most
    name = next((name for name in BOUNDS if name in incoming.fields), MAX_OUTPUT_TOKENS)
    if asked < 1:
        raise InvalidRequest(f"{name} must be at least 1.", param=name)
    if most is not None and asked > most:
        raise InvalidRequest(f"{name} can only lower the prompt's bound of {most:,} tokens.", param=name)
    return asked


def _stop(stop: Any) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)
