"""Whole answers: read for the record, read into the canonical shape, written from it."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tidegate.core import chat
from tidegate.core.errors import UpstreamProtocol
from tidegate.core.usage import Usage, counted
from tidegate.dialects import loosely
from tidegate.dialects.dialect import Answer
from tidegate.dialects.fields import encode
from tidegate.dialects.gemini import signatures, speech
from tidegate.dialects.gemini.request_in import MADE_ID
from tidegate.dialects.gemini.wire import NO_RAW, Content, FunctionCall, Part, arguments

_FINISH: dict[str, chat.FinishReason] = {
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(
        (
            *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION"),
            *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR", "PUP_LIMITED_DISABLED"),
        ),
        "content_filter",
    ),
}
"""Any other reason is a stop."""
_BROKEN = frozenset(
    {
        *("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"),
        *("MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE"),
    }
)
"""The model went wrong and there is no answer: other dialects have no word for it, and a retry may help."""
_FINISH_OUT: dict[chat.FinishReason, str] = {"length": "MAX_TOKENS", "content_filter": "SAFETY", "refusal": "SAFETY"}
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]")
_KIND = re.compile(r"[A-Z_]{1,40}\Z")


class _Modality(msgspec.Struct, rename="camel"):
    modality: str = ""
    token_count: int | None = None


class _UsageMetadata(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    prompt_tokens_details: list[_Modality] | None = None
    cache_tokens_details: list[_Modality] | None = None
    candidates_tokens_details: list[_Modality] | None = None
    tool_use_prompt_tokens_details: list[_Modality] | None = None
    service_tier: str | None = None
    traffic_type: str | None = None
    """Vertex's word for it."""


