"""Chat Completions answers and stream chunks: read for the record, read into the canonical shape, written from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tidegate.core import chat
from tidegate.core.errors import UpstreamProtocol
from tidegate.core.usage import Usage, counted, with_reasoning
from tidegate.dialects import loosely
from tidegate.dialects.dialect import Answer, Seen
from tidegate.dialects.fields import encode
from tidegate.dialects.openai_chat.request import tool_call_out
from tidegate.dialects.sse import data_of

DONE = b"data: [DONE]\n\n"


class _Cached(msgspec.Struct):
    audio_tokens: int | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cached_tokens_details: _Cached | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Called(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Called | None = None


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    reasoning_content: str | None = None
    """What DeepSeek and others stream their reasoning in."""
    reasoning: str | None = None
    """What vLLM, Ollama, Groq and OpenRouter do; who says both says the same twice."""
    function_call: _Called | None = None
    """How a call was spelled before tools."""
    audio: msgspec.Raw = msgspec.Raw(b"")

    @property
    def thought(self) -> str:
        """The reasoning, by whichever name."""
        return self.reasoning_content or self.reasoning or ""

    @property
    def says_more(self) -> bool:
        """It carries content that is no words: reasoning, a call or speech."""
        return bool(self.thought or self.tool_calls or self.function_call or bytes(self.audio) not in (b"", b"null"))


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"")


class _Completion(msgspec.Struct):
    id: str | None = None
    created: int | None = None
    choices: list[_Choice] = []
    usage: _Usage | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


_completion = msgspec.json.Decoder(_Completion)
_FINISH: dict[str, chat.FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "model_length": "length",
}
"""OpenAI's words, and Mistral's for a full context; any other reason is a stop."""
_BROKEN = frozenset({"error", "insufficient_system_resource", "network_error"})
"""OpenRouter, Mistral, DeepSeek and Zhipu: it broke off, which is no finish. Other dialects have no word for it."""
_FINISH_OUT: dict[chat.FinishReason, str] = {"refusal": "stop"}


def read_answer(body: bytes) -> Answer:
    """What the record needs of a whole answer. Raises UpstreamProtocol."""
    completion = _whole(body)
    first = completion.choices[0]
    return Answer(
        text="" if first.message is None else _text(first.message),
        finish_reason=first.finish_reason,
        model=completion.model,
        system_fingerprint=completion.system_fingerprint,
        usage=_usage_in(completion),
        tool_calls=first.message is not None and bool(first.message.tool_calls),
        unseen_chars=sum([_unseen(choice.message, choice.index) for choice in completion.choices]),
    )


def answer_in(body: bytes) -> chat.Response:
    """A whole answer in the canonical shape. Raises UpstreamProtocol."""
    completion = _whole(body)
    return chat.Response(
        id=completion.id or "",
        model=completion.model or "",
        choices=tuple(_choice_in(choice) for choice in completion.choices),
        usage=_usage_in(completion),
        fingerprint=completion.system_fingerprint,
        created=completion.created or 0,
    )


def answer_out(response: chat.Response) -> bytes:
    """The canonical answer as a Chat Completions client gets it."""
    body: dict[str, Any] = {
        "id": response.id,
        "object": "chat.completion",
        "created": response.created,
        "model": response.model,
        "choices": [_choice_out(choice, index) for index, choice in enumerate(response.choices)],
    }
    if response.usage is not None:
        body["usage"] = usage_out(response.usage)
    if response.fingerprint is not None:
        body["system_fingerprint"] = response.fingerprint
    return encode(body)


class Reader:
    """Follows a stream that passes through. Implements dialect.StreamReader."""

    def __init__(self, *, wants_usage: bool) -> None:
        self.done = False
        self._answer = Answer()
        self._wants_usage = wants_usage
        self._texts: list[str] = []
        self._open: set[int] = set()
        """Further choices that have begun and not finished."""

    def read(self, event: bytes) -> Seen:
        """Takes in one event. Raises UpstreamProtocol for an error or garbage in it."""
        data = data_of(event)
        if data is None:
            return _NOTHING
        if data == b"[DONE]":
            self.done = True
            return _NOTHING
        chunk = _chunk(data)
        answer = self._answer
        answer.model = chunk.model or answer.model
        answer.system_fingerprint = chunk.system_fingerprint or answer.system_fingerprint
        if chunk.usage is not None:
            answer.usage = _usage_in(chunk) or answer.usage
        if not chunk.choices:
            return _META if chunk.usage is None or self._wants_usage else _NOTHING
        seen = _META
        for choice in chunk.choices:
            if self._choice(choice):
                seen = _CONTENT
        return seen

    def _choice(self, choice: _Choice) -> bool:
        """Takes in one choice; the first is what the record keeps. Returns whether it carries content."""
        delta, answer = choice.delta, self._answer
        if (
            choice.index == 0
            and choice.finish_reason is None
            and delta is not None
            and isinstance(delta.content, str)
            and delta.content
            and not (delta.tool_calls or delta.reasoning_content)
        ):
            self._texts.append(delta.content)  # a word more, as nearly all of them are
            return True
        text = "" if delta is None else _text(delta)
        answer.unseen_chars += _unseen(delta, choice.index)
        if choice.index == 0:
            self._texts.append(text)
            answer.tool_calls = answer.tool_calls or (delta is not None and bool(delta.tool_calls))
            answer.finish_reason = choice.finish_reason or answer.finish_reason
        elif choice.finish_reason:
            self._open.discard(choice.index)
        else:
            self._open.add(choice.index)
        return delta is not None and (bool(text) or delta.says_more)

    def finish(self) -> Answer:
        """The answer so far; also of a stream that broke. It has finished when every choice that began has."""
        answer = self._answer
        answer.text = "".join(self._texts)
        if self._open and not self.done:
            answer.finish_reason = None
        return answer


class EventsIn:
    """Chat Completions chunks → canonical events. Implements dialect.EventsIn."""

    def __init__(self) -> None:
        self._started = False
        self._calls: dict[tuple[int, int], _Begun] = {}
        """The call that goes on at (choice, index)."""
        self._called: dict[int, int] = {}
        """How many calls each choice has begun."""

    def read(self, event: bytes) -> Sequence[chat.Event]:
        """The events that one chunk means. Raises UpstreamProtocol for an error or garbage in it."""
        data = data_of(event)
        if data is None:
            return ()
        if data == b"[DONE]":
            return (chat.Ended(),)
        chunk = _chunk(data)
        events: list[chat.Event] = []
        if not self._started:
            self._started = True
            events.append(chat.Started(chunk.id or "", chunk.model or "", fingerprint=chunk.system_fingerprint))
        for choice in chunk.choices:
            events += self._choice(choice)
        usage = _usage_in(chunk)
        if usage is not None:
            events.append(chat.UsageReported(usage))
        return events

    def _choice(self, choice: _Choice) -> list[chat.Event]:
        events: list[chat.Event] = []
        at, delta = choice.index, choice.delta
        if delta is not None:
            if thought := delta.thought:
                events.append(chat.ThinkingDelta(thought, choice=at))
            logprobs = _logprobs_in(choice.logprobs)
            if (isinstance(delta.content, str) and delta.content) or logprobs:
                events.append(chat.TextDelta(delta.content if isinstance(delta.content, str) else "", at, logprobs))
            if delta.refusal:
                events.append(chat.RefusalDelta(delta.refusal, choice=at))
            for call in delta.tool_calls or ():
                events += self._call(at, call)
            if delta.function_call is not None:
                events += self._call(at, _ToolCall(id=delta.function_call.name, function=delta.function_call))
        if choice.finish_reason:  # some say "" until they say why
            events.append(chat.Finished(_finish_in(choice.finish_reason), choice=at))
        return events

    def _call(self, at: int, call: _ToolCall) -> list[chat.Event]:
        """
        A piece of a tool call.

        Another id with a name at the same index is another call: some do not number them. Without one it goes on: some
        make up an id for every piece.
        """
        function, place = call.function or _Called(), (at, call.index)
        begun = self._calls.get(place)
        events: list[chat.Event] = []
        if begun is None or (call.id and call.id != begun.id and function.name):
            index = self._called.get(at, 0)
            self._called[at] = index + 1
            begun = self._calls[place] = _Begun(index, call.id or "")
            events.append(chat.ToolCallStarted(index, call.id or "", function.name or "", choice=at))
        if function.arguments:
            events.append(chat.ToolCallDelta(begun.index, function.arguments, choice=at))
        return events


class _Begun(msgspec.Struct):
    """A tool call that may go on."""

    index: int
    id: str


class EventsOut:
    """
    Canonical events → Chat Completions chunks. Implements dialect.EventsOut.

    The reasons to finish go out when the stream has ended: some providers (Gemini) give one before the last words.
    """

    def __init__(self, *, call_id: str, model: str, created: int, wants_usage: bool) -> None:
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{call_id}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._wants_usage = wants_usage
        self._usage: Usage | None = None
        self._spoke: set[int] = set()
        self._finished: dict[int, chat.FinishReason] = {}

    def write(self, events: Sequence[chat.Event]) -> bytes:
        """The chunks that the events mean; `Ended` writes the reasons, usage, for who asked, and `[DONE]`."""
        return b"".join([self._event(event) for event in events])

    def _event(self, event: chat.Event) -> bytes:
        match event:
            case chat.TextDelta():
                return self._delta(event.choice, {"content": event.text}, logprobs=event.logprobs)
            case chat.ThinkingDelta():
                return self._delta(event.choice, {"reasoning_content": event.text}) if event.text else b""
            case chat.RefusalDelta():
                return self._delta(event.choice, {"refusal": event.text})
            case chat.ToolCallStarted():
                function = {"name": event.name, "arguments": ""}
                call = {"index": event.index, "id": event.id, "type": "function", "function": function}
                return self._delta(event.choice, {"tool_calls": [call]})
            case chat.ToolCallDelta():
                part = {"index": event.index, "function": {"arguments": event.arguments}}
                return self._delta(event.choice, {"tool_calls": [part]})
            case chat.Finished():
                self._finished[event.choice] = event.reason
                return b""
            case chat.Started():
                self._start(event)
                return b""
            case chat.UsageReported():
                self._usage = event.usage
                return b""
            case chat.Ended():
                return self._end()

    def _start(self, event: chat.Started) -> None:
        if event.model:
            self._head["model"] = event.model
        if event.fingerprint:
            self._head["system_fingerprint"] = event.fingerprint
        self._usage = event.usage

    def _delta(
        self, choice: int, delta: dict[str, Any], finish: str | None = None, logprobs: list[Any] | None = None
    ) -> bytes:
        if choice not in self._spoke:
            self._spoke.add(choice)
            delta = {"role": "assistant", **delta}
        chances = None if logprobs is None else {"content": logprobs, "refusal": None}
        part = {"index": choice, "delta": delta, "logprobs": chances, "finish_reason": finish}
        return self._chunk([part], None)

    def _end(self) -> bytes:
        last = [self._delta(at, {}, _FINISH_OUT.get(reason, reason)) for at, reason in self._finished.items()]
        if self._wants_usage and self._usage is not None:
            last.append(self._chunk([], usage_out(self._usage)))
        return b"".join((*last, DONE))

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
        body = {**self._head, "choices": choices}
        if self._wants_usage:
            body["usage"] = usage
        return b"data: " + encode(body) + b"\n\n"


def usage_out(usage: Usage) -> dict[str, Any]:
    """Usage in OpenAI's arithmetic, which is ours: input includes the cached part, output the reasoning."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_output_tokens},
    }


