"""
Anthropic requests: passed through, or read into the canonical shape.

Content blocks are decoded without regard to their type, so that an unknown one is a loss and not a refusal. What
differs in shape from type to type (source, input, content) stays raw until the type is known.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest
from tidegate.dialects import bounds
from tidegate.dialects.dialect import Fields, Incoming
from tidegate.dialects.fields import OWN_KEYS, encode, read_fields, value
from tidegate.dialects.losses import Losses

_NO_RAW = msgspec.Raw(b"")
_READ = frozenset(
    {
        *("model", "messages", "system", "stream", "max_tokens", "stop_sequences", "temperature", "top_p", "top_k"),
        *("tools", "tool_choice", "thinking", "metadata", "output_config", "output_format", *OWN_KEYS),
    }
)
_BOUNDS = {"tools": bounds.MAX_TOOLS, "stop_sequences": bounds.MAX_STOPS}
_SPEAKS_OF_NOTHING = frozenset({"model", "messages", "stream", "metadata", "system", *OWN_KEYS})


class _CacheControl(msgspec.Struct):
    ttl: str | None = None


class _Block(msgspec.Struct):
    type: str
    text: str | None = None
    cache_control: _CacheControl | None = None
    source: msgspec.Raw = _NO_RAW
    title: str | None = None
    context: str | None = None
    citations: msgspec.Raw = _NO_RAW
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NO_RAW
    tool_use_id: str | None = None
    content: msgspec.Raw = _NO_RAW
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class _Source(msgspec.Struct):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: str | list[_Block] | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block]


class _Role(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = _NO_RAW


class _Tool(msgspec.Struct):
    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: _CacheControl | None = None


class _ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class _Format(msgspec.Struct):
    type: str
    schema: dict[str, Any] | None = None


class _OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(msgspec.Struct):
    user_id: str | None = None


def parse_request(body: bytes) -> Incoming:
    """Reads the top level of a request. Raises InvalidRequest, naming the field."""
    fields = read_fields(body)
    bounds.check(fields, _BOUNDS)
    model = value(fields, "model", str, "a string")
    if not model:
        raise InvalidRequest("model is missing: the name of a route, provider/model, or prompt:NAME.", param="model")
    return Incoming(
        fields=fields,
        model=model,
        stream=bool(value(fields, "stream", bool, "true or false")),
        variables=value(fields, "variables", dict[str, Any], "an object"),
    )


def same_body(incoming: Incoming, *, model: str) -> bytes:
    """The request as a provider of this dialect gets it; every value that need not change keeps its bytes."""
    changed = {key: raw for key, raw in incoming.fields.items() if key not in OWN_KEYS}
    changed["model"] = msgspec.Raw(encode(model))
    return encode(changed)


def system_bytes(incoming: Incoming) -> bytes:
    """What shapes an answer besides the conversation: system, tools and params, as the client's bytes."""
    fields = incoming.fields
    shaping = [key.encode() + b"=" + bytes(fields[key]) for key in sorted(fields.keys() - _SPEAKS_OF_NOTHING)]
    amid = [bytes(message.content) for message in _field(fields, "messages", list[_Role]) or [] if _is_system(message)]
    return b"\n".join([*shaping, bytes(fields.get("system", b"")), *amid])


def input_text(incoming: Incoming) -> str:
    """The conversation as JSON text, the system text as its first message."""
    messages = str(incoming.fields.get("messages", b"[]"), "utf-8")
    if "system" not in incoming.fields:
        return messages
    first = f'{{"role":"system","content":{bytes(incoming.fields["system"]).decode()}}}'
    following = messages.lstrip().removeprefix("[").lstrip()
    return f"[{first}{'' if following.startswith(']') else ','}{following}"


def request_in(incoming: Incoming) -> chat.Request:
    """The whole request in the canonical shape. Raises InvalidRequest."""
    fields, losses = incoming.fields, Losses()
    for key, raw in fields.items():
        if key not in _READ and bytes(raw) != b"null":
            losses.add(key, f"{key} is not carried to other dialects", essential=key == "container")
    choice = _field(fields, "tool_choice", _ToolChoice)
    thinking = _field(fields, "thinking", _Thinking)
    output = _field(fields, "output_config", _OutputConfig) or _OutputConfig()
    effort, tokens = _reasoning_in(thinking, output.effort, losses)
    metadata = _field(fields, "metadata", _Metadata)
    return chat.Request(
        messages=(*_system_in(fields, losses), *_messages_in(incoming, losses)),
        tools=tuple(_tools_in(_field(fields, "tools", list[msgspec.Raw]) or [], losses)),
        tool_choice=None if choice is None else _choice_in(choice),
        parallel_tool_calls=None
        if choice is None or choice.disable_parallel_tool_use is None
        else not choice.disable_parallel_tool_use,
        format=_format_in(output.format or _field(fields, "output_format", _Format)),
        max_output_tokens=_field(fields, "max_tokens", int),
        temperature=_field(fields, "temperature", float),
        top_p=_field(fields, "top_p", float),
        top_k=_field(fields, "top_k", int),
        stop=tuple(_field(fields, "stop_sequences", list[str]) or ()),
        reasoning_effort=effort,
        reasoning_tokens=tokens,
        user=None if metadata is None else metadata.user_id,
        losses=tuple(losses.all()),
    )


