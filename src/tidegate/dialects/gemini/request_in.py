"""Gemini requests, read into the canonical shape. What it can not hold is a loss; what makes no sense is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Literal

import msgspec

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest
from tidegate.dialects.dialect import Fields, Incoming
from tidegate.dialects.fields import OWN_KEYS, encode
from tidegate.dialects.gemini import signatures
from tidegate.dialects.gemini.schema import camel, json_schema
from tidegate.dialects.gemini.wire import Blob, Content, FileData, FunctionResponse, Part, arguments
from tidegate.dialects.losses import Losses

MADE_ID = "gemini_call_"
"""Begins the id of a call that Gemini gave none."""
GOOGLES_FILES = "https://generativelanguage.googleapis.com/"
_READ = frozenset({"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "model", *OWN_KEYS})
_WHY = {
    "safetySettings": "only Gemini's filters can be set",
    "cachedContent": "only Google has what is cached there",
    "labels": "other providers keep no labels",
}
_SAYS_NOTHING = {"responseModalities": ["TEXT"], "responseMimeType": "text/plain"}
"""Values that ask for what happens anyway."""
_OPAQUE = frozenset({"args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema"})
"""Keys whose values are the user's own, or a schema."""
_LEVELS = 16
"""How deep Google's own keys stand at most, and more: each level that is looked into reads the whole again."""
_SNAKE = re.compile(rb'"[a-z]+_[a-z_]+"\s*:')
_MODES: dict[str, Literal["auto", "none", "required"]] = {
    "AUTO": "auto",
    "NONE": "none",
    "ANY": "required",
    "VALIDATED": "auto",
}
_AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav"}


class _Thinking(msgspec.Struct, rename="camel"):
    thinking_budget: int | None = None
    thinking_level: str | None = None
    include_thoughts: bool | None = None


class _Config(msgspec.Struct, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: Any = None
    response_json_schema: Any = None
    response_logprobs: bool | None = None
    logprobs: int | None = None
    thinking_config: _Thinking | None = None


class _Function(msgspec.Struct, rename="camel"):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None


class _Calling(msgspec.Struct, rename="camel"):
    mode: str | None = None
    allowed_function_names: list[str] | None = None


class _ToolConfig(msgspec.Struct, rename="camel"):
    function_calling_config: _Calling | None = None


def request_in(incoming: Incoming) -> chat.Request:
    """The whole request in the canonical shape. Raises InvalidRequest."""
    try:
        return _request_in(incoming)
    except RecursionError as error:
        raise InvalidRequest("the request is nested too deeply.") from error


def _request_in(incoming: Incoming) -> chat.Request:
    fields, losses = _camel_fields(incoming.fields), Losses()
    for key, raw in fields.items():
        if key not in _READ and bytes(raw) not in (b"null", b"false", b"[]"):
            why = _WHY.get(camel(key), f"only Gemini has {key}")
            losses.add(key, why, essential=camel(key) == "cachedContent")
    config = _config_in(fields, losses)
    tools, choice = _tools_in(fields, losses)
    effort, budget = _reasoning_in(config.thinking_config or _Thinking(), losses)
    top_k = config.top_k
    return chat.Request(
        messages=(*_system_in(fields, losses), *_Conversation(losses).read(fields)),
        tools=tools,
        tool_choice=choice,
        format=_format_in(config),
        max_output_tokens=config.max_output_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=None if top_k is None else round(top_k),
        stop=tuple(config.stop_sequences or ()),
        seed=config.seed,
        presence_penalty=config.presence_penalty,
        frequency_penalty=config.frequency_penalty,
        count=config.candidate_count,
        logprobs=(config.logprobs or 0) if config.response_logprobs else None,
        reasoning_effort=effort,
        reasoning_tokens=budget,
        losses=tuple(losses.all()),
    )


def _camel_fields(fields: Fields) -> Fields:
    """Google's APIs take snake_case too, and so do their own examples; only what holds some is decoded for it."""
    named = ((camel(key) if camel(key) in _READ else key, raw) for key, raw in fields.items())
    return {key: _camel_raw(raw, key) if key in _READ and _SNAKE.search(memoryview(raw)) else raw for key, raw in named}


def _camel_raw(raw: msgspec.Raw, key: str, levels: int = _LEVELS) -> msgspec.Raw:
    """The same with its keys in camelCase; what is the user's own keeps its bytes."""
    opening = bytes(memoryview(raw)[:1])
    try:
        if levels and opening == b"{":
            named = ((camel(name), inner) for name, inner in msgspec.json.decode(raw, type=Fields).items())
            read = {name: inner if name in _OPAQUE else _camel_raw(inner, key, levels - 1) for name, inner in named}
            return msgspec.Raw(encode(read))
        if levels and opening == b"[":
            items = msgspec.json.decode(raw, type=list[msgspec.Raw])
            return msgspec.Raw(encode([_camel_raw(item, key, levels - 1) for item in items]))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"{key} can not be read: {error}.", param=key) from error
    return raw


