"""
The Gemini wire → canonical → the Gemini wire, as Google's documentation shows requests, answers and streams.

One file per case, three parts parted by a line of ten dashes: what comes in, what it means, what goes out again. What
goes out must also be what Google's own SDK understands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.genai import types

from tidegate.core import chat
from tidegate.dialects.gemini import DIALECT
from tidegate.dialects.sse import EventSplitter, data_of

CASES = Path(__file__).parent / "dialects" / "gemini"
PART = "\n----------\n"


def read(path: Path) -> tuple[str, str, str]:
    given, meaning, written = path.read_text("utf-8").rstrip("\n").split(PART)
    return given, meaning, written


def pretty(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def lean(value: Any) -> Any:
    """A canonical value as JSON without what it does not say: nulls, nothing, and counts of 0."""
    plain = msgspec.to_builtins(value)
    if isinstance(plain, list | tuple):
        return [lean(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    counts = "input_tokens" in plain
    said = ((key, lean(inner)) for key, inner in plain.items())
    return {key: inner for key, inner in said if inner not in (None, [], {}) and not (counts and inner == 0)}


def cases(kind: str) -> pytest.MarkDecorator:
    paths = sorted(CASES.glob(f"*.{kind}.txt"))
    assert paths
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name.partition(".")[0])


def request(given: str) -> tuple[str, str]:
    incoming = DIALECT.parse_request(given.encode(), model="gemini-3-flash", stream=False)
    canonical = DIALECT.request_in(incoming)
    body, losses = DIALECT.request_out(canonical, model=incoming.model, stream=False, native=True)
    return pretty(lean(canonical)), pretty({"body": msgspec.Raw(body), "losses": losses})


def answer(given: str) -> tuple[str, str]:
    canonical = DIALECT.answer_in(given.encode())
    return pretty(lean(canonical)), msgspec.json.format(DIALECT.answer_out(canonical), indent=2).decode()


def stream(given: str) -> tuple[str, str]:
    events_in, out = DIALECT.events_in(), DIALECT.events_out(call_id="c1", model="m", created=7, wants_usage=True)
    events = [event for wire in EventSplitter().feed(given.encode() + b"\n\n") for event in events_in.read(wire)]
    meaning = "\n".join(msgspec.json.encode(lean(event)).decode() for event in events)
    written = b"".join(out.write([event]) for event in [*events, chat.Ended()])
    return meaning, written.decode().rstrip("\n")


@cases("request")
def test_a_request(path: Path) -> None:
    given, meaning, written = read(path)
    assert request(given) == (meaning, written)
    body = msgspec.json.decode(written)["body"]
    for content in body["contents"]:
        types.Content.model_validate(content)
    for tool in body.get("tools", []):
        types.Tool.model_validate(tool)
    types.GenerationConfig.model_validate(body.get("generationConfig", {}))


@cases("answer")
def test_an_answer(path: Path) -> None:
    given, meaning, written = read(path)
    assert answer(given) == (meaning, written)
    types.GenerateContentResponse.model_validate_json(written)


@cases("stream")
def test_a_stream(path: Path) -> None:
    given, meaning, written = read(path)
    assert stream(given) == (meaning, written)
    for event in EventSplitter().feed(written.encode() + b"\n\n"):
        types.GenerateContentResponse.model_validate_json(data_of(event) or b"")
