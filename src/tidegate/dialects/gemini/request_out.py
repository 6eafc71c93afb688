"""
The canonical request as Gemini takes it.

Gemini wants one system instruction before the conversation, the results of one turn's calls together and by the name of
their function, tool arguments and results as objects, and thinking as a level or, up to Gemini 2.5, as a budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest
from tidegate.core.reasoning import tokens_for
from tidegate.dialects import media
from tidegate.dialects.fields import encode
from tidegate.dialects.gemini import signatures, speech
from tidegate.dialects.gemini.request_in import GOOGLES_FILES, MADE_ID
from tidegate.dialects.losses import Losses

MAX_BUDGET = 24_576
"""The most that every thinking model of Gemini 2.5 takes; Pro takes some more (Gemini's guide to thinking, 2026-11)."""
_BUDGET_MODELS = ("gemini-1", "gemini-2")
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH", "max": "HIGH"}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])

Wire = dict[str, Any]


def request_out(request: chat.Request, *, model: str, stream: bool) -> tuple[bytes, list[chat.Loss]]:
    """The request on this wire, and what it can not say. Raises InvalidRequest."""
    losses = Losses()
    system, contents = _Conversation(request, model, losses).write()
    body: Wire = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_tool_out(tool, losses) for tool in request.tools]}]
    if request.tool_choice is not None:
        body["toolConfig"] = {"functionCallingConfig": _choice_out(request.tool_choice)}
    config = {key: given for key, given in _config_out(request, model, stream, losses) if given is not None}
    if config:
        body["generationConfig"] = config
    if request.parallel_tool_calls is False:
        losses.add("parallel_tool_calls", "Gemini decides how many tools it calls at once")
    if request.user is not None:
        losses.add("user", "Gemini knows no end users")
    return encode(body), losses.all()


def _config_out(request: chat.Request, model: str, stream: bool, losses: Losses) -> tuple[tuple[str, Any], ...]:
    logprobs = request.logprobs
    wanted = request.format or chat.Format()
    return (
        ("maxOutputTokens", request.max_output_tokens),
        ("temperature", request.temperature),
        ("topP", request.top_p),
        ("topK", request.top_k),
        ("candidateCount", request.count),
        ("stopSequences", list(request.stop) or None),
        ("seed", request.seed),
        ("presencePenalty", request.presence_penalty),
        ("frequencyPenalty", request.frequency_penalty),
        ("responseMimeType", None if wanted.kind == "text" else "application/json"),
        ("responseJsonSchema", wanted.schema if wanted.kind == "schema" else None),
        ("responseLogprobs", None if logprobs is None else True),
        ("logprobs", logprobs or None),
        ("thinkingConfig", _thinking_out(request, model, losses)),
    )


def _thinking_out(request: chat.Request, model: str, losses: Losses) -> Wire | None:
    """A level, or for models up to 2.5 and for whoever names a number, a budget; never both."""
    effort, budget = request.reasoning_effort, request.reasoning_tokens
    if effort is None and budget is None:
        return None
    if effort is not None and effort != "none" and tokens_for(effort) is None:
        losses.add("reasoning_effort", f"Gemini does not know the effort {effort!r}")
        return None
    if budget is None and (effort == "none" or model.startswith(_BUDGET_MODELS)):
        budget = min(tokens_for(effort or "none") or 0, MAX_BUDGET)
    if budget is None:
        return {"thinkingLevel": _LEVELS[str(effort)], "includeThoughts": True}
    return {"thinkingBudget": budget, "includeThoughts": True} if budget else {"thinkingBudget": 0}


def _choice_out(choice: chat.ToolChoice) -> Wire:
    mode: Wire = {"mode": _MODES[choice.mode]}
    return {**mode, "allowedFunctionNames": [choice.name]} if choice.mode == "tool" else mode


def _tool_out(tool: chat.Tool, losses: Losses) -> Wire:
    if tool.strict:
        losses.add("tools.strict", "Gemini has no strict functions")
    function: Wire = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parametersJsonSchema"] = tool.parameters
    return function


