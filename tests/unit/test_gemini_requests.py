"""Gemini's requests at their edges: what is refused and where, what is lost, and how tools and thoughts travel."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest
from tidegate.dialects.dialect import Incoming
from tidegate.dialects.gemini import DIALECT, signatures

HI = {"contents": [{"parts": [{"text": "Hi"}]}]}
USER = chat.Message("user", (chat.Text("Hi"),))


def parse(body: Any, *, model: str = "m", stream: bool = False) -> Incoming:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return DIALECT.parse_request(raw, model=model, stream=stream)


def read(body: Any) -> chat.Request:
    return DIALECT.request_in(parse(body))


def write(request: chat.Request, *, model: str = "gemini-3-flash", stream: bool = False) -> tuple[Any, list[str]]:
    body, losses = DIALECT.request_out(request, model=model, stream=stream, native=True)
    return json.loads(body), [loss.field for loss in losses]


def asks(*messages: chat.Message, **fields: Any) -> chat.Request:
    return chat.Request(messages=messages or (USER,), **fields)


# --- passed through -----------------------------------------------------------------------------------------------


def test_a_request_passes_through_but_for_its_model_and_our_own_keys() -> None:
    body = b'{"model":"models/evil","contents":[ {"parts":[{"text":"caf\\u00e9"}]} ],"variables":{"a":1},"x_y": 1.50}'
    incoming = parse(body, model="models/prompt:a/b@v3", stream=True)
    assert (incoming.model, incoming.stream, incoming.variables) == ("prompt:a/b@v3", True, {"a": 1})
    passed = DIALECT.same_body(incoming, model="g", native=True)
    assert passed == b'{"contents":[ {"parts":[{"text":"caf\\u00e9"}]} ],"x_y":1.50}'


def test_a_model_only_counts_in_the_url() -> None:
    with pytest.raises(InvalidRequest, match="URL names no model"):
        DIALECT.parse_request(b'{"model": "x"}')


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("gemini-2.5-flash", False, "/models/gemini-2.5-flash:generateContent"),
        ("models/gemini-3", True, "/models/gemini-3:streamGenerateContent?alt=sse"),
        ("../../x?key=1#", False, "/models/..%2F..%2Fx%3Fkey%3D1%23:generateContent"),
    ],
)
def test_a_models_name_can_not_leave_its_place_in_the_path(model: str, stream: bool, path: str) -> None:
    assert DIALECT.path(model, stream=stream) == path


def test_the_record_gets_the_conversation_without_its_data() -> None:
    data = "A" * 1_000
    body = {
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": data}}]}],
    }
    system, user = json.loads(DIALECT.input_text(parse(body)))
    assert system == {"role": "system", "content": {"parts": [{"text": "Be brief."}]}}
    assert user["parts"][0]["inlineData"]["data"] == "[1,000 characters left out]"


def test_what_shapes_the_answer_is_told_from_the_conversation() -> None:
    shaped = {"generationConfig": {"temperature": 1}, "systemInstruction": {"parts": []}}
    one, two = parse({**HI, **shaped}), parse({"contents": [], **shaped, "labels": {"a": "b"}})
    assert DIALECT.system_bytes(one) == DIALECT.system_bytes(two)
    assert DIALECT.system_bytes(one) != DIALECT.system_bytes(parse(HI))


# --- read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"contents": "x"}, "contents"),
        ({"contents": [{"role": "wizard"}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": 3}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{"inline_data": {"mime_type": 3}}]}]}, "contents[0].parts[0].inlineData.mimeType"),
        ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"generation_config": {"stop_sequences": "x"}}, "generationConfig.stopSequences"),
        ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseMimeType"),
        ({"generationConfig": {"responseSchema": "x"}}, "generationConfig.responseSchema"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"functionDeclarations": [{"description": "x"}]}]}, "tools[0].functionDeclarations[0]"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}, "toolConfig.functionCallingConfig.mode"),
        (
            {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {}}}]}]},
            "contents[0].parts[0].functionResponse.name",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(body)
    assert refused.value.param == param


@pytest.mark.parametrize("depth", [500, 2_000, 100_000])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"contents":', b"}"),
        (b'{"contents":[{"parts":[{"functionCall":{"name":"f","args":{"a_b":', b"}}}]}]}"),
        (b'{"generationConfig":{"responseSchema":{"items":', b"}}}"),
        (b'{"tools":[{"functionDeclarations":[{"name":"f","parameters":', b"}]}]}"),
    ],
)
def test_no_depth_of_nesting_is_a_crash(before: bytes, after: bytes, depth: int) -> None:
    for opened, closed in ((b"[", b"]"), (b'{"items":', b"}")):
        body = before + opened * depth + b"1" + closed * depth + after
        with suppress(InvalidRequest):
            DIALECT.request_out(read(body), model="m", stream=False, native=True)


def test_results_find_their_calls_by_id_and_else_by_name_in_order() -> None:
    calls = [{"name": "a"}, {"name": "b"}, {"name": "a"}, {"name": "a", "id": "mine"}]
    given = [
        {"name": "b", "response": {"n": 1}},
        {"name": "a", "id": "mine", "response": {"n": 2}},
        {"name": "a", "response": {"n": 3}},
        {"name": "a", "response": {"n": 4}},
    ]
    request = read(
        {
            "contents": [
                {"role": "model", "parts": [{"functionCall": call} for call in calls]},
                {"role": "user", "parts": [{"functionResponse": response} for response in given]},
            ]
        }
    )
    asked = [part.id for part in request.messages[0].parts if isinstance(part, chat.ToolCall)]
    assert asked == ["gemini_call_0", "gemini_call_1", "gemini_call_2", "mine"]
    results = [part for message in request.messages[1:] for part in message.parts if isinstance(part, chat.ToolResult)]
    assert [result.id for result in results] == ["gemini_call_1", "mine", "gemini_call_0", "gemini_call_2"]
    # Back on the wire they stand in the order of their calls, and only an id that Gemini gave is told.
    written, _ = write(request)
    responses = [part["functionResponse"] for part in written["contents"][1]["parts"]]
    assert [(response["name"], response.get("id"), response["response"]["n"]) for response in responses] == [
        ("a", None, 3),
        ("b", None, 1),
        ("a", None, 4),
        ("a", "mine", 2),
    ]


@pytest.mark.parametrize(
    ("response", "text", "failed"),
    [
        ({"output": "yes"}, "yes", False),
        ({"result": "yes"}, "yes", False),
        ({"error": "no"}, "no", True),
        ({"error": {"code": 3}}, '{"error": {"code": 3}}', True),
        ({"output": 3}, '{"output": 3}', False),
        ({"a": "b"}, '{"a": "b"}', False),
        (None, "", False),
    ],
)
def test_what_a_function_gave_back_is_text(response: Any, text: str, failed: bool) -> None:
    request = read(
        {
            "contents": [
                {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
                {"parts": [{"functionResponse": {"name": "f", "response": response}}]},
            ]
        }
    )
    result = request.messages[1].parts[0]
    assert isinstance(result, chat.ToolResult)
    assert (result.parts, result.is_error) == ((chat.Text(text),), failed)


def test_a_turn_that_an_sdk_kept_event_by_event_is_one_turn() -> None:
    pieces: list[Any] = [
        [{"text": "h", "thought": True}],
        [{"text": "m", "thought": True}],
        [{"text": "Hel"}],
        [{"text": "lo"}],
        [{"functionCall": {"name": "f"}, "thoughtSignature": "abcd"}],
        [{"text": ""}],
    ]
    contents = [{"role": "model", "parts": parts} for parts in pieces]
    [turn] = read({"contents": contents}).messages
    assert turn.parts == (
        chat.Thinking("hm"),
        chat.Text("Hello"),
        chat.Thinking(signature="gemini:abcd"),
        chat.ToolCall("gemini_call_0", "f", "{}"),
    )


# --- written ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "effort", "tokens", "thinking"),
    [
        ("gemini-3-flash", "minimal", None, {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-3-flash", "max", None, {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-3-flash", "high", 99, {"thinkingBudget": 99, "includeThoughts": True}),
        ("gemini-3-flash", "none", None, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "low", None, {"thinkingBudget": 2_048, "includeThoughts": True}),
        ("gemini-2.5-pro", "max", None, {"thinkingBudget": 24_576, "includeThoughts": True}),
        ("gemini-2.5-pro", None, 0, {"thinkingBudget": 0}),
    ],
)
def test_thinking_is_a_level_or_a_budget_and_never_both(
    model: str, effort: str | None, tokens: int | None, thinking: Any
) -> None:
    body, losses = write(asks(reasoning_effort=effort, reasoning_tokens=tokens), model=model)
    assert (body["generationConfig"]["thinkingConfig"], losses) == (thinking, [])


def test_an_unknown_effort_is_a_loss() -> None:
    body, losses = write(asks(reasoning_effort="heroic"))
    assert (body.get("generationConfig"), losses) == (None, ["reasoning_effort"])


@pytest.mark.parametrize(
    ("request_", "lost"),
    [
        (asks(user="u"), ["user"]),
        (asks(parallel_tool_calls=False), ["parallel_tool_calls"]),
        (asks(parallel_tool_calls=True), []),
        (asks(chat.Message("user", (chat.Text("Hi"),), "ann")), ["messages[0].name"]),
        (asks(USER, chat.Message("system", (chat.Text("x"),))), ["messages[1]"]),
        (asks(chat.Message("system", (chat.Text("x"),))), ["messages"]),
        (asks(chat.Message("system", (chat.Image(data="x"),)), USER), ["messages[0]"]),
        (asks(USER, chat.Message("assistant", ())), ["messages[1]"]),
        (asks(USER, chat.Message("assistant", (chat.File(data="x"), chat.Text("y")))), ["messages[1]"]),
        (asks(USER, chat.Message("assistant", (chat.Thinking("t", "theirs"),))), ["messages[1]"]),
        (asks(USER, chat.Message("assistant", (chat.Thinking(redacted="r"), chat.Text("y")))), ["messages[1]"]),
        (asks(chat.Message("user", (chat.Text("a"), chat.File(id="file-1")))), ["messages[0].content[1]"]),
        (asks(chat.Message("user", (chat.File(data="x", name="a.pdf"),))), ["messages[0].content[0].name"]),
        (asks(chat.Message("user", (chat.Image(url="u", detail="high"),))), ["messages[0].content[0].detail"]),
    ],
)
def test_what_gemini_can_not_say_is_a_loss(request_: chat.Request, lost: list[str]) -> None:
    assert write(request_)[1] == lost


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (chat.Image(url="https://a.example/b/Cat.WEBP?size=2#top"), "image/webp"),
        (chat.Image(url="https://a.example/b.c/cat"), "image/png"),
        (chat.Image(url="https://a.example/cat.webp", media_type="image/jpeg"), "image/jpeg"),
        (chat.File(url="https://a.example/call.wav"), "audio/wav"),
        (chat.File(url="https://a.example/7", name="notes.md"), "text/markdown"),
        (chat.File(url="https://a.example/7"), None),
    ],
)
def test_a_name_tells_the_media_type_the_same_on_every_machine(part: chat.Part, told: str | None) -> None:
    """Not so Python's `mimetypes`, which reads /etc/mime.types."""
    (sent,) = write(asks(chat.Message("user", (part,))))[0]["contents"][0]["parts"]
    assert sent["fileData"].get("mimeType") == told


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_asked_for(stream: bool) -> None:
    body, losses = write(asks(logprobs=2), stream=stream)
    assert (body["generationConfig"], losses) == ({"responseLogprobs": True, "logprobs": 2}, [])


