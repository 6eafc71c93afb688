"""What servers that speak Chat Completions answer beside what OpenAI documents."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_crossing import bench, events
from tests.unit.test_pipeline import CHAT, DONE, USAGE, Bench, completion, delta, event
from tests.unit.test_usage_recorded import counts, recorded
from tidegate.core import chat
from tidegate.core.errors import StreamBroken, UpstreamProtocol
from tidegate.dialects.openai_chat import DIALECT
from tidegate.fakes import FakeUpstream, ScriptedAnswer

STREAM = {**CHAT, "stream": True}
MESSAGES = {"model": "oai/m-1", "messages": CHAT["messages"], "max_tokens": 99, "stream": True}


def piece(finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    return event(choices=[{"index": index, "delta": more, "finish_reason": finish}])


def read(*wire: bytes) -> list[chat.Event]:
    reader = DIALECT.events_in()
    return [one for chunk in wire for one in reader.read(chunk.removesuffix(b"\n\n"))]


def called(index: int | None, call_id: str | None, name: str | None, arguments: str) -> bytes:
    call: dict[str, Any] = {"function": {"arguments": arguments, **({"name": name} if name else {})}}
    call |= {} if index is None else {"index": index}
    return piece(tool_calls=[{**call, "id": call_id} if call_id else call])


# --- usage --------------------------------------------------------------------------------------------------------


def used(**usage: Any) -> bytes:
    return completion("12345678", usage=usage)


@pytest.mark.parametrize(
    ("usage", "output", "reasoning"),
    [
        # https://docs.x.ai: reasoning is beside the completion, and inside the total
        (
            {
                "prompt_tokens": 12,
                "completion_tokens": 1,
                "total_tokens": 399,
                "completion_tokens_details": {"reasoning_tokens": 386},
            },
            387,
            386,
        ),
        # Google's OpenAI endpoint does not name its thoughts
        ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}, 603, 405),
        # OpenAI's own arithmetic
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 300,
                "total_tokens": 310,
                "completion_tokens_details": {"reasoning_tokens": 256},
            },
            300,
            256,
        ),
        # cached tokens that are left out of the prompt are no output
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 115,
                "prompt_tokens_details": {"cached_tokens": 100},
            },
            5,
            0,
        ),
        # nobody knows what the rest is
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 115,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            5,
            3,
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 7}, 5, 0),
    ],
)
async def test_reasoning_that_is_counted_beside_the_completion_is_output(
    usage: dict[str, Any], output: int, reasoning: int
) -> None:
    row = await recorded(ScriptedAnswer(body=[used(**usage)]), CHAT)
    assert (row["output_tokens"], row["reasoning_output_tokens"]) == (output, reasoning)
    assert row["cost_nano_usd"] == usage["prompt_tokens"] * 1_000 + output * 2_000


@pytest.mark.parametrize("usage", [{"prompt_tokens": 10}, {"prompt_tokens": 10, "completion_tokens": None}])
async def test_g1_output_that_nobody_counted_is_estimated_and_not_free(usage: dict[str, Any]) -> None:
    row = await recorded(ScriptedAnswer(body=[used(**usage)]), CHAT)
    assert (row["output_tokens"], row["usage_source"]) == (2, "estimated")
    assert row["cost_nano_usd"] > 4_000


# --- reasoning, old calls, speech ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_reasoning_by_either_name_is_thinking(name: str) -> None:
    """vLLM, Ollama, Groq and OpenRouter say `reasoning`."""
    thought: list[dict[str, Any]] = [{"content": "", name: "Let"}, {"content": "", name: " me"}]
    chunks = [*(piece(**said) for said in thought), piece(content="Hi"), piece("stop")]
    parts = bench(b"".join([*chunks, USAGE, DONE]))
    shown = events((await parts.ask("/v1/messages", MESSAGES)).body)
    deltas = [one["delta"] for one in shown if one["type"] == "content_block_delta"]
    assert [said.get("thinking", said.get("text")) for said in deltas] == ["Let", " me", "Hi"]
    whole = completion("Hi", choices=[{"message": {"content": "Hi", name: "Let me"}, "finish_reason": "stop"}])
    assert DIALECT.answer_in(whole).choices[0].parts == (chat.Thinking("Let me"), chat.Text("Hi"))


def test_who_says_its_reasoning_twice_is_heard_once() -> None:
    said = read(piece(reasoning="a", reasoning_content="a"))
    assert [one for one in said if isinstance(one, chat.ThinkingDelta)] == [chat.ThinkingDelta("a")]


@pytest.mark.parametrize(
    "said",
    [
        {"reasoning": "hm"},
        {"function_call": {"name": "find", "arguments": ""}},
        {"audio": {"id": "a", "transcript": "Hi"}},
        {"content": "", "refusal": "I can not."},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]},
    ],
)
def test_content_of_every_kind_is_passed_on_when_it_comes(said: dict[str, Any]) -> None:
    """What is taken for no content is held until there is some."""
    reader = DIALECT.reader(wants_usage=True)
    assert not reader.read(piece(role="assistant", content="").rstrip()).content
    assert not reader.read(piece(role="assistant", audio=None, reasoning="").rstrip()).content
    assert reader.read(piece(**said).rstrip()).content


async def test_a_refusal_beside_empty_content_is_recorded() -> None:
    b = Bench(FakeUpstream(ScriptedAnswer(body=[piece(content="", refusal="I can not."), piece("stop"), USAGE, DONE])))
    await b.call(STREAM)
    assert b.record()["content"]["output"] == "I can not."


async def test_g1_a_cut_stream_of_reasoning_by_its_other_name_is_billed() -> None:
    row = await recorded(ScriptedAnswer(body=[piece(reasoning="12345678")], breaks=StreamBroken("cut")), STREAM)
    assert (row["output_tokens"], row["usage_source"]) == (2, "estimated")


def test_a_function_call_as_before_tools_is_a_call() -> None:
    begun, more = {"name": "find", "arguments": ""}, {"arguments": '{"a":1}'}
    said = read(piece(function_call=begun), piece(function_call=more), piece("function_call"))
    assert said[1:] == [
        chat.ToolCallStarted(0, "find", "find"),
        chat.ToolCallDelta(0, '{"a":1}'),
        chat.Finished("tool_calls"),
    ]
    message = {"content": None, "function_call": {"name": "find", "arguments": '{"a":1}'}}
    whole = completion("", choices=[{"message": message, "finish_reason": "function_call"}])
    assert DIALECT.answer_in(whole).choices[0].parts == (chat.ToolCall("find", "find", '{"a":1}'),)


# --- tool calls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, None])
def test_g16_calls_that_nobody_numbered_stay_apart(index: int | None) -> None:
    """Gemini's OpenAI endpoint and others number no call, or all of them 0."""
    said = read(called(index, "a", "find", '{"x":1}'), called(index, "b", "find", '{"x":2}'))[1:]
    assert said == [
        chat.ToolCallStarted(0, "a", "find"),
        chat.ToolCallDelta(0, '{"x":1}'),
        chat.ToolCallStarted(1, "b", "find"),
        chat.ToolCallDelta(1, '{"x":2}'),
    ]


