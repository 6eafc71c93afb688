"""The canonical request, written as a Responses request, and what that can not say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.core import chat
from tidegate.core.reasoning import effort_for
from tidegate.dialects import media
from tidegate.dialects.fields import encode
from tidegate.dialects.losses import Losses
from tidegate.dialects.openai_responses import items
from tidegate.dialects.openai_responses.request_in import LOGPROBS

_NO_PARAM = ("top_k", "stop", "seed", "presence_penalty", "frequency_penalty")


def request_out(request: chat.Request, *, model: str, stream: bool) -> tuple[bytes, list[chat.Loss]]:
    """
    The canonical request on this wire, and what it can not say.

    Unless the client said otherwise in a dialect that can, nothing shall be stored: nobody will come back for it.
    """
    losses = Losses()
    for name in _NO_PARAM:
        if getattr(request, name) not in (None, ()):
            losses.add(name, f"the Responses API has no {name}")
    if (request.count or 1) > 1:
        losses.add("count", "the Responses API gives one answer")
    body: dict[str, Any] = {
        "model": model,
        "input": [
            item
            for index, message in enumerate(request.messages)
            for item in _items_out(message, f"messages[{index}]", losses)
        ],
    }
    body.update({name: given for name, given in _params_out(request) if given is not None})
    if not request.store:
        body["store"] = False
    if request.logprobs is not None:
        body["include"] = [LOGPROBS]
        body["top_logprobs"] = request.logprobs
    if stream:
        body["stream"] = True
    return encode(body), losses.all()


def _params_out(request: chat.Request) -> tuple[tuple[str, Any], ...]:
    effort = _effort(request)
    return (
        ("tools", [_tool_out(tool) for tool in request.tools] or None),
        ("tool_choice", None if request.tool_choice is None else _choice_out(request.tool_choice)),
        ("parallel_tool_calls", request.parallel_tool_calls),
        ("text", None if request.format is None else {"format": _format_out(request.format)}),
        ("max_output_tokens", request.max_output_tokens),
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("reasoning", None if effort is None else {"effort": effort}),
        ("user", request.user),
    )


def _items_out(message: chat.Message, place: str, losses: Losses) -> Iterator[dict[str, Any]]:
    """The items of one message: a call, a result, a reasoning and what the assistant said are one each."""
    if message.name is not None:
        losses.add(f"{place}.name", "the Responses API knows no names of speakers")
    if message.role == "assistant":
        for index, part in enumerate(message.parts):
            yield from _assistant_out(part, f"{place}.parts[{index}]", losses)
        return
    content: list[dict[str, Any]] = []
    for index, part in enumerate(message.parts):
        if isinstance(part, chat.ToolResult):
            yield _result_out(part, f"{place}.parts[{index}]", losses)
        else:
            content += _content_out(part, f"{place}.parts[{index}]", losses)
    if content:
        role = "user" if message.role == "tool" else message.role
        yield {"type": "message", "role": role, "content": _shortest(content)}


def _assistant_out(part: chat.Part, place: str, losses: Losses) -> Iterator[dict[str, Any]]:
    match part:
        case chat.Text() | chat.Refusal():
            # Only plain words: a list of parts would need the id of an answer that OpenAI has never given.
            yield {"type": "message", "role": "assistant", "content": part.text}
        case chat.ToolCall():
            yield {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments}
        case chat.Thinking():
            item = items.reasoning_to_provider(part)
            if item is None:
                losses.add(place, "OpenAI takes back only its own reasoning")
            else:
                yield item
        case _:
            losses.add(place, "the assistant's messages hold no images, files or audio")


def _result_out(result: chat.ToolResult, place: str, losses: Losses) -> dict[str, Any]:
    if result.is_error:
        losses.add(f"{place}.is_error", "the Responses API does not tell failed results apart")
    content = [item for part in result.parts for item in _content_out(part, place, losses)]
    return {"type": "function_call_output", "call_id": result.id, "output": _shortest(content)}


def _shortest(content: list[dict[str, Any]]) -> Any:
    """A string where one will do."""
    if not content:
        return ""
    return content[0]["text"] if len(content) == 1 and content[0]["type"] == "input_text" else content


def _content_out(part: chat.Part, place: str, losses: Losses) -> list[dict[str, Any]]:
    """One part of what is said to the model, or nothing and a loss."""
    match part:
        case chat.Text():
            return [{"type": "input_text", "text": part.text}]
        case chat.Image():
            url = f"data:{part.media_type or 'image/png'};base64,{part.data}" if part.url is None else part.url
            return [{"type": "input_image", "image_url": url, "detail": part.detail or "auto"}]
        case chat.File():
            if losses.not_openais(part, place):
                return []
            return [{"type": "input_file", **_file_out(part)}]
        case _:
            losses.add(place, f"what is said to the model holds no {type(part).__name__.lower()} here")
            return []


def _file_out(file: chat.File) -> dict[str, str]:
    if file.id is not None:
        return {"file_id": file.id}
    if file.data is None:
        return {"file_url": file.url or ""}
    media_type = file.media_type or "application/pdf"
    name = file.name or f"document{media.ending(media_type)}"
    return {"file_data": f"data:{media_type};base64,{file.data}", "filename": name}


def _tool_out(tool: chat.Tool) -> dict[str, Any]:
    # Left out, `strict` means true here and false in every other dialect.
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": bool(tool.strict),
    }


def _choice_out(choice: chat.ToolChoice) -> Any:
    return {"type": "function", "name": choice.name} if choice.mode == "tool" else choice.mode


def _format_out(wanted: chat.Format) -> dict[str, Any]:
    if wanted.kind == "text":
        return {"type": "text"}
    if wanted.kind == "json":
        return {"type": "json_object"}
    schema: dict[str, Any] = {"type": "json_schema", "name": wanted.name, "schema": wanted.schema}
    return schema if wanted.strict is None else {**schema, "strict": wanted.strict}


def _effort(request: chat.Request) -> str | None:
    if request.reasoning_effort is not None or request.reasoning_tokens is None:
        return request.reasoning_effort
    return effort_for(request.reasoning_tokens)
