"""What was said in a call, as the call's page shows it."""

from __future__ import annotations

import json
import time

import pytest

from tidegate.console.spoken import Piece, Spoken, spoken


def shown(*messages: object) -> list[Spoken]:
    return spoken(json.dumps(messages))


def test_text_is_prose_and_json_is_json() -> None:
    (message,) = shown({"role": "user", "content": "Hello\r\nthere"})
    assert message == Spoken("user", [Piece("Hello\nthere")])
    (message,) = shown({"role": "tool", "tool_call_id": "c1", "content": '{"a":1}'})
    assert message.pieces == [Piece("c1", "tool_call_id"), Piece('{\n  "a": 1\n}', prose=False)]


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "look_up", "arguments": '{"order": 1}'}}]},
        {"content": [{"type": "tool_use", "id": "c", "name": "look_up", "input": {"order": 1}}]},
        {"parts": [{"functionCall": {"name": "look_up", "args": {"order": 1}}}]},
    ],
    ids=["openai", "anthropic", "gemini"],
)
def test_a_tool_call_is_shown_by_the_tools_name(message: dict[str, object]) -> None:
    (said,) = shown({"role": "assistant", "content": None} | message)
    assert said.pieces == [Piece('{\n  "order": 1\n}', "calls look_up", prose=False)]


@pytest.mark.parametrize("part", [{"type": "text", "text": "What is it?"}, {"text": "What is it?"}])
def test_an_image_is_named_and_its_bytes_are_not_shown(part: dict[str, str]) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgo" * 5_000}}
    (said,) = shown({"role": "user", "content": [part, image]})
    assert said.pieces[0] == Piece("What is it?")
    assert said.pieces[1].title == "image_url"
    assert "data:image/png;base64,iVBORw0KGgo" in said.pieces[1].text
    assert "[55,022 characters" in said.pieces[1].text
    assert len(said.pieces[1].text) < 300


def test_what_hides_is_spelt_out() -> None:
    (said,) = shown({"role": "us\u202eer", "content": "a\x1b[31m\u202eb"})
    assert said == Spoken("us\\u202eer", [Piece("a\\x1b[31m\\u202eb")])


@pytest.mark.parametrize("body", ["plain words", '{"prompt": 1}', "[1, 2]", "[" * 100_000, '[{"role":'])
def test_anything_else_is_shown_as_it_is(body: str) -> None:
    (said,) = spoken(body)
    assert said.role == "input"
    assert "".join(said.pieces[0].text.split()) == "".join(body.split())


def test_nothing_is_nothing() -> None:
    assert spoken(None) == spoken("") == spoken("[]") == []


def test_a_long_text_costs_next_to_nothing() -> None:
    began = time.perf_counter()
    shown({"role": "user", "content": "A" * 3_000_000 + "!"}, {"role": "user", "content": "word " * 200_000})
    assert time.perf_counter() - began < 3