def _system_in(fields: Fields, losses: Losses) -> Iterator[chat.Message]:
    system = _field(fields, "system", str | list[_Block])
    if system:
        yield chat.Message("system", tuple(_texts_in(system, "system", losses)))


def _messages_in(incoming: Incoming, losses: Losses) -> Iterator[chat.Message]:
    messages = _field(incoming.fields, "messages", list[_Message])
    if messages is None and not incoming.model.startswith("prompt:"):
        raise InvalidRequest("messages is missing: a list of at least one message.", param="messages")
    for index, message in enumerate(messages or []):
        yield from _message_in(message, f"messages[{index}]", losses)


def _message_in(message: _Message, place: str, losses: Losses) -> Iterator[chat.Message]:
    """One turn; its tool results become messages of their own, and keep their place among the other blocks."""
    content, role = message.content, _role(message.role, place)
    if role == "system":
        yield chat.Message(role, tuple(_texts_in(content, f"{place}.content", losses)))
        return
    if isinstance(content, str):
        yield chat.Message(role, (chat.Text(content),))
        return
    run: list[chat.Part] = []
    for at, block in enumerate(content):
        spot = f"{place}.content[{at}]"
        if block.type != "tool_result":
            run += _block_in(block, spot, losses)
            continue
        if run:
            yield chat.Message(role, tuple(run))
            run = []
        yield chat.Message("tool", (_result_in(block, spot, losses),))
    if run:
        yield chat.Message(role, tuple(run))


def _role(role: str, place: str) -> chat.Role:
    match role:
        case "user" | "assistant" | "system":
            return role
    raise InvalidRequest(f"{role!r} is not a role. Known: user, assistant, system.", param=f"{place}.role")


def _texts_in(content: str | list[_Block], place: str, losses: Losses) -> Iterator[chat.Text]:
    if isinstance(content, str):
        yield chat.Text(content)
        return
    for at, block in enumerate(content):
        spot = f"{place}[{at}]"
        if block.type != "text":
            raise InvalidRequest(f"a system text has blocks of type text, not {block.type!r}.", param=f"{spot}.type")
        yield _text_in(block, spot, losses)


def _block_in(block: _Block, place: str, losses: Losses) -> Iterator[chat.Part]:
    match block.type:
        case "tool_use":
            _say_lost_cache(block, place, losses)
            arguments = bytes(block.input).decode() if block.input else "{}"
            yield chat.ToolCall(_needed(block.id, place, "id"), _needed(block.name, place, "name"), arguments)
        case "thinking":
            yield chat.Thinking(_needed(block.thinking, place, "thinking"), block.signature or None)
        case "redacted_thinking":
            yield chat.Thinking(redacted=_needed(block.data, place, "data"))
        case _:
            yield from _said_in(block, place, losses)


def _result_in(block: _Block, place: str, losses: Losses) -> chat.ToolResult:
    _say_lost_cache(block, place, losses)
    content = _decode(block.content, str | list[_Block] | None, f"{place}.content") if block.content else None
    if isinstance(content, str):
        parts: tuple[chat.Text | chat.Image | chat.File, ...] = (chat.Text(content),)
    else:
        blocks = enumerate(content or [])
        parts = tuple(part for at, inner in blocks for part in _said_in(inner, f"{place}.content[{at}]", losses))
    return chat.ToolResult(_needed(block.tool_use_id, place, "tool_use_id"), parts, bool(block.is_error))


def _said_in(block: _Block, place: str, losses: Losses) -> Iterator[chat.Text | chat.Image | chat.File]:
    """What may stand in a turn as well as in a tool result."""
    match block.type:
        case "text":
            yield _text_in(block, place, losses)
        case "image":
            _say_lost_cache(block, place, losses)
            yield from _image_in(_decode(block.source, _Source, f"{place}.source"), f"{place}.source", losses)
        case "document":
            _say_lost_cache(block, place, losses)
            if block.citations or block.context:
                losses.add(place, "a document's citations and context are only Anthropic's")
            yield _document_in(block, place, losses)
        case "search_result":
            losses.add(place, "a search result keeps only its text")
            inner = _decode(block.content, list[_Block], f"{place}.content")
            yield from (chat.Text(text.text or "") for text in inner)
        case _:
            losses.add(place, f"blocks of type {block.type!r} are only Anthropic's")


def _text_in(block: _Block, place: str, losses: Losses) -> chat.Text:
    if block.cache_control is not None and block.cache_control.ttl not in (None, "5m"):
        losses.add(f"{place}.cache_control.ttl", "how long a prompt cache lives is only Anthropic's")
    if bytes(block.citations) not in (b"", b"null", b"[]"):
        losses.add(f"{place}.citations", "citations are only Anthropic's")
    return chat.Text(_needed(block.text, place, "text"), cache_after=block.cache_control is not None)