class _Logprobs(msgspec.Struct):
    content: list[Any] | None = None


_decode_logprobs = msgspec.json.Decoder(_Logprobs | None).decode


def _logprobs_in(raw: msgspec.Raw) -> list[Any] | None:
    """Those of the words; what has another shape is none."""
    if not raw:
        return None
    try:
        read = _decode_logprobs(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return (read.content or None) if read is not None else None


def _whole(body: bytes) -> _Completion:
    completion = _decode(body)
    if completion.error and bytes(completion.error) != b"null":
        raise UpstreamProtocol("the provider answered 200 with an error inside")
    if not completion.choices:
        raise UpstreamProtocol("the provider answered 200 without any choices")
    return completion


def _chunk(data: bytes) -> _Completion:
    chunk = _decode(data)
    if chunk.error and bytes(chunk.error) != b"null":
        raise UpstreamProtocol("the provider reported an error inside its stream")
    return chunk


def _decode(body: bytes) -> _Completion:
    try:
        return _completion.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return loosely.read(body, _Completion, "a chat completion")


def _choice_in(choice: _Choice) -> chat.Choice:
    message = choice.message or _Message()
    parts: list[chat.Part] = []
    if thought := message.thought:
        parts.append(chat.Thinking(thought))
    if isinstance(message.content, str) and message.content:
        parts.append(chat.Text(message.content))
    elif isinstance(message.content, list):
        parts.append(chat.Text(_text(message)))
    if message.refusal:
        parts.append(chat.Refusal(message.refusal))
    for call in message.tool_calls or []:
        function = call.function or _Called()
        parts.append(chat.ToolCall(call.id or "", function.name or "", function.arguments or ""))
    if (called := message.function_call) is not None:
        parts.append(chat.ToolCall(called.name or "", called.name or "", called.arguments or ""))
    chances = _logprobs_in(choice.logprobs)
    finish = _finish_in(choice.finish_reason) if choice.finish_reason else None
    return chat.Choice(tuple(parts), finish, None if chances is None else {"content": chances, "refusal": None})


def _finish_in(reason: str) -> chat.FinishReason:
    """Raises UpstreamProtocol when it means that there is no answer."""
    if reason in _BROKEN:
        raise UpstreamProtocol(f"the provider stopped with {reason}: the model's answer is not whole")
    return _FINISH.get(reason, "stop")


def _choice_out(choice: chat.Choice, index: int) -> dict[str, Any]:
    said = [part.text for part in choice.parts if isinstance(part, chat.Text)]
    refused = [part.text for part in choice.parts if isinstance(part, chat.Refusal)]
    thought = [part.text for part in choice.parts if isinstance(part, chat.Thinking) and part.text]
    calls = [tool_call_out(part) for part in choice.parts if isinstance(part, chat.ToolCall)]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(said) if said else None}
    message["refusal"] = "".join(refused) if refused else None
    if thought:
        message["reasoning_content"] = "".join(thought)
    if calls:
        message["tool_calls"] = calls
    finish = None if choice.finish is None else _FINISH_OUT.get(choice.finish, choice.finish)
    return {"index": index, "message": message, "logprobs": choice.logprobs, "finish_reason": finish}


