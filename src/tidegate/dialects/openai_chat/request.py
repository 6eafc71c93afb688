"""Chat Completions requests: passed through, read into the canonical shape, and written from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest
from tidegate.core.reasoning import effort_for
from tidegate.dialects import bounds
from tidegate.dialects.dialect import Fields, Incoming
from tidegate.dialects.fields import OWN_KEYS, encode, read_fields, value
from tidegate.dialects.losses import Losses

BOUNDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""OpenAI's name for the bound on output, the older one that compatible servers know, and that of prompts."""


_BOUNDS = {
    **dict.fromkeys(("n", "best_of"), bounds.MAX_ANSWERS),
    **dict.fromkeys(("tools", "functions"), bounds.MAX_TOOLS),
    "top_logprobs": bounds.MAX_LOGPROBS,
    "stop": bounds.MAX_STOPS,
}


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct):
    type: str = "function"
    function: _Function | None = None


class _Called(msgspec.Struct):
    name: str = ""
    arguments: str = ""


class _ToolCall(msgspec.Struct):
    id: str = ""
    function: _Called | None = None


class _ImageUrl(msgspec.Struct):
    url: str
    detail: str | None = None


class _File(msgspec.Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _InputAudio(msgspec.Struct):
    data: str
    format: str


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: _ImageUrl | None = None
    file: _File | None = None
    input_audio: _InputAudio | None = None
    cache_control: dict[str, Any] | None = None
    """Anthropic's mark, which many clients put into this dialect too."""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: _Called | None = None
    """How calls were spelled before tools."""
    audio: msgspec.Raw = msgspec.Raw(b"")
    reasoning_content: msgspec.Raw = msgspec.Raw(b"")
    reasoning: msgspec.Raw = msgspec.Raw(b"")


class _Role(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"")


_ROLES_ONLY = list[_Role]
_OBJECT = dict[str, Any]
_MODES: dict[str, Literal["auto", "none", "required"]] = {"auto": "auto", "none": "none", "required": "required"}
_ROLES: dict[str, chat.Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_READ = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "variables", "tools", "tool_choice", "parallel_tool_calls"),
        *("response_format", *BOUNDS, "temperature", "top_p", "stop", "seed", "n"),
        *("presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "reasoning_effort", "user"),
    }
)


_SAYS_NOTHING = {
    "store": (b"false",),
    "service_tier": (b'"auto"', b'"default"'),
    "metadata": (b"{}",),
    "logit_bias": (b"{}",),
    "modalities": (b'["text"]',),
    "verbosity": (b'"medium"',),
    "functions": (b"[]",),
}
"""Values that ask for what happens anyway, as null does."""
_NOBODY_TAKES = "reasoning without a signature is nobody's to take back"


def parse_request(body: bytes) -> Incoming:
    """Reads the top level of a request. Raises InvalidRequest, naming the field."""
    fields = read_fields(body)
    bounds.check(fields, _BOUNDS)
    model = value(fields, "model", str, "a string")
    if not model:
        raise InvalidRequest("model is missing: the name of a route, provider/model, or prompt:NAME.", param="model")
    options = value(fields, "stream_options", _OBJECT, "an object") or {}
    return Incoming(
        fields=fields,
        model=model,
        stream=bool(value(fields, "stream", bool, "true or false")),
        wants_usage=options.get("include_usage") is True,
        variables=value(fields, "variables", _OBJECT, "an object"),
    )


def same_body(incoming: Incoming, *, model: str) -> bytes:
    """The request as a provider of this dialect gets it; every value that need not change keeps its bytes."""
    changed: dict[str, Any] = {**incoming.fields, "model": model}
    for key in OWN_KEYS:
        changed.pop(key, None)
    if incoming.stream:
        options = value(incoming.fields, "stream_options", _OBJECT, "an object") or {}
        changed["stream_options"] = {**options, "include_usage": True}
    return encode(changed)


def system_bytes(incoming: Incoming) -> bytes:
    """What shapes an answer besides the conversation: the system messages, tools and params, as the client's bytes."""
    fields = incoming.fields
    messages = value(fields, "messages", _ROLES_ONLY, "a list of messages") or []
    # By name: `=` comes before whatever a name goes on with.
    shaping = sorted([_SHAPING[key] + fields[key] for key in fields if key in _SHAPING])
    shaping += [message.content for message in messages if message.role in ("system", "developer")]
    return b"\n".join(shaping)