def _image_in(source: _Source, place: str, losses: Losses) -> Iterator[chat.Image]:
    match source.type:
        case "base64":
            yield chat.Image(data=_needed(source.data, place, "data"), media_type=source.media_type)
        case "url":
            yield chat.Image(url=_needed(source.url, place, "url"))
        case "file":
            losses.add(place, "only Anthropic has the files that are stored there", essential=True)
        case _:
            losses.add(place, f"images from a source of type {source.type!r} are only Anthropic's")


def _document_in(block: _Block, place: str, losses: Losses) -> chat.File | chat.Text:
    spot = f"{place}.source"
    source = _decode(block.source, _Source, spot)
    match source.type:
        case "base64":
            data = _needed(source.data, spot, "data")
            return chat.File(data=data, media_type=source.media_type or "application/pdf", name=block.title)
        case "url":
            return chat.File(url=_needed(source.url, spot, "url"), name=block.title)
        case "file":
            return chat.File(id=_needed(source.file_id, spot, "file_id"), name=block.title)
        case "text":
            return _plain_file(_needed(source.data, spot, "data"), block.title)
        case "content":
            if isinstance(source.content, str):
                return _plain_file(source.content, block.title)
            if any(inner.type != "text" for inner in source.content or []):
                losses.add(spot, "a document made of blocks keeps only their text")
            return _plain_file("\n".join(inner.text or "" for inner in source.content or []), block.title)
        case _:
            raise InvalidRequest(
                f"{source.type!r} is not a document's source. Known: base64, url, file, text, content.",
                param=f"{spot}.type",
            )


def _plain_file(text: str, name: str | None) -> chat.File:
    return chat.File(data=base64.b64encode(text.encode()).decode(), media_type="text/plain", name=name)


def _tools_in(tools: list[msgspec.Raw], losses: Losses) -> Iterator[chat.Tool]:
    for index, raw in enumerate(tools):
        place = f"tools[{index}]"
        tool = _decode(raw, _Tool, place)
        if tool.type not in (None, "custom"):
            losses.add(place, f"the tool {tool.type!r} is Anthropic's own")
            continue
        if tool.cache_control is not None:
            losses.add(f"{place}.cache_control", _CACHE_LOST)
        yield chat.Tool(_needed(tool.name, place, "name"), tool.description or "", tool.input_schema or {}, tool.strict)


def _choice_in(choice: _ToolChoice) -> chat.ToolChoice:
    match choice.type:
        case "auto":
            return chat.ToolChoice("auto")
        case "none":
            return chat.ToolChoice("none")
        case "any":
            return chat.ToolChoice("required")
        case "tool":
            return chat.ToolChoice("tool", _needed(choice.name, "tool_choice", "name"))
        case other:
            raise InvalidRequest(
                f"{other!r} is not a tool choice. Known: auto, any, tool, none.", param="tool_choice.type"
            )


def _format_in(given: _Format | None) -> chat.Format | None:
    if given is None:
        return None
    if given.type != "json_schema" or given.schema is None:
        raise InvalidRequest("the output format must be a json_schema with its schema.", param="output_config.format")
    return chat.Format("schema", given.schema, strict=True)


def _reasoning_in(thinking: _Thinking | None, effort: str | None, losses: Losses) -> tuple[str | None, int | None]:
    """(effort, tokens). Adaptive thinking without an effort is `high`, Anthropic's stated default (docs, 2026-11)."""
    if thinking is None:
        return effort, None
    if thinking.display is not None:
        losses.add("thinking.display", "whether thinking is shown is only Anthropic's to say")
    match thinking.type:
        case "enabled":
            return effort, thinking.budget_tokens
        case "disabled":
            if effort is not None:
                losses.add("output_config.effort", "an effort without thinking is only Anthropic's")
            return "none", None
        case "adaptive":
            return effort or "high", None
        case other:
            losses.add("thinking.type", f"thinking of type {other!r} is only Anthropic's")
            return effort, None


_CACHE_LOST = "a prompt cache can only be asked for after a text"


def _say_lost_cache(block: _Block, place: str, losses: Losses) -> None:
    if block.cache_control is not None:
        losses.add(f"{place}.cache_control", _CACHE_LOST)


def _is_system(message: _Role) -> bool:
    return message.role == "system"


def _needed(given: str | None, place: str, key: str) -> str:
    if given is None:
        raise InvalidRequest(f"{place}.{key} is missing.", param=f"{place}.{key}")
    return given


def _field(fields: Fields, key: str, kind: Any) -> Any:
    """`fields[key]` as `kind`; None when it is absent or null."""
    return None if key not in fields or bytes(fields[key]) == b"null" else _decode(fields[key], kind, key)


def _decode(raw: msgspec.Raw, kind: Any, place: str) -> Any:
    """`raw` as `kind`. Raises InvalidRequest naming the exact place."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        what, _, inside = str(error).partition(" - at `$")
        path = place + inside.rstrip("`")
        raise InvalidRequest(f"{path}: {what}.", param=path) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{place} is missing, too deep or not JSON.", param=place) from error
