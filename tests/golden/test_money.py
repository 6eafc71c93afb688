"""
From the usage objects that providers document to exact nano-USD, through the dialect and the catalogue.

Each sum is written out by hand: tokens × (US dollars per million tokens × 1,000).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidegate.config import Price
from tidegate.core.pricing import price
from tidegate.core.usage import Usage
from tidegate.dialects import anthropic, gemini, openai_chat, openai_embeddings, openai_responses
from tidegate.dialects.dialect import Dialect
from tidegate.upstream.prices import PriceList

OWN_AUDIO = {
    "input": 2.5,
    "output": 10,
    "cache_read": 1.25,
    "audio_input": 40,
    "audio_cache_read": 2.5,
    "audio_output": 80,
}
PRICES = PriceList({"openai/gpt-audio-own": Price.model_validate(OWN_AUDIO)}, {})


def usage_of(dialect: Dialect, body: dict[str, Any]) -> Usage:
    """As in the record, and the same as in the canonical answer."""
    raw = json.dumps(body).encode()
    usage = dialect.read_answer(raw).usage
    assert usage is not None
    if dialect.operation == "chat":
        assert dialect.answer_in(raw).usage == usage
    return usage


def cost(dialect: Dialect, model: str, body: dict[str, Any]) -> int | None:
    provider = {"openai_chat": "openai", "openai_responses": "openai", "openai_embeddings": "openai"}
    rates = PRICES.rates(provider.get(dialect.name, dialect.name), model)
    assert rates is not None
    return price(usage_of(dialect, body), rates)


def chat(usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hi"}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage, **more}


def responses(usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "model": "m", "status": "completed", "output": [], "usage": usage, **more}


def messages(**usage: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "Hi"}]
    return {
        "id": "msg_1",
        "type": "message",
        "model": "m",
        "content": content,
        "stop_reason": "end_turn",
        "usage": usage,
    }


def generated(**usage: Any) -> dict[str, Any]:
    candidate = {"content": {"parts": [{"text": "Hi"}], "role": "model"}, "finishReason": "STOP"}
    return {"candidates": [candidate], "usageMetadata": usage}


def audio(tokens: int) -> list[dict[str, Any]]:
    return [{"modality": "TEXT", "tokenCount": 50}, {"modality": "AUDIO", "tokenCount": tokens}]


REASONED = chat(
    {
        "prompt_tokens": 2_006,
        "completion_tokens": 300,
        "total_tokens": 2_306,
        "prompt_tokens_details": {"cached_tokens": 1_920, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 256, "audio_tokens": 0},
    }
)
SPOKEN = chat(
    {
        "prompt_tokens": 1_000,
        "completion_tokens": 400,
        "prompt_tokens_details": {
            "cached_tokens": 300,
            "audio_tokens": 600,
            "cached_tokens_details": {"text_tokens": 200, "audio_tokens": 100},
        },
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 350},
    }
)
RESPONDED = responses(
    {
        "input_tokens": 328,
        "input_tokens_details": {"cached_tokens": 128},
        "output_tokens": 52,
        "output_tokens_details": {"reasoning_tokens": 32},
        "total_tokens": 380,
    }
)
CACHED = {
    "input_tokens": 2_048,
    "cache_read_input_tokens": 1_800,
    "cache_creation_input_tokens": 248,
    "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 503,
}
THOUGHT = generated(
    promptTokenCount=1_000,
    cachedContentTokenCount=600,
    candidatesTokenCount=200,
    thoughtsTokenCount=300,
    toolUsePromptTokenCount=50,
    totalTokenCount=1_550,
)
HEARD = generated(
    promptTokenCount=1_050,
    promptTokensDetails=audio(1_000),
    cachedContentTokenCount=450,
    cacheTokensDetails=audio(400),
    candidatesTokenCount=10,
)
ONE = {"prompt_tokens": 1, "completion_tokens": 0}
LONG = {"prompt_tokens": 272_001, "completion_tokens": 100}
GOLDEN: list[tuple[str, Dialect, str, dict[str, Any], int | None]] = [
    ("chat, cached and reasoned", openai_chat.DIALECT, "gpt-4.1", REASONED, 86 * 2_000 + 1_920 * 500 + 300 * 8_000),
    (
        "chat, audio, some of it cached",
        openai_chat.DIALECT,
        "gpt-audio-own",
        SPOKEN,
        # 1,000 in: 200 text and 100 audio cached, 500 audio and 200 text not; 400 out: 350 audio
        200 * 2_500 + 500 * 40_000 + 200 * 1_250 + 100 * 2_500 + 50 * 10_000 + 350 * 80_000,
    ),
    ("responses", openai_responses.DIALECT, "gpt-4.1", RESPONDED, 200 * 2_000 + 128 * 500 + 52 * 8_000),
    (
        "anthropic, both caches",
        anthropic.DIALECT,
        "claude-sonnet-4-5",
        messages(**CACHED),
        2_048 * 3_000 + 1_800 * 300 + 148 * 3_750 + 100 * 6_000 + 503 * 15_000,
    ),
    (
        "anthropic, a cache that nobody split is of five minutes",
        anthropic.DIALECT,
        "claude-opus-4-5",
        messages(input_tokens=10, cache_creation_input_tokens=1_000, output_tokens=1),
        10 * 5_000 + 1_000 * 6_250 + 25_000,
    ),
    (
        "gemini, cached, thoughts and tool use",
        gemini.DIALECT,
        "gemini-2.5-flash",
        THOUGHT,
        450 * 300 + 600 * 30 + 500 * 2_500,
    ),
    (
        "gemini, audio",
        gemini.DIALECT,
        "gemini-2.5-flash",
        HEARD,
        # 1,050 in: 400 audio and 50 text cached, 600 audio not
        600 * 1_000 + 50 * 30 + 400 * 100 + 10 * 2_500,
    ),
    ("up to 272k", openai_chat.DIALECT, "gpt-5.4", chat({**LONG, "prompt_tokens": 272_000}), 681_500_000),
    ("above 272k", openai_chat.DIALECT, "gpt-5.4", chat(LONG), 272_001 * 5_000 + 100 * 22_500),
    (
        "above 200k by what is cached",
        anthropic.DIALECT,
        "claude-sonnet-4-5",
        messages(input_tokens=1, cache_read_input_tokens=200_000, output_tokens=10),
        6_000 + 200_000 * 600 + 10 * 22_500,
    ),
    (
        "above 200k at Google",
        gemini.DIALECT,
        "gemini-2.5-pro",
        generated(promptTokenCount=200_001, candidatesTokenCount=1),
        200_001 * 2_500 + 15_000,
    ),
    ("flex", openai_chat.DIALECT, "gpt-5.4", chat({**LONG, "prompt_tokens": 100}, service_tier="flex"), 875_000),
    (
        "priority",
        openai_responses.DIALECT,
        "gpt-4.1",
        responses({"input_tokens": 10, "output_tokens": 10}, service_tier="priority"),
        10 * 3_500 + 10 * 14_000,
    ),
    ("default", openai_chat.DIALECT, "gpt-4.1", chat(ONE, service_tier="default"), 2_000),
    ("a tier without a price", openai_chat.DIALECT, "gpt-4.1", chat(ONE, service_tier="scale"), None),
    (
        "batch",
        anthropic.DIALECT,
        "claude-opus-4-5",
        messages(input_tokens=10, output_tokens=2, service_tier="batch"),
        10 * 2_500 + 2 * 12_500,
    ),
    (
        "bought capacity",
        anthropic.DIALECT,
        "claude-opus-4-5",
        messages(input_tokens=10, output_tokens=2, service_tier="priority"),
        None,
    ),
    (
        "on demand is the standard service",
        gemini.DIALECT,
        "gemini-2.5-flash",
        generated(promptTokenCount=10, trafficType="ON_DEMAND"),
        3_000,
    ),
    (
        "provisioned",
        gemini.DIALECT,
        "gemini-2.5-flash",
        generated(promptTokenCount=10, trafficType="PROVISIONED_THROUGHPUT"),
        None,
    ),
    (
        "embeddings",
        openai_embeddings.DIALECT,
        "text-embedding-3-small",
        {"data": [{"embedding": "AAAA"}], "model": "m", "usage": {"prompt_tokens": 8, "total_tokens": 8}},
        160,
    ),
]


@pytest.mark.parametrize(
    ("dialect", "model", "body", "nano"), [case[1:] for case in GOLDEN], ids=[c[0] for c in GOLDEN]
)
def test_a_documented_usage_object_costs(dialect: Dialect, model: str, body: dict[str, Any], nano: int | None) -> None:
    assert cost(dialect, model, body) == nano


def test_g3_server_tools_cache_writes_are_in_the_sum() -> None:
    """LiteLLM #42663: cache writes of a call with server tools, 20 to 60 % low."""
    usage = {**CACHED, "server_tool_use": {"web_search_requests": 2}}
    assert cost(anthropic.DIALECT, "claude-sonnet-4-5", messages(**usage)) == cost(
        anthropic.DIALECT, "claude-sonnet-4-5", messages(**CACHED)
    )


def test_an_explicit_zero_stays_zero() -> None:
    assert usage_of(openai_chat.DIALECT, chat({"prompt_tokens": 0, "completion_tokens": 0})) == Usage()
    assert cost(openai_chat.DIALECT, "gpt-4.1", chat({"prompt_tokens": 0, "completion_tokens": 0})) == 0