def test_a_conversation_that_says_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least one message"):
        write(asks(chat.Message("user", ())))


def called(arguments: str = "{}", *, before: tuple[chat.Part, ...] = ()) -> chat.Request:
    return asks(USER, chat.Message("assistant", (*before, chat.ToolCall("call_1", "f", arguments))))


def test_a_result_of_no_call_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidRequest) as refused:
        write(asks(USER, chat.Message("tool", (chat.ToolResult("nobody", (chat.Text("x"),)),))))
    assert refused.value.param == "messages[1].tool_call_id"


@pytest.mark.parametrize(
    ("said", "response"),
    [
        ("yes", {"output": "yes"}),
        ('{"a": 1.50}', {"a": 1.5}),
        ('{"output": "x"}', {"output": '{"output": "x"}'}),
        ("[1]", {"output": "[1]"}),
        ("", {"output": ""}),
    ],
)
def test_a_result_is_sent_as_an_object(said: str, response: Any) -> None:
    request = called()
    result = chat.Message("tool", (chat.ToolResult("call_1", (chat.Text(said),)),))
    body, _ = write(asks(*request.messages, result))
    assert body["contents"][2]["parts"][0]["functionResponse"] == {"id": "call_1", "name": "f", "response": response}


def test_arguments_that_are_no_object_are_sent_inside_one() -> None:
    body, losses = write(called('{"half": '))
    assert body["contents"][1]["parts"][0]["functionCall"]["args"] == {"INVALID_JSON": '{"half": '}
    assert losses == ["messages[1]"]


