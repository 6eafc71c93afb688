"""Requests, read into the canonical shape. What it can not hold is a loss; what makes no sense is refused by path."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Literal

import msgspec

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest
from tidegate.dialects.dialect import Fields, Incoming
from tidegate.dialects.fields import value
from tidegate.dialects.losses import Losses
from tidegate.dialects.openai_responses import items

LOGPROBS = "message.output_text.logprobs"
_INCLUDED = frozenset({LOGPROBS, "reasoning.encrypted_content"})
"""What may be asked for and is told in any case: reasoning always comes with what lets it be sent back."""
_ROLES: dict[str, chat.Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "developer",
}
_MODES: dict[str, Literal["auto", "none", "required"]] = {"auto": "auto", "none": "none", "required": "required"}

_READ = frozenset(
    {
        *("model", "prompt", "variables", "input", "instructions", "stream", "tools", "tool_choice", "user"),
        *("parallel_tool_calls", "text", "max_output_tokens", "temperature", "top_p", "reasoning", "top_logprobs"),
        *("include", "safety_identifier"),
    }
)
_WHY = {
    "previous_response_id": "only the provider that stored that response knows it; send its items as input",
    "conversation": "only the provider that keeps that conversation knows it; send its items as input",
    "store": "other providers keep no responses",
    "background": "other providers answer while the client waits",
    "metadata": "other providers keep no metadata",
}
_REFERENCES = frozenset({"previous_response_id", "conversation"})
"""What was said before, kept by a provider."""
_SAYS_NOTHING = {
    "store": (b"false",),
    "background": (b"false",),
    "truncation": (b'"disabled"',),
    "service_tier": (b'"auto"', b'"default"'),
    "metadata": (b"{}",),
}
"""Values that ask for what happens anyway."""


class _Audio(msgspec.Struct):
    data: str
    format: str


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    input_audio: _Audio | None = None
    annotations: list[msgspec.Raw] | None = None
    prompt_cache_breakpoint: dict[str, Any] | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part]
    phase: str | None = None


class _CallOutput(msgspec.Struct):
    call_id: str
    output: str | list[_Part]


class _Tool(msgspec.Struct):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _ToolName(msgspec.Struct):
    type: str
    name: str | None = None


class _ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    mode: str | None = None
    tools: list[_ToolName] | None = None


class _Format(msgspec.Struct):
    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class _Text(msgspec.Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _ReasoningConfig(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


def request_in(incoming: Incoming) -> chat.Request:
    """The whole request in the canonical shape. Raises InvalidRequest."""
    fields, losses = incoming.fields, Losses()
    for key in fields:
        if _is_lost(fields, key):
            why = _WHY.get(key, f"only the Responses API has {key}")
            losses.add(key, why, essential=key in _REFERENCES)
    tools, choice = _tools_in(fields, losses)
    text = _value(fields, "text", _Text) or _Text()
    if text.verbosity not in (None, "medium"):
        losses.add("text.verbosity", "only OpenAI takes a verbosity")
    reasoning = _value(fields, "reasoning", _ReasoningConfig) or _ReasoningConfig()
    if reasoning.summary is not None:
        losses.add("reasoning.summary", "other providers decide how much of the reasoning they show")
    return chat.Request(
        messages=_instructions_in(fields) + _input_in(fields, losses),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=value(fields, "parallel_tool_calls", bool, "true or false"),
        format=_format_in(text.format, losses),
        max_output_tokens=value(fields, "max_output_tokens", int, "a whole number"),
        temperature=value(fields, "temperature", float, "a number"),
        top_p=value(fields, "top_p", float, "a number"),
        logprobs=_logprobs_in(fields, losses),
        reasoning_effort=reasoning.effort,
        user=value(fields, "user", str, "a string") or value(fields, "safety_identifier", str, "a string"),
        store=value(fields, "store", bool, "true or false") is not False,
        losses=tuple(losses.all()),
    )


def _is_lost(fields: Fields, key: str) -> bool:
    if key in _READ:
        return False
    given = bytes(fields[key])
    if key == "stream_options":
        return b"true" in given
    return given != b"null" and given not in _SAYS_NOTHING.get(key, ())


def _instructions_in(fields: Fields) -> tuple[chat.Message, ...]:
    instructions = value(fields, "instructions", str, "a string")
    return (chat.Message("system", (chat.Text(instructions),)),) if instructions else ()


def _input_in(fields: Fields, losses: Losses) -> tuple[chat.Message, ...]:
    given = value(fields, "input", str | list[msgspec.Raw], "a string or a list of items")
    if isinstance(given, str):
        return (chat.Message("user", (chat.Text(given),)),)
    read = [_item_in(raw, f"input[{index}]", losses) for index, raw in enumerate(given or [])]
    messages: list[chat.Message] = []
    # Reasoning, words and calls of the assistant are items of their own; side by side they are one turn.
    for assistant, run in groupby((message for message in read if message), key=lambda m: m.role == "assistant"):
        if assistant:
            messages.append(chat.Message("assistant", tuple(part for message in run for part in message.parts)))
        else:
            messages.extend(run)
    return tuple(messages)


def _item_in(raw: msgspec.Raw, place: str, losses: Losses) -> chat.Message | None:
    kind = _decode(raw, items.Kind, place).name
    if kind == "message":
        return _message_in(_decode(raw, _Message, place), place, losses)
    if kind == "function_call":
        call = _decode(raw, items.FunctionCall, place)
        if call.namespace is not None:
            losses.add(f"{place}.namespace", "other dialects have no namespaces of tools")
        return chat.Message("assistant", (chat.ToolCall(call.call_id, call.name, call.arguments),))
    if kind == "function_call_output":
        return _result_in(_decode(raw, _CallOutput, place), place, losses)
    if kind == "reasoning":
        thinking = items.thinking_in(_decode(raw, items.Reasoning, place))
        return None if thinking is None else chat.Message("assistant", (thinking,))
    if kind == "item_reference":
        raise InvalidRequest(
            f"{place} refers to an item that only its provider has; send the item itself.", param=f"{place}.id"
        )
    if kind is None:
        raise InvalidRequest(f"{place} is no item: it has neither type nor role.", param=f"{place}.type")
    losses.add(place, "items of other types than message, function_call and reasoning are of tools that OpenAI runs")
    return None


def _message_in(message: _Message, place: str, losses: Losses) -> chat.Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequest(
            f"{place}.role: {message.role!r} is not a role. Known: {', '.join(_ROLES)}.", param=f"{place}.role"
        )
    if message.phase is not None:
        losses.add(f"{place}.phase", "only OpenAI's models tell commentary from the final answer")
    return chat.Message(role, _parts_in(message.content, f"{place}.content", losses))


def _result_in(result: _CallOutput, place: str, losses: Losses) -> chat.Message:
    parts = _parts_in(result.output, f"{place}.output", losses)
    given = tuple(part for part in parts if isinstance(part, chat.Text | chat.Image | chat.File))
    if len(given) < len(parts):
        raise InvalidRequest(f"{place}.output may hold texts, images and files.", param=f"{place}.output")
    return chat.Message("tool", (chat.ToolResult(result.call_id, given),))


def _parts_in(content: str | list[_Part], place: str, losses: Losses) -> tuple[chat.Part, ...]:
    if isinstance(content, str):
        return (chat.Text(content),)
    read = (_part_in(part, f"{place}[{index}]", losses) for index, part in enumerate(content))
    return tuple(part for part in read if part is not None)


def _part_in(part: _Part, place: str, losses: Losses) -> chat.Part | None:
    match part:
        case _Part(type="input_text" | "output_text", text=str(text)):
            if part.annotations:
                losses.add(f"{place}.annotations", "other providers take no citations back")
            return chat.Text(text, cache_after=part.prompt_cache_breakpoint is not None)
        case _Part(type="refusal", refusal=str(text)):
            return chat.Refusal(text)
        case _Part(type="input_image", image_url=str(url)):
            media_type, data = _data_of(url)
            detail = None if part.detail == "auto" else part.detail
            return chat.Image(None if data else url, data, media_type, detail)
        case _Part(type="input_image", file_id=str()):
            losses.add(f"{place}.file_id", "only the provider that has that image knows it", essential=True)
            return None
        case _Part(type="input_file") if part.file_id or part.file_url or part.file_data:
            media_type, data = _data_of(part.file_data or "")
            return chat.File(part.file_url, data or part.file_data, part.file_id, media_type, part.filename)
        case _Part(type="input_audio", input_audio=_Audio(data=data, format=form)):
            return chat.Audio(data, form)
    raise InvalidRequest(
        f"{place}: a part of type {part.type!r} is not known, or has no such field. "
        "Known: input_text, input_image, input_file, input_audio, output_text, refusal.",
        param=f"{place}.type",
    )


def _data_of(url: str) -> tuple[str | None, str | None]:
    """The media type and the base64 of a data: URI; (None, None) for anything else."""
    head, comma, data = url.partition(";base64,")
    return (head.removeprefix("data:"), data) if comma and head.startswith("data:") else (None, None)


def _tools_in(fields: Fields, losses: Losses) -> tuple[tuple[chat.Tool, ...], chat.ToolChoice | None]:
    """The functions that may be called, and whether one must be."""
    tools: list[chat.Tool] = []
    for index, raw in enumerate(value(fields, "tools", list[msgspec.Raw], "a list of tools") or []):
        tool = _decode(raw, _ToolName, f"tools[{index}]")
        if tool.type != "function":
            losses.add(f"tools[{index}]", "only functions are tools everywhere; this one OpenAI runs")
            continue
        function = _decode(raw, _Tool, f"tools[{index}]")
        if not function.name:
            raise InvalidRequest(f"tools[{index}].name is missing.", param=f"tools[{index}].name")
        tools.append(chat.Tool(function.name, function.description or "", function.parameters or {}, function.strict))
    allowed, choice = _choice_in(_value(fields, "tool_choice", str | _ToolChoice), losses)
    return tuple(tool for tool in tools if allowed is None or tool.name in allowed), choice


def _choice_in(
    choice: str | _ToolChoice | None, losses: Losses
) -> tuple[frozenset[str] | None, chat.ToolChoice | None]:
    """The names that may be called, None for all, and the choice. `allowed_tools` is told by leaving out the others."""
    if choice is None:
        return None, None
    if isinstance(choice, str):
        if choice not in _MODES:
            raise InvalidRequest("tool_choice must be auto, none, required or an object.", param="tool_choice")
        return None, chat.ToolChoice(_MODES[choice])
    if choice.type == "function" and choice.name:
        return None, chat.ToolChoice("tool", choice.name)
    if choice.type == "allowed_tools" and choice.tools is not None:
        names = frozenset(tool.name for tool in choice.tools if tool.name is not None)
        return names, chat.ToolChoice("required" if choice.mode == "required" else "auto")
    losses.add("tool_choice", "only functions are tools everywhere; OpenAI runs this one")
    return None, None


def _format_in(given: _Format | None, losses: Losses) -> chat.Format | None:
    if given is None:
        return None
    if given.type == "text":
        return chat.Format()
    if given.type == "json_object":
        return chat.Format("json")
    if given.type == "json_schema" and given.schema is not None:
        if given.description:
            losses.add("text.format.description", "other dialects do not describe a format")
        return chat.Format("schema", given.schema, given.name or "answer", given.strict)
    raise InvalidRequest(
        "text.format must be text, json_object, or json_schema with a schema.", param="text.format.type"
    )


def _logprobs_in(fields: Fields, losses: Losses) -> int | None:
    include = value(fields, "include", list[str], "a list of strings") or []
    lost = next((index for index, name in enumerate(include) if name not in _INCLUDED), None)
    if lost is not None:
        losses.add(f"include[{lost}]", "only answers of OpenAI hold it")
    most: int | None = value(fields, "top_logprobs", int, "a whole number")
    return most or (0 if LOGPROBS in include else None)


def _value(fields: Fields, key: str, kind: Any) -> Any:
    raw = fields.get(key)
    return None if raw is None or bytes(raw) == b"null" else _decode(raw, kind, key)


def _decode(raw: msgspec.Raw, kind: Any, place: str) -> Any:
    """`raw` as a `kind`. Raises InvalidRequest that names the field in it."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        what, _, inside = str(error).partition(" - at `$")
        param = place + inside.rstrip("`")
        raise InvalidRequest(f"{param}: {what[:1].lower()}{what[1:]}.", param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{place} can not be read: {error}.", param=place) from error