def _text(message: _Message) -> str:
    if isinstance(message.content, list):
        return "".join(str(part.get("text", "")) for part in message.content if isinstance(part, dict))
    return message.content or message.refusal or ""


def _unseen(message: _Message | None, choice: int) -> int:
    """Characters that the record's text does not hold: reasoning, tool calls, and every answer but the first."""
    if message is None:
        return 0
    unseen = len(message.thought)
    if message.function_call is not None:
        unseen += len(message.function_call.arguments or "")
    for call in message.tool_calls or ():
        if call.function is not None:
            unseen += len(call.function.arguments or "")
    return unseen + len(_text(message)) if choice else unseen


def _usage_in(completion: _Completion) -> Usage | None:
    """OpenAI's arithmetic is ours: the prompt includes what was cached, the completion the reasoning."""
    usage = completion.usage
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    given = usage.prompt_tokens_details or _NOTHING_GIVEN
    made = usage.completion_tokens_details or _NOTHING_MADE
    heard = given.cached_tokens_details
    sent, output = counted(usage.prompt_tokens), counted(usage.completion_tokens)
    cached, reasoning = counted(given.cached_tokens), counted(made.reasoning_tokens)
    beside = counted(usage.total_tokens) - sent - output
    if beside > 0:
        output, reasoning = with_reasoning(output, reasoning, beside=beside, cached=cached)
    return Usage(
        input_tokens=sent,
        output_tokens=output,
        cache_read_input_tokens=cached,
        cache_write_input_tokens=counted(given.cache_write_tokens),
        reasoning_output_tokens=reasoning,
        audio_input_tokens=counted(given.audio_tokens),
        audio_cache_read_input_tokens=counted(heard.audio_tokens) if heard is not None else 0,
        audio_output_tokens=counted(made.audio_tokens),
        service_tier=completion.service_tier,
    )


_NOTHING_GIVEN = _PromptDetails()
_NOTHING_MADE = _CompletionDetails()
_NOTHING = Seen(show=False, content=False)
_META = Seen(show=True, content=False)
_CONTENT = Seen(show=True, content=True)
