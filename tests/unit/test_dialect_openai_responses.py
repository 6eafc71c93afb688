"""The Responses dialect at its edges: what is refused, what is lost and said, and streams cut anywhere."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest, StreamBroken, UnknownModel, UpstreamProtocol
from tidegate.core.usage import Usage
from tidegate.dialects.dialect import Answer, Incoming
from tidegate.dialects.openai_responses import DIALECT
from tidegate.dialects.sse import EventSplitter, data_of

GOLDEN = Path(__file__).parents[1] / "golden" / "dialects" / "openai_responses"
DEEP = 100_000


def parse(**fields: Any) -> Incoming:
    return DIALECT.parse_request(msgspec.json.encode(fields))


def canonical(**fields: Any) -> chat.Request:
    return DIALECT.request_in(parse(model="m", **fields))


def wire_of(request: chat.Request, *, stream: bool = False) -> tuple[dict[str, Any], list[str]]:
    body, losses = DIALECT.request_out(request, model="gpt-6", stream=stream, native=True)
    return msgspec.json.decode(body), [loss.field for loss in losses]


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + msgspec.json.encode({"type": kind, "sequence_number": 0, **fields})


def completed(**response: Any) -> bytes:
    return event("response.completed", response={"id": "r", "status": "completed", "output": [], **response})


def out() -> Any:
    return DIALECT.events_out(call_id="c1", model="asked-for", created=7, wants_usage=True)


def written(events: list[chat.Event]) -> list[dict[str, Any]]:
    wire = EventSplitter().feed(out().write(events))
    return [msgspec.json.decode(data_of(event) or b"") for event in wire]


def reread(wire: bytes) -> list[chat.Event]:
    events_in = DIALECT.events_in()
    return [event for wire_event in EventSplitter().feed(wire) for event in events_in.read(wire_event)]


# ---- what clients send ----


@pytest.mark.parametrize(
    ("prompt", "model"),
    [
        ({"id": "support/answer"}, "prompt:support/answer"),
        ({"id": "p", "version": "6"}, "prompt:p@v6"),
        ({"id": "p", "version": 6}, "prompt:p@v6"),
        ({"id": "p", "version": "v6"}, "prompt:p@v6"),
        ({"id": "p", "version": "staging"}, "prompt:p@staging"),
        ({"id": "p", "version": "123456"}, "prompt:p@123456"),
        ({"id": "p", "version": None}, "prompt:p"),
    ],
)
def test_a_stored_prompt_is_a_prompt_call(prompt: dict[str, Any], model: str) -> None:
    """Six digits and more begin a digest; fewer are a version's number."""
    assert parse(prompt=prompt).model == model


def test_variables_of_a_stored_prompt_may_be_input_parts() -> None:
    given = {
        "name": "Ada",
        "count": 3,
        "text": {"type": "input_text", "text": "hi"},
        "picture": {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
        "object": {"type": "customer", "id": 1},
    }
    assert parse(prompt={"id": "p", "variables": given}).variables == {
        "name": "Ada",
        "count": 3,
        "text": "hi",
        "picture": "https://example.com/a.png",
        "object": {"type": "customer", "id": 1},
    }


def test_a_prompt_by_its_model_name_has_its_variables_beside_it() -> None:
    incoming = parse(model="prompt:p", variables={"a": 1}, stream=True)
    assert (incoming.model, incoming.variables, incoming.stream) == ("prompt:p", {"a": 1}, True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": 1}, "model"),
        ({"model": "m", "stream": "yes"}, "stream"),
        ({"model": "m", "prompt": {"id": "p"}}, "model"),
        ({"prompt": {"id": "p"}, "variables": {}}, "variables"),
        ({"prompt": "p"}, "prompt"),
        ({"prompt": {"id": ""}}, "prompt.id"),
        ({"prompt": {"id": "p@v6"}}, "prompt.id"),
        ({"prompt": {"id": "p", "variables": {"f": {"type": "input_file", "file_id": "x"}}}}, "prompt.variables.f"),
        ({"prompt": {"id": "p", "variables": {"f": {"type": "input_text", "text": 1}}}}, "prompt.variables.f"),
    ],
)
def test_a_top_level_that_makes_no_sense_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b'{"model": "m", "input": "\xff"}', b'{"a":' * DEEP])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        DIALECT.parse_request(body)


