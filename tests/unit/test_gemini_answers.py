"""Gemini's answers, streams and errors at their edges: honest ends, whole calls, and nothing that breaks a client."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core import chat
from tidegate.core.errors import (
    InternalError,
    InvalidRequest,
    Saturated,
    TidegateError,
    Unusable,
    UpstreamProtocol,
    UpstreamTimeout,
)
from tidegate.core.usage import Usage
from tidegate.dialects.gemini import DIALECT
from tidegate.dialects.sse import EventSplitter, data_of


def candidate(*parts: dict[str, Any], finish: str | None = None, index: int | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}}
    if finish is not None:
        made["finishReason"] = finish
    return made if index is None else {**made, "index": index}


def generated(*candidates: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"candidates": list(candidates), "modelVersion": "g-1", "responseId": "r", **more}).encode()


def event(*candidates: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + generated(*candidates, **more)


CALL = {"functionCall": {"name": "f", "args": {"a": 1}}}
BROKEN = ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"]
REASONS = [
    ("STOP", "stop"),
    ("MAX_TOKENS", "length"),
    ("SAFETY", "content_filter"),
    ("RECITATION", "content_filter"),
    ("BLOCKLIST", "content_filter"),
    ("PROHIBITED_CONTENT", "content_filter"),
    ("SPII", "content_filter"),
    ("LANGUAGE", "content_filter"),
]


@pytest.mark.parametrize(("reason", "finish"), REASONS)
def test_why_an_answer_ended_is_the_same_whole_and_streamed(reason: str, finish: str) -> None:
    body = generated(candidate({"text": "x"}, finish=reason))
    assert DIALECT.answer_in(body).choices[0].finish == finish
    assert DIALECT.read_answer(body).finish_reason == finish
    assert chat.Finished(finish) in DIALECT.events_in().read(b"data: " + body)
    reader = DIALECT.reader(wants_usage=True)
    reader.read(b"data: " + body)
    assert reader.finish().finish_reason == finish


@pytest.mark.parametrize("reason", ["OTHER", "OF_TOMORROW"])
def test_a_reason_that_only_gemini_has_is_a_stop_for_others_and_itself_in_the_record(reason: str) -> None:
    body = generated(candidate({"text": "x"}, finish=reason))
    assert DIALECT.answer_in(body).choices[0].finish == "stop"
    assert DIALECT.read_answer(body).finish_reason == reason.lower()
    assert follow(b"data: " + body)[1].finish_reason == reason.lower()


@pytest.mark.parametrize("reason", BROKEN)
def test_a_model_that_went_wrong_is_an_error_for_other_dialects_and_passes_through_for_gemini(reason: str) -> None:
    body = generated(candidate(finish=reason))
    with pytest.raises(UpstreamProtocol, match=reason):
        DIALECT.answer_in(body)
    with pytest.raises(UpstreamProtocol, match=reason):
        DIALECT.events_in().read(b"data: " + body)
    assert DIALECT.read_answer(body).finish_reason == reason.lower()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"{}",
        b'{"candidates": []}',
        b'{"candidates": 3}',
        b'{"promptFeedback": {}}',
        b"[" * 100_000,
        b'{"candidates":' + b"[" * 100_000,
        b'{"error": {"code": 503, "status": "UNAVAILABLE", "message": "key sk-123"}}',
    ],
)
def test_what_is_no_answer_is_an_error(body: bytes) -> None:
    for read in (DIALECT.read_answer, DIALECT.answer_in):
        with pytest.raises(UpstreamProtocol) as broken:
            read(body)
        assert "sk-123" not in str(broken.value)


def test_an_error_inside_a_stream_says_its_status_and_not_its_text() -> None:
    wire = b'data: {"error": {"code": 503, "status": "UNAVAILABLE", "message": "key sk-123"}}'
    for reader in (DIALECT.reader(wants_usage=True), DIALECT.events_in()):
        with pytest.raises(UpstreamProtocol, match=r"inside its stream \(UNAVAILABLE\)$"):
            reader.read(wire)


@pytest.mark.parametrize("status", ['"x y"', "3", '"' + "A" * 99 + '"', "{}", "null"])
def test_a_status_that_is_none_is_not_repeated(status: str) -> None:
    with pytest.raises(UpstreamProtocol, match=r"inside a 200$"):
        DIALECT.answer_in(f'{{"error": {{"status": {status}}}}}'.encode())


def test_half_an_emoji_is_read_as_a_replacement_character() -> None:
    body = generated(candidate({"text": "a\ud83d"}, CALL, finish="STOP"))
    assert DIALECT.answer_in(body).choices[0].parts[0] == chat.Text("a\N{REPLACEMENT CHARACTER}")
    assert DIALECT.read_answer(body).text == "a\N{REPLACEMENT CHARACTER}"


def test_calls_without_ids_get_the_same_ones_whole_and_streamed_and_different_ones_per_answer() -> None:
    answers = [candidate(CALL, CALL, finish="STOP", index=0), candidate(CALL, finish="STOP", index=1)]
    whole = DIALECT.answer_in(generated(*answers))
    ids = [part.id for choice in whole.choices for part in choice.parts if isinstance(part, chat.ToolCall)]
    assert ids == ["gemini_call_r_0", "gemini_call_r_1", "gemini_call_r_1_0"]
    events = DIALECT.events_in().read(event(*answers))
    assert [e.id for e in events if isinstance(e, chat.ToolCallStarted)] == ids
    assert whole.choices[0].finish == "tool_calls"


def test_an_id_is_made_of_letters_that_every_dialect_takes() -> None:
    body = generated(candidate(CALL, finish="STOP"), responseId="r/+= é" + "x" * 99)
    call = DIALECT.answer_in(body).choices[0].parts[0]
    assert isinstance(call, chat.ToolCall)
    assert call.id == "gemini_call_r_____" + "x" * 14 + "_0"
    assert len(call.id) <= 40


def test_usage_counts_what_is_cached_once_and_thoughts_as_output() -> None:
    usage = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 80,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 30,
        "toolUsePromptTokenCount": 5,
        "totalTokenCount": 142,
    }
    answer = DIALECT.read_answer(generated(candidate({"text": "x"}, finish="STOP"), usageMetadata=usage))
    assert answer.usage == Usage(105, 37, 80, 0, 30)


# --- streams ------------------------------------------------------------------------------------------------------


def follow(*events: bytes) -> tuple[list[tuple[bool, bool]], Any]:
    reader = DIALECT.reader(wants_usage=False)
    seen = [reader.read(wire) for wire in events]
    assert reader.done is False
    return [(one.show, one.content) for one in seen], reader.finish()


def test_a_stream_that_passes_through_is_summed_for_the_record() -> None:
    seen, answer = follow(
        b": ping",
        event(candidate({"text": ""})),
        event(candidate({"text": "hm", "thought": True})),
        event(candidate({"text": "a"}), usageMetadata={"promptTokenCount": 3}),
        event(candidate({"text": "b"}, CALL, finish="STOP"), usageMetadata={"promptTokenCount": 3}),
    )
    assert seen == [(False, False), (True, False), (True, True), (True, True), (True, True)]
    assert (answer.text, answer.finish_reason, answer.model, answer.tool_calls) == ("ab", "tool_calls", "g-1", True)
    assert answer.usage == Usage(3)


@pytest.mark.parametrize(
    ("events", "finish"),
    [
        ([event(candidate({"text": "a"}))], None),
        ([event(candidate({"text": "a"}, finish="MAX_TOKENS"))], "length"),
        ([event(candidate({"text": "a"}, index=0), candidate({"text": "b"}, finish="STOP", index=1))], None),
        ([event(candidate({"text": "a"}, finish="STOP", index=0), candidate({"text": "b"}, index=1))], None),
        (
            [event(candidate(index=0), candidate(finish="STOP", index=1)), event(candidate(finish="STOP", index=0))],
            "stop",
        ),
        ([b'data: {"promptFeedback": {"blockReason": "SAFETY"}}'], "content_filter"),
    ],
)
def test_a_stream_is_complete_when_every_candidate_has_finished(events: list[bytes], finish: str | None) -> None:
    assert follow(*events)[1].finish_reason == finish


def test_a_reason_to_finish_counts_once() -> None:
    events_in = DIALECT.events_in()
    read = [*events_in.read(event(candidate(finish="STOP"))), *events_in.read(event(candidate(finish="STOP")))]
    assert [type(one) for one in read] == [chat.Started, chat.Finished]


def out() -> Any:
    return DIALECT.events_out(call_id="c1", model="m", created=0, wants_usage=True)


def decoded(written: bytes) -> list[Any]:
    return [json.loads(data_of(wire) or b"") for wire in EventSplitter().feed(written)]


def test_a_stream_names_its_finish_and_usage_only_once_it_is_complete() -> None:
    writer = out()
    events = [
        chat.Started("x", "g", Usage(3)),
        chat.TextDelta("a"),
        chat.Finished("stop"),
        chat.UsageReported(Usage(9)),
    ]
    before = writer.write(events)
    assert b"finishReason" not in before
    assert b"usageMetadata" not in before
    [last] = decoded(writer.write([chat.Ended()]))
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert last["usageMetadata"]["promptTokenCount"] == 9
    assert (last["modelVersion"], last["responseId"]) == ("g", "c1")


def test_calls_are_written_whole_in_their_order_and_never_by_half() -> None:
    writer = out()
    written = writer.write(
        [
            chat.ToolCallStarted(0, "id_a", "f"),
            chat.ToolCallStarted(1, "id_b", "g"),
            chat.ToolCallDelta(1, '{"b":'),
            chat.ToolCallDelta(0, '{"a":1}'),
            chat.ToolCallDelta(7, "lost"),
        ]
    )
    assert written == b""
    [whole] = decoded(writer.write([chat.ToolCallDelta(1, " 2}"), chat.Finished("tool_calls")]))
    assert [part["functionCall"] for part in whole["candidates"][0]["content"]["parts"]] == [
        {"id": "id_a", "name": "f", "args": {"a": 1}},
        {"id": "id_b", "name": "g", "args": {"b": 2}},
    ]


def test_signatures_stand_where_they_belong() -> None:
    written = out().write(
        [
            chat.ThinkingDelta("hm"),
            chat.ThinkingDelta(signature="theirs"),
            chat.ThinkingDelta(signature="gemini:one"),
            chat.ThinkingDelta(signature="gemini:two"),
            chat.TextDelta("a"),
            chat.TextDelta("b"),
            chat.ThinkingDelta(signature="gemini:three"),
            chat.ToolCallStarted(0, "id", "f"),
            chat.ThinkingDelta(redacted="r"),
            chat.Finished("tool_calls"),
        ]
    )
    parts = [part for one in decoded(written) for part in one["candidates"][0]["content"]["parts"]]
    assert [(part.get("text"), part.get("thought"), part.get("thoughtSignature")) for part in parts] == [
        ("hm", True, None),
        ("", True, "dGlkZWdhdGU6c2lnbmF0dXJlOnRoZWlycw=="),
        ("", None, "one"),
        ("a", None, "two"),
        ("b", None, None),
        ("", True, "dGlkZWdhdGU6cmVkYWN0ZWQ6cg=="),
        (None, None, "three"),
    ]


STREAM = b"\n\n".join(
    [
        event(candidate({"text": "Zürich 🌍", "thought": True}), usageMetadata={"promptTokenCount": 4}),
        b": ping",
        event(candidate({"text": "é"}), candidate({"text": "b"}, index=1)),
        event(candidate({**CALL, "thoughtSignature": "abcd"}, finish="STOP")),
        event(candidate(finish="MAX_TOKENS", index=1), usageMetadata={"promptTokenCount": 4, "thoughtsTokenCount": 9}),
        b"",
    ]
)


def through(chunks: list[bytes]) -> tuple[list[chat.Event], bytes]:
    splitter, events_in, writer = EventSplitter(), DIALECT.events_in(), out()
    events = [read for chunk in chunks for wire in splitter.feed(chunk) for read in events_in.read(wire)]
    return events, writer.write([*events, chat.Ended()])


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_a_stream_is_the_same_wherever_it_is_cut(cuts: list[int], end: bytes) -> None:
    wire = STREAM.replace(b"\n", end) + end
    places = [0, *sorted(cuts), len(wire)]
    pieces = [wire[begin:stop] for begin, stop in pairwise(places)]
    assert through(pieces) == through([STREAM + b"\n"])


def test_a_stream_that_is_written_is_read_back_the_same() -> None:
    events, written = through([STREAM])
    again = [read for wire in EventSplitter().feed(written) for read in DIALECT.events_in().read(wire)]
    texts = [(one.text, one.choice) for one in events if isinstance(one, chat.TextDelta)]
    assert [(one.text, one.choice) for one in again if isinstance(one, chat.TextDelta)] == texts
    assert [one for one in again if isinstance(one, chat.UsageReported)][-1] == events[-1]


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (InvalidRequest("x", param="contents"), 400, "INVALID_ARGUMENT"),
        (Saturated("x", retry_after_s=1), 429, "RESOURCE_EXHAUSTED"),
        (InternalError("x"), 500, "INTERNAL"),
        (UpstreamProtocol("x"), 502, "UNAVAILABLE"),
        (Unusable("x"), 503, "UNAVAILABLE"),
        (UpstreamTimeout("x", phase="total"), 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_an_error_has_googles_shape(error: TidegateError, code: int, status: str) -> None:
    body = json.loads(DIALECT.error_body(error, call_id="c1"))["error"]
    assert (body["code"], body["message"], body["status"]) == (code, "x", status)
    assert body["details"][0]["reason"] == error.code.upper()
    assert body["details"][0]["metadata"] == {"call_id": "c1"}
    assert ("fieldViolations" in body["details"][-1]) == isinstance(error, InvalidRequest)
    assert json.loads(data_of(DIALECT.error_event(error).removesuffix(b"\n\n")) or b"")["error"]["status"] == status


def test_the_key_goes_into_a_header_and_nothing_ends_a_stream() -> None:
    assert DIALECT.credential("k") == ("x-goog-api-key", "k")
    assert DIALECT.end() == b""
