"""
The provider's side of OpenAI Chat Completions: requests read, answers written as a whole or as events, errors shaped.

Knows nothing of HTTP, time or faults. The same seed and the same body give the same bytes.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from tidegate.simulate import judge, rules

CREATED = 1_772_323_200
"""Every answer's `created`: 2026-03-01, so that answers are the same from run to run."""
DONE = b"data: [DONE]\n\n"

T = TypeVar("T")
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Part(msgspec.Struct):
    """One part of a message's content; only text is read."""

    type: str
    text: str = ""


class Calling(msgspec.Struct):
    """The function of a call."""

    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct):
    """One call of an assistant's message; of a custom tool it has no function, and says nothing here."""

    id: str = ""
    function: Calling | None = None


class ChatMessage(msgspec.Struct):
    """One message on the wire."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Function(msgspec.Struct):
    """What a tool is called, and the schema of its arguments."""

    name: str
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct):
    """One tool; a custom one has no function, and is not called."""

    function: Function | None = None


class StreamOptions(msgspec.Struct):
    """How a stream is wanted."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    """The body's fields that mean something here; all others, such as `tool_choice`, are taken and ignored."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    tools: list[Tool] | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None


class Failure(Exception):
    """An answer in OpenAI's error shape."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


_encode = msgspec.json.Encoder().encode


class Answer:
    """One answer of a scripted model, as a whole and as events."""

    def __init__(self, request: ChatRequest, *, seed: int, body: bytes = b"") -> None:
        identity = hashlib.sha256(b"%d %b" % (seed, body)).hexdigest()[:24]
        fingerprint = hashlib.sha256(f"{seed} {request.model}".encode()).hexdigest()[:10]
        messages = [_message(message) for message in request.messages]
        tools = {tool.function.name: tool.function.parameters or {} for tool in request.tools or () if tool.function}
        self._calls = rules.calls(request.model, messages, tools)
        texts = [call.arguments for call in self._calls] or [rules.answer(request.model, messages, tools)]
        pieces = [(index, token) for index, text in enumerate(texts) for token in rules.tokenize(text)]
        most = request.max_completion_tokens or request.max_tokens or len(pieces)
        self._pieces = pieces[:most]
        """(index of the call, token); of an answer in words the index is 0."""
        self.tokens = [token for _, token in self._pieces]
        finished = "tool_calls" if self._calls else "stop"
        self._finish_reason = finished if len(pieces) <= most else "length"
        self._call_id = f"call_{identity}"
        self._wants_usage = request.stream_options is not None and request.stream_options.include_usage
        self._top_logprobs = (request.top_logprobs or 0) if request.logprobs else None
        self._id = f"chatcmpl-{identity}"
        self._model = request.model
        self._fingerprint = f"fp_{fingerprint}"
        before, after = rules.input_tokens(messages), len(self.tokens)
        self._usage = {
            "prompt_tokens": before,
            "completion_tokens": after,
            "total_tokens": before + after,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def whole(self) -> bytes:
        """The JSON body of a unary answer."""
        said: dict[str, Any] = {"content": "".join(self.tokens)}
        if self._calls:
            said = {
                "content": None,
                "tool_calls": [self._called(index, self._joined(index)) for index in self._begun()],
            }
        message = {"role": "assistant", "content": None, "refusal": None, "annotations": [], **said}
        choice = {"index": 0, "message": message, "logprobs": self._logprobs(), "finish_reason": self._finish_reason}
        return _encode({**self._frame("chat.completion"), "choices": [choice], "usage": self._usage})

    def _logprobs(self) -> dict[str, Any] | None:
        """Of a unary answer, where they were asked for: every token is certain, but for those of a judge's verdict."""
        if self._top_logprobs is None:
            return None
        content = []
        for token in self.tokens:
            chances = judge.alternatives(token) if self._model == judge.JUDGE else [(token, 0.0)]
            shown = [_chance(*chance) for chance in chances]
            content.append({**shown[0], "top_logprobs": shown[: self._top_logprobs]})
        return {"content": content, "refusal": None}

    def events(self) -> list[bytes]:
        """The events of a stream: role, one per token, the finish, and the usage when it was asked for; no [DONE]."""
        opened: dict[str, Any] = {"content": ""} if not self._calls else self._opened(0)
        events = [self._event({"role": "assistant", "content": None, "refusal": None, **opened})]
        last = 0
        for index, token in self._pieces:
            if index != last:
                events.append(self._event(self._opened(index)))
                last = index
            more = {"tool_calls": [{"index": index, "function": {"arguments": token}}]}
            events.append(self._event(more if self._calls else {"content": token}))
        events.append(self._event({}, self._finish_reason))
        if self._wants_usage:
            events.append(self._chunk([], self._usage))
        return events

    def _begun(self) -> list[int]:
        """The calls that are not cut off before their first word."""
        return sorted({0, *(index for index, _ in self._pieces)})

    def _joined(self, index: int) -> str:
        return "".join(token for at, token in self._pieces if at == index)

    def _called(self, index: int, arguments: str) -> dict[str, Any]:
        """A call; the first has the id of the answer."""
        made = self._call_id if index == 0 else f"{self._call_id}_{index}"
        function = {"name": self._calls[index].name, "arguments": arguments}
        return {"id": made, "type": "function", "function": function}

    def _opened(self, index: int) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, **self._called(index, "")}]}

    def _event(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}], None)

    def _frame(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": CREATED,
            "model": self._model,
            "service_tier": "default",
            "system_fingerprint": self._fingerprint,
        }

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
        chunk = {**self._frame("chat.completion.chunk"), "choices": choices}
        if self._wants_usage:
            chunk["usage"] = usage
        return b"data: " + _encode(chunk) + b"\n\n"