@pytest.mark.parametrize(
    ("model", "before", "signature"),
    [
        ("gemini-3-pro", (), signatures.NONE),
        ("gemini-2.5-pro", (), None),
        ("gemini-3-pro", (chat.Thinking("t", "gemini:abcd"),), "abcd"),
        ("gemini-3-pro", (chat.Thinking(signature="gemini:abcd"), chat.Text("I look.")), signatures.NONE),
    ],
)
def test_a_call_carries_its_signature_or_that_there_is_none(
    model: str, before: tuple[chat.Part, ...], signature: str | None
) -> None:
    body, losses = write(called(before=before), model=model)
    assert body["contents"][1]["parts"][-1].get("thoughtSignature") == signature
    assert losses == []


def test_that_there_is_no_signature_is_not_taken_for_one() -> None:
    body, _ = write(called())
    assert not [part for part in read(body).messages[1].parts if isinstance(part, chat.Thinking)]


@pytest.mark.parametrize(
    "thought",
    [
        chat.Thinking("hm", "EqQBCk+/="),
        chat.Thinking(signature="EqQBCk"),
        chat.Thinking(redacted="EmwK"),
        chat.Thinking("hm"),
        chat.Thinking(signature="gemini:abcd"),
    ],
)
def test_a_client_brings_every_providers_thoughts_back_as_they_were(thought: chat.Thinking) -> None:
    said: tuple[chat.Part, ...] = (thought, chat.Text("So."))
    answer = json.loads(DIALECT.answer_out(chat.Response("r", "m", (chat.Choice(said, "stop"),))))
    content = answer["candidates"][0]["content"]
    assert read({"contents": [content]}).messages[0].parts == said


