"""
The canonical request as Converse takes it.

Converse has one shape for every maker's models and refuses what one of them does not have. So what is not common to
all goes into `additionalModelRequestFields` for models that are known to take it, and is a loss for the others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from tidegate.core import chat
from tidegate.dialects.anthropic.request_out import reasoning_out, sampling_out, tool_id, tool_input
from tidegate.dialects.bedrock.answer import SEAL
from tidegate.dialects.fields import encode
from tidegate.dialects.losses import Losses

IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
AUDIO = {"mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "mka", "x-aac", "m4a", "mpeg", "mpga", "pcm", "webm"}
MAX_ID = 64
EFFORTS = ("low", "medium", "high")
"""Of OpenAI's open models on Bedrock."""
CACHE_POINT = {"cachePoint": {"type": "default"}}
_not_in_a_name = re.compile(r"[^a-zA-Z0-9\s()\[\]-]|\s+")

Wire = dict[str, Any]


def request_out(request: chat.Request, *, model: str) -> tuple[bytes, list[chat.Loss]]:
    """The request on this wire, and what it can not say. Raises InvalidRequest."""
    losses = Losses()
    claude = "claude" in model
    if claude:
        request = _opened(request)
    extra, sampling = _model_settings(request, model, losses)
    system, turns = _Conversation(losses, claude=claude).write(request.messages)
    inference = {
        "maxTokens": request.max_output_tokens,
        "stopSequences": [stop for stop in request.stop if stop.strip()] or None,
        **sampling,
    }
    body: Wire = {"messages": turns}
    optional = {
        "system": system,
        "inferenceConfig": {key: given for key, given in inference.items() if given is not None},
        "toolConfig": _tools_out(request, turns, losses),
        "outputConfig": _format_out(request.format, losses),
        "additionalModelRequestFields": extra,
    }
    body.update({key: given for key, given in optional.items() if given})
    _say_what_converse_lacks(request, losses)
    return encode(body), losses.all()


def _opened(request: chat.Request) -> chat.Request:
    """With signatures that came through Bedrock as Claude made them: they are good wherever Claude is."""

    def opened(part: chat.Part) -> chat.Part:
        if not isinstance(part, chat.Thinking) or part.signature is None:
            return part
        return msgspec.structs.replace(part, signature=part.signature.removeprefix(SEAL))

    messages = [msgspec.structs.replace(one, parts=tuple(map(opened, one.parts))) for one in request.messages]
    return msgspec.structs.replace(request, messages=tuple(messages))


