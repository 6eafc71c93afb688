"""G1, calls logged with zero or wrong spend: what the provider counted, else an estimate that says so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.test_pipeline import CHAT, CONFIG, DONE, USAGE, Bench, completion, delta, event
from tidegate.config import Config
from tidegate.core.errors import StreamBroken, UpstreamTimeout
from tidegate.dialects import anthropic, openai_responses
from tidegate.fakes import FakeUpstream, ScriptedAnswer

STREAM = {**CHAT, "stream": True}
CLAUDE = Config.model_validate(
    {
        "providers": {"claude": {"dialect": "anthropic", "base_url": "http://127.0.0.1:1"}},
        "prices": {"claude/m-1": {"input": 1, "output": 2}},
    }
)

ONCE = Config.model_validate(
    {
        "providers": {"sim": {"base_url": "http://127.0.0.1:1/v1"}},
        "routes": {"once": {"targets": ["sim/m-1"], "retries": 0}},
        "prices": {"sim/m-1": {"input": 1, "output": 2}},
    }
)
RESPONSES = Config.model_validate(
    {
        "providers": {"res": {"dialect": "openai_responses", "base_url": "http://127.0.0.1:1/v1"}},
        "prices": {"res/m-1": {"input": 1, "output": 2}},
    }
)


async def recorded(answer: ScriptedAnswer, body: Any, config: Config = CONFIG, **options: Any) -> dict[str, Any]:
    bench = Bench(FakeUpstream(answer), config=config)
    await bench.call(body, **options)
    row: dict[str, Any] = bench.record()["call"]
    return row


def counts(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["input_tokens"], row["output_tokens"], row["usage_source"], row["cost_nano_usd"]


async def test_g1_usage_on_a_chunk_that_has_choices_counts() -> None:
    """LiteLLM #36168: the final chunk with usage is not always empty of choices."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    last = event(choices=[{"index": 0, "delta": {"content": "!"}, "finish_reason": "stop"}], usage=usage)
    row = await recorded(ScriptedAnswer(body=[delta("hi"), last, DONE]), STREAM)
    assert counts(row) == (10, 5, "provider", 20_000)


async def test_g1_a_later_chunk_without_counts_does_not_undo_them() -> None:
    chunks = [delta("hi", finish="stop"), USAGE, event(choices=[], usage={}), DONE]
    assert counts(await recorded(ScriptedAnswer(body=chunks), STREAM)) == (10, 5, "provider", 20_000)


async def test_an_explicit_zero_is_no_reason_to_estimate() -> None:
    row = await recorded(
        ScriptedAnswer(body=[completion("hi", usage={"prompt_tokens": 0, "completion_tokens": 0})]), CHAT
    )
    assert counts(row) == (0, 0, "provider", 0)


@pytest.mark.parametrize("usage", [None, {}])
async def test_g1_a_whole_answer_without_usage_is_estimated_and_marked(usage: Any) -> None:
    row = await recorded(ScriptedAnswer(body=[completion("12345678", usage=usage)]), CHAT)
    assert row["usage_source"] == "estimated"
    assert row["output_tokens"] == 2
    assert row["cost_nano_usd"] == row["input_tokens"] * 1_000 + 2 * 2_000 > 4_000


async def test_g1_a_cut_stream_of_reasoning_and_tool_calls_is_billed_for_what_arrived() -> None:
    thought = event(choices=[{"index": 0, "delta": {"reasoning_content": "12345678"}}])
    call = {"index": 0, "id": "c", "function": {"name": "find", "arguments": '{"a":1}!'}}
    called = event(choices=[{"index": 0, "delta": {"tool_calls": [call]}}])
    row = await recorded(ScriptedAnswer(body=[thought, called], breaks=StreamBroken("cut")), STREAM)
    assert (row["outcome"], row["output_tokens"], row["usage_source"]) == ("error", 4, "estimated")


@pytest.mark.parametrize("client", ["anthropic", "openai_chat"])
async def test_g1_a_stream_cut_before_its_final_count_is_billed_for_what_arrived(client: str) -> None:
    """Anthropic counts the input first, and with it one token of output: that is not what the answer cost."""
    usage = {"input_tokens": 100, "cache_read_input_tokens": 20, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": [], "usage": usage}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 400}},
    ]
    wire = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events]
    body = {**CHAT, "model": "claude/m-1", "stream": True, "max_tokens": 500}
    options: dict[str, Any] = {"dialect": anthropic.DIALECT} if client == "anthropic" else {}
    row = await recorded(ScriptedAnswer(body=wire, breaks=StreamBroken("cut")), body, CLAUDE, **options)
    assert (row["input_tokens"], row["cache_read_input_tokens"]) == (120, 20)
    assert (row["output_tokens"], row["usage_source"], row["outcome"]) == (100, "estimated", "error")
    assert row["cost_nano_usd"] == 120 * 1_000 + 100 * 2_000


