"""
OpenAI Chat Completions: what clients send and providers answer, at `/v1/chat/completions`.

Same dialect on both sides means bytes pass through: only the top level of a request is decoded, the few keys that must
change are changed, and every other value keeps its bytes and its place (providers' prompt caches depend on it). Of an
answer only what the record needs is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tidegate.core.artifact import Artifact
from tidegate.core.errors import InvalidRequest, RequestError, TidegateError, UpstreamProtocol
from tidegate.core.usage import Usage

NAME = "openai_chat"
PATH = "/chat/completions"
DONE = b"data: [DONE]\n\n"
MAX_TOP_LEVEL_KEYS = 256
MAX_OUTPUT_TOKENS = "max_output_tokens"
"""An artifact's name for the bound on output; servers differ in theirs, so the target decides."""
ARTIFACT_OWNS = frozenset(
    {
        *("temperature", "top_p", "stop", "seed", "n", "presence_penalty", "frequency_penalty", "logit_bias"),
        *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "reasoning_effort"),
    }
)
"""Keys of a request that a prompt decides; a client that sends one beside `prompt:` is told so."""

BOUNDS = frozenset({"max_tokens", "max_completion_tokens", MAX_OUTPUT_TOKENS})
"""The names under which a client may lower the bound on output."""

Fields = dict[str, msgspec.Raw]
_fields = msgspec.json.Decoder(Fields)
_encode = msgspec.json.Encoder().encode


class ChatRequest(msgspec.Struct, frozen=True):
    """A client's request: its top level, and the few values tidegate acts on."""

    fields: Fields
    model: str
    stream: bool
    wants_usage: bool
    variables: dict[str, Any] | None


class Answer(msgspec.Struct):
    """What the record needs of an answer, whole or summed over a stream."""

    text: str = ""
    finish_reason: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None
    tool_calls: bool = False


class _CachedTokens(msgspec.Struct):
    cached_tokens: int | None = None