class _Conversation:
    """Writes the messages; remembers which function each call was of, as results go back by its name."""

    def __init__(self, request: chat.Request, model: str, losses: Losses) -> None:
        self._messages = request.messages
        self._losses = losses
        self._needs_signatures = not model.startswith(_BUDGET_MODELS)
        self._names: dict[str, str] = {tool.name: tool.name for tool in request.tools}
        """Id of a call → its function. Once OpenAI's results named the function itself."""
        self._order: dict[str, int] = {}

    def write(self) -> tuple[list[Wire], list[Wire]]:
        """(parts of the system instruction, contents)."""
        system: list[Wire] = []
        contents: list[Wire] = []
        for results, run in groupby(enumerate(self._messages), key=lambda pair: pair[1].role == "tool"):
            if results:
                # Gemini counts the results of a turn against its calls, and without ids goes by their order.
                written = [part for index, message in run for part in self._results(message, f"messages[{index}]")]
                contents.append({"role": "user", "parts": [part for _, part in sorted(written, key=lambda at: at[0])]})
                continue
            for index, message in run:
                place = f"messages[{index}]"
                if message.name is not None:
                    self._losses.add(f"{place}.name", "Gemini's messages have no name")
                if message.role in ("system", "developer"):
                    if contents:
                        self._losses.add(place, "a system message amid the conversation moves to its beginning")
                    system += self._system(message, place)
                    continue
                role = "model" if message.role == "assistant" else "user"
                parts = self._model(message, place) if role == "model" else self._user(message.parts, place)
                if parts:
                    contents.append({"role": role, "parts": parts})
                else:
                    self._losses.add(place, "an empty message can not be sent to Gemini")
        if not contents and system:
            self._losses.add("messages", "a system message alone becomes the user's message")
            contents.append({"role": "user", "parts": [system.pop()]})
        if not contents:
            raise self._losses.nothing_said()
        return system, contents

    def _system(self, message: chat.Message, place: str) -> Iterator[Wire]:
        for part in message.parts:
            if isinstance(part, chat.Text):
                yield {"text": part.text}
            else:
                self._losses.add(place, "a system message has only text")

    def _model(self, message: chat.Message, place: str) -> list[Wire]:
        calls = [part for part in message.parts if isinstance(part, chat.ToolCall)]
        for call in calls:
            self._names[call.id] = call.name
            self._order[call.id] = len(self._order)
        parts = speech.to_provider(message.parts, place, self._losses)
        if not self._needs_signatures or any("thoughtSignature" in part for part in parts if "functionCall" in part):
            return parts
        first = next((at for at, part in enumerate(parts) if "functionCall" in part), None)
        if first is not None:
            parts[first] = speech.signed(parts[first], signatures.NONE)
        return parts

    def _user(self, parts: Sequence[chat.Part], place: str) -> list[Wire]:
        return [wire for at, part in enumerate(parts) for wire in self._said(part, f"{place}.content[{at}]")]

    def _said(self, part: chat.Part, place: str) -> Iterator[Wire]:
        match part:
            case chat.Text() | chat.Refusal():
                if part.text:
                    yield {"text": part.text}
            case chat.Image():
                if part.detail not in (None, "auto"):
                    self._losses.add(f"{place}.detail", "Gemini's images have no detail")
                yield _media_out(part.url, part.data, part.media_type or media.told_by(part.url) or "image/png")
            case chat.File():
                yield from self._file(part, place)
            case chat.Audio():
                kind = "mpeg" if part.format == "mp3" else part.format
                yield {"inlineData": {"mimeType": f"audio/{kind}", "data": part.data}}
            case _:
                self._losses.add(place, f"what is said to the model holds no {type(part).__name__.lower()} here")

    def _file(self, file: chat.File, place: str) -> Iterator[Wire]:
        if file.name is not None:
            self._losses.add(f"{place}.name", "Gemini's files have no name")
        url = file.url if file.url is not None or file.id is None else file.id
        if file.data is None and (url is None or (file.url is None and not url.startswith(GOOGLES_FILES))):
            self._losses.add(place, "another provider's files can not be had by their id", essential=True)
            return
        yield _media_out(url, file.data, file.media_type or media.told_by(url) or media.told_by(file.name))

    def _results(self, message: chat.Message, place: str) -> Iterator[tuple[int, Wire]]:
        for part in message.parts:
            if not isinstance(part, chat.ToolResult):
                self._losses.add(place, "beside the results of tools their message holds nothing")
                continue
            name = self._names.get(part.id)
            if name is None:
                raise InvalidRequest(
                    f"{place}.tool_call_id {part.id[:100]!r} is the id of no tool call before it.",
                    param=f"{place}.tool_call_id",
                )
            response: Wire = {"name": name, "response": _response_out(part)}
            if not part.id.startswith(MADE_ID) and part.id in self._order:
                response = {"id": part.id, **response}
            if pictures := self._user([inner for inner in part.parts if not isinstance(inner, chat.Text)], place):
                response["parts"] = pictures
            yield self._order.get(part.id, len(self._order)), {"functionResponse": response}


def _response_out(result: chat.ToolResult) -> msgspec.Raw | Wire:
    """An object as it is; anything else under the keys that Google documents for it."""
    text = "\n".join(part.text for part in result.parts if isinstance(part, chat.Text))
    if result.is_error:
        return {"error": text}
    try:
        given = _object.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return {"output": text}
    if len(given) == 1 and given.keys() <= {"output", "result", "error"}:
        return {"output": text}
    return msgspec.Raw(text.encode())


def _media_out(url: str | None, data: str | None, media_type: str | None) -> Wire:
    if data is not None:
        return {"inlineData": {"mimeType": media_type or "application/pdf", "data": data}}
    kind = {} if media_type is None else {"mimeType": media_type}
    return {"fileData": {**kind, "fileUri": url or ""}}