class _Token(msgspec.Struct, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class _TopTokens(msgspec.Struct):
    candidates: list[_Token] = []


class _Logprobs(msgspec.Struct, rename="camel"):
    chosen_candidates: list[_Token] = []
    top_candidates: list[_TopTokens] = []


class Candidate(msgspec.Struct, rename="camel"):
    """One answer, or the next piece of one."""

    index: int = 0
    content: Content | None = None
    finish_reason: str | None = None
    logprobs_result: _Logprobs | None = None

    @property
    def parts(self) -> list[Part]:
        return (self.content.parts or []) if self.content is not None else []


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Error(msgspec.Struct):
    status: str | None = None


class Generated(msgspec.Struct, rename="camel"):
    """A GenerateContentResponse: a whole answer, or one event of a stream."""

    candidates: list[Candidate] | None = None
    usage_metadata: _UsageMetadata | None = None
    model_version: str | None = None
    response_id: str | None = None
    prompt_feedback: _Feedback | None = None
    error: msgspec.Raw = NO_RAW

    @property
    def blocked(self) -> bool:
        """The request was not answered because of what it says."""
        return self.prompt_feedback is not None and self.prompt_feedback.block_reason is not None

    @property
    def usage(self) -> Usage | None:
        """In our arithmetic: prompt counts what is cached, candidates do not count thoughts."""
        given = self.usage_metadata
        if given is None or given.prompt_token_count is None:
            return None
        thoughts = counted(given.thoughts_token_count)
        return Usage(
            input_tokens=counted(given.prompt_token_count) + counted(given.tool_use_prompt_token_count),
            output_tokens=counted(given.candidates_token_count) + thoughts,
            cache_read_input_tokens=counted(given.cached_content_token_count),
            reasoning_output_tokens=thoughts,
            audio_input_tokens=_audio(given.prompt_tokens_details) + _audio(given.tool_use_prompt_tokens_details),
            audio_cache_read_input_tokens=_audio(given.cache_tokens_details),
            audio_output_tokens=_audio(given.candidates_tokens_details),
            service_tier=_tier(given),
        )


def _audio(details: list[_Modality] | None) -> int:
    return sum([counted(part.token_count) for part in details or () if part.modality == "AUDIO"])


def _tier(usage: _UsageMetadata) -> str | None:
    """`flex`, `priority` …; Vertex says ON_DEMAND_FLEX. None: nothing that would change the price was said."""
    said = (usage.service_tier or usage.traffic_type or "").lower().removeprefix("on_demand_")
    return None if said.endswith("unspecified") else said or None


_generated = msgspec.json.Decoder(Generated)


def decode(body: bytes, where: str) -> Generated:
    """One GenerateContentResponse. Raises UpstreamProtocol when it is none, or an error."""
    try:
        generated = _generated.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        generated = loosely.read(body, Generated, "a GenerateContentResponse")
    if generated.error and bytes(generated.error) != b"null":
        raise UpstreamProtocol(f"the provider reported an error inside {where}{_kind(generated.error)}")
    return generated


def _kind(error: msgspec.Raw) -> str:
    try:
        status = msgspec.json.decode(error, type=_Error).status
    except (msgspec.DecodeError, RecursionError):
        return ""
    return f" ({status})" if status is not None and _KIND.match(status) else ""


def read_answer(body: bytes) -> Answer:
    """What the record needs of a whole answer. Raises UpstreamProtocol."""
    generated = _whole(body)
    answer = Answer(model=generated.model_version, usage=generated.usage)
    if not generated.candidates:
        answer.finish_reason = "content_filter"
        return answer
    first = generated.candidates[0]
    answer.text = text_of(first)
    answer.unseen_chars = sum([unseen_chars(candidate) for candidate in generated.candidates])
    answer.tool_calls = any(part.function_call is not None for part in first.parts)
    if first.finish_reason is not None:
        answer.finish_reason = finish_recorded(first.finish_reason, called=answer.tool_calls)
    return answer


def answer_in(body: bytes) -> chat.Response:
    """A whole answer in the canonical shape. Raises UpstreamProtocol."""
    generated = _whole(body)
    given = generated.candidates or []
    choices = [_choice_in(candidate, generated.response_id) for candidate in given]
    return chat.Response(
        id=generated.response_id or "",
        model=generated.model_version or "",
        choices=tuple(choices) or (chat.Choice((), "content_filter"),),
        usage=generated.usage,
    )


def _whole(body: bytes) -> Generated:
    generated = decode(body, "a 200")
    if not generated.candidates and not generated.blocked:
        raise UpstreamProtocol("the provider answered 200 without any candidates")
    return generated


def text_of(candidate: Candidate) -> str:
    """What the model said, without its thoughts."""
    return "".join([part.text for part in candidate.parts if part.text and not part.thought])


def unseen_chars(candidate: Candidate) -> int:
    """Characters that the record's text does not hold: thoughts, function calls, and every answer but the first."""
    said = [len(part.text) for part in candidate.parts if part.text and (part.thought or candidate.index)]
    called = [len(arguments(part.function_call)) for part in candidate.parts if part.function_call is not None]
    return sum(said) + sum(called)


def finish_in(reason: str, *, called: bool) -> chat.FinishReason:
    """Why the answer is complete. Gemini calls it a stop also when the model waits for the result of a function."""
    finish = _FINISH.get(reason, "stop")
    return "tool_calls" if called and finish == "stop" else finish


def finish_recorded(reason: str, *, called: bool) -> str:
    """The same for the record, which also knows the reasons that only Gemini has."""
    return finish_in(reason, called=called) if reason == "STOP" or reason in _FINISH else reason.lower()


def check_finish(reason: str | None) -> None:
    """Raises UpstreamProtocol for a reason that means: there is no answer."""
    if reason in _BROKEN:
        raise UpstreamProtocol(f"the model's answer can not be used: {reason}")


def call_id(call: FunctionCall, response_id: str | None, choice: int, index: int) -> str:
    """Gemini's id of a call, or one that is the same for the same call of the same answer."""
    if call.id:
        return call.id
    answer = _NOT_IN_AN_ID.sub("_", response_id or "")[:20]
    return MADE_ID + "_".join([*([answer] if answer else []), *([str(choice)] if choice else []), str(index)])


def _choice_in(candidate: Candidate, response_id: str | None) -> chat.Choice:
    check_finish(candidate.finish_reason)
    parts: list[chat.Part] = []
    calls = 0
    for part in candidate.parts:
        if part.thought_signature is not None:
            parts.append(signatures.sealed(part.thought_signature))
        if part.function_call is not None:
            made = call_id(part.function_call, response_id, candidate.index, calls)
            parts.append(chat.ToolCall(made, part.function_call.name, arguments(part.function_call)))
            calls += 1
        elif part.text:
            _append_text(parts, part.text, thought=bool(part.thought))
        elif part.inline_data is not None and part.inline_data.mime_type.startswith("image/"):
            parts.append(chat.Image(data=part.inline_data.data, media_type=part.inline_data.mime_type))
    reason = candidate.finish_reason
    finish = None if reason is None else finish_in(reason, called=calls > 0)
    return chat.Choice(tuple(parts), finish, _logprobs_in(candidate.logprobs_result))


def _append_text(parts: list[chat.Part], text: str, *, thought: bool) -> None:
    """Neighbouring texts are one: Gemini may cut an answer into parts anywhere."""
    last = parts[-1] if parts else None
    if thought:
        if isinstance(last, chat.Thinking) and last.signature is None:
            parts[-1] = chat.Thinking(last.text + text)
        else:
            parts.append(chat.Thinking(text))
    elif isinstance(last, chat.Text):
        parts[-1] = chat.Text(last.text + text)
    else:
        parts.append(chat.Text(text))


def _logprobs_in(given: _Logprobs | None) -> dict[str, Any] | None:
    return None if given is None else {"content": tokens_in(given), "refusal": None}


def tokens_in(given: _Logprobs) -> list[Any]:
    """The chosen tokens, in OpenAI's shape."""
    top = given.top_candidates
    return [
        {
            **_token_in(token),
            "top_logprobs": [_token_in(other) for other in top[at].candidates] if at < len(top) else [],
        }
        for at, token in enumerate(given.chosen_candidates)
    ]


def _token_in(token: _Token) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.log_probability, "bytes": list(token.token.encode())}