def test_the_users_own_keys_and_their_bytes_are_not_googles_to_rename() -> None:
    """Snake case in arguments and results stays as it came, spaces included, also where Google's own keys are snake."""
    body = (
        b'{"system_instruction": {"parts": [{"text": "s"}]}, "contents": [{"role": "model", "parts": [{"function_call":'
        b' {"id": "c", "name": "f", "args": {"a__": null, "b_c":  [1]}}}]}, {"parts": [{"function_response":'
        b' {"id": "c", "name": "f", "response": {"d_e":  1}}}]}]}'
    )
    request = read(body)
    assert [part for message in request.messages for part in message.parts] == [
        chat.Text("s"),
        chat.ToolCall("c", "f", '{"a__": null, "b_c":  [1]}'),
        chat.ToolResult("c", (chat.Text('{"d_e":  1}'),)),
    ]


# --- there and back -----------------------------------------------------------------------------------------------

words = st.text(min_size=1, max_size=20)
names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words, lambda inner: st.lists(inner, max_size=3)
)
objects = st.dictionaries(words, values, max_size=3).map(json.dumps)
media = (
    st.builds(chat.Image, data=st.just("aGk="), media_type=st.sampled_from(["image/png", "image/webp"]))
    | st.builds(chat.Image, url=words.map("https://a/".__add__), media_type=st.just("image/png"))
    | st.builds(chat.File, data=st.just("aGk="), media_type=st.sampled_from(["application/pdf", "text/plain"]))
    | st.builds(chat.File, url=words.map("https://a/".__add__), media_type=st.just("application/pdf"))
    | st.builds(chat.Audio, data=st.just("aGk="), format=st.sampled_from(["wav", "mp3", "flac"]))
)
users = st.lists(words.map(chat.Text) | media, min_size=1, max_size=3).map(lambda parts: [("user", parts)])


@st.composite
def turns_with_tools(draw: st.DrawFn) -> list[tuple[Any, list[Any]]]:
    ids = draw(st.lists(names.map("id_".__add__), min_size=1, max_size=3, unique=True))
    calls = [chat.ToolCall(id_, draw(names), draw(objects)) for id_ in ids]
    before: list[chat.Part] = [chat.Thinking(signature="gemini:c2ln")] if draw(st.booleans()) else []
    results = [chat.ToolResult(id_, (chat.Text(draw(words)),), draw(st.booleans())) for id_ in ids]
    return [("assistant", [*before, *calls]), *(("tool", [result]) for result in results)]


said = words.map(lambda text: [("assistant", [chat.Text(text)])])


@given(
    st.lists(users | said | turns_with_tools(), min_size=1, max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0, 1),
            "top_k": st.integers(1, 40),
            "stop": st.lists(words, min_size=1, max_size=3).map(tuple),
            "seed": st.integers(0, 2**31),
            "count": st.integers(1, 4),
            "logprobs": st.integers(0, 5),
            "max_output_tokens": st.integers(1, 9_999),
            "reasoning_effort": st.sampled_from(["minimal", "low", "medium", "high"]),
            "format": st.sampled_from([chat.Format("json"), chat.Format("schema", {"type": "object"})]),
            "tools": st.lists(st.builds(chat.Tool, names, words), min_size=1, max_size=2).map(tuple),
            "tool_choice": st.sampled_from([chat.ToolChoice("auto"), chat.ToolChoice("tool", "f")]),
        },
    ),
)
def test_what_is_written_without_a_loss_is_read_back_the_same(turns: Any, fields: dict[str, Any]) -> None:
    messages = tuple(chat.Message(role, tuple(parts)) for turn in turns for role, parts in turn)
    seen: set[str] = set()
    for message in messages:
        for part in message.parts:
            if isinstance(part, chat.ToolCall):
                if part.id in seen:
                    return
                seen.add(part.id)
    if any(one.role == two.role == "assistant" for one, two in pairwise(messages)):
        return  # Gemini's own clients part one turn so: it is read as one
    request = chat.Request(messages, **fields)
    body, losses = DIALECT.request_out(request, model="gemini-3", stream=False, native=True)
    if not losses:
        assert read(body) == request