_SHAPING = {
    key: key.encode() + b"=" for key in _READ - {"model", "messages", "stream", "stream_options", "variables", "user"}
}


def input_text(incoming: Incoming) -> str:
    """The conversation as JSON text, for the record."""
    return str(incoming.fields["messages"], "utf-8") if "messages" in incoming.fields else "[]"


def messages_in(messages: Any) -> tuple[chat.Message, ...]:
    """Messages in OpenAI's shape, as plain values, in the canonical one. Raises InvalidRequest."""
    losses: list[chat.Loss] = []
    read = msgspec.convert(messages, list[_Message])
    return tuple(_message_in(message, index, losses) for index, message in enumerate(read))


def request_in(incoming: Incoming) -> chat.Request:
    """The whole request in the canonical shape. Raises InvalidRequest."""
    fields = incoming.fields
    messages = value(fields, "messages", list[_Message], "a list of messages") or []
    tools = value(fields, "tools", list[_Tool], "a list of tools") or []
    losses = [chat.Loss(key, "only Chat Completions has it") for key in fields if _is_lost(fields, key)]
    losses += [
        chat.Loss(f"tools[{i}]", f"not a function but {t.type!r}") for i, t in enumerate(tools) if not t.function
    ]
    bounds = [value(fields, key, int, "a whole number") for key in BOUNDS]
    logprobs = value(fields, "logprobs", bool, "true or false")
    return chat.Request(
        messages=tuple(_message_in(message, index, losses) for index, message in enumerate(messages)),
        tools=tuple(_tool_in(tool.function) for tool in tools if tool.function),
        tool_choice=_choice_in(value(fields, "tool_choice", str | dict[str, Any], "a string or an object"), losses),
        parallel_tool_calls=value(fields, "parallel_tool_calls", bool, "true or false"),
        format=_format_in(value(fields, "response_format", dict[str, Any], "an object")),
        max_output_tokens=min((bound for bound in bounds if bound is not None), default=None),
        temperature=value(fields, "temperature", float, "a number"),
        top_p=value(fields, "top_p", float, "a number"),
        stop=_stop_in(value(fields, "stop", str | list[str], "a string or a list of strings")),
        seed=value(fields, "seed", int, "a whole number"),
        presence_penalty=value(fields, "presence_penalty", float, "a number"),
        frequency_penalty=value(fields, "frequency_penalty", float, "a number"),
        count=value(fields, "n", int, "a whole number"),
        logprobs=(value(fields, "top_logprobs", int, "a whole number") or 0) if logprobs else None,
        reasoning_effort=value(fields, "reasoning_effort", str, "a string"),
        user=value(fields, "user", str, "a string"),
        losses=tuple(losses),
    )


def _is_lost(fields: Fields, key: str) -> bool:
    if key in _READ:
        return False
    given = bytes(fields[key])
    return given != b"null" and given not in _SAYS_NOTHING.get(key, ())