def test_same_dialect_keeps_every_byte_that_need_not_change() -> None:
    body = (
        b'{ "input" : [ {"role":"user",  "content":"caf\\u00e9 1.0"} ], "model":"route", "temperature": 1.00,'
        b' "x_unknown": {"b":1, "a":[ ]}, "previous_response_id":"resp_0", "variables":{"a":1}, "stream":true }'
    )
    passed = DIALECT.same_body(DIALECT.parse_request(body), model="gpt-6", native=True)
    assert passed == (
        b'{"input":[ {"role":"user",  "content":"caf\\u00e9 1.0"} ],"model":"gpt-6","temperature":1.00,'
        b'"x_unknown":{"b":1, "a":[ ]},"previous_response_id":"resp_0","stream":true}'
    )


def test_a_prompt_object_never_goes_upstream() -> None:
    assert DIALECT.same_body(parse(prompt={"id": "p"}, input="x"), model="m", native=True) == (
        b'{"input":"x","model":"m"}'
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": 5, "content": "x"}]}, "input[0].role"),
        ({"input": ["x", {"role": "user", "content": [{"type": 3}]}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": 3}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 1}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "name": "f", "call_id": "c", "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": 3}]}, "input[0].output"),
        (
            {
                "input": [
                    {"type": "function_call_output", "call_id": "c", "output": [{"type": "refusal", "refusal": ""}]}
                ]
            },
            "input[0].output",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"id": "msg_1"}]}, "input[0].id"),
        ({"instructions": ["x"]}, "instructions"),
        ({"max_output_tokens": "5"}, "max_output_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "f", "parameters": "x"}]}, "tools[0].parameters"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.type"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"include": "x"}, "include"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_its_path(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        canonical(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("key", ["input", "tools", "text", "tool_choice", "reasoning"])
def test_depth_is_refused_and_never_a_crash(key: str) -> None:
    deep = b'[{"type":"function","name":"f","parameters":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}]"
    with pytest.raises(InvalidRequest):
        DIALECT.request_in(DIALECT.parse_request(b'{"model":"m","' + key.encode() + b'":' + deep + b"}"))


def test_a_reference_to_a_stored_item_says_what_to_do() -> None:
    with pytest.raises(InvalidRequest, match="send the item itself"):
        canonical(input=[{"type": "item_reference", "id": "msg_1"}])


def test_values_that_ask_for_what_happens_anyway_are_no_losses() -> None:
    request = canonical(
        input="x",
        store=False,
        background=False,
        truncation="disabled",
        service_tier="auto",
        metadata={},
        previous_response_id=None,
        stream_options={"include_obfuscation": False},
        include=["reasoning.encrypted_content"],
        text={"verbosity": "medium"},
    )
    assert request.losses == ()


def test_every_top_level_key_that_is_lost_is_named() -> None:
    """Also keys that nobody knows: a call of a prompt passes them on to a provider that may."""
    request = canonical(input="x", previous_response_id="r", conversation={"id": "c"}, foo=1, bar=2)
    assert [loss.field for loss in request.losses] == ["previous_response_id", "conversation", "foo", "bar"]


def test_one_kind_of_loss_is_said_once() -> None:
    request = canonical(input=[{"type": "web_search_call", "id": f"ws_{n}"} for n in range(1000)])
    assert [loss.field for loss in request.losses] == ["input[0]"]


def test_only_the_allowed_tools_are_left() -> None:
    tools: list[Any] = [{"type": "function", "name": name, "parameters": {}, "strict": None} for name in "ab"]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "a"}]}
    request = canonical(input="x", tools=tools, tool_choice=choice)
    assert [tool.name for tool in request.tools] == ["a"]
    assert request.tool_choice == chat.ToolChoice("auto")


def test_what_the_assistant_said_side_by_side_is_one_turn() -> None:
    request = canonical(
        input=[
            {"role": "assistant", "content": "a"},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
            {"role": "user", "content": "d"},
        ]
    )
    assert [(message.role, len(message.parts)) for message in request.messages] == [
        ("assistant", 3),
        ("user", 1),
        ("user", 1),
    ]