class _Conversation:
    """Writes the messages; system text stands beside them, and neighbours of one role become one turn."""

    def __init__(self, losses: Losses, *, claude: bool) -> None:
        self._losses = losses
        self._claude = claude
        self._documents: set[str] = set()
        """Their names, which must differ."""

    def write(self, messages: Sequence[chat.Message]) -> tuple[list[Wire], list[Wire]]:
        """(system blocks, turns)."""
        system: list[Wire] = []
        turns: list[Wire] = []
        for index, message in enumerate(messages):
            place = f"messages[{index}]"
            if message.name is not None:
                self._losses.add(f"{place}.name", "Bedrock's messages have no name")
            if message.role in ("system", "developer"):
                if turns:
                    self._losses.add(place, "a system message amid the conversation moves to its beginning")
                system += self._system(message.parts, place)
                continue
            blocks = list(self._blocks(message, place))
            if not blocks:
                self._losses.add(place, "an empty message can not be sent to Bedrock")
                continue
            role = "assistant" if message.role == "assistant" else "user"
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += blocks
            else:
                turns.append({"role": role, "content": blocks})
        if not turns and system:
            self._losses.add("messages", "a system message alone becomes the user's message")
            turns.append({"role": "user", "content": system})
            system = []
        if not turns:
            raise self._losses.nothing_said()
        return system, turns

    def _system(self, parts: Sequence[chat.Part], place: str) -> Iterator[Wire]:
        for part in parts:
            if isinstance(part, chat.Text):
                yield from self._text(part, place)
            else:
                self._losses.add(place, "a system message has only text")

    def _blocks(self, message: chat.Message, place: str) -> Iterator[Wire]:
        for at, part in enumerate(message.parts):
            spot = f"{place}.content[{at}]"
            match part:
                case chat.ToolCall():
                    yield self._call(part, spot)
                case chat.ToolResult():
                    yield self._result(part, spot)
                case chat.Thinking():
                    yield from self._thinking(part, spot)
                case chat.Refusal():
                    yield from self._text(chat.Text(part.text), spot)
                case chat.Image() | chat.File() | chat.Audio() if message.role == "assistant":
                    self._losses.add(spot, "an assistant's message to Bedrock has no images, files or audio")
                case chat.Audio():
                    yield from self._audio(part, spot)
                case _:
                    yield from self._said(part, spot)

    def _call(self, call: chat.ToolCall, place: str) -> Wire:
        given = tool_input(call.arguments)
        if bytes(given).startswith(b'{"INVALID_JSON"'):
            self._losses.add(place, "arguments that are not a JSON object are sent inside one")
        return {"toolUse": {"toolUseId": _id(call.id), "name": call.name, "input": given}}

    def _result(self, result: chat.ToolResult, place: str) -> Wire:
        content = [block for part in result.parts for block in self._said(part, place) if "cachePoint" not in block]
        block: Wire = {"toolUseId": _id(result.id), "content": content}
        if result.is_error:
            block["status"] = "error"
        return {"toolResult": block}

    def _thinking(self, part: chat.Thinking, place: str) -> Iterator[Wire]:
        redacted, signature = part.redacted or "", part.signature or ""
        own = ":" not in signature if self._claude and signature else signature.startswith(SEAL)
        if redacted.startswith(SEAL):
            yield {"reasoningContent": {"redactedContent": redacted.removeprefix(SEAL)}}
        elif own:
            said = {"text": part.text, "signature": signature.removeprefix(SEAL)}
            yield {"reasoningContent": {"reasoningText": said}}
        else:
            self._losses.add(place, "Bedrock takes back only reasoning that its model has signed")

    def _said(self, part: chat.Part, place: str) -> Iterator[Wire]:
        match part:
            case chat.Text():
                yield from self._text(part, place)
            case chat.Image():
                yield from self._image(part, place)
            case chat.File():
                yield from self._document(part, place)

    def _text(self, part: chat.Text, place: str) -> Iterator[Wire]:
        if part.text.strip():
            yield {"text": part.text}
            if part.cache_after:
                yield CACHE_POINT
        elif part.text:
            self._losses.add(place, "Bedrock takes no text of white space alone")

    def _image(self, image: chat.Image, place: str) -> Iterator[Wire]:
        if image.detail not in (None, "auto"):
            self._losses.add(f"{place}.detail", "Bedrock's images have no detail")
        source = self._source(image.url, image.data, place)
        form = IMAGES.get(image.media_type or _guessed(image.url, IMAGES, "image/png"))
        if form is None:
            self._losses.add(place, "Bedrock's images are PNG, JPEG, GIF or WebP")
        elif source is not None:
            yield {"image": {"format": form, "source": source}}

    def _document(self, file: chat.File, place: str) -> Iterator[Wire]:
        if file.data is None and file.url is None:
            self._losses.add(place, "another provider's files can not be had by their id", essential=True)
            return
        source = self._source(file.url, file.data, place)
        media_type = (file.media_type or _guessed(file.url or file.name, DOCUMENTS, "application/pdf")).partition(";")[
            0
        ]
        form = DOCUMENTS.get(media_type, "txt" if media_type.startswith("text/") else None)
        if form is None:
            self._losses.add(place, "Bedrock's documents are PDF, office documents, HTML, CSV and text")
        elif source is not None:
            yield {"document": {"format": form, "name": self._name(file.name), "source": source}}

    def _name(self, given: str | None) -> str:
        """A document's name without its ending, in the letters that Bedrock takes, and different from the others'."""
        stem = " ".join(_not_in_a_name.sub(" ", (given or "document").rpartition(".")[0] or given or "").split())
        stem = stem[:190] or "document"
        name, count = stem, 1
        while name in self._documents:
            count += 1
            name = f"{stem} {count}"
        self._documents.add(name)
        return name

    def _audio(self, audio: chat.Audio, place: str) -> Iterator[Wire]:
        if audio.format in AUDIO:
            yield {"audio": {"format": audio.format, "source": {"bytes": audio.data}}}
        else:
            self._losses.add(place, "Bedrock does not know this format of audio")

    def _source(self, url: str | None, data: str | None, place: str) -> Wire | None:
        if data is not None:
            return {"bytes": data}
        if url is not None and url.startswith("s3://"):
            return {"s3Location": {"uri": url}}
        self._losses.add(place, "Bedrock takes media as data or from S3, not from other addresses")
        return None


def _guessed(name: str | None, known: dict[str, str], default: str) -> str:
    ending = (name or "").partition("?")[0].rpartition(".")[2].lower()
    return next((kind for kind, form in known.items() if form == ending), default)


