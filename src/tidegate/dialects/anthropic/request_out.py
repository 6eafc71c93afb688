"""
The canonical request as Anthropic takes it.

Anthropic's wire is stricter than the canonical shape: a bound on output is required, system text stands before the
conversation, turns alternate, nothing is empty, tool input is an object, and thinking excludes some other wishes. What
does not fit is a loss with its place (docs/concepts/dialects.md lists them all).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from tidegate.core import chat
from tidegate.core.reasoning import effort_for, tokens_for
from tidegate.dialects.fields import encode
from tidegate.dialects.losses import Losses

DEFAULT_MAX_TOKENS = 4_096
"""What a request without a bound gets, plus what it may think: Anthropic refuses a request without one."""
MIN_BUDGET = 1_024
MAX_DEFAULT_BUDGET = 32_000 - DEFAULT_MAX_TOKENS
"""32,000 is the smallest bound of the models that think (claude-opus-4-1; Anthropic's model overview, 2026-11)."""
EFFORTS = ("low", "medium", "high", "xhigh", "max")

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_not_in_an_id = re.compile(r"[^a-zA-Z0-9_-]")
_sealed = re.compile(r"[a-z_]+:")
_version = re.compile(r"(?<!\d)\d{1,2}(?!\d)")

Block = dict[str, Any]


def request_out(request: chat.Request, *, model: str, stream: bool) -> tuple[bytes, list[chat.Loss]]:
    """The request on this wire, and what it can not say."""
    losses = Losses()
    thinking, effort, budget = reasoning_out(request, model, losses)
    bound = request.max_output_tokens
    if bound is None:
        bound = DEFAULT_MAX_TOKENS + budget
        losses.add("max_output_tokens", f"Anthropic needs a bound on output; {bound:,} tokens are sent")
    system, turns = _conversation_out(request.messages, losses)
    output: dict[str, Any] = {} if effort is None else {"effort": effort}
    if request.format is not None and request.format.kind == "schema":
        output["format"] = {"type": "json_schema", "schema": request.format.schema or {}}
    body: dict[str, Any] = {"model": model, "max_tokens": bound, "messages": turns}
    optional = {
        "system": system,
        "tools": [_tool_out(tool) for tool in request.tools],
        "tool_choice": _choice_out(request, losses),
        "stop_sequences": [stop for stop in request.stop if stop.strip()],
        **sampling_out(request, losses, thinks=thinking is not None and thinking["type"] != "disabled"),
        "thinking": thinking,
        "output_config": output,
        "metadata": {"user_id": request.user} if request.user is not None else None,
        "stream": stream or None,
    }
    body.update({key: given for key, given in optional.items() if given is not None and given not in ("", [], {})})
    _say_what_anthropic_lacks(request, losses)
    return encode(body), losses.all()


def tool_input(arguments: str) -> msgspec.Raw:
    """
    A tool call's arguments as Anthropic's `input`, which is an object; the bytes of one stay as they are.

    Anything else (a call cut short by the bound on output) is wrapped the way Anthropic advises for such input.
    """
    text = arguments.strip()
    if not text:
        return msgspec.Raw(b"{}")
    try:
        _object.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return msgspec.Raw(encode({"INVALID_JSON": arguments}))
    return msgspec.Raw(text.encode())


def tool_id(given: str) -> str:
    """A tool call's id in the only letters that Anthropic takes."""
    return _not_in_an_id.sub("_", given) or "_"


def _conversation_out(messages: Sequence[chat.Message], losses: Losses) -> tuple[str | list[Block], list[Block]]:
    """(system text, turns): system messages go before the conversation, neighbours of one role become one turn."""
    system: list[Block] = []
    turns: list[Block] = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if message.name is not None:
            losses.add(f"{place}.name", "Anthropic's messages have no name")
        if message.role in ("system", "developer"):
            if turns:
                losses.add(place, "a system message amid the conversation moves to its beginning")
            system += _system_out(message.parts, place, losses)
            continue
        blocks = list(_blocks_out(message, place, losses))
        if not blocks:
            losses.add(place, "an empty message can not be sent to Anthropic")
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns and system:
        losses.add("messages", "a system message alone becomes the user's message")
        turns.append({"role": "user", "content": [system.pop()]})
    if not turns:
        raise losses.nothing_said()
    for turn in turns:
        turn["content"] = _short(turn["content"])
    return _short(system) if system else "", turns


def _short(blocks: list[Block]) -> str | list[Block]:
    """One plain text as a string: what people and tests read more easily, and Anthropic takes for the same."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks


def _system_out(parts: Sequence[chat.Part], place: str, losses: Losses) -> Iterator[Block]:
    for part in parts:
        if not isinstance(part, chat.Text):
            losses.add(place, "a system message has only text")
        elif part.text:
            yield _text_out(part)


def _blocks_out(message: chat.Message, place: str, losses: Losses) -> Iterator[Block]:
    for at, part in enumerate(message.parts):
        spot = f"{place}.content[{at}]"
        match part:
            case chat.ToolCall():
                yield _call_out(part, spot, losses)
            case chat.ToolResult():
                yield _result_out(part, spot, losses)
            case chat.Thinking():
                if (block := thinking_out(part)) is None:
                    losses.add(spot, "Anthropic takes back only thinking that it has signed")
                else:
                    yield block
            case chat.Refusal():
                yield from _said_out(chat.Text(part.text), spot, losses)
            case chat.Image() | chat.File() | chat.Audio() if message.role == "assistant":
                losses.add(spot, "an assistant's message to Anthropic has no images, files or audio")
            case chat.Audio():
                losses.add(spot, "Anthropic takes no audio")
            case _:
                yield from _said_out(part, spot, losses)


def _call_out(call: chat.ToolCall, place: str, losses: Losses) -> Block:
    given = tool_input(call.arguments)
    if bytes(given).startswith(b'{"INVALID_JSON"'):
        losses.add(place, "arguments that are not a JSON object are sent inside one")
    return {"type": "tool_use", "id": tool_id(call.id), "name": call.name, "input": given}


def thinking_out(part: chat.Thinking) -> Block | None:
    """
    A thinking block; None when it lacks the signature that Anthropic checks.

    Other dialects seal the signatures of their providers with a name and a colon; Anthropic's own stand bare, as they
    do where they pass through.
    """
    if _sealed.match(part.redacted or part.signature or ""):
        return None
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    if not part.signature:
        return None
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _result_out(result: chat.ToolResult, place: str, losses: Losses) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": tool_id(result.id)}
    if content := [inner for part in result.parts for inner in _said_out(part, place, losses)]:
        block["content"] = _short(content)
    if result.is_error:
        block["is_error"] = True
    return block


def _said_out(part: chat.Text | chat.Image | chat.File, place: str, losses: Losses) -> Iterator[Block]:
    match part:
        case chat.Text():
            if part.text:
                yield _text_out(part)
        case chat.Image():
            if part.detail not in (None, "auto"):
                losses.add(f"{place}.detail", "Anthropic's images have no detail")
            if part.url is not None:
                yield {"type": "image", "source": {"type": "url", "url": part.url}}
            else:
                inline = {"type": "base64", "media_type": part.media_type or "image/png", "data": part.data or ""}
                yield {"type": "image", "source": inline}
        case chat.File():
            if (source := _document_source(part)) is None:
                if part.data is None:
                    losses.add(place, "another provider's files can not be had by their id", essential=True)
                    return
                losses.add(place, "Anthropic's documents are PDF or plain text")
                return
            block: Block = {"type": "document", "source": source}
            if part.name is not None:
                block["title"] = part.name
            yield block


def _document_source(file: chat.File) -> Block | None:
    if file.url is not None:
        return {"type": "url", "url": file.url}
    if file.data is None:
        # Another provider's id (OpenAI's `file-…`) means nothing here.
        return {"type": "file", "file_id": file.id} if (file.id or "").startswith("file_") else None
    media_type = (file.media_type or "application/pdf").partition(";")[0]
    if media_type == "application/pdf":
        return {"type": "base64", "media_type": media_type, "data": file.data}
    if media_type.startswith("text/"):
        try:
            text = base64.b64decode(file.data).decode()
        except ValueError:
            return None
        return {"type": "text", "media_type": "text/plain", "data": text}
    return None


def _text_out(part: chat.Text) -> Block:
    block: Block = {"type": "text", "text": part.text}
    if part.cache_after:
        block["cache_control"] = {"type": "ephemeral"}
    return block


def _tool_out(tool: chat.Tool) -> Block:
    schema = tool.parameters or {"type": "object", "properties": {}}
    block: Block = {"name": tool.name, "input_schema": schema}
    if tool.description:
        block["description"] = tool.description
    if tool.strict is not None:
        block["strict"] = tool.strict
    return block


def _choice_out(request: chat.Request, losses: Losses) -> Block | None:
    choice = request.tool_choice
    if not request.tools:
        if choice is not None and choice.mode in ("required", "tool"):
            losses.add("tool_choice", "there is no tool to choose")
        return None
    if choice is None and request.parallel_tool_calls is None:
        return None
    mode = "auto" if choice is None else choice.mode
    block: Block = {"type": "any" if mode == "required" else mode}
    if choice is not None and mode == "tool":
        block["name"] = choice.name
    if request.parallel_tool_calls is not None and mode != "none":
        block["disable_parallel_tool_use"] = not request.parallel_tool_calls
    return block


def sampling_out(request: chat.Request, losses: Losses, *, thinks: bool) -> Block:
    """temperature, top_p and top_k as Claude takes them; None for what is not said."""
    temperature, top_p, top_k = request.temperature, request.top_p, request.top_k
    if temperature is not None and temperature > 1:
        losses.add("temperature", "Anthropic's temperature ends at 1, which is sent")
        temperature = 1.0
    if thinks:
        if temperature is not None and temperature != 1:
            losses.add("temperature", "Anthropic thinks only at temperature 1")
            temperature = None
        if top_k is not None:
            losses.add("top_k", "Anthropic takes no top_k together with thinking")
            top_k = None
        if top_p is not None and top_p < 0.95:
            losses.add("top_p", "Anthropic takes no top_p below 0.95 together with thinking")
            top_p = None
    return {"temperature": temperature, "top_p": top_p, "top_k": top_k}


def reasoning_out(request: chat.Request, model: str, losses: Losses) -> tuple[Block | None, str | None, int]:
    """
    (thinking, effort, tokens that it may take).

    Models up to 4.5 take a budget, later ones only an effort and decide by themselves (Anthropic's guide to thinking,
    2026-11). The wire is the same, so the model's name decides.
    """
    effort, tokens = request.reasoning_effort, request.reasoning_tokens
    if effort is None and tokens is None:
        return None, None, 0
    if effort is not None and tokens_for(effort) is None:
        losses.add("reasoning_effort", f"Anthropic does not know the effort {effort!r}")
        effort = None
        if tokens is None:
            return None, None, 0
    if effort == "none" or (tokens is not None and tokens <= 0):
        return {"type": "disabled"}, None, 0
    if not takes_budget(model):
        return _adaptive_out(request, effort, losses)
    if effort is not None and tokens is not None:
        losses.add("reasoning_effort", "the budget says it already")
    return _budget_out(request, effort, losses)


def takes_budget(model: str) -> bool:
    """Whether a model thinks by a budget: Claude up to 4.5, and other makers' models that speak this dialect."""
    _, found, name = model.partition("claude")
    if not found:
        return True
    version = [int(number) for number in _version.findall(name)[:2]]
    return bool(version) and version <= [4, 5]


def _budget_out(request: chat.Request, effort: str | None, losses: Losses) -> tuple[Block | None, None, int]:
    asked = request.reasoning_tokens
    budget = min(tokens_for(effort or "") or 0, MAX_DEFAULT_BUDGET) if asked is None else asked
    field = "reasoning_effort" if asked is None else "reasoning_tokens"
    bound = request.max_output_tokens
    if (why := _why_not_think(request)) is not None:
        losses.add(field, why)
        return None, None, 0
    if bound is not None and bound <= MIN_BUDGET:
        losses.add(field, f"Anthropic thinks in {MIN_BUDGET:,} tokens or more, inside the bound on output")
        return None, None, 0
    if bound is not None:
        budget = min(budget, bound - 1)
    budget = max(budget, MIN_BUDGET)
    if asked is not None and budget != asked:
        losses.add(
            field, f"a budget of {budget:,} is sent: Anthropic's begin at {MIN_BUDGET:,} and end below the bound"
        )
    return {"type": "enabled", "budget_tokens": budget}, None, budget


def _adaptive_out(request: chat.Request, effort: str | None, losses: Losses) -> tuple[Block | None, str | None, int]:
    tokens = request.reasoning_tokens
    effort = effort or effort_for(tokens or 0)
    if tokens is not None:
        losses.add("reasoning_tokens", f"the model takes no budget; the effort {effort} is sent")
    if effort == "minimal":
        losses.add("reasoning_effort", "Anthropic's least effort is low")
        effort = "low"
    if _forced(request):
        losses.add("reasoning_effort", _FORCED)
        return None, effort, 0
    return {"type": "adaptive"}, effort, min(tokens_for(effort) or 0, MAX_DEFAULT_BUDGET)


_FORCED = "Anthropic does not think when a tool must be called"


def _why_not_think(request: chat.Request) -> str | None:
    if _forced(request):
        return _FORCED
    for message in reversed(request.messages):
        if message.role == "assistant":
            signed = any(isinstance(part, chat.Thinking) and thinking_out(part) for part in message.parts)
            return None if signed else "Anthropic goes on thinking after a tool only with its own signed thinking"
        if message.role != "tool":
            return None
    return None


def _forced(request: chat.Request) -> bool:
    choice = request.tool_choice
    return bool(request.tools) and choice is not None and choice.mode in ("required", "tool")


def _say_what_anthropic_lacks(request: chat.Request, losses: Losses) -> None:
    if request.format is not None and request.format.kind == "json":
        losses.add("format", "Anthropic has no JSON mode without a schema")
    if any(not stop.strip() for stop in request.stop):
        losses.add("stop", "Anthropic takes no stop sequence of white space alone")
    if request.count is not None and request.count != 1:
        losses.add("count", "Anthropic gives one answer")
    for field, name in (
        ("seed", "seed"),
        ("presence_penalty", "presence penalty"),
        ("frequency_penalty", "frequency penalty"),
        ("logprobs", "log probabilities"),
    ):
        if getattr(request, field) is not None:
            losses.add(field, f"Anthropic has no {name}")