def answer_out(response: chat.Response) -> bytes:
    """The canonical answer as a Gemini client gets it."""
    candidates = [_candidate_out(choice, index) for index, choice in enumerate(response.choices)]
    body: dict[str, Any] = {"candidates": candidates}
    if response.usage is not None:
        body["usageMetadata"] = usage_out(response.usage)
    return encode({**body, "modelVersion": response.model, "responseId": response.id})


def _candidate_out(choice: chat.Choice, index: int) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": speech.to_client(choice.parts), "role": "model"}}
    if choice.finish is not None:
        candidate["finishReason"] = finish_out(choice.finish)
    if choice.logprobs is not None:
        content = choice.logprobs.get("content") if isinstance(choice.logprobs, dict) else None
        candidate["logprobsResult"] = tokens_out(content or [])
    return {**candidate, "index": index}


def finish_out(finish: chat.FinishReason) -> str:
    """In Gemini's words."""
    return _FINISH_OUT.get(finish, "STOP")


def usage_out(usage: Usage) -> dict[str, int]:
    """In Gemini's arithmetic."""
    counts = {
        "promptTokenCount": usage.input_tokens,
        "cachedContentTokenCount": usage.cache_read_input_tokens,
        "candidatesTokenCount": max(usage.output_tokens - usage.reasoning_output_tokens, 0),
        "thoughtsTokenCount": usage.reasoning_output_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    always = ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")
    return {name: count for name, count in counts.items() if count or name in always}


class _Chance(msgspec.Struct):
    token: str = ""
    logprob: float = 0.0
    top_logprobs: list[_Chance] | None = None


def tokens_out(content: list[Any]) -> dict[str, Any]:
    """A `logprobsResult`, of OpenAI's shape; empty where a provider sent something else by that name."""
    try:
        chosen = msgspec.convert(content, list[_Chance])
    except msgspec.ValidationError:
        chosen = []
    return {
        "chosenCandidates": [_token_out(token) for token in chosen],
        "topCandidates": [
            {"candidates": [_token_out(other) for other in token.top_logprobs or []]} for token in chosen
        ],
    }


def _token_out(token: _Chance) -> dict[str, Any]:
    return {"token": token.token, "logProbability": token.logprob}
