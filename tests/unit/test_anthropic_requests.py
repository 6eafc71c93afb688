"""Anthropic requests beyond the golden ones: bytes that pass through, wrong input, and what the wire can not say."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest
from tidegate.dialects.anthropic import DIALECT

HI = (chat.Message("user", (chat.Text("hi"),)),)
NEWER, OLDER = "claude-opus-4-8", "claude-sonnet-4-5-20250929"


def parse(**body: Any) -> chat.Request:
    body = {"model": NEWER, "messages": [{"role": "user", "content": "hi"}], **body}
    return DIALECT.request_in(DIALECT.parse_request(json.dumps(body).encode()))


def write(request: chat.Request, model: str = NEWER) -> tuple[dict[str, Any], dict[str, str]]:
    """(body, losses by field)"""
    body, losses = DIALECT.request_out(request, model=model, stream=False, native=True)
    return json.loads(body), {loss.field: loss.why for loss in losses}


def asked(*, model: str = NEWER, **more: Any) -> tuple[dict[str, Any], dict[str, str]]:
    return write(chat.Request(**{"messages": HI, "max_output_tokens": 4_000, **more}), model)


def test_the_same_dialect_keeps_every_byte_but_the_model() -> None:
    body = (
        b'{"model": "support", "max_tokens":1,"messages" : [ {"role":"user", "content":"\\u00e9 \xc3\xa9"} ],'
        b'"variables":{"a":1},"mine":{"b":1.50},"stream":true}'
    )
    incoming = DIALECT.parse_request(body)
    assert incoming.stream
    assert incoming.wants_usage
    assert incoming.variables == {"a": 1}
    assert DIALECT.same_body(incoming, model="claude-x", native=True) == (
        b'{"model":"claude-x","max_tokens":1,"messages":[ {"role":"user", "content":"\\u00e9 \xc3\xa9"} ],'
        b'"mine":{"b":1.50},"stream":true}'
    )


def test_it_stands_at_v1_messages_with_its_own_headers() -> None:
    assert DIALECT.path(NEWER, stream=True) == "/v1/messages"
    assert DIALECT.credential("sk-ant-x") == ("x-api-key", "sk-ant-x")
    assert DIALECT.headers == (("anthropic-version", "2023-06-01"),)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": 1}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].source"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}]},
            "messages[0].content[0].source.data",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "disk"}}]}]},
            "messages[0].content[0].source.type",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "input": {}}]}]},
            "messages[0].content[0].name",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": 3}]}]},
            "messages[0].content[0].content",
        ),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "a", "input_schema": []}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"thinking": {"budget_tokens": 5}}, "thinking"),
        ({"metadata": {"user_id": 7}}, "metadata.user_id"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        parse(**body)
    assert error.value.param == param


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"x"', b"{", b"\xff", b'{"messages":[]}', b'{"model":""}', b'{"model":1}']
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        DIALECT.parse_request(body)


@pytest.mark.parametrize(
    "content",
    [
        b'[{"type":"tool_result","tool_use_id":"a","content":%s}]' % (b"[" * 100_000 + b"]" * 100_000),
        b'[{"type":"image","source":%s}]' % (b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        b'"\\ud800"',
    ],
)
def test_a_deep_or_broken_body_is_refused_and_nothing_more(content: bytes) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":%s}]}' % content
    with pytest.raises(InvalidRequest):
        DIALECT.request_in(DIALECT.parse_request(body))


def test_a_prompt_call_needs_no_messages() -> None:
    incoming = DIALECT.parse_request(b'{"model":"prompt:support","variables":{"q":"x"}}')
    assert DIALECT.request_in(incoming).messages == ()


def test_the_record_has_the_system_text_first() -> None:
    incoming = DIALECT.parse_request(b'{"model":"m","system":"S","messages":[ {"role":"user","content":"hi"}]}')
    assert json.loads(DIALECT.input_text(incoming)) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "hi"},
    ]
    assert json.loads(DIALECT.input_text(DIALECT.parse_request(b'{"model":"m","system":"S"}'))) == [
        {"role": "system", "content": "S"}
    ]
    assert DIALECT.input_text(DIALECT.parse_request(b'{"model":"m"}')) == "[]"


def test_system_bytes_are_the_same_whatever_the_user_says_and_differ_with_all_else() -> None:
    def of(**more: Any) -> bytes:
        return DIALECT.system_bytes(DIALECT.parse_request(json.dumps({"model": "m", "system": "S", **more}).encode()))

    base = of(messages=[{"role": "user", "content": "a"}])
    assert base == of(messages=[{"role": "user", "content": "b"}], stream=True, metadata={"user_id": "u"})
    others = [
        of(system="T"),
        of(tools=[{"name": "a"}]),
        of(temperature=0.1),
        of(messages=[{"role": "system", "content": "be kind"}, {"role": "user", "content": "a"}]),
    ]
    assert len({base, *others}) == 5


def test_what_stands_around_a_tool_result_keeps_its_place() -> None:
    text, result = {"type": "text", "text": "a"}, {"type": "tool_result", "tool_use_id": "t", "content": "1"}
    messages = parse(messages=[{"role": "user", "content": [text, result, result, text]}]).messages
    assert [message.role for message in messages] == ["user", "tool", "tool", "user"]
    assert [len(message.parts) for message in messages] == [1, 1, 1, 1]


def test_the_older_name_of_the_output_format_is_read() -> None:
    assert parse(output_format={"type": "json_schema", "schema": {"type": "object"}}).format == chat.Format(
        "schema", {"type": "object"}, strict=True
    )


@pytest.mark.parametrize(
    ("body", "effort", "tokens"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2_000}}, None, 2_000),
        ({"thinking": {"type": "disabled"}}, "none", None),
        ({"thinking": {"type": "adaptive"}}, "high", None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "max", None),
        ({"output_config": {"effort": "low"}}, "low", None),
        ({}, None, None),
    ],
)
def test_thinking_is_read(body: dict[str, Any], effort: str | None, tokens: int | None) -> None:
    request = parse(**body)
    assert (request.reasoning_effort, request.reasoning_tokens) == (effort, tokens)
    assert request.losses == ()


def test_a_conversation_loses_the_same_thing_once() -> None:
    block = {"type": "container_upload", "file_id": "f"}
    losses = parse(messages=[{"role": "user", "content": [block] * 1_000}]).losses
    assert [loss.field for loss in losses] == ["messages[0].content[0]"]


def test_no_bound_on_output_becomes_a_stated_default() -> None:
    body, losses = asked(max_output_tokens=None)
    assert body["max_tokens"] == 4_096
    assert losses == {"max_output_tokens": "Anthropic needs a bound on output; 4,096 tokens are sent"}
    assert asked(max_output_tokens=7)[0]["max_tokens"] == 7


def test_neighbours_of_one_role_become_one_turn_and_tool_messages_a_users() -> None:
    messages = (
        chat.Message("user", (chat.Text("one"),)),
        chat.Message("user", (chat.Text("two"),)),
        chat.Message("assistant", (chat.Text(""), chat.ToolCall("a", "f", '{"x":1.0}'))),
        chat.Message("assistant", (chat.ToolCall("call.1:b", "g", ""),)),
        chat.Message("tool", (chat.ToolResult("a", (chat.Text("1"),)),)),
        chat.Message("tool", (chat.ToolResult("call.1:b", (), is_error=True),)),
        chat.Message("user", (chat.Text("go on"),)),
    )
    body, losses = asked(messages=messages)
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1.0}},
                {"type": "tool_use", "id": "call_1_b", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                {"type": "tool_result", "tool_use_id": "call_1_b", "is_error": True},
                {"type": "text", "text": "go on"},
            ],
        },
    ]
    assert losses == {}


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", '"x"', '{"a":1} x', '{"a":"\\ud800"}', "[" * 100_000])
def test_arguments_that_are_no_object_are_sent_inside_one(arguments: str) -> None:
    call = chat.Message("assistant", (chat.ToolCall("a", "f", arguments),))
    body, losses = asked(messages=(*HI, call))
    assert body["messages"][1]["content"][0]["input"] == {"INVALID_JSON": arguments}
    assert list(losses) == ["messages[1].content[0]"]


def test_system_messages_go_to_the_beginning() -> None:
    messages = (
        chat.Message("system", (chat.Text("A", cache_after=True),)),
        chat.Message("developer", (chat.Text("B"),)),
        *HI,
        chat.Message("system", (chat.Text("C"),)),
    )
    body, losses = asked(messages=messages)
    assert body["system"] == [
        {"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "B"},
        {"type": "text", "text": "C"},
    ]
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert list(losses) == ["messages[3]"]


def test_a_system_message_alone_becomes_the_users() -> None:
    body, losses = asked(messages=(chat.Message("system", (chat.Text("Tell a joke."),)),))
    assert body["messages"] == [{"role": "user", "content": "Tell a joke."}]
    assert "system" not in body
    assert list(losses) == ["messages"]


@pytest.mark.parametrize("messages", [(), (chat.Message("user", (chat.Text(""),)),)])
def test_nothing_said_is_refused(messages: tuple[chat.Message, ...]) -> None:
    with pytest.raises(InvalidRequest) as error:
        asked(messages=messages)
    assert error.value.param == "messages"


def test_an_empty_message_is_left_out_and_said_so() -> None:
    body, losses = asked(messages=(*HI, chat.Message("assistant", ()), *HI))
    assert len(body["messages"]) == 1
    assert list(losses) == ["messages[1]"]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (chat.Audio("UklG", "wav"), "messages[0].content[1]"),
        (chat.Image(url="https://x/y.png", detail="low"), "messages[0].content[1].detail"),
        (chat.File(id="file-abc"), "messages[0].content[1]"),
        (chat.File(data="AAAA", media_type="application/zip"), "messages[0].content[1]"),
        (chat.File(data="/w==", media_type="text/plain"), "messages[0].content[1]"),
    ],
)
def test_a_part_that_anthropic_lacks_is_a_loss(part: chat.Part, field: str) -> None:
    assert list(asked(messages=(chat.Message("user", (chat.Text("hi"), part)),))[1]) == [field]


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        (chat.Thinking("hm"), False),
        (chat.Thinking("hm", ""), False),
        (chat.Thinking("hm", "gemini:sig"), False),
        (chat.Thinking(redacted="openai_responses:rs_1:blob"), False),
        (chat.Thinking("hm", "EqQBCgIYAhIM+/=="), True),
        (chat.Thinking(redacted="blob"), True),
        (chat.Image(data="AAAA", media_type="image/png"), False),
        (chat.Refusal("I will not."), True),
    ],
)
def test_what_the_assistant_said_goes_back_when_anthropic_takes_it(part: chat.Part, kept: bool) -> None:
    body, losses = asked(messages=(*HI, chat.Message("assistant", (part, chat.Text("ok")))))
    assert (body["messages"][1]["content"] != "ok") == kept
    assert list(losses) == ([] if kept else ["messages[1].content[0]"])


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"count": 2}, "count"),
        ({"seed": 1}, "seed"),
        ({"presence_penalty": 0.1}, "presence_penalty"),
        ({"frequency_penalty": 0.1}, "frequency_penalty"),
        ({"logprobs": 0}, "logprobs"),
        ({"format": chat.Format("json")}, "format"),
        ({"stop": ("\n", "END")}, "stop"),
        ({"temperature": 1.5}, "temperature"),
        ({"tool_choice": chat.ToolChoice("required")}, "tool_choice"),
        ({"messages": (chat.Message("user", (chat.Text("hi"),), "ann"),)}, "messages[0].name"),
    ],
)
def test_a_param_that_anthropic_lacks_is_a_loss(more: dict[str, Any], field: str) -> None:
    body, losses = asked(**more)
    assert list(losses) == [field]
    assert body.get("temperature", 1.0) == 1.0
    assert body.get("stop_sequences", ["END"]) == ["END"]


TOOL = chat.Tool("f", "does f", {"type": "object"})


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, None, None),
        (chat.ToolChoice("auto"), None, {"type": "auto"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (chat.ToolChoice("required"), True, {"type": "any", "disable_parallel_tool_use": False}),
        (chat.ToolChoice("none"), False, {"type": "none"}),
        (chat.ToolChoice("tool", "f"), None, {"type": "tool", "name": "f"}),
    ],
)
def test_the_choice_of_tools(
    choice: chat.ToolChoice | None,
    parallel: bool | None,
    written: dict[str, Any] | None,
) -> None:
    body, losses = asked(tools=(TOOL, chat.Tool("g")), tool_choice=choice, parallel_tool_calls=parallel)
    assert body.get("tool_choice") == written
    assert body["tools"][1] == {"name": "g", "input_schema": {"type": "object", "properties": {}}}
    assert losses == {}


class TestThinking:
    """Models up to 4.5 take a budget, later ones an effort; the bound on output holds the thinking too."""

    @pytest.mark.parametrize(
        ("model", "budget"),
        [
            ("claude-3-7-sonnet-20250219", True),
            ("claude-sonnet-4-20250514", True),
            ("claude-opus-4-1-20250805", True),
            ("claude-opus-4-5", True),
            ("anthropic.claude-haiku-4-5-20251001-v1:0", True),
            ("claude-sonnet-4-5@20250929", True),
            ("claude-opus-4-6", False),
            ("claude-opus-4-8", False),
            ("claude-sonnet-5", False),
            ("claude-opus-5-20270101", False),
            ("claude-fable-latest", False),
            ("MiniMax-M3", True),
        ],
    )
    def test_the_model_decides_how(self, model: str, budget: bool) -> None:
        body, losses = asked(model=model, reasoning_effort="medium", max_output_tokens=20_000)
        if budget:
            assert body["thinking"] == {"type": "enabled", "budget_tokens": 8_192}
            assert "output_config" not in body
        else:
            assert body["thinking"] == {"type": "adaptive"}
            assert body["output_config"] == {"effort": "medium"}
        assert losses == {}

    @pytest.mark.parametrize("more", [{"reasoning_effort": "none"}, {"reasoning_tokens": 0}, {"reasoning_tokens": -1}])
    @pytest.mark.parametrize("model", [NEWER, OLDER])
    def test_none_switches_it_off(self, model: str, more: dict[str, Any]) -> None:
        body, losses = asked(model=model, **more)
        assert body["thinking"] == {"type": "disabled"}
        assert losses == {}

    def test_a_default_bound_leaves_room_for_it(self) -> None:
        body, _ = asked(model=OLDER, reasoning_tokens=10_000, max_output_tokens=None)
        assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (14_096, 10_000)
        assert asked(model=OLDER, reasoning_effort="max", max_output_tokens=None)[0]["max_tokens"] == 32_000
        assert asked(model=NEWER, reasoning_effort="max", max_output_tokens=None)[0]["max_tokens"] == 32_000

    @pytest.mark.parametrize(
        ("tokens", "bound", "sent"), [(100, 4_000, 1_024), (9_000, 4_000, 3_999), (2_000, 4_000, 2_000)]
    )
    def test_a_budget_is_kept_between_anthropics_least_and_the_bound(self, tokens: int, bound: int, sent: int) -> None:
        body, losses = asked(model=OLDER, reasoning_tokens=tokens, max_output_tokens=bound)
        assert body["thinking"] == {"type": "enabled", "budget_tokens": sent}
        assert body["max_tokens"] == bound
        assert list(losses) == ([] if sent == tokens else ["reasoning_tokens"])

    def test_a_small_bound_leaves_no_room(self) -> None:
        body, losses = asked(model=OLDER, reasoning_effort="high", max_output_tokens=1_024)
        assert "thinking" not in body
        assert list(losses) == ["reasoning_effort"]

    def test_a_budget_becomes_an_effort_where_there_are_none(self) -> None:
        body, losses = asked(reasoning_tokens=9_000)
        assert body["output_config"] == {"effort": "high"}
        assert list(losses) == ["reasoning_tokens"]

    @pytest.mark.parametrize(("effort", "sent"), [("minimal", {"effort": "low"}), ("extreme", None)])
    def test_an_effort_that_anthropic_lacks(self, effort: str, sent: dict[str, str] | None) -> None:
        body, losses = asked(reasoning_effort=effort)
        assert body.get("output_config") == sent
        assert list(losses) == ["reasoning_effort"]

    def test_it_excludes_other_wishes(self) -> None:
        wishes = {"temperature": 0.2, "top_k": 5, "top_p": 0.5}
        body, losses = asked(model=OLDER, reasoning_tokens=2_000, **wishes)
        assert not wishes.keys() & body.keys()
        assert losses.keys() == wishes.keys()
        body, losses = asked(model=OLDER, reasoning_effort="none", **wishes)
        assert wishes.keys() <= body.keys()
        assert losses == {}

    @pytest.mark.parametrize("model", [NEWER, OLDER])
    def test_a_forced_tool_wins_over_it(self, model: str) -> None:
        choice = chat.ToolChoice("required")
        body, losses = asked(model=model, reasoning_effort="low", tools=(TOOL,), tool_choice=choice)
        assert "thinking" not in body
        assert list(losses) == ["reasoning_effort"]

    @pytest.mark.parametrize(("thought", "thinks"), [((), False), ((chat.Thinking("hm", "sig"),), True)])
    def test_a_tool_loop_goes_on_thinking_only_with_its_own_thoughts(
        self,
        thought: tuple[chat.Part, ...],
        thinks: bool,
    ) -> None:
        loop = (
            *HI,
            chat.Message("assistant", (*thought, chat.ToolCall("a", "f", "{}"))),
            chat.Message("tool", (chat.ToolResult("a", (chat.Text("1"),)),)),
        )
        body, losses = asked(model=OLDER, reasoning_tokens=2_000, messages=loop, tools=(TOOL,))
        assert ("thinking" in body) == thinks
        assert list(losses) == ([] if thinks else ["reasoning_tokens"])


signatures = st.text("abcXYZ019+/=", min_size=1, max_size=8)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ids = st.text("abcXYZ019_-", min_size=1, max_size=8)
texts = st.builds(chat.Text, words, st.booleans())
images = st.builds(lambda data: chat.Image(data=data, media_type="image/png"), ids) | st.builds(
    lambda url: chat.Image(url=url), words
)
files = (
    st.builds(lambda data, name: chat.File(data=data, media_type="application/pdf", name=name), ids, st.none() | words)
    | st.builds(lambda id_: chat.File(id=f"file_{id_}"), ids)
    | st.builds(lambda url: chat.File(url=url), words)
)
objects = st.dictionaries(words, st.integers() | words | st.none(), max_size=3)
calls = st.builds(lambda id_, name, given: chat.ToolCall(id_, name, json.dumps(given)), ids, ids, objects)
thoughts = st.builds(chat.Thinking, words, signatures) | st.builds(
    lambda blob: chat.Thinking(redacted=blob), signatures
)
results = st.builds(
    chat.ToolResult, ids, st.lists(texts | images | files, min_size=1, max_size=3).map(tuple), st.booleans()
)


def turn(role: chat.Role, parts: st.SearchStrategy[Any]) -> st.SearchStrategy[chat.Message]:
    return st.lists(parts, min_size=1, max_size=4).map(lambda given: chat.Message(role, tuple(given)))


rounds = st.tuples(
    st.one_of(turn("user", texts | images | files), st.builds(lambda r: chat.Message("tool", (r,)), results)),
    turn("assistant", texts | calls | thoughts),
)
conversations = st.tuples(st.lists(turn("system", texts), max_size=1), st.lists(rounds, min_size=1, max_size=4)).map(
    lambda both: (*both[0], *(message for pair in both[1] for message in pair))
)
requests = st.builds(
    chat.Request,
    messages=conversations,
    tools=st.lists(
        st.builds(
            chat.Tool,
            ids,
            words | st.just(""),
            objects.map(lambda o: {"type": "object", **o}),
            st.none() | st.booleans(),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    tool_choice=st.sampled_from([None, *(chat.ToolChoice(m) for m in ("auto", "required"))]),
    format=st.none() | st.builds(lambda schema: chat.Format("schema", {"x": 1, **schema}, strict=True), objects),
    max_output_tokens=st.integers(1, 10**6),
    temperature=st.none() | st.floats(0, 1),
    top_p=st.none() | st.floats(0, 1),
    top_k=st.none() | st.integers(1, 99),
    stop=st.lists(words.filter(str.strip), max_size=3).map(tuple),
    user=st.none() | words,
)


@given(requests)
@settings(max_examples=150, deadline=None)
def test_what_anthropic_can_say_comes_back_the_same(request: chat.Request) -> None:
    body, losses = DIALECT.request_out(request, model=NEWER, stream=False, native=True)
    assert losses == []
    again = DIALECT.request_in(DIALECT.parse_request(body))
    assert msgspec.to_builtins(again) == msgspec.to_builtins(request)
