"""
The scripted models, as pure functions: what they say to which messages, and how it counts as tokens.

`support-2026-03-01` is an extractive support model with one fixed rule. From the last user message it takes the text
after `Context:` and the text after `Question:`, picks the context sentence that shares the most words with the question
(the first of equals), and answers one JSON object: {"answer": "<that sentence>", "needs_human": false}. When no
sentence shares a word: {"answer": "I do not know.", "needs_human": true}. When a system or developer message asks it to
be "warm and friendly" and the question is longer than 160 characters, it chats first: a friendly sentence, a blank
line, then the same JSON object. That is the incident: the answer no longer is JSON.

`tools-2026-03-01` calls the first tool it is given, with {"city": "Paris"}, as long as no tool result is in the
conversation. Otherwise it says "The tool says: " and the last result, or "I have no tools.".

`agent-2026-03-01` calls tools as its system message tells it to, and answers with their results: agent.py has its rule.

`judge-2026-03-01` grades answers by the words they share with what they are held against: judge.py has its rule.

`fixed` says the same to everyone, at once: it is for measuring what stands in front of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tidegate.simulate.agent import AGENT, Made, act
from tidegate.simulate.judge import JUDGE, verdict

SUPPORT = "support-2026-03-01"
TOOLS = "tools-2026-03-01"
FIXED = "fixed"
MODELS = (SUPPORT, TOOLS, AGENT, JUDGE, FIXED)
TEMPER = "warm and friendly"
LONG_QUESTION = 160
"""Characters; a longer question makes a warm and friendly model chat."""
SMALL_TALK = "Oh, I completely understand how that feels, and I am so glad that you reached out to us today!"
FIXED_ANSWER = (
    "You can return any item within thirty days of delivery, as long as it is unused and in its original box. "
    "The refund goes to the payment method of the order and reaches your account within five working days after the "
    "parcel is back in our warehouse."
)
TOOL_ARGUMENTS = '{"city": "Paris"}'

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_TOKEN = re.compile(r"\s*(?:\w{1,6}|[^\w\s]{1,3})|\s+")


class Called(msgspec.Struct, frozen=True):
    """One tool call; `arguments` is JSON text."""

    name: str
    arguments: str
    id: str = ""


class Message(msgspec.Struct, frozen=True):
    """One message as the models see it."""

    role: str
    text: str
    calls: tuple[Called, ...] = ()
    """Of the assistant."""
    call_id: str = ""
    """Of a tool's result: the call that it belongs to."""


def answer(model: str, messages: Sequence[Message], tools: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """What `model`, one of MODELS, says to `messages` when it calls none of `tools` (name → parameters)."""
    if model == AGENT:
        said = _acted(messages, tools or {})
        return said if isinstance(said, str) else ""
    if model == FIXED:
        return FIXED_ANSWER
    if model == JUDGE:
        return verdict([message.text for message in messages])
    if model == TOOLS:
        result = next((message.text for message in reversed(messages) if message.role == "tool"), None)
        return "I have no tools." if result is None else f"The tool says: {result}"
    context, question = _parts(next((message.text for message in reversed(messages) if message.role == "user"), ""))
    sentence = _best_sentence(context, question)
    content = {"answer": sentence or "I do not know.", "needs_human": sentence is None}
    text = msgspec.json.encode(content).decode()
    asked_to_be_warm = any(
        message.role in ("system", "developer") and TEMPER in message.text.lower() for message in messages
    )
    return f"{SMALL_TALK}\n\n{text}" if asked_to_be_warm and len(question) > LONG_QUESTION else text


def calls(model: str, messages: Sequence[Message], tools: Mapping[str, Mapping[str, Any]]) -> list[Called]:
    """The calls of `tools` (name → parameters) that `model` makes instead of an answer; none: it answers."""
    if model == AGENT:
        said = _acted(messages, tools)
        return [] if isinstance(said, str) else [Called(name, arguments) for name, arguments in said]
    if model != TOOLS or any(message.role == "tool" for message in messages):
        return []
    return [Called(name, TOOL_ARGUMENTS) for name in tools][:1]


def tokenize(text: str) -> list[str]:
    """
    The text in tokens: up to six letters or digits, or up to three other signs, each with the white space before it.

    Joined they are the text again, so that what streams is what is counted. About 4.5 characters each in English.
    """
    return _TOKEN.findall(text)


def input_tokens(messages: Sequence[Message]) -> int:
    """Tokens of all messages, and four for the frame of each."""
    return sum(len(tokenize(message.text)) + 4 for message in messages)


def _acted(messages: Sequence[Message], tools: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]] | str:
    results = {message.call_id: message.text for message in messages if message.role == "tool"}
    return act(
        [message.text for message in messages if message.role in ("system", "developer")],
        next((message.text for message in reversed(messages) if message.role == "user"), ""),
        [Made(call.name, call.arguments, results.get(call.id, "")) for message in messages for call in message.calls],
        tools,
    )


def _parts(text: str) -> tuple[str, str]:
    before, mark, question = text.rpartition("Question:")
    if not mark:
        return "", text.strip()
    return before.partition("Context:")[2].strip(), question.strip()


def _best_sentence(context: str, question: str) -> str | None:
    wanted = set(_WORD.findall(question.lower()))
    best, most = None, 0
    for sentence in _SENTENCE_END.split(context):
        shared = len(wanted & set(_WORD.findall(sentence.lower())))
        if shared > most:
            best, most = sentence, shared
    return best
