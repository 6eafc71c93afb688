"""Token counts of one answer, in OpenTelemetry GenAI's arithmetic."""

from __future__ import annotations

from typing import Literal

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """
    Token counts, each ≥ 0.

    `input_tokens` includes the cached ones (read and write) and audio; `output_tokens` includes reasoning and audio.
    Each dialect converts to this rule (OTel GenAI semantic conventions, `gen_ai.usage.*`).
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    source: Literal["provider", "estimated"] = "provider"
    cache_write_1h_input_tokens: int = 0
    """Of those written: the ones kept for an hour, which cost more (Anthropic)."""
    server_tool_requests: int = 0
    """Web searches and the like that the provider ran by itself and may bill apart."""
    audio_input_tokens: int = 0
    """Of the input, cached or not: audio, which costs more."""
    audio_cache_read_input_tokens: int = 0
    """Of the audio: what was read from the cache."""
    audio_output_tokens: int = 0
    service_tier: str | None = None
    """What the provider says it served the call as, in its own word: `default`, `flex`, `priority`, `batch` …"""


def estimate_tokens(chars: int) -> int:
    """A rough count for when a provider reports none: one token per four characters, rounded up, at least 0."""
    return (chars + 3) // 4


MOST = 10**9
"""No call has so many tokens: a provider that counts as many has not counted."""


def counted(given: int | None) -> int:
    """A provider's count; what it leaves out, or puts below 0, is 0, and what no call can have is MOST."""
    if not given or given < 0:
        return 0
    return given if given < MOST else MOST


def with_reasoning(output: int, reasoning: int, *, beside: int, cached: int) -> tuple[int, int]:
    """
    (output, reasoning) tokens, where a provider's total holds `beside` its input and its output some more, > 0.

    xAI counts reasoning there, and Google's OpenAI endpoint does without naming it: both charge it as output. Who
    leaves cached tokens out of the input has those there.
    """
    if reasoning not in (0, beside) or (beside == cached and not reasoning):
        return output, reasoning
    return output + beside, beside