class _Conversation:
    """Reads contents in order; remembers the calls that wait for their results."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._calls = 0
        self._waiting: list[tuple[str, str]] = []
        """(name, id), in the order of the calls."""

    def read(self, fields: Fields) -> Iterator[chat.Message]:
        contents = _field(fields, "contents", list[Content]) or []
        # SDKs keep a streamed turn of the model as one content per event, the last of them empty: they are one turn.
        for of_model, run in groupby(enumerate(contents), key=lambda pair: pair[1].role == "model"):
            if of_model:
                placed = [
                    (part, f"contents[{index}].parts[{at}]")
                    for index, content in run
                    for at, part in enumerate(content.parts or [])
                ]
                yield chat.Message("assistant", _joined(self._model_parts(placed)))
                continue
            for index, content in run:
                place = f"contents[{index}]"
                if content.role not in (None, "user", "function", "tool"):
                    raise InvalidRequest(
                        f"{place}.role {content.role!r} is not a role. Known: user, model.", param=f"{place}.role"
                    )
                yield from self._user_messages(content.parts or [], place)

    def _user_messages(self, parts: list[Part], place: str) -> Iterator[chat.Message]:
        """Each result is a message of its own; what stands between them stays there."""
        said: list[chat.Part] = []
        for at, part in enumerate(parts):
            spot = f"{place}.parts[{at}]"
            if part.function_response is None:
                said += self._said(part, spot)
                continue
            if said:
                yield chat.Message("user", tuple(said))
                said = []
            yield chat.Message("tool", (self._result(part.function_response, spot),))
        if said or not parts:
            yield chat.Message("user", tuple(said))

    def _model_parts(self, placed: list[tuple[Part, str]]) -> Iterator[chat.Part]:
        thought: list[str] = []
        for part, spot in placed:
            if part.text == "" and part.thought_signature is None and len(placed) > 1:
                continue
            signed = signatures.from_client(part.thought_signature)
            if part.thought and (signed is None or signatures.unsealed(signed.signature) is None):
                # The words of a thought may come in pieces, and another provider's signature after them.
                thought.append(part.text or "")
                if signed is None:
                    continue
                yield chat.Thinking("".join(thought), signed.signature, signed.redacted)
                thought = []
                continue
            if thought:
                yield chat.Thinking("".join(thought))
                thought = []
            if signed is not None:
                yield signed
            yield from self._call(part) if part.function_call is not None else self._said(part, spot)
        if thought:
            yield chat.Thinking("".join(thought))

    def _call(self, part: Part) -> Iterator[chat.Part]:
        call = part.function_call
        if call is not None:
            name, made = call.name, f"{MADE_ID}{self._calls}"
            self._calls += 1
            self._waiting.append((name, call.id or made))
            yield chat.ToolCall(call.id or made, name, arguments(call))

    def _said(self, part: Part, place: str) -> Iterator[chat.Part]:
        if part.video_metadata:
            self._losses.add(f"{place}.videoMetadata", "only Gemini takes pieces of videos")
        if part.media_resolution:
            self._losses.add(f"{place}.mediaResolution", "only Gemini has media resolutions")
        if part.text is not None:
            if part.text or part.thought_signature is None:
                yield chat.Thinking(part.text) if part.thought else chat.Text(part.text)
        elif part.inline_data is not None:
            yield _blob_in(part.inline_data)
        elif part.file_data is not None:
            yield _file_in(part.file_data)
        elif part.thought_signature is None:
            self._losses.add(place, "a part of a kind that only Gemini knows")

    def _result(self, given: FunctionResponse, place: str) -> chat.ToolResult:
        waiting = next((call for call in self._waiting if given.id == call[1]), None)
        if waiting is None and not given.id:
            waiting = next((call for call in self._waiting if given.name == call[0]), None)
        if waiting is not None:
            self._waiting.remove(waiting)
        call_id = given.id or (waiting[1] if waiting else None)
        if call_id is None:
            raise InvalidRequest(
                f"{place}.functionResponse is of {given.name!r}, which no functionCall before it asks for.",
                param=f"{place}.functionResponse.name",
            )
        text, failed = _response_text(given)
        shown = [
            inner
            for at, part in enumerate(given.parts or [])
            for inner in self._said(part, f"{place}.functionResponse.parts[{at}]")
            if isinstance(inner, chat.Text | chat.Image | chat.File)
        ]
        return chat.ToolResult(call_id, (chat.Text(text), *shown), is_error=failed)


def _joined(parts: Iterable[chat.Part]) -> tuple[chat.Part, ...]:
    """Neighbouring texts as one, wherever a stream has cut them."""
    joined: list[chat.Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, chat.Text) and isinstance(last, chat.Text):
            joined[-1] = chat.Text(last.text + part.text)
        else:
            joined.append(part)
    return tuple(joined)


def _response_text(given: FunctionResponse) -> tuple[str, bool]:
    """(what the function said, whether it failed): a lone string under output, result or error is what was said."""
    raw = bytes(given.response)
    if raw in (b"", b"null"):
        return "", False
    try:
        response = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return raw.decode(), False
    if len(response) == 1:
        key, value = next(iter(response.items()))
        if key in ("output", "result", "error") and bytes(value).startswith(b'"'):
            return msgspec.json.decode(value, type=str), key == "error"
    return raw.decode(), set(response) == {"error"}


def _blob_in(blob: Blob) -> chat.Part:
    kind, _, subtype = blob.mime_type.partition("/")
    data = blob.data.replace("-", "+").replace("_", "/")
    if kind == "image":
        return chat.Image(data=data, media_type=blob.mime_type)
    if kind == "audio":
        return chat.Audio(data, _AUDIO_FORMATS.get(subtype, subtype))
    return chat.File(data=data, media_type=blob.mime_type or None)


def _file_in(file: FileData) -> chat.Part:
    if file.file_uri.startswith(GOOGLES_FILES):
        return chat.File(id=file.file_uri, media_type=file.mime_type)
    if (file.mime_type or "").startswith("image/"):
        return chat.Image(url=file.file_uri, media_type=file.mime_type)
    return chat.File(url=file.file_uri, media_type=file.mime_type)


def _system_in(fields: Fields, losses: Losses) -> Iterator[chat.Message]:
    system = _field(fields, "systemInstruction", Content)
    if system is None:
        return
    parts = system.parts or []
    if any(part.text is None for part in parts):
        losses.add("systemInstruction", "a system message has only text")
    texts = tuple(chat.Text(part.text) for part in parts if part.text is not None)
    if texts:
        yield chat.Message("system", texts)


def _config_in(fields: Fields, losses: Losses) -> _Config:
    given = _field(fields, "generationConfig", dict[str, Any]) or {}
    known = {name.encode_name for name in msgspec.structs.fields(_Config)}
    for key, value in given.items():
        if key not in known and value is not None and value != _SAYS_NOTHING.get(key):
            losses.add(f"generationConfig.{key}", f"only Gemini has {key}")
    return _field(fields, "generationConfig", _Config) or _Config()


def _format_in(config: _Config) -> chat.Format | None:
    kind = config.response_mime_type
    if config.response_json_schema is not None:
        return chat.Format("schema", _object(config.response_json_schema, "responseJsonSchema"))
    if config.response_schema is not None:
        return chat.Format("schema", json_schema(_object(config.response_schema, "responseSchema")))
    if kind in (None, "text/plain"):
        return None
    if kind == "application/json":
        return chat.Format("json")
    raise InvalidRequest(
        f"generationConfig.responseMimeType {kind!r} is not known. Known: text/plain, application/json.",
        param="generationConfig.responseMimeType",
    )


def _object(schema: Any, name: str) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise InvalidRequest(f"generationConfig.{name} must be an object.", param=f"generationConfig.{name}")
    return schema


def _reasoning_in(given: _Thinking, losses: Losses) -> tuple[str | None, int | None]:
    budget = given.thinking_budget
    if budget is not None and budget < 0:
        losses.add(
            "generationConfig.thinkingConfig.thinkingBudget",
            "a budget left to the model is Gemini's alone; the effort medium is sent",
        )
        return "medium", None
    level = (given.thinking_level or "").lower()
    return (None if level in ("", "thinking_level_unspecified") else level), budget


def _tools_in(fields: Fields, losses: Losses) -> tuple[tuple[chat.Tool, ...], chat.ToolChoice | None]:
    """The functions that may be called, and whether one must be; names that are not allowed are left out."""
    tools: list[chat.Tool] = []
    for index, tool in enumerate(_field(fields, "tools", list[dict[str, msgspec.Raw]]) or []):
        for key, raw in tool.items():
            if key == "functionDeclarations":
                place = f"tools[{index}].{key}"
                tools += [_tool_in(function) for function in _decode(raw, list[_Function], place) or []]
            elif bytes(raw) != b"null":
                losses.add(f"tools[{index}].{key}", f"{key} is a tool that Google runs")
    config = (_field(fields, "toolConfig", _ToolConfig) or _ToolConfig()).function_calling_config
    if config is None or config.mode is None or config.mode == "MODE_UNSPECIFIED":
        return tuple(tools), None
    place = "toolConfig.functionCallingConfig"
    mode = _MODES.get(config.mode)
    if mode is None:
        raise InvalidRequest(f"{place}.mode must be AUTO, NONE, ANY or VALIDATED.", param=f"{place}.mode")
    if config.mode == "VALIDATED":
        losses.add(f"{place}.mode", "only Gemini has VALIDATED; AUTO is sent")
    allowed = config.allowed_function_names or []
    if mode == "required" and len(allowed) == 1:
        return tuple(tools), chat.ToolChoice("tool", allowed[0])
    return tuple(tool for tool in tools if not allowed or tool.name in allowed), chat.ToolChoice(mode)


def _tool_in(function: _Function) -> chat.Tool:
    schema = function.parameters_json_schema
    if schema is None:
        schema = json_schema(function.parameters or {})
    return chat.Tool(function.name, function.description or "", schema)


def _field(fields: Fields, key: str, kind: Any) -> Any:
    return _decode(fields[key], kind, key) if key in fields else None


def _decode(raw: msgspec.Raw, kind: Any, place: str) -> Any:
    """`raw` as a `kind`, None for null. Raises InvalidRequest that names the field in it."""
    if bytes(raw) == b"null":
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        what, _, inside = str(error).partition(" - at `$")
        param = place + inside.rstrip("`")
        raise InvalidRequest(f"{param}: {what[:1].lower()}{what[1:]}.", param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{place} can not be read: {error}.", param=place) from error
