"""
Anthropic's wire → canonical → Anthropic's wire, as its documentation shows requests, answers and streams.

One file per case, three parts parted by a line of ten dashes: what comes in, what it means, what goes out again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from tidegate.dialects.anthropic import DIALECT
from tidegate.dialects.sse import EventSplitter, data_of

CASES = Path(__file__).parent / "dialects" / "anthropic"
PART = "\n----------\n"


def read(path: Path) -> tuple[str, str, str]:
    given, meaning, written = path.read_text("utf-8").rstrip("\n").split(PART)
    return given, meaning, written


def lean(value: Any) -> Any:
    """What differs from its default: a new field of the canonical shape leaves old cases alone."""
    if isinstance(value, list | tuple):
        return [lean(item) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    tag = value.__struct_config__.tag
    said = {
        field.name: lean(getattr(value, field.name))
        for field in msgspec.structs.fields(value)
        if getattr(value, field.name) != field.default
    }
    return said if tag is None else {"type": tag, **said}


def pretty(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def cases(kind: str) -> pytest.MarkDecorator:
    paths = sorted(CASES.glob(f"*.{kind}.txt"))
    assert paths
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name.partition(".")[0])


def request(given: str) -> tuple[str, str]:
    incoming = DIALECT.parse_request(given.encode())
    canonical = DIALECT.request_in(incoming)
    body, losses = DIALECT.request_out(canonical, model=incoming.model, stream=incoming.stream, native=True)
    return pretty(lean(canonical)), pretty({"body": msgspec.Raw(body), "losses": losses})


def answer(given: str) -> tuple[str, str]:
    canonical = DIALECT.answer_in(given.encode())
    return pretty(lean(canonical)), msgspec.json.format(DIALECT.answer_out(canonical), indent=2).decode()


def stream(given: str) -> tuple[str, str]:
    events_in, out = DIALECT.events_in(), DIALECT.events_out(call_id="c1", model="m", created=0, wants_usage=True)
    events = [event for wire in EventSplitter().feed(given.encode() + b"\n\n") for event in events_in.read(wire)]
    meaning = "\n".join(msgspec.json.encode(lean(event)).decode() for event in events)
    return meaning, b"".join(out.write([event]) for event in events).decode().rstrip("\n")


@cases("request")
def test_a_request(path: Path) -> None:
    given, meaning, written = read(path)
    assert request(given) == (meaning, written)


@cases("answer")
def test_an_answer(path: Path) -> None:
    given, meaning, written = read(path)
    assert answer(given) == (meaning, written)
    Message.model_validate_json(written, strict=True)


@cases("stream")
def test_a_stream(path: Path) -> None:
    given, meaning, written = read(path)
    assert stream(given) == (meaning, written)
    sdk: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
    for event in EventSplitter().feed(written.encode() + b"\n\n"):
        sdk.validate_json(data_of(event) or b"")