def _id(given: str) -> str:
    """A tool call's id in the letters and the length that Bedrock takes; equal ids stay equal, others differ."""
    plain = tool_id(given)
    return plain if len(plain) <= MAX_ID else f"{plain[:31]}_{hashlib.sha256(given.encode()).hexdigest()[:32]}"


def _tools_out(request: chat.Request, turns: Sequence[Wire], losses: Losses) -> Wire | None:
    choice = request.tool_choice
    used = {block["toolUse"]["name"]: None for turn in turns for block in turn["content"] if "toolUse" in block}
    results = any("toolResult" in block for turn in turns for block in turn["content"])
    tools = [_tool_out(tool) for tool in request.tools]
    if not tools:
        if choice is not None and choice.mode in ("required", "tool"):
            losses.add("tool_choice", "there is no tool to choose")
        if not used and not results:
            return None
        losses.add("tools", "Bedrock wants the tools of a conversation declared; they are, by their names alone")
        return {"tools": [_tool_out(chat.Tool(name)) for name in used or {"unknown": None}]}
    if request.parallel_tool_calls is False:
        losses.add("parallel_tool_calls", "Bedrock's models decide how many tools they call at once")
    if choice is not None and choice.mode == "none":
        if not used and not results:
            return None  # what is not declared is not called
        losses.add("tool_choice", "Bedrock can not forbid the tools of a conversation that has used some")
        return {"tools": tools}
    if choice is None:
        return {"tools": tools}
    if choice.mode == "tool":
        return {"tools": tools, "toolChoice": {"tool": {"name": choice.name}}}
    return {"tools": tools, "toolChoice": {"any" if choice.mode == "required" else "auto": {}}}


def _tool_out(tool: chat.Tool) -> Wire:
    spec: Wire = {"name": tool.name, "inputSchema": {"json": tool.parameters or {"type": "object", "properties": {}}}}
    if tool.description:
        spec["description"] = tool.description
    if tool.strict is not None:
        spec["strict"] = tool.strict
    return {"toolSpec": spec}


def _format_out(wanted: chat.Format | None, losses: Losses) -> Wire | None:
    if wanted is None or wanted.kind == "text":
        return None
    if wanted.kind == "json":
        losses.add("format", "Bedrock has no JSON mode without a schema")
        return None
    schema = {"schema": encode(wanted.schema or {}).decode(), "name": wanted.name}
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}


def _model_settings(request: chat.Request, model: str, losses: Losses) -> tuple[Wire, Wire]:
    """(additionalModelRequestFields, temperature and topP): what one maker's models take."""
    if "claude" in model:
        thinking, effort, _ = reasoning_out(request, model, losses)
        sampling = sampling_out(request, losses, thinks=thinking is not None and thinking["type"] != "disabled")
        output = None if effort is None else {"effort": effort}
        extra = {"thinking": thinking, "output_config": output, "top_k": sampling["top_k"]}
        said = {key: given for key, given in extra.items() if given is not None}
        return said, {"temperature": sampling["temperature"], "topP": sampling["top_p"]}
    if request.top_k is not None:
        losses.add("top_k", "not every model on Bedrock has a top_k")
    temperature = request.temperature
    if temperature is not None and temperature > 1:
        losses.add("temperature", "Bedrock's temperature ends at 1, which is sent")
        temperature = 1.0
    extra = {}
    if request.reasoning_effort is not None and "openai." in model and request.reasoning_effort in EFFORTS:
        extra["reasoning_effort"] = request.reasoning_effort
    elif request.reasoning_effort is not None:
        losses.add("reasoning_effort", "how this model is told to think is not known")
    if request.reasoning_tokens is not None:
        losses.add("reasoning_tokens", "how this model is told to think is not known")
    return extra, {"temperature": temperature, "topP": request.top_p}


def _say_what_converse_lacks(request: chat.Request, losses: Losses) -> None:
    if any(not stop.strip() for stop in request.stop):
        losses.add("stop", "Bedrock takes no stop sequence of white space alone")
    if request.count is not None and request.count != 1:
        losses.add("count", "Bedrock gives one answer")
    for field, name in (
        ("seed", "seed"),
        ("presence_penalty", "presence penalty"),
        ("frequency_penalty", "frequency penalty"),
        ("logprobs", "log probabilities"),
        ("user", "end users"),
    ):
        if getattr(request, field) is not None:
            losses.add(field, f"Bedrock has no {name}")