def test_what_shapes_an_answer_is_told_apart_from_the_conversation() -> None:
    def shaping(**fields: Any) -> bytes:
        return DIALECT.system_bytes(parse(model="m", **fields))

    same = shaping(input=[{"role": "system", "content": "S"}, {"role": "user", "content": "a"}], temperature=1)
    assert same == shaping(input=[{"role": "system", "content": "S"}, {"role": "user", "content": "b"}], temperature=1)
    assert same != shaping(input=[{"role": "system", "content": "T"}, {"role": "user", "content": "a"}], temperature=1)
    assert same != shaping(input=[{"role": "system", "content": "S"}, {"role": "user", "content": "a"}], temperature=0)
    assert shaping(input="a", instructions="I") != shaping(input="a")
    assert shaping(input="a", metadata={"a": "1"}) == shaping(input="b")


def test_the_record_keeps_the_input_as_it_came() -> None:
    assert DIALECT.input_text(DIALECT.parse_request(b'{"model":"m","input":[ 1 ]}')) == "[ 1 ]"
    assert DIALECT.input_text(parse(model="m")) == "[]"


# ---- what is sent to a provider ----


def test_what_the_wire_can_not_say_is_named() -> None:
    user = chat.Message("user", (chat.Text("x"), chat.Audio("AAAA", "wav"), chat.Refusal("no")), name="ada")
    result = chat.Message("tool", (chat.ToolResult("c", (chat.Text("t"),), is_error=True),))
    assistant = chat.Message("assistant", (chat.Image(url="https://example.com"), chat.Thinking("Hm.", "EqQ")))
    body, losses = wire_of(
        chat.Request(
            (user, assistant, result),
            top_k=4,
            stop=("END",),
            seed=1,
            presence_penalty=0.5,
            frequency_penalty=0.0,
            count=2,
            logprobs=3,
        ),
        stream=True,
    )
    assert losses == [
        *("top_k", "stop", "seed", "presence_penalty", "frequency_penalty", "count"),
        *("messages[0].name", "messages[0].parts[1]", "messages[0].parts[2]"),
        *("messages[1].parts[0]", "messages[1].parts[1]", "messages[2].parts[0].is_error"),
    ]
    assert [item["type"] for item in body["input"]] == ["message", "function_call_output"]
    assert body["input"][0]["content"] == "x"
    assert body["top_logprobs"] == 3


def test_nothing_is_stored_for_a_client_that_keeps_no_state() -> None:
    message = (chat.Message("user", (chat.Text("x"),)),)
    assert wire_of(chat.Request(message))[0]["store"] is False
    assert "store" not in wire_of(canonical(input="x"))[0]
    assert wire_of(canonical(input="x", store=False))[0]["store"] is False


def test_a_budget_of_reasoning_is_said_as_an_effort() -> None:
    assert wire_of(chat.Request((), reasoning_tokens=10_000))[0]["reasoning"] == {"effort": "high"}
    assert wire_of(chat.Request((), reasoning_tokens=0))[0]["reasoning"] == {"effort": "none"}
    assert wire_of(chat.Request((), reasoning_effort="low", reasoning_tokens=9))[0]["reasoning"] == {"effort": "low"}


def test_a_tool_that_is_not_strict_says_so() -> None:
    """Left out, strict means true on this wire only."""
    tools = (chat.Tool("f"), chat.Tool("g", strict=True))
    assert [tool["strict"] for tool in wire_of(chat.Request((), tools=tools))[0]["tools"]] == [False, True]


def test_a_file_without_a_name_gets_one() -> None:
    kinds = ("text/plain; charset=utf-8", "text/markdown", None, "application/x-own")
    message = chat.Message("user", tuple(chat.File(data="AA==", media_type=kind) for kind in kinds))
    names = [part["filename"] for part in wire_of(chat.Request((message,)))[0]["input"][0]["content"]]
    assert names == ["document.txt", "document.md", "document.pdf", "document"]


# ---- what a provider answers ----


