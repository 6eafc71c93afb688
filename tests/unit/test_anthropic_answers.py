"""Anthropic answers and streams beyond the golden ones: cuts, garbage, odd orders, and what the SDK makes of ours."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.core import chat
from tidegate.core.errors import (
    Forbidden,
    InternalError,
    InvalidRequest,
    Saturated,
    StreamBroken,
    TidegateError,
    TooLarge,
    Unauthenticated,
    UnknownModel,
    UpstreamProtocol,
    UpstreamRejected,
    UpstreamTimeout,
)
from tidegate.core.usage import Usage
from tidegate.dialects.anthropic import DIALECT
from tidegate.dialects.sse import EventSplitter, data_of

GOLDEN = Path(__file__).parents[1] / "golden" / "dialects" / "anthropic"
STREAMS = {path.name: path.read_bytes().split(b"\n----------\n")[0] + b"\n\n" for path in GOLDEN.glob("*.stream.txt")}


def wire(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}".encode()


def start(**usage: Any) -> bytes:
    return wire("message_start", message={"id": "msg_1", "type": "message", "model": "m", "usage": usage})


def read(*events: bytes) -> list[chat.Event]:
    reader = DIALECT.events_in()
    return [event for each in events for event in reader.read(each)]


def write(events: Sequence[chat.Event]) -> list[dict[str, Any]]:
    out = DIALECT.events_out(call_id="c1", model="asked", created=0, wants_usage=False)
    return parsed(out.write(events))


def parsed(stream: bytes) -> list[dict[str, Any]]:
    assert stream == b"" or stream.endswith(b"\n\n")
    events = []
    for event in EventSplitter().feed(stream):
        name = event.split(b"\n")[0].removeprefix(b"event: ").decode()
        body = json.loads(data_of(event) or b"")
        assert body["type"] == name
        events.append(body)
    return events


def check_blocks(events: list[dict[str, Any]]) -> None:
    """One message_start first; blocks open one at a time, with increasing index, and deltas go to the open one."""
    assert [event["type"] for event in events].count("message_start") == 1
    assert events[0]["type"] == "message_start"
    opened: int | None = None
    count = 0
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert opened is None
                assert event["index"] == count
                opened, count = count, count + 1
            case "content_block_delta":
                assert event["index"] == opened
            case "content_block_stop":
                assert event["index"] == opened
                opened = None
    assert opened is None


def client(status: int, body: bytes, *, stream: bool = False) -> anthropic.Anthropic:
    """The real SDK, fed with bytes of ours."""
    kind = "text/event-stream" if stream else "application/json"

    def respond(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/v1/messages"
        return httpx2.Response(status, content=body, headers={"content-type": kind})

    transport = httpx2.MockTransport(respond)
    http = anthropic.DefaultHttpxClient(transport=transport)
    return anthropic.Anthropic(api_key="k", base_url="http://gateway", http_client=http, max_retries=0)


def ask(sdk: anthropic.Anthropic) -> anthropic.types.Message:
    with sdk:
        return sdk.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])


RESPONSE = chat.Response(
    "msg_9",
    "gpt-5",
    (
        chat.Choice(
            (chat.Thinking("hm"), chat.Text("Hello"), chat.ToolCall("call_1", "f", '{"a": 1}')),
            "tool_calls",
        ),
    ),
    Usage(100, 20, cache_read_input_tokens=60, cache_write_input_tokens=30, reasoning_output_tokens=5),
)


class TestWholeAnswers:
    def test_the_sdk_reads_ours(self) -> None:
        message = ask(client(200, DIALECT.answer_out(RESPONSE)))
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        assert message.stop_reason == "tool_use"
        usage = message.usage
        assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (10, 60, 30)

    def test_the_record_gets_text_reason_usage(self) -> None:
        answer = DIALECT.read_answer((GOLDEN / "tools.answer.txt").read_bytes().split(b"\n----------\n")[0])
        assert (answer.text, answer.finish_reason, answer.tool_calls) == ("I look.", "tool_calls", True)
        assert answer.model == "claude-opus-4-8"
        assert answer.usage == Usage(472, 91)

    @pytest.mark.parametrize(
        ("parts", "finish", "reason"),
        [
            ((chat.Text("x"),), "stop", "end_turn"),
            ((chat.Text("x"),), "length", "max_tokens"),
            ((chat.Text("x"),), "content_filter", "refusal"),
            ((chat.Refusal("no"),), "stop", "refusal"),
            ((chat.ToolCall("a", "f", "{}"),), "stop", "tool_use"),
            ((chat.ToolCall("a", "f", '{"a'),), "length", "max_tokens"),
            ((chat.Text("x"),), None, None),
        ],
    )
    def test_the_stop_reason(
        self, parts: tuple[chat.Part, ...], finish: chat.FinishReason | None, reason: str | None
    ) -> None:
        body = json.loads(DIALECT.answer_out(chat.Response("a", "m", (chat.Choice(parts, finish),))))
        assert body["stop_reason"] == reason
        assert body["usage"]["input_tokens"] == 0

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>",
            b"[]",
            b"{",
            b'{"type":"message","content":5}',
            b'{"type":"message","content":[{"no":"type"}]}',
            b'{"type":"completion"}',
            b'{"usage":{"input_tokens":1,"output_tokens":1}}',
            b'{"detail":"no such route"}',
            b'{"content":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        ],
    )
    def test_garbage_is_the_providers_fault(self, body: bytes) -> None:
        for function in (DIALECT.answer_in, DIALECT.read_answer):
            with pytest.raises(UpstreamProtocol):
                function(body)

    def test_an_error_inside_a_200_tells_its_type_and_not_its_words(self) -> None:
        body = b'{"type":"error","error":{"type":"overloaded_error","message":"key sk-ant-secret"}}'
        with pytest.raises(UpstreamProtocol, match="overloaded_error") as error:
            DIALECT.answer_in(body)
        assert "secret" not in str(error.value)
        with pytest.raises(UpstreamProtocol) as error:
            DIALECT.answer_in(b'{"type":"error","error":{"type":"sk-ant-secret"}}')
        assert "secret" not in str(error.value)

    def test_half_an_emoji_and_bytes_that_are_no_utf_8_become_replacement_characters(self) -> None:
        body = b'{"type":"message","content":[{"type":"text","text":"a\\ud83d \xff \\ud83d\\ude00"}],"usage":{}}'
        assert DIALECT.read_answer(body).text == "a\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER} 😀"

    def test_no_usage_is_none_and_a_split_without_a_sum_is_summed(self) -> None:
        assert DIALECT.read_answer(b'{"type":"message","content":[]}').usage is None
        assert DIALECT.read_answer(b'{"content":[],"usage":{"input_tokens":1}}').usage is None
        body = b"""{"content":[],"usage":{"input_tokens":1,"output_tokens":-4,"cache_creation":
            {"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":3}}}"""
        assert DIALECT.read_answer(body).usage == Usage(6, 0, cache_write_input_tokens=5, cache_write_1h_input_tokens=3)

    def test_more_kept_for_an_hour_than_written_is_not_believed(self) -> None:
        body = b"""{"content":[],"usage":{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":2,
            "cache_creation":{"ephemeral_1h_input_tokens":9}}}"""
        usage = DIALECT.read_answer(body).usage
        assert usage is not None
        assert (usage.cache_write_input_tokens, usage.cache_write_1h_input_tokens) == (2, 2)


class TestPassingThrough:
    @pytest.mark.parametrize("name", sorted(STREAMS))
    def test_the_reader_and_the_canonical_events_agree(self, name: str) -> None:
        events = EventSplitter().feed(STREAMS[name])
        reader = DIALECT.reader(wants_usage=True)
        shown = [reader.read(event).show for event in events]
        # The end is written by who has written the record before it.
        assert shown == [True] * len(events)  # the end too goes out as it came
        assert reader.done
        answer, canonical = reader.finish(), read(*events)
        assert answer.text == "".join(event.text for event in canonical if isinstance(event, chat.TextDelta))
        assert [answer.finish_reason] == [event.reason for event in canonical if isinstance(event, chat.Finished)]
        assert answer.usage == [event for event in canonical if isinstance(event, chat.UsageReported)][-1].usage
        assert answer.tool_calls == any(isinstance(event, chat.ToolCallStarted) for event in canonical)
        assert answer.model == "claude-opus-4-8"

    def test_content_begins_with_the_first_delta_or_tool(self) -> None:
        reader = DIALECT.reader(wants_usage=True)
        text, tool = {"type": "text", "text": ""}, {"type": "tool_use", "id": "a", "name": "f", "input": {}}
        assert not reader.read(start(input_tokens=1)).content
        assert not reader.read(wire("ping")).content
        assert not reader.read(b": comment").content
        assert not reader.read(wire("content_block_start", index=0, content_block=text)).content
        assert reader.read(wire("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"})).content
        assert reader.read(wire("content_block_start", index=1, content_block=tool)).content
        assert not reader.done

    def test_a_cut_stream_has_what_came_and_no_end(self) -> None:
        reader = DIALECT.reader(wants_usage=True)
        reader.read(start(input_tokens=7, output_tokens=1))
        reader.read(wire("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hal"}))
        answer = reader.finish()
        assert not reader.done
        assert (answer.text, answer.finish_reason, answer.usage) == ("Hal", None, Usage(7, 1))

    def test_the_end_is_anthropics(self) -> None:
        assert parsed(DIALECT.end()) == [{"type": "message_stop"}]


class TestEventsIn:
    @given(st.sampled_from(sorted(STREAMS)), st.data())
    @settings(max_examples=100, deadline=None)
    def test_any_split_of_the_bytes_means_the_same(self, name: str, data: st.DataObject) -> None:
        stream = STREAMS[name]
        if data.draw(st.booleans()):
            stream = stream.replace(b"\n", b"\r\n")
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        splitter = EventSplitter()
        events = read(*(event for piece in pieces for event in splitter.feed(piece)))
        assert events == read(*EventSplitter().feed(STREAMS[name]))
        assert [type(event) for event in events].count(chat.Ended) == 1

    @pytest.mark.parametrize("kind", ["overloaded_error", "api_error"])
    def test_an_error_in_the_stream_is_raised_with_its_type(self, kind: str) -> None:
        error = wire("error", error={"type": kind, "message": "Overloaded by sk-ant-secret"})
        for reader in (DIALECT.events_in(), DIALECT.reader(wants_usage=True)):
            with pytest.raises(UpstreamProtocol, match=kind) as raised:
                reader.read(error)
            assert "secret" not in str(raised.value)
            assert raised.value.retryable

    @pytest.mark.parametrize(
        "event", [wire("ping"), wire("vibe", level=3), b": hello", b"event: ping", b"id: 7", wire("message_start")]
    )
    def test_what_means_nothing_is_ignored(self, event: bytes) -> None:
        assert read(event) == []

    @pytest.mark.parametrize(
        "event",
        [
            b"data: {",
            b"data: [DONE]",
            b"data: 5",
            b'data: {"index":0}',
            b'data: {"type":"content_block_start","content_block":3}',
            b'data: {"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}',
            b'data: {"type":"content_block_delta","delta":' + b"[" * 100_000,
        ],
    )
    def test_garbage_is_the_providers_fault(self, event: bytes) -> None:
        with pytest.raises(UpstreamProtocol):
            read(event)

    def test_input_that_comes_whole_with_its_block_is_not_lost(self) -> None:
        tool = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}
        events = read(wire("content_block_start", index=0, content_block=tool), wire("content_block_stop", index=0))
        assert events == [chat.ToolCallStarted(0, "a", "f"), chat.ToolCallDelta(0, '{"x": 1}')]

    def test_what_the_delta_leaves_out_of_the_usage_stands(self) -> None:
        events = read(
            start(input_tokens=10, cache_read_input_tokens=5, output_tokens=1),
            wire("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 30}),
        )
        assert events[-1] == chat.UsageReported(Usage(15, 30, cache_read_input_tokens=5))

    def test_a_stop_reason_of_the_future_is_a_stop(self) -> None:
        assert read(wire("message_delta", delta={"stop_reason": "bored"})) == [chat.Finished("stop")]


END: list[chat.Event] = [chat.Finished("stop"), chat.UsageReported(Usage(3, 4)), chat.Ended()]


class TestEventsOut:
    def test_a_provider_that_says_nothing_first_still_begins_with_message_start(self) -> None:
        events = write([chat.TextDelta("Hi"), *END])
        check_blocks(events)
        assert events[0]["message"]["id"] == "msg_c1"
        assert events[0]["message"]["model"] == "asked"
        assert events[-2] == {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 3,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 4,
            },
        }

    def test_a_second_start_and_what_follows_the_end_are_not_written(self) -> None:
        started = chat.Started("id", "m")
        events = write([started, started, chat.TextDelta("a"), *END, chat.TextDelta("b"), chat.Ended()])
        check_blocks(events)
        assert [event["type"] for event in events].count("message_stop") == 1
        assert events[-1]["type"] == "message_stop"

    def test_a_cut_is_no_finish(self) -> None:
        events = write([chat.Started("id", "m"), chat.TextDelta("a"), chat.Finished("stop")])
        assert "message_delta" not in [event["type"] for event in events]

    def test_thinking_and_text_each_have_their_blocks(self) -> None:
        events = write(
            [
                chat.ThinkingDelta("a"),
                chat.ThinkingDelta(signature="s1"),
                chat.ThinkingDelta("b"),
                chat.ThinkingDelta(redacted="r"),
                chat.TextDelta("c"),
                chat.ThinkingDelta("d"),
                chat.TextDelta("e"),
                chat.TextDelta(""),
                *END,
            ]
        )
        check_blocks(events)
        kinds = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
        assert kinds == ["thinking", "thinking", "redacted_thinking", "text", "thinking", "text"]

    def test_tool_calls_one_after_another_are_written_as_they_come(self) -> None:
        out = DIALECT.events_out(call_id="c", model="m", created=0, wants_usage=True)
        out.write([chat.ToolCallStarted(0, "call:1", "f"), chat.ToolCallDelta(0, '{"a":'), chat.ToolCallDelta(0, "1}")])
        second = parsed(out.write([chat.ToolCallStarted(1, "b", "g"), chat.ToolCallDelta(1, "{}")]))
        assert [event["type"] for event in second] == [
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
        ]

    def test_mixed_tool_calls_are_sorted_out(self) -> None:
        events = write(
            [
                chat.ToolCallStarted(0, "a", "f"),
                chat.ToolCallStarted(1, "b", "g"),
                chat.ToolCallStarted(2, "c", "h"),
                chat.ToolCallDelta(1, '{"b":'),
                chat.ToolCallDelta(0, '{"a":1}'),
                chat.ToolCallDelta(2, "{}"),
                chat.ToolCallDelta(1, "2}"),
                *END,
            ]
        )
        check_blocks(events)
        inputs = ["", "", ""]
        for event in events:
            if event["type"] == "content_block_delta":
                inputs[event["index"]] += event["delta"]["partial_json"]
        assert inputs == ['{"a":1}', '{"b":2}', "{}"]
        assert events[-2]["delta"]["stop_reason"] == "tool_use"

    def test_a_call_that_goes_on_after_text_is_the_providers_fault(self) -> None:
        with pytest.raises(UpstreamProtocol):
            write([chat.ToolCallStarted(0, "a", "f"), chat.TextDelta("x"), chat.ToolCallDelta(0, "{}")])

    def test_other_choices_than_the_first_are_left_out(self) -> None:
        events = write([chat.TextDelta("x", choice=1), chat.TextDelta("a"), chat.Finished("length", choice=1), *END])
        assert [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"] == ["a"]
        assert events[-2]["delta"]["stop_reason"] == "end_turn"

    def test_the_sdk_reads_ours(self) -> None:
        out = DIALECT.events_out(call_id="c1", model="m", created=0, wants_usage=True)
        stream = out.write(
            [
                chat.Started("chatcmpl-1", "gpt-5"),
                chat.ThinkingDelta("hm"),
                chat.TextDelta("Hel"),
                chat.TextDelta("lo"),
                chat.ToolCallStarted(0, "call_1", "f"),
                chat.ToolCallDelta(0, '{"a":'),
                chat.ToolCallDelta(0, ' "ü"}'),
                chat.Finished("tool_calls"),
                chat.UsageReported(Usage(9, 4, cache_read_input_tokens=8)),
                chat.Ended(),
            ]
        )
        with (
            client(200, stream, stream=True) as sdk,
            sdk.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]) as running,
        ):
            message = running.get_final_message()
        assert message.id == "chatcmpl-1"
        thought, text, call = message.content
        assert thought.type == "thinking"
        assert thought.thinking == "hm"
        assert text.type == "text"
        assert text.text == "Hello"
        assert call.type == "tool_use"
        assert call.input == {"a": "ü"}
        assert message.stop_reason == "tool_use"
        assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (1, 8)
        assert message.usage.output_tokens == 4

    events = st.one_of(
        st.builds(chat.TextDelta, st.text(max_size=3)),
        st.builds(chat.ThinkingDelta, st.text(max_size=3), st.sampled_from([None, "s"]), st.sampled_from([None, "r"])),
        st.builds(chat.RefusalDelta, st.text(max_size=3)),
        st.just(chat.Started("id", "m")),
        st.just(chat.UsageReported(Usage(1, 1))),
    )

    @given(st.lists(events, max_size=20), st.permutations(range(3)), st.booleans())
    @settings(max_examples=150, deadline=None)
    def test_whatever_comes_blocks_open_and_close_in_order(
        self,
        events: list[chat.Event],
        tools: list[int],
        begin_first: bool,
    ) -> None:
        starts: list[chat.Event] = [chat.ToolCallStarted(index, f"t{index}", "f") for index in tools]
        deltas: list[chat.Event] = [chat.ToolCallDelta(index, "{}") for index in tools]
        pairs = [event for pair in zip(starts, deltas, strict=True) for event in pair]
        check_blocks(write([*events, *(starts + deltas if begin_first else pairs), *END]))


REJECTED = UpstreamRejected("busy", status=529, body=b"")


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "kind", "exception"),
        [
            (InvalidRequest("no", param="messages[0]"), "invalid_request_error", anthropic.BadRequestError),
            (Unauthenticated("no"), "authentication_error", anthropic.AuthenticationError),
            (Forbidden("no"), "permission_error", anthropic.PermissionDeniedError),
            (UnknownModel("no"), "not_found_error", anthropic.NotFoundError),
            (TooLarge("no"), "request_too_large", anthropic.APIStatusError),
            (Saturated("no", retry_after_s=1), "rate_limit_error", anthropic.RateLimitError),
            (InternalError("no"), "api_error", anthropic.InternalServerError),
            (UpstreamTimeout("no", phase="idle"), "timeout_error", anthropic.InternalServerError),
            (REJECTED, "overloaded_error", anthropic.InternalServerError),
        ],
    )
    def test_the_sdk_raises_its_own_exception(
        self, error: TidegateError, kind: str, exception: type[anthropic.APIStatusError]
    ) -> None:
        body = DIALECT.error_body(error, call_id="call-1")
        with pytest.raises(exception) as raised:
            ask(client(error.http_status, body))
        assert json.loads(body)["error"]["type"] == kind
        assert json.loads(body)["request_id"] == "call-1"
        assert raised.value.status_code == error.http_status

    def test_an_exhausted_budget_is_a_billing_error(self) -> None:
        class Exhausted(TidegateError):
            http_status = 402

        assert json.loads(DIALECT.error_body(Exhausted("spent")))["error"]["type"] == "billing_error"

    def test_the_message_names_the_field_once(self) -> None:
        def message(text: str) -> str:
            body = json.loads(DIALECT.error_body(InvalidRequest(text, param="messages[3].role")))
            return str(body["error"]["message"])

        assert message("not a role") == "messages[3].role: not a role"
        assert message("messages[3].role is wrong") == "messages[3].role is wrong"

    def test_a_broken_stream_ends_in_an_error_event_that_the_sdk_raises(self) -> None:
        out = DIALECT.events_out(call_id="c1", model="m", created=0, wants_usage=True)
        broken = out.write([chat.TextDelta("Hal")]) + DIALECT.error_event(StreamBroken("cut"), call_id="c1")
        with (
            client(200, broken, stream=True) as sdk,
            sdk.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]) as running,
            pytest.raises(anthropic.APIStatusError, match="cut"),
        ):
            running.get_final_message()