def _chance(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def decode(body: bytes, kind: type[T]) -> T:
    """The body as `kind`. Raises Failure with the field's name where one is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        missing = what.rpartition("missing required field ")[2].strip("`") if "missing required" in what else ""
        field = (path.rstrip("`") + (f".{missing}" if missing else "")).lstrip(".")
        raise Failure(400, f"{what}{f': {field}' if field else ''}.", param=field or None) from error
    except msgspec.DecodeError as error:
        raise Failure(400, "We could not parse the JSON body of your request.") from error


def no_such_model(model: str) -> Failure:
    """What OpenAI says to a model's name that it does not know."""
    message = f"The model `{model[:200]}` does not exist or you do not have access to it."
    return Failure(404, message, code="model_not_found")


def parse_request(body: bytes) -> ChatRequest:
    """Raises Failure with the field's name where one is wrong."""
    chat = decode(body, ChatRequest)
    if chat.model not in rules.MODELS:
        raise no_such_model(chat.model)
    if not chat.messages:
        raise Failure(400, "'messages' is too short: it has at least one.", param="messages", code="empty_array")
    if chat.stream_options is not None and not chat.stream:
        raise Failure(400, "'stream_options' is only allowed when 'stream' is enabled.", param="stream_options")
    return chat


def _message(message: ChatMessage) -> rules.Message:
    calls = tuple(
        rules.Called(call.function.name, call.function.arguments, call.id)
        for call in message.tool_calls or ()
        if call.function is not None
    )
    return rules.Message(message.role, _text(message.content), calls, message.tool_call_id or "")


def _text(content: str | list[Part] | None) -> str:
    if isinstance(content, list):
        return "".join(part.text for part in content)
    return content or ""


def error_object(failure: Failure) -> dict[str, Any]:
    """OpenAI's error shape."""
    kind = "server_error" if failure.status >= 500 else "invalid_request_error"
    kind = "requests" if failure.status == 429 else kind
    return {"error": {"message": str(failure), "type": kind, "param": failure.param, "code": failure.code}}
