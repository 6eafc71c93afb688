"""Whole or streamed, an answer means the same to a client of any dialect, from a provider of any, cut anywhere."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.core import chat
from tidegate.core.streamed import events_of, response_of
from tidegate.core.usage import Usage
from tidegate.dialects.dialect import Dialect, EventsOut
from tidegate.gateway.endpoints import DIALECTS

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9) | st.sampled_from(
    ["data: [DONE]\n\n", "\r\n", "\0", "\u2028", '{"a": "\\"}', "😀" * 99]
)
objects = st.dictionaries(words, st.none() | st.booleans() | st.integers(-9, 9) | words | st.lists(words), max_size=3)
calls = st.builds(chat.ToolCall, st.just(""), st.sampled_from(["f", "get-it"]), objects.map(json.dumps))
finishes: list[chat.FinishReason] = ["stop", "length", "content_filter"]


@st.composite
def answers(draw: st.DrawFn) -> chat.Response:
    thought = draw(st.lists(st.builds(chat.Thinking, words), max_size=1))
    said: list[chat.Part] = [*thought, *draw(st.lists(st.builds(chat.Text, words), max_size=1))]
    called = [
        chat.ToolCall(f"call_{at}", call.name, call.arguments)
        for at, call in enumerate(draw(st.lists(calls, max_size=3)))
    ]
    finish: chat.FinishReason = "tool_calls" if called else draw(st.sampled_from(finishes))
    sent, made = draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6))
    usage = Usage(
        sent,
        made,
        cache_read_input_tokens=draw(st.integers(0, sent)),
        reasoning_output_tokens=draw(st.integers(0, made)),
    )
    return chat.Response("id", "m", (chat.Choice((*said, *called), finish),), usage, created=1)


def meaning(response: chat.Response) -> dict[str, Any]:
    [choice] = response.choices
    usage, parts = response.usage or Usage(), choice.parts
    return {
        "text": "".join(part.text for part in parts if isinstance(part, chat.Text)),
        "thought": "".join(part.text for part in parts if isinstance(part, chat.Thinking)),
        "calls": [(part.name, json.loads(part.arguments)) for part in parts if isinstance(part, chat.ToolCall)],
        "finish": choice.finish,
        "tokens": (usage.input_tokens, usage.output_tokens),
        "of them": (usage.cache_read_input_tokens, usage.reasoning_output_tokens),
    }


def writer(dialect: Dialect) -> EventsOut:
    return dialect.events_out(call_id="c", model="m", created=1, wants_usage=True)


def read(dialect: Dialect, stream: bytes, size: int) -> list[chat.Event]:
    splitter, reader = dialect.splitter(), dialect.events_in()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    return [event for piece in pieces for one in splitter.feed(piece) for event in reader.read(one)]


@pytest.mark.parametrize(
    ("provider", "client"), list(product(DIALECTS, DIALECTS)), ids=lambda dialect: getattr(dialect, "name", "")
)
@given(answers(), st.integers(1, 200), st.integers(1, 5))
@settings(max_examples=settings().max_examples // 4)
def test_a_streamed_answer_is_the_whole_one(
    provider: Dialect, client: Dialect, answer: chat.Response, size: int, together: int
) -> None:
    whole = client.answer_in(client.answer_out(provider.answer_in(provider.answer_out(answer))))
    events = read(provider, writer(provider).write(list(events_of(answer))), size)
    if not any(isinstance(event, chat.Ended) for event in events):  # Gemini's streams have no end of their own
        events.append(chat.Ended())
    out = writer(client)
    told = b"".join(out.write(events[at : at + together]) for at in range(0, len(events), together))
    streamed = response_of(read(client, told, size))
    assert meaning(streamed) == meaning(whole)
    said, got = meaning(answer), meaning(whole)
    assert got | {"thought": "", "finish": ""} == said | {"thought": "", "finish": ""}