def test_a_whole_answer_for_the_record() -> None:
    body = (GOLDEN / "text.answer.txt").read_text("utf-8").split("\n----------\n")[0].encode()
    assert DIALECT.read_answer(body) == Answer(
        text="In a peaceful grove beneath a silver moon",
        finish_reason="stop",
        model="gpt-6-2026-09-01",
        usage=Usage(36, 87, 12, 8, 64),
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"output": 5}',
        b'{"output": [5]}',
        b'{"output": [{"type": "message", "content": "x"}]}',
        b'{"output": [{"type": "function_call"}]}',
        b'{"output": ' + b"[" * DEEP,
        b'{"output": [], "error": {"code": "server_error", "message": "sk-secret"}}',
        b'{"output": [], "status": "failed"}',
        b'{"output": [], "status": "cancelled"}',
    ],
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    for read in (DIALECT.read_answer, DIALECT.answer_in):
        with pytest.raises(UpstreamProtocol) as caught:
            read(body)
        assert "secret" not in str(caught.value)


def test_the_name_of_a_provider_s_error_is_kept() -> None:
    with pytest.raises(UpstreamProtocol, match=r"inside: server_error$"):
        DIALECT.read_answer(b'{"output": [], "error": {"code": "server_error", "message": "m"}}')


def test_a_response_in_the_background_has_not_finished() -> None:
    body = msgspec.json.encode({"id": "r", "status": "queued", "output": [], "error": None})
    assert DIALECT.read_answer(body).finish_reason is None


def test_half_an_emoji_does_not_spoil_an_answer() -> None:
    body = (
        b'{"status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"ok \\ud83d"}]}]}'
    )
    assert DIALECT.read_answer(body).text == "ok \ufffd"


def test_tools_that_the_provider_ran_are_counted() -> None:
    output = [{"type": "web_search_call", "id": "w"}, {"type": "mcp_call", "id": "m"}, {"type": "mcp_list_tools"}]
    usage = {"input_tokens": 1, "output_tokens": 1}
    answer = DIALECT.read_answer(msgspec.json.encode({"output": output, "usage": usage}))
    assert answer.usage == Usage(1, 1, server_tool_requests=2)


def test_counts_below_nothing_are_nothing() -> None:
    usage = {"input_tokens": -1, "output_tokens": -5, "input_tokens_details": {"cached_tokens": -2}}
    assert DIALECT.read_answer(msgspec.json.encode({"output": [], "usage": usage})).usage == Usage()


@pytest.mark.parametrize(
    ("finish", "parts", "status", "reason"),
    [
        ("stop", (chat.Text("x"),), "completed", None),
        ("tool_calls", (chat.ToolCall("c", "f", "{}"),), "completed", None),
        ("length", (chat.Text("x"),), "incomplete", "max_output_tokens"),
        ("content_filter", (), "incomplete", "content_filter"),
        ("refusal", (chat.Refusal("no"),), "completed", None),
        ("refusal", (), "incomplete", "content_filter"),
        (None, (chat.Text("x"),), "completed", None),
    ],
)
def test_how_an_answer_ended(
    finish: chat.FinishReason | None, parts: tuple[chat.Part, ...], status: str, reason: str | None
) -> None:
    body = msgspec.json.decode(DIALECT.answer_out(chat.Response("r", "m", (chat.Choice(parts, finish),))))
    assert body["status"] == status
    assert body["incomplete_details"] == (None if reason is None else {"reason": reason})


# ---- streams that pass through ----


def test_a_stream_is_followed_to_its_end() -> None:
    reader = DIALECT.reader(wants_usage=True)
    text = (GOLDEN / "text.stream.txt").read_text("utf-8").split("\n----------\n")[0]
    seen = [(reader.read(event), reader.done) for event in EventSplitter().feed(text.encode() + b"\n\n")]
    assert all(event.show for event, _ in seen)
    assert [event.content for event, _ in seen[:5]] == [False, False, False, False, True]
    assert [done for _, done in seen] == [False] * 11 + [True]
    assert reader.finish() == Answer(
        text="Hi thére", finish_reason="stop", model="gpt-6-2026-09-01", usage=Usage(37, 11, 10, 0, 4)
    )
    assert DIALECT.end() == b""


def test_what_came_of_a_broken_stream_is_kept() -> None:
    reader = DIALECT.reader(wants_usage=True)
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    reader.read(event("response.created", response={"id": "r", "model": "m-1"}))
    reader.read(event("response.output_text.delta", delta="On"))
    reader.read(event("response.refusal.delta", delta="ce"))
    reader.read(event("response.output_item.added", output_index=1, item=item))
    assert not reader.done
    assert reader.finish() == Answer(text="Once", model="m-1", tool_calls=True)