@pytest.mark.parametrize("later", [None, "a", "made up anew"])
def test_g16_a_call_goes_on_whatever_id_its_pieces_have(later: str | None) -> None:
    said = read(called(0, "a", "find", '{"x"'), called(0, later, None, ":1}"))[1:]
    assert said == [chat.ToolCallStarted(0, "a", "find"), chat.ToolCallDelta(0, '{"x"'), chat.ToolCallDelta(0, ":1}")]


def test_g16_interleaved_calls_keep_their_arguments_apart() -> None:
    said = read(
        called(1, "a", "f", ""), called(2, "b", "g", ""), called(2, None, None, "{}"), called(1, None, None, "[]")
    )
    assert said[1:] == [
        chat.ToolCallStarted(0, "a", "f"),
        chat.ToolCallStarted(1, "b", "g"),
        chat.ToolCallDelta(1, "{}"),
        chat.ToolCallDelta(0, "[]"),
    ]


# --- how an answer ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource", "network_error"])
async def test_an_answer_that_broke_off_is_no_finish_for_another_dialect(reason: str) -> None:
    """OpenRouter, DeepSeek and Zhipu say so in the place of a reason to stop."""
    parts = bench(ScriptedAnswer(body=[delta("Hel"), piece(reason), USAGE, DONE]))
    reply = await parts.ask("/v1/messages", MESSAGES)
    assert events(reply.body)[-1]["type"] == "error"
    assert b"message_stop" not in reply.body
    assert parts.call["outcome"] == "error"
    with pytest.raises(UpstreamProtocol, match=reason):
        DIALECT.answer_in(completion("Hel", choices=[{"message": {"content": "Hel"}, "finish_reason": reason}]))


async def test_an_answer_that_broke_off_passes_to_its_own_dialect_as_it_came() -> None:
    row = await recorded(ScriptedAnswer(body=[delta("Hel"), piece("error"), USAGE, DONE]), STREAM)
    assert (row["outcome"], row["finish_reason"]) == ("ok", "error")


def test_a_full_context_is_length_and_an_empty_reason_is_none() -> None:
    """Mistral says model_length; some say an empty reason until they have one."""
    said = read(piece("", content="a"), piece("", content="b"), piece("model_length"))
    assert [type(one) for one in said[1:]] == [chat.TextDelta, chat.TextDelta, chat.Finished]
    assert said[-1] == chat.Finished("length")


GEMINI = "/v1beta/models/oai%2Fm-1:streamGenerateContent"
TWO = {"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"candidateCount": 2}}


@pytest.mark.parametrize("ended", [True, False])
async def test_g5_of_several_answers_all_must_finish_before_a_stream_is_complete(ended: bool) -> None:
    chunks = [piece(index=1, content="B"), piece("stop", content="A"), *([piece("stop", index=1)] if ended else [])]
    b = Bench(FakeUpstream(ScriptedAnswer(body=chunks)))
    reply = await b.call({**STREAM, "n": 2})
    assert (b.record()["call"]["outcome"], reply.body.endswith(DONE)) == (("ok", True) if ended else ("error", False))
    parts = bench(b"".join(chunks))
    shown = events((await parts.ask(GEMINI, TWO, "alt=sse")).body)
    assert (parts.call["outcome"], "error" in shown[-1]) == (("ok", False) if ended else ("error", True))


async def test_a_reason_that_one_of_several_answers_lacks_does_not_break_a_stream_that_is_done() -> None:
    row = await recorded(ScriptedAnswer(body=[piece(index=1, content="B"), piece("stop"), USAGE, DONE]), STREAM)
    assert (row["outcome"], row["finish_reason"]) == ("ok", "stop")
    assert counts(row) == (10, 5, "provider", 20_000)
