"""Recorded answers and streams in the other form, a whole answer as events and back; and given again as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_exact_cache import Bench, said
from tidegate.core import chat
from tidegate.core.streamed import events_of, response_of
from tidegate.dialects import anthropic, gemini, openai_responses
from tidegate.dialects.dialect import Dialect
from tidegate.dialects.sse import EventSplitter
from tidegate.fakes import FakeUpstream, ScriptedAnswer

CASES = Path(__file__).parent / "dialects"
PART = "\n----------\n"
DIALECTS: dict[str, Dialect] = {
    "anthropic": anthropic.DIALECT,
    "gemini": gemini.DIALECT,
    "openai_responses": openai_responses.DIALECT,
}
ASK: dict[str, dict[str, Any]] = {
    "anthropic": {"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]},
    "gemini": {"contents": [{"parts": [{"text": "hi"}]}]},
    "openai_responses": {"input": "hi"},
}
CONFIG: dict[str, Any] = {
    "providers": {
        "anthropic": {"dialect": "anthropic", "base_url": "http://127.0.0.1:1"},
        "gemini": {"dialect": "gemini", "base_url": "http://127.0.0.1:2/v1beta"},
        "openai_responses": {"base_url": "http://127.0.0.1:3/v1", "responses": True},
    },
    "caches": {"exact": {"ttl_s": 60}},
}


def cases(kind: str) -> pytest.MarkDecorator:
    paths = [path for name in DIALECTS for path in sorted((CASES / name).glob(f"*.{kind}.txt"))]
    assert len(paths) > 10
    return pytest.mark.parametrize("path", paths, ids=lambda path: f"{path.parent.name}-{path.name.partition('.')[0]}")


def given(path: Path) -> bytes:
    return path.read_text("utf-8").split(PART)[0].encode()


def gist(choice: chat.Choice) -> tuple[Any, ...]:
    """All that is said, whatever the blocks it is cut into."""
    parts = choice.parts
    return (
        "".join(part.text for part in parts if isinstance(part, chat.Text)),
        "".join(part.text for part in parts if isinstance(part, chat.Refusal)),
        "".join(part.text for part in parts if isinstance(part, chat.Thinking)),
        [part.signature or part.redacted for part in parts if isinstance(part, chat.Thinking)],
        [part for part in parts if isinstance(part, chat.ToolCall)],
        choice.finish,
    )


@cases("answer")
def test_an_answer_told_as_a_stream_says_the_same(path: Path) -> None:
    answer = DIALECTS[path.parent.name].answer_in(given(path))
    again = response_of(events_of(answer), created=answer.created)
    assert [gist(choice) for choice in again.choices] == [gist(choice) for choice in answer.choices]
    assert (again.usage, again.model, again.id) == (answer.usage, answer.model, answer.id)


@cases("stream")
def test_a_stream_told_whole_says_the_same(path: Path) -> None:
    events_in = DIALECTS[path.parent.name].events_in()
    wire = EventSplitter().feed(given(path) + b"\n\n")
    events = [event for wire_event in wire for event in events_in.read(wire_event)]
    whole = response_of(events)
    texts = "".join(event.text for event in events if isinstance(event, chat.TextDelta) and not event.choice)
    assert gist(whole.choices[0])[0] == texts
    arguments = "".join(event.arguments for event in events if isinstance(event, chat.ToolCallDelta))
    calls = [part for choice in whole.choices for part in choice.parts if isinstance(part, chat.ToolCall)]
    assert "".join(call.arguments for call in calls) == arguments
    assert response_of(events_of(whole)) == whole


@cases("stream")
async def test_a_recorded_stream_is_given_again_byte_for_byte_when_it_was_whole(path: Path) -> None:
    name = path.parent.name
    body = given(path) + b"\n\n"
    bench = Bench(FakeUpstream(*(ScriptedAnswer(body=[body[:100], body[100:]]) for _ in range(2))), config=CONFIG)
    ask = {"model": f"{name}/m", "stream": True, **ASK[name]}
    own = {"dialect": DIALECTS[name], "model": ask["model"], "stream": True}
    first, again = [await bench.call(ask, **own) for _ in range(2)]
    row = bench.rows()[0]
    kept = row.get("finish_reason") in ("stop", "tool_calls") and row.get("error_type") is None
    assert said(again) == (200, "hit" if kept else "miss")
    assert not kept or again.body == first.body


@cases("answer")
async def test_a_recorded_answer_is_given_again_byte_for_byte_when_it_was_whole(path: Path) -> None:
    name, body = path.parent.name, given(path)
    bench = Bench(FakeUpstream(*(ScriptedAnswer(body=[body]) for _ in range(2))), config=CONFIG)
    ask = {"model": f"{name}/m", **ASK[name]}
    own = {"dialect": DIALECTS[name], "model": ask["model"], "stream": False}
    first, again = [await bench.call(ask, **own) for _ in range(2)]
    assert first.body == again.body == body
    whole = bench.rows()[0].get("finish_reason") in ("stop", "tool_calls")
    assert said(again) == (200, "hit" if whole else "miss")