def test_what_is_not_of_the_answer_is_shown_and_is_no_content() -> None:
    reader = DIALECT.reader(wants_usage=True)
    assert reader.read(event("keepalive")) == reader.read(event("response.queued"))
    assert reader.read(event("keepalive")).show
    assert not reader.read(event("keepalive")).content
    assert not reader.read(b": ping").show
    assert not reader.read(b"data: [DONE]").show


def test_an_event_of_a_new_type_passes_whatever_it_holds() -> None:
    """Its fields may be called as others and be something else."""
    strange = event("response.hologram.delta", delta={"x": 1}, item="i", code=7)
    assert DIALECT.reader(wants_usage=True).read(strange).show
    assert DIALECT.events_in().read(strange) == ()


@pytest.mark.parametrize(
    ("wire", "name"),
    [
        (event("error", error={"type": "insufficient_quota", "code": "insufficient_quota", "message": "sk-1"}), True),
        (event("error", code="insufficient_quota", message="sk-1", param=None), True),
        (event("error", error={"type": "insufficient_quota", "code": None, "message": "sk-1"}), True),
        (event("error", code=5, message="sk-1"), False),
        (event("error", code="sk-1 is not a key", message="sk-1"), False),
        (event("response.failed", response={"error": {"code": "insufficient_quota", "message": "sk-1"}}), True),
        (event("response.failed", response={}), False),
        (b'data: {"error": {"type": "insufficient_quota", "message": "sk-1"}}', True),
    ],
)
def test_an_error_inside_a_stream_is_an_upstream_s(wire: bytes, name: bool) -> None:
    for read in (DIALECT.reader(wants_usage=True).read, DIALECT.events_in().read):
        with pytest.raises(UpstreamProtocol) as caught:
            read(wire)
        assert str(caught.value).endswith(": insufficient_quota") is name
        assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize(
    "wire",
    [
        b"data: nonsense",
        b"data: []",
        b'data: {"type": 5}',
        b'data: {"type": "response.output_text.delta", "delta": 5}',
        b'data: {"type": "response.completed", "response": 5}',
        b'data: {"type": "response.output_item.added", "item": []}',
        b'data: {"a": ' + b"[" * DEEP,
        event("response.function_call_arguments.delta", output_index=3, delta="{"),
    ],
)
def test_garbage_inside_a_stream_is_an_upstream_s(wire: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        DIALECT.events_in().read(wire)


# ---- streams that are read and written ----


def test_a_stream_that_is_cut_is_never_finished() -> None:
    text = (GOLDEN / "text.stream.txt").read_text("utf-8").split("\n----------\n")[0]
    events = reread(b"\n\n".join(EventSplitter().feed(text.encode() + b"\n\n")[:-1]) + b"\n\n")
    assert not any(isinstance(event, chat.Finished | chat.Ended) for event in events)
    kinds = {wire["type"] for wire in written(events)}
    assert not kinds & {"response.completed", "response.incomplete", "response.output_item.done"}


@given(places=st.lists(st.integers(0, 5000), max_size=30))
def test_any_cut_gives_the_same_events(places: list[int]) -> None:
    text = (GOLDEN / "reasoning-and-tools.stream.txt").read_text("utf-8").split("\n----------\n")[0].encode() + b"\n\n"
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    splitter, events_in = EventSplitter(), DIALECT.events_in()
    read = [
        event
        for start, end in pairwise(edges)
        for wire in splitter.feed(text[start:end])
        for event in events_in.read(wire)
    ]
    assert read == reread(text)


def test_events_are_numbered_named_and_end_without_done() -> None:
    wire = out().write([chat.TextDelta("a"), chat.Finished("stop"), chat.Ended()])
    events = EventSplitter().feed(wire)
    read = [msgspec.json.decode(data_of(event) or b"") for event in events]
    assert [event["sequence_number"] for event in read] == list(range(len(read)))
    assert all(wire.startswith(f"event: {event['type']}\n".encode()) for wire, event in zip(events, read, strict=True))
    assert read[0]["response"]["id"] == "resp_c1"
    assert read[0]["response"]["model"] == "asked-for"
    assert b"[DONE]" not in wire


def test_the_provider_s_id_and_model_win() -> None:
    first = written([chat.Started("msg_9", "claude")])[0]["response"]
    assert (first["id"], first["model"], first["created_at"]) == ("msg_9", "claude", 7)


def test_usage_told_first_is_in_the_last_event() -> None:
    events = written([chat.Started("i", "m", usage=Usage(5, 1)), chat.Finished("stop"), chat.Ended()])
    assert [event["response"]["usage"] for event in events[:2]] == [None, None]
    assert events[-1]["response"]["usage"]["total_tokens"] == 6


def test_a_second_choice_and_empty_deltas_write_nothing() -> None:
    events: list[chat.Event] = [
        chat.Started("i", "m"),
        chat.TextDelta("b", choice=1),
        chat.TextDelta(""),
        chat.ThinkingDelta(),
        chat.ToolCallDelta(0, "{}"),
    ]
    assert [event["type"] for event in written(events)] == ["response.created", "response.in_progress"]


def test_words_and_a_refusal_are_two_parts_of_one_message() -> None:
    events: list[chat.Event] = [chat.TextDelta("a"), chat.RefusalDelta("b"), chat.Finished("stop"), chat.Ended()]
    output = written(events)[-1]["response"]["output"]
    assert [part["type"] for part in output[0]["content"]] == ["output_text", "refusal"]
    assert len(output) == 1


def test_a_signature_closes_its_reasoning() -> None:
    thoughts: list[chat.Event] = [
        chat.ThinkingDelta("a"),
        chat.ThinkingDelta(signature="s1"),
        chat.ThinkingDelta("b", "s2"),
    ]
    output = written([*thoughts, chat.Finished("stop"), chat.Ended()])[-1]["response"]["output"]
    assert [item["encrypted_content"] for item in output] == ["signature:s1", "signature:s2"]


def test_an_error_event_is_found_where_it_is_documented_and_where_sdks_look() -> None:
    wire = DIALECT.error_event(StreamBroken("it broke"), call_id="c1")
    assert wire.startswith(b"event: error\ndata: ")
    assert wire.endswith(b"}\n\n")
    read = msgspec.json.decode(data_of(wire.rstrip(b"\n")) or b"")
    assert (read["type"], read["code"], read["message"], read["param"]) == ("error", "stream_broken", "it broke", None)
    assert read["error"]["message"] == "it broke"
    assert read["error"]["call_id"] == "c1"


def test_an_error_has_openai_s_shape() -> None:
    body = msgspec.json.decode(DIALECT.error_body(UnknownModel("no such route", param="model")))
    assert body == {
        "error": {
            "message": "no such route",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_where_and_with_what_a_provider_is_asked() -> None:
    assert DIALECT.path("m", stream=True) == "/responses"
    assert DIALECT.credential("sk-1") == ("authorization", "Bearer sk-1")


# ---- nothing is lost on the way out and in again ----

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
ids = st.text("abcdefghij_0123456789", min_size=1, max_size=8)
texts = st.builds(chat.Text, words)
images = st.one_of(
    st.builds(chat.Image, url=st.just("https://example.com/a.png"), detail=st.sampled_from([None, "low", "high"])),
    st.builds(chat.Image, data=st.just("iVBORw0="), media_type=st.just("image/png")),
)
files = st.one_of(
    st.builds(chat.File, id=ids),
    st.builds(chat.File, url=st.just("https://example.com/a.pdf")),
    st.builds(chat.File, data=st.just("JVBERi0="), media_type=st.just("application/pdf"), name=words),
)
said = st.lists(st.one_of(texts, images, files), min_size=1, max_size=4).map(tuple)
sealed = st.builds(lambda item, blob: f"openai_responses:rs_{item}:{blob}", ids, ids)
thoughts = st.one_of(st.builds(chat.Thinking, words, sealed), st.builds(chat.Thinking, redacted=sealed))
calls = st.builds(chat.ToolCall, ids, ids, words)
turns = st.lists(st.one_of(texts, thoughts, calls), min_size=1, max_size=5).map(tuple)
results = said.map(lambda parts: chat.Message("tool", (chat.ToolResult("call_1", parts),)))
others = st.one_of(
    st.builds(chat.Message, st.sampled_from(["system", "developer", "user"]), said),
    results,
)
conversations = st.lists(
    st.tuples(st.one_of(st.none(), st.builds(chat.Message, st.just("assistant"), turns)), others), max_size=4
).map(lambda pairs: tuple(message for pair in pairs for message in pair if message is not None))
schemas = st.fixed_dictionaries({"type": st.just("object"), "title": words})
requests = st.builds(
    chat.Request,
    messages=conversations,
    tools=st.lists(st.builds(chat.Tool, ids, words, schemas, st.booleans()), max_size=3).map(tuple),
    tool_choice=st.one_of(
        st.none(),
        st.builds(chat.ToolChoice, st.sampled_from(["auto", "none", "required"])),
        st.builds(chat.ToolChoice, st.just("tool"), ids),
    ),
    parallel_tool_calls=st.one_of(st.none(), st.booleans()),
    format=st.one_of(
        st.none(),
        st.builds(chat.Format, st.sampled_from(["text", "json"])),
        st.builds(chat.Format, st.just("schema"), schemas, ids, st.one_of(st.none(), st.booleans())),
    ),
    max_output_tokens=st.one_of(st.none(), st.integers(1, 10_000)),
    temperature=st.one_of(st.none(), st.floats(0, 2)),
    top_p=st.one_of(st.none(), st.floats(0, 1)),
    logprobs=st.one_of(st.none(), st.integers(0, 20)),
    reasoning_effort=st.sampled_from([None, "none", "low", "high"]),
    user=st.one_of(st.none(), ids),
    store=st.booleans(),
)


@given(requests)
def test_a_canonical_request_survives_the_wire(request: chat.Request) -> None:
    body, losses = DIALECT.request_out(request, model="m", stream=False, native=True)
    assert losses == []
    assert DIALECT.request_in(DIALECT.parse_request(body)) == request


answered = st.lists(st.one_of(texts, calls, st.builds(chat.Thinking, words, ids)), min_size=1, max_size=5)


@given(
    parts=answered.map(tuple),
    usage=st.builds(Usage, *[st.integers(0, 10**9)] * 5),
    finish=st.sampled_from(["stop", "length", "content_filter"]),
)
def test_a_canonical_answer_survives_the_wire(
    parts: tuple[chat.Part, ...], usage: Usage, finish: chat.FinishReason
) -> None:
    if finish == "stop" and any(isinstance(part, chat.ToolCall) for part in parts):
        finish = "tool_calls"
    response = chat.Response("r_1", "m", (chat.Choice(parts, finish),), usage, created=7)
    assert DIALECT.answer_in(DIALECT.answer_out(response)) == response


def summed(events: list[chat.Event]) -> tuple[Any, ...]:
    """What a stream says, however it is cut into deltas."""
    said: list[tuple[str, str]] = []
    calls: dict[int, tuple[str, str, str]] = {}
    for event in events:
        match event:
            case chat.TextDelta() | chat.RefusalDelta():
                said.append((type(event).__name__, event.text))
            case chat.ThinkingDelta():
                thought = [("thinking", event.text), ("signature", event.signature or "")]
                said += [(kind, text) for kind, text in thought if text]
            case chat.ToolCallStarted():
                calls[event.index] = (event.id, event.name, "")
            case chat.ToolCallDelta():
                identity, name, text = calls[event.index]
                calls[event.index] = (identity, name, text + event.arguments)
            case _:
                pass
    return said, calls, [event for event in events if isinstance(event, chat.UsageReported)], events[-1]


@given(
    st.lists(
        st.one_of(
            st.builds(chat.TextDelta, words),
            st.builds(chat.RefusalDelta, words),
            st.builds(chat.ThinkingDelta, words, ids),
        ),
        max_size=6,
    ),
    st.lists(st.tuples(ids, ids, st.lists(words, max_size=3)), max_size=3),
)
def test_canonical_events_survive_the_wire(spoken: list[chat.Event], called: list[tuple[str, str, list[str]]]) -> None:
    events: list[chat.Event] = [chat.Started("r", "m"), *spoken]
    for index, (identity, name, _) in enumerate(called):
        events.append(chat.ToolCallStarted(index, identity, name))
    for index, (_, _, arguments) in enumerate(called):
        events += [chat.ToolCallDelta(index, piece) for piece in arguments]
    events += [chat.Finished("stop"), chat.UsageReported(Usage(3, 2)), chat.Ended()]
    assert summed(reread(out().write(events))) == summed(events)