async def test_g1_a_whole_answer_of_another_dialect_without_usage_is_estimated_with_all_that_it_says() -> None:
    """Reasoning, arguments of tools and further answers cost as well as the first words."""
    function = {"name": "find", "arguments": '{"a":"12"}'}
    called = {"id": "c", "type": "function", "function": function}
    message = {"role": "assistant", "reasoning_content": "1234567890", "content": "12345678", "tool_calls": [called]}
    choices = [{"index": at, "message": message, "finish_reason": "tool_calls"} for at in (0, 1)]
    body = {**CHAT, "max_tokens": 500}
    answer = ScriptedAnswer(body=[completion("", choices=choices, usage=None)])
    row = await recorded(answer, body, dialect=anthropic.DIALECT)
    assert (row["usage_source"], row["output_tokens"]) == ("estimated", 2 * (10 + 8 + 10) // 4)


async def test_g1_output_that_nobody_counted_is_estimated_in_every_dialect() -> None:
    """Input that was counted does not make output free. Gemini leaves out what is 0, as protobuf does."""
    content = [{"type": "text", "text": "12345678"}]
    message = {"type": "message", "content": content, "stop_reason": "end_turn", "usage": {"input_tokens": 9}}
    item = {"type": "message", "content": [{"type": "output_text", "text": "12345678"}]}
    response = {"status": "completed", "output": [item], "usage": {"input_tokens": 9}}
    body = {**CHAT, "model": "claude/m-1", "max_tokens": 9}
    claude = ScriptedAnswer(body=[json.dumps(message).encode()])
    rows = [await recorded(claude, body, CLAUDE, dialect=anthropic.DIALECT)]
    asked = {"model": "res/m-1", "input": "hi"}
    gpt = ScriptedAnswer(body=[json.dumps(response).encode()])
    rows.append(await recorded(gpt, asked, RESPONSES, dialect=openai_responses.DIALECT))
    assert [(row["output_tokens"], row["usage_source"]) for row in rows] == [(2, "estimated")] * 2


@pytest.mark.parametrize("status", ["queued", "in_progress"])
async def test_what_the_provider_still_works_on_has_no_cost_yet(status: str) -> None:
    """OpenAI's background: what it comes to nobody hears, and it is not free. A budget pays what was reserved."""
    running: dict[str, Any] = {"id": "resp_1", "status": status, "output": [], "usage": None}
    asked = {"model": "res/m-1", "input": "hi", "background": True}
    answer = ScriptedAnswer(body=[json.dumps(running).encode()])
    row = await recorded(answer, asked, RESPONSES, dialect=openai_responses.DIALECT)
    assert (row["outcome"], row["cost_nano_usd"], row["usage_source"]) == ("ok", None, "estimated")


@pytest.mark.parametrize(("phase", "cost"), [("connect", None), ("first_byte", 9_000), ("idle", 9_000)])
async def test_a_try_that_was_sent_and_not_waited_for_is_charged_and_one_that_was_not_sent_is_not(
    phase: Any, cost: int | None
) -> None:
    late = ScriptedAnswer(fails=UpstreamTimeout("late", phase=phase))
    bench = Bench(FakeUpstream(late), config=ONCE)
    await bench.call({**CHAT, "model": "once", "messages": [{"role": "user", "content": "123"}]})
    row = bench.record()["call"]
    assert (row["cost_nano_usd"], row["usage_source"]) == (cost, "estimated" if cost else None)


async def test_a_service_tier_without_a_price_is_recorded_and_has_no_cost() -> None:
    row = await recorded(ScriptedAnswer(body=[completion("hi", service_tier="scale")]), CHAT)
    assert (row["service_tier"], row["cost_nano_usd"], row["input_tokens"]) == ("scale", None, 10)


async def test_the_record_tells_audio_and_hour_long_caches_apart() -> None:
    details = {"audio_tokens": 4}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": details}
    row = await recorded(ScriptedAnswer(body=[completion("hi", usage=usage)]), CHAT)
    assert (row["audio_input_tokens"], row["audio_output_tokens"]) == (4, 0)
    content = [{"type": "text", "text": "hi"}]
    counted = {"input_tokens": 1, "output_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 7}}
    answer = {"id": "m", "type": "message", "content": content, "stop_reason": "end_turn", "usage": counted}
    body = {**CHAT, "model": "claude/m-1", "max_tokens": 9}
    row = await recorded(ScriptedAnswer(body=[json.dumps(answer).encode()]), body, CLAUDE, dialect=anthropic.DIALECT)
    assert (row["cache_write_input_tokens"], row["cache_write_1h_input_tokens"]) == (7, 7)
