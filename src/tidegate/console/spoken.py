"""
What was said in a call, for reading: each message as pieces of text, tool calls and data.

Every dialect's messages come here as they were sent, and whatever else was recorded too: what is not known is shown as
JSON, nothing is left out but long runs of base64, which nobody reads. What hides itself or turns the direction of text
is spelt out.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from tidegate.console import format as human
from tidegate.evals.reports.plain import plain

BASE64 = re.compile(r"(?:data:[\w.+-]+/[\w.+-]+;base64,)?[A-Za-z0-9+/_-]{400,}={0,2}\Z")
SHOWN_DATA = 60


class Piece(msgspec.Struct, frozen=True):
    """A part of a message. `prose` is text as somebody wrote it; other pieces are JSON."""

    text: str
    title: str = ""
    prose: bool = True


class Spoken(msgspec.Struct, frozen=True):
    """One message."""

    role: str
    pieces: list[Piece]


def spoken(body: str | None) -> list[Spoken]:
    """The kept input as messages; text that is not a list of messages is shown as one."""
    if not body:
        return []
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        decoded = None
    if not isinstance(decoded, list) or not all(isinstance(item, dict) for item in decoded):
        return [Spoken("input", [written(body)])]
    return [_message(item) for item in decoded]


def written(text: str, title: str = "") -> Piece:
    """A text: JSON where it is JSON, else prose."""
    pretty = human.pretty_json(text)
    return Piece(_plain(text), title) if pretty is None else Piece(_plain(pretty), title, prose=False)


def data(value: Any, title: str = "") -> Piece:
    """Any JSON value."""
    if isinstance(value, str):
        return written(_short(value), title)
    return Piece(_plain(json.dumps(_shortened(value), indent=2, ensure_ascii=False)), title, prose=False)


def _message(message: dict[str, Any]) -> Spoken:
    role = _plain(str(message.get("role", "message")))
    pieces: list[Piece] = []
    for name, value in message.items():
        if name == "role" or value is None:
            continue
        if name in ("content", "parts"):
            pieces += [_part(part) for part in value] if isinstance(value, list) else [data(value)]
        elif name == "tool_calls" and isinstance(value, list):
            pieces += [_part(call) for call in value]
        else:
            pieces.append(data(value, _plain(name)))
    return Spoken(role, pieces)


def _part(part: Any) -> Piece:
    """One of a message's contents: its text where it is nothing but text, a tool call by the tool's name."""
    if not isinstance(part, dict):
        return data(part)
    rest = {name: value for name, value in part.items() if value is not None and name not in ("type", "text")}
    if isinstance(part.get("text"), str) and not rest:
        return written(part["text"])
    for call, given in ((part.get("function"), "arguments"), (part.get("functionCall"), "args"), (part, "input")):
        if isinstance(call, dict) and isinstance(call.get("name"), str) and given in call:
            return data(call[given], f"calls {_plain(call['name'])}")
    return data(part, _plain(str(part.get("type", ""))))


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return _short(value) if isinstance(value, str) else value


def _short(text: str) -> str:
    if BASE64.match(text) is None:
        return text
    return f"{text[:SHOWN_DATA]}… [{len(text):,} characters; the JSON of this page has them]"


def _plain(text: str) -> str:
    """Line ends of Windows are line ends."""
    return plain(text.replace("\r\n", "\n"))