class _ReasoningTokens(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedTokens | None = None
    completion_tokens_details: _ReasoningTokens | None = None


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


class _Role(msgspec.Struct):
    role: str
    content: msgspec.Raw = msgspec.Raw(b"")


_completion = msgspec.json.Decoder(_Completion)


def parse_request(body: bytes) -> ChatRequest:
    """Reads the top level of a request. Raises InvalidRequest, naming the field."""
    try:
        body.decode()  # msgspec leaves the strings inside a raw value unread, and they go on as they came
        fields = _fields.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not a JSON object: {error}.") from error
    if len(fields) > MAX_TOP_LEVEL_KEYS:
        raise InvalidRequest(f"the body has more than {MAX_TOP_LEVEL_KEYS} keys.")
    model = _value(fields, "model", str, "a string")
    if not model:
        raise InvalidRequest("model is missing: the name of a route, provider/model, or prompt:NAME.", param="model")
    options = _value(fields, "stream_options", dict[str, Any], "an object") or {}
    return ChatRequest(
        fields=fields,
        model=model,
        stream=bool(_value(fields, "stream", bool, "true or false")),
        wants_usage=options.get("include_usage") is True,
        variables=_value(fields, "variables", dict[str, Any], "an object"),
    )


def upstream_body(fields: Fields, *, model: str, stream: bool, max_tokens_key: str) -> bytes:
    """The request as the provider gets it: its own model name, usage asked for, and none of tidegate's own keys."""
    changed = {max_tokens_key if key == MAX_OUTPUT_TOKENS else key: value for key, value in fields.items()}
    changed.pop("variables", None)
    changed["model"] = msgspec.Raw(_encode(model))
    if stream:
        options = msgspec.json.decode(fields["stream_options"]) if "stream_options" in fields else None
        changed["stream_options"] = msgspec.Raw(_encode({**(options or {}), "include_usage": True}))
    return _encode(changed)


def from_artifact(artifact: Artifact, messages: Sequence[Mapping[str, Any]], request: ChatRequest) -> Fields:
    """
    The request that a prompt makes: rendered messages, then the client's; the artifact's params, tools and format.

    What the artifact lists as overridable is the client's when it sends it. The bound on output can always be lowered
    and never raised. Raises InvalidRequest when the client sends anything else that the artifact decides.
    """
    for key in sorted((ARTIFACT_OWNS - BOUNDS - set(artifact.overridable)) & request.fields.keys()):
        raise InvalidRequest(f"{key} is decided by the prompt; leave it out.", param=key)
    following = _client_messages(request, system="system" in artifact.overridable)
    body: dict[str, Any] = {"model": artifact.model, "messages": [*messages, *following], **artifact.params}
    if (bound := _output_bound(artifact, request)) is not None:
        body[MAX_OUTPUT_TOKENS] = bound
    if artifact.tools:
        body["tools"] = [
            {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
            for t in artifact.tools
        ]
    if artifact.output.constrain:
        schema = {"name": "output", "strict": True, "schema": artifact.output.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    fields: Fields = {key: msgspec.Raw(_encode(value)) for key, value in body.items()}
    for key, value in request.fields.items():
        if key not in ("model", "messages", "variables") and key not in BOUNDS:
            fields[key] = value
    return fields


def _output_bound(artifact: Artifact, request: ChatRequest) -> int | None:
    most: int | None = artifact.params.get(MAX_OUTPUT_TOKENS)
    bounds = [] if most is None else [most]
    for key in sorted(BOUNDS & request.fields.keys()):
        asked = _value(request.fields, key, int, "a whole number")
        if asked is None:
            continue
        if asked < 1:
            raise InvalidRequest(f"{key} must be at least 1.", param=key)
        if most is not None and asked > most:
            raise InvalidRequest(f"{key} can only lower the prompt's bound of {most:,} tokens.", param=key)
        bounds.append(asked)
    return min(bounds, default=None)


def parse_answer(body: bytes) -> Answer:
    """Reads a unary answer. Raises UpstreamProtocol when it is not a chat completion, or hides an error in a 200."""
    completion = _decode(body)
    if completion.error and bytes(completion.error) != b"null":
        raise UpstreamProtocol("the provider answered 200 with an error inside")
    if not completion.choices:
        raise UpstreamProtocol("the provider answered 200 without any choices")
    answer = Answer(model=completion.model, system_fingerprint=completion.system_fingerprint)
    first = completion.choices[0]
    if first.message is not None:
        answer.text = _text(first.message)
        answer.tool_calls = bool(first.message.tool_calls)
    answer.finish_reason = first.finish_reason
    answer.usage = _to_usage(completion.usage)
    return answer


class StreamReader:
    """Follows one stream: keeps what the record needs, and says of each event whether the client should see it."""

    def __init__(self, *, wants_usage: bool) -> None:
        self.answer = Answer()
        self.done = False
        self._wants_usage = wants_usage
        self._texts: list[str] = []

    def read(self, data: bytes) -> tuple[bool, bool]:
        """
        Takes in one event's data.

        Returns: (show it to the client, it carries content). Raises UpstreamProtocol for an error or garbage in it.
        """
        if data == b"[DONE]":
            self.done = True
            return False, False
        chunk = _decode(data)
        if chunk.error and bytes(chunk.error) != b"null":
            raise UpstreamProtocol("the provider reported an error inside its stream")
        answer = self.answer
        answer.model = chunk.model or answer.model
        answer.system_fingerprint = chunk.system_fingerprint or answer.system_fingerprint
        if chunk.usage is not None:
            answer.usage = _to_usage(chunk.usage)
        if not chunk.choices:
            return chunk.usage is None or self._wants_usage, False
        contents = [self._choice(choice) for choice in chunk.choices]
        return True, any(contents)

    def _choice(self, choice: _Choice) -> bool:
        """Takes in one choice; the first is what the record keeps. Returns whether it carries content."""
        text, calls = "", False
        if choice.delta is not None:
            text, calls = _text(choice.delta), bool(choice.delta.tool_calls)
        if choice.index == 0:
            self._texts.append(text)
            self.answer.tool_calls = self.answer.tool_calls or calls
            self.answer.finish_reason = choice.finish_reason or self.answer.finish_reason
        return bool(text) or calls

    def finish(self) -> Answer:
        """The answer so far; also of a stream that broke."""
        self.answer.text = "".join(self._texts)
        return self.answer


def error_body(error: TidegateError, *, call_id: str | None = None) -> bytes:
    """OpenAI's error shape: `{"error": {"message", "type", "param", "code"}}`."""
    status = error.http_status
    kind = (
        "invalid_request_error"
        if status < 500 and status != 429
        else "rate_limit_error"
        if status == 429
        else "api_error"
    )
    param = error.param if isinstance(error, RequestError) else None
    detail: dict[str, Any] = {"message": str(error), "type": kind, "param": param, "code": error.code}
    if call_id:
        detail["call_id"] = call_id
    return _encode({"error": detail})


def error_event(error: TidegateError, *, call_id: str | None = None) -> bytes:
    """How a broken stream ends: an error object and no `[DONE]` – never a made-up finish."""
    return b"data: " + error_body(error, call_id=call_id) + b"\n\n"


def system_messages(fields: Fields) -> list[bytes]:
    """The system and developer messages' contents, as the client's own JSON bytes."""
    try:
        messages = msgspec.json.decode(fields["messages"], type=list[_Role]) if "messages" in fields else []
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest("messages must be a list of messages.", param="messages") from error
    return [bytes(message.content) for message in messages if message.role in ("system", "developer")]


def messages_text(fields: Fields) -> str:
    """The messages as JSON text, for the record's content."""
    return bytes(fields["messages"]).decode() if "messages" in fields else "[]"


def _client_messages(request: ChatRequest, *, system: bool) -> list[Any]:
    messages = _value(request.fields, "messages", list[dict[str, Any]], "a list of messages") or []
    for index, message in enumerate(messages):
        if not system and message.get("role") in ("system", "developer"):
            raise InvalidRequest(
                "the prompt decides the system messages; send only what follows them.", param=f"messages[{index}].role"
            )
    return messages


def _value(fields: Fields, key: str, kind: Any, expected: str) -> Any:
    if key not in fields:
        return None
    raw = fields[key]
    if bytes(raw) == b"null":
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"{key} must be {expected}.", param=key) from error


def _decode(body: bytes) -> _Completion:
    try:
        return _completion.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        # msgspec refuses lone surrogates and cut UTF-8, which some providers do send when they cut an emoji in two.
        return msgspec.convert(json.loads(body.decode("utf-8", "replace")), _Completion)
    except (ValueError, RecursionError) as error:
        raise UpstreamProtocol("the provider's answer is not a chat completion") from error


def _text(message: _Message) -> str:
    if isinstance(message.content, str):
        return message.content
    if isinstance(message.content, list):
        return "".join(str(part.get("text", "")) for part in message.content if isinstance(part, dict))
    return message.refusal or ""


def _to_usage(usage: _Usage | None) -> Usage | None:
    if usage is None or usage.prompt_tokens is None:
        return None
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    reasoning = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None
    return Usage(
        input_tokens=max(usage.prompt_tokens, 0),
        output_tokens=max(usage.completion_tokens or 0, 0),
        cache_read_input_tokens=max(cached or 0, 0),
        reasoning_output_tokens=max(reasoning or 0, 0),
    )
