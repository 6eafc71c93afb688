"""
The record: the one stored row of a call. Exactly one per call, whatever happens to it.

Names follow OpenTelemetry GenAI. A spool line is one `Entry` as JSON: the row of the `calls` table and, where it was
kept, the content.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tidegate.core.budgets import Charge

Origin = Literal["live", "eval", "canary", "judge", "playground"]
Outcome = Literal["ok", "error", "rejected", "client_closed", "lost"]
CacheState = Literal["hit", "miss", "shared", "bypass"]
SplitBy = Literal["user", "conversation", "draw"]


class AttemptRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One upstream try."""

    target: str
    latency_s: float
    status: int | None = None
    error_type: str | None = None


class CallRow(msgspec.Struct, omit_defaults=True):
    """
    One row of the `calls` table. Durations in seconds, money in nano-USD, instants in UTC.

    A spool line leaves out what is as by default, and whoever reads it fills that in (lake.py): half of its bytes.
    """

    id: str
    start: str
    """ISO 8601 with microseconds and `Z`."""
    project: str = "default"
    origin: Origin = "live"
    operation: str = "chat"
    dialect: str = "openai_chat"
    streamed: bool = False
    prompt: str | None = None
    version: int | None = None
    digest: str | None = None
    environment: str | None = None
    split_by: SplitBy | None = None
    """While the environment's calls are split between two versions: what this call's version was chosen by. None: no
    split."""
    route: str | None = None
    provider: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    system_fingerprint: str | None = None
    system_digest: str | None = None
    """For calls without a prompt: sha256 over system messages, tools and params, so that pages can split by it."""
    outcome: Outcome = "error"
    http_status: int = 0
    """What the client got; of a stream that broke, what it would have got before the first byte."""
    error_type: str | None = None
    error_message: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_write_1h_input_tokens: int | None = None
    """Of those written: kept for an hour, and dearer."""
    reasoning_output_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    service_tier: str | None = None
    """What the provider says it served the call as, such as `flex` or `priority`."""
    usage_source: str | None = None
    """provider, estimated, or None when there was nothing to count."""
    cost_nano_usd: int | None = None
    """None: the price of this model, or of this service tier, is not known."""
    cache: CacheState | None = None
    """What the cache did: `shared` is the answer to another call of the same moment, `bypass` that nobody looked.
    None: the route has none."""
    saved_cost_nano_usd: int | None = None
    """What an answer that was there already would have cost; `cost_nano_usd` is 0 then."""
    latency_s: float = 0.0
    time_to_first_chunk_s: float | None = None
    attempts: list[AttemptRow] = []
    output_valid: bool | None = None
    """None: the prompt declares no output format, or there was no whole answer to check."""
    output_problem: str | None = None
    key: str | None = None
    """The name of the client's API key; None where none was asked for, and for tidegate's own calls."""
    key_prefix: str | None = None
    """Tells keys of one name apart."""
    service: str | None = None
    conversation_id: str | None = None
    user_id: str | None = None
    trace_id: str | None = None
    tags: dict[str, str] = {}


class ContentRow(msgspec.Struct, omit_defaults=True):
    """What was said: the rendered input as the provider got it, the variables, the answer."""

    call_id: str
    start: str
    input: str
    """JSON text of the messages sent upstream."""
    output: str
    variables: dict[str, Any] | None = None


class Entry(msgspec.Struct, omit_defaults=True):
    """One spool line."""

    call: CallRow
    content: ContentRow | None = None
    charge: Charge | None = None
    """Of a call under a budget; not stored. While the call runs it is the most that it may be charged."""


def paid(row: CallRow) -> int | None:
    """What a call that is over did cost: nothing where nothing was used, None where nobody knows."""
    return 0 if row.usage_source is None else row.cost_nano_usd