def request_out(request: chat.Request, *, model: str, stream: bool, native: bool) -> tuple[bytes, list[chat.Loss]]:
    """The canonical request on this wire, and what it can not say."""
    losses = Losses()
    body: dict[str, Any] = {"model": model, "messages": messages_out(request.messages, losses)}
    if request.tools:
        body["tools"] = [{"type": "function", "function": _function_out(tool)} for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _choice_out(request.tool_choice)
    if request.format is not None and request.format.kind != "text":
        body["response_format"] = _format_out(request.format)
    if request.top_k is not None:
        losses.add("top_k", "Chat Completions has no top_k")
    body.update({name: given for name, given in _params_out(request, native=native) if given is not None})
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return encode(body), losses.all()


def _params_out(request: chat.Request, *, native: bool) -> tuple[tuple[str, Any], ...]:
    return (
        (BOUNDS[0] if native else BOUNDS[1], request.max_output_tokens),
        ("stop", list(request.stop) or None),
        ("logprobs", None if request.logprobs is None else True),
        ("top_logprobs", request.logprobs or None),
        ("parallel_tool_calls", request.parallel_tool_calls),
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("seed", request.seed),
        ("presence_penalty", request.presence_penalty),
        ("frequency_penalty", request.frequency_penalty),
        ("n", request.count),
        ("reasoning_effort", _effort(request)),
        ("user", request.user),
    )


def messages_out(messages: Sequence[chat.Message], losses: Losses | None = None) -> list[dict[str, Any]]:
    """Canonical messages as Chat Completions has them; the record keeps them so too."""
    losses = losses or Losses()
    written: list[dict[str, Any]] = []
    shown: list[chat.Part] = []  # by tools: their messages hold only text, so the user shows it, after the last of them
    for index, message in enumerate(messages):
        if shown and message.role != "tool":
            written.append({"role": "user", "content": _content_out(shown, index, losses)})
            shown = []
        written += _message_out(message, index, losses, shown)
    if shown:
        written.append({"role": "user", "content": _content_out(shown, len(messages), losses)})
    return written


def _message_in(message: _Message, index: int, losses: list[chat.Loss]) -> chat.Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequest(
            f"{message.role!r} is not a role. Known: {', '.join(_ROLES)}.", param=f"messages[{index}].role"
        )
    content = message.content
    if isinstance(content, str):
        parts: list[chat.Part] = [chat.Text(content)]
    else:
        parts = [_part_in(part, f"messages[{index}].content[{at}]") for at, part in enumerate(content or [])]
    if message.refusal:
        parts.append(chat.Refusal(message.refusal))
    for call in message.tool_calls or []:
        if call.function is None:
            losses.append(chat.Loss(f"messages[{index}].tool_calls", "a call of something that is not a function"))
        else:
            parts.append(chat.ToolCall(call.id, call.function.name, call.function.arguments))
    if message.function_call is not None:
        name = message.function_call.name
        parts.append(chat.ToolCall(name, name, message.function_call.arguments))
    for key, raw, why in (
        ("audio", message.audio, "only OpenAI has what a model of its own has said"),
        ("reasoning_content", message.reasoning_content, _NOBODY_TAKES),
        ("reasoning", message.reasoning, _NOBODY_TAKES),
    ):
        if raw and bytes(raw) not in (b"null", b'""'):
            losses.append(chat.Loss(f"messages[{index}].{key}", why, essential=key == "audio"))
    if role == "tool":
        given = tuple(part for part in parts if isinstance(part, chat.Text | chat.Image | chat.File))
        parts = [chat.ToolResult(message.tool_call_id or message.name or "", given)]
    return chat.Message(role, tuple(parts), None if role == "tool" else message.name)


def _part_in(part: _Part, place: str) -> chat.Part:
    if part.type == "text" and part.text is not None:
        return chat.Text(part.text, cache_after=part.cache_control is not None)
    if part.type == "refusal" and part.refusal is not None:
        return chat.Refusal(part.refusal)
    if part.type == "image_url" and part.image_url is not None:
        url = part.image_url.url
        head, comma, data = url.partition(",")
        if comma and head.startswith("data:") and head.endswith(";base64"):
            media_type = head.removeprefix("data:").removesuffix(";base64")
            return chat.Image(data=data, media_type=media_type, detail=part.image_url.detail)
        return chat.Image(url=url, detail=part.image_url.detail)
    if part.type == "file" and part.file is not None:
        return _file_in(part.file)
    if part.type == "input_audio" and part.input_audio is not None:
        return chat.Audio(part.input_audio.data, part.input_audio.format)
    raise InvalidRequest(
        f"a part of type {part.type!r} is not known, or has no such field. "
        "Known: text, refusal, image_url, file, input_audio.",
        param=f"{place}.type",
    )


def _file_in(file: _File) -> chat.File:
    head, comma, data = (file.file_data or "").partition(",")
    if comma and head.startswith("data:"):
        media_type = head.removeprefix("data:").removesuffix(";base64")
        return chat.File(data=data, media_type=media_type, name=file.filename)
    if head.startswith(("http://", "https://")):  # OpenRouter's way
        return chat.File(url=file.file_data, name=file.filename)
    return chat.File(data=file.file_data, id=file.file_id, name=file.filename)


def _tool_in(function: _Function) -> chat.Tool:
    return chat.Tool(function.name, function.description or "", function.parameters or {}, function.strict)


def _choice_in(choice: str | dict[str, Any] | None, losses: list[chat.Loss]) -> chat.ToolChoice | None:
    if choice is None:
        return None
    if isinstance(choice, str) and choice in _MODES:
        return chat.ToolChoice(_MODES[choice])
    function = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return chat.ToolChoice("tool", function["name"])
    if isinstance(choice, dict):
        losses.append(chat.Loss("tool_choice", f"of type {choice.get('type')!r}"))
        return None
    raise InvalidRequest("tool_choice must be auto, none, required or a function.", param="tool_choice")


def _format_in(given: dict[str, Any] | None) -> chat.Format | None:
    if given is None:
        return None
    kind = given.get("type")
    if kind == "text":
        return chat.Format()
    if kind == "json_object":
        return chat.Format("json")
    inner = given.get("json_schema")
    if kind == "json_schema" and isinstance(inner, dict) and isinstance(inner.get("schema"), dict):
        return chat.Format("schema", inner["schema"], str(inner.get("name") or "answer"), inner.get("strict"))
    raise InvalidRequest("response_format must be text, json_object or json_schema.", param="response_format")


def _stop_in(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _effort(request: chat.Request) -> str | None:
    if request.reasoning_effort is not None or request.reasoning_tokens is None:
        return request.reasoning_effort
    return effort_for(request.reasoning_tokens)


def _message_out(message: chat.Message, index: int, losses: Losses, shown: list[chat.Part]) -> Iterator[dict[str, Any]]:
    if len(message.parts) == 1 and isinstance(message.parts[0], chat.Text) and message.name is None:
        # Nearly every message: worth a line, as what follows looks at each part seven times.
        yield {"role": message.role, "content": message.parts[0].text}
        return
    results = [part for part in message.parts if isinstance(part, chat.ToolResult)]
    for result in results:
        if result.is_error:
            losses.add(f"messages[{index}].is_error", "Chat Completions does not tell failed results apart")
        said = [part for part in result.parts if isinstance(part, chat.Text)]
        shown += [part for part in result.parts if not isinstance(part, chat.Text)]
        yield {"role": "tool", "tool_call_id": result.id, "content": _content_out(said, index, losses)}
    rest = tuple(part for part in message.parts if not isinstance(part, chat.ToolResult))
    if results and not rest:
        return
    calls = [part for part in rest if isinstance(part, chat.ToolCall)]
    refusals = [part.text for part in rest if isinstance(part, chat.Refusal)]
    spoken = tuple(part for part in rest if not isinstance(part, chat.ToolCall | chat.Refusal))
    written: dict[str, Any] = {"role": message.role}
    if spoken or not calls:
        written["content"] = _content_out(spoken, index, losses)
    if message.name is not None:
        written["name"] = message.name
    if refusals:
        written["refusal"] = "".join(refusals)
    if calls:
        written["tool_calls"] = [tool_call_out(call) for call in calls]
    yield written


def _content_out(parts: Sequence[chat.Part], index: int, losses: Losses) -> str | list[dict[str, Any]]:
    shown = [part for part in parts if not isinstance(part, chat.Thinking)]
    if len(shown) < len(parts):
        losses.add(f"messages[{index}].thinking", "Chat Completions takes no reasoning back")
    place = f"messages[{index}].content"
    shown = [part for part in shown if not (isinstance(part, chat.File) and losses.not_openais(part, place))]
    if len(shown) == 1 and isinstance(shown[0], chat.Text):
        return shown[0].text
    if not shown:
        return ""
    return [_part_out(part) for part in shown]


def _part_out(part: chat.Part) -> dict[str, Any]:
    match part:
        case chat.Image():
            url = f"data:{part.media_type or 'image/png'};base64,{part.data}" if part.url is None else part.url
            image = {"url": url} if part.detail is None else {"url": url, "detail": part.detail}
            return {"type": "image_url", "image_url": image}
        case chat.File():
            data = part.data if part.media_type is None else f"data:{part.media_type};base64,{part.data}"
            file = {"file_data": data if part.data else part.url, "file_id": part.id, "filename": part.name}
            return {"type": "file", "file": {key: given for key, given in file.items() if given is not None}}
        case chat.Audio():
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        case chat.Text():
            return {"type": "text", "text": part.text}
        case _:
            raise InvalidRequest(f"a {type(part).__name__} can not stand here.", param="messages")


def tool_call_out(call: chat.ToolCall) -> dict[str, Any]:
    """A whole tool call, in requests and in answers."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _function_out(tool: chat.Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return function


def _choice_out(choice: chat.ToolChoice) -> Any:
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "tool" else choice.mode


def _format_out(wanted: chat.Format) -> dict[str, Any]:
    if wanted.kind == "json":
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}
