"""
Clients of every dialect before Bedrock: what it is asked, and what each of them gets to see of its answers.

One file per case, parts parted by a line of ten dashes. A request's name begins with its client's dialect: what the
client says, then what Bedrock is told and what is lost. An answer or a stream: what Bedrock says, what it means, then
what each client gets. In a stream's file a frame is a line: the type of its event and its payload.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.frames import event
from tidegate.core import chat
from tidegate.dialects import anthropic, gemini, openai_chat, openai_responses
from tidegate.dialects.bedrock import DIALECT
from tidegate.dialects.dialect import Dialect

CASES = Path(__file__).parent / "dialects" / "bedrock"
PART = "\n----------\n"
MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
OTHER_MODEL = "eu.amazon.nova-pro-v1:0"
"""Of the cases whose name ends in `-nova`."""
CLIENTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (openai_chat.DIALECT, openai_responses.DIALECT, anthropic.DIALECT, gemini.DIALECT)
}


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
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name.removesuffix(f".{kind}.txt"))


def request(path: Path, given: str) -> list[str]:
    name, _, case = path.name.removesuffix(".request.txt").partition(".")
    client, model = CLIENTS[name], OTHER_MODEL if case.endswith("-nova") else MODEL
    canonical = client.request_in(client.parse_request(given.encode(), model=model, stream=False))
    body, losses = DIALECT.request_out(canonical, model=model, stream=False, native=True)
    lost = {loss.field: loss.why for loss in (*canonical.losses, *losses)}
    return [pretty({"body": msgspec.Raw(body), "lost": lost})]


def answer(path: Path, given: str) -> list[str]:
    canonical = DIALECT.answer_in(given.encode())
    named = msgspec.structs.replace(canonical, id="c1", model="aws/claude")
    shown = (
        f"{name}\n{msgspec.json.format(client.answer_out(named), indent=2).decode()}"
        for name, client in CLIENTS.items()
    )
    return [pretty(lean(canonical)), *shown]


def stream(path: Path, given: str) -> list[str]:
    events_in, splitter = DIALECT.events_in(), DIALECT.splitter()
    lines = (line.partition(" ") for line in given.splitlines())
    wire = b"".join(event(kind, msgspec.Raw(payload.encode())) for kind, _, payload in lines)
    events = [read for frame in splitter.feed(wire) for read in events_in.read(frame)]
    shown = []
    for name, client in CLIENTS.items():
        out = client.events_out(call_id="c1", model="aws/claude", created=7, wants_usage=True)
        shown.append(f"{name}\n{b''.join(out.write([read]) for read in events).decode().rstrip()}")
    return ["\n".join(msgspec.json.encode(lean(read)).decode() for read in events), *shown]


@cases("request")
def test_a_request(path: Path) -> None:
    given, *written = path.read_text("utf-8").rstrip("\n").split(PART)
    assert request(path, given) == written


@cases("answer")
def test_an_answer(path: Path) -> None:
    given, *written = path.read_text("utf-8").rstrip("\n").split(PART)
    assert answer(path, given) == written


@cases("stream")
def test_a_stream_is_what_it_should_be_for_every_client(path: Path) -> None:
    given, *written = path.read_text("utf-8").rstrip("\n").split(PART)
    assert stream(path, given) == written
    events = [msgspec.json.decode(line, type=chat.Event) for line in written[0].splitlines()]
    assert sum(isinstance(read, chat.Ended) for read in events) == 1
