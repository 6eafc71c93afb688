"""
The record of one call while the call runs: opened first, closed last, exactly once.

`close` writes the spool line – one write(2) – before the last byte of the answer goes out, so that no acknowledged
call is ever lost with its process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tidegate.core.errors import TidegateError, UpstreamError, UpstreamRejected, UpstreamTimeout
from tidegate.core.ids import uuid7
from tidegate.core.instant import iso_utc
from tidegate.core.pricing import price
from tidegate.core.usage import MOST, Usage, estimate_tokens
from tidegate.dialects.dialect import Answer
from tidegate.gateway.call import Call
from tidegate.ports import Clock, Hold, Random, Spool
from tidegate.telemetry.record import AttemptRow, CallRow, ContentRow, Entry, Outcome, paid
from tidegate.upstream.targets import Target

REQUEST_ID_TAG = "tidegate.request_id"
BROKEN_OFF = "cancelled"
"""What became of a try whose client left, or whose call had no more time."""
MAX_MESSAGE_CHARS = 500
MAX_NAME_CHARS = 200
MAX_CONTENT_CHARS = 1 << 20
"""Of an input and of an output, each; the recorder takes lines of up to 16 MiB."""
_encode = msgspec.json.Encoder().encode


class Record:
    """Collects the row of one call. Not for use by more than one task."""

    target: Target | None = None
    input = "[]"
    output = ""
    variables: dict[str, Any] | None = None
    charge: Callable[[bool], bool] | None = None
    """Whether this call pays for its answer, which is whole or not; None: it does."""
    free = False
    """The provider was paid for this answer before, or by another call."""
    shown_headers: Sequence[tuple[str, str]] = ()
    """Of the last answer of this target, what the client sees."""
    closed = False
    hold: Hold | None = None
    """What the call holds of limits and budgets, given back as the record is closed."""
    keep_content = True
    """Of a call that went well, too."""
    _unanswered_nano_usd: int | None = None
    """For tries that nobody waited for to their end."""

    def __init__(self, call: Call, project: str, clock: Clock, random: Random, spool: Spool) -> None:
        self._clock = clock
        self._spool = spool
        self._began = clock.monotonic()
        now = clock.now_ns()
        self.id = uuid7(now // 1_000_000, random.bits(80))
        self.row = CallRow(
            self.id,
            iso_utc(now),
            project,
            operation=call.dialect.operation,
            dialect=call.dialect.name,
            streamed=bool(call.stream),
            request_model=call.model[:200] if call.model else None,
            service=call.service,
            conversation_id=call.conversation_id,
            user_id=call.user_id,
            trace_id=call.trace_id,
        )
        if call.tags:
            self.row.tags.update(call.tags)
        self.request_id = call.request_id or self.id
        """What the client calls this request, else the call's id."""
        if call.request_id is not None:
            self.row.tags[REQUEST_ID_TAG] = call.request_id

    def use(self, target: Target) -> None:
        """The target now tried."""
        self.target = target
        self.shown_headers = ()
        self.row.provider = target.provider

    def attempted(self, target: Target, began: float, error: TidegateError | None, status: int | None = None) -> None:
        """One try is over; `began` is the monotonic second it began. Neither error nor status: it was broken off."""
        if error is not None:
            status = error.http_status if isinstance(error, UpstreamRejected) else None
        code = error.code if error is not None else None if status else BROKEN_OFF
        if code == BROKEN_OFF or (isinstance(error, UpstreamTimeout) and error.phase != "connect"):
            self._charge_unanswered(target)
        self.row.attempts.append(AttemptRow(target.name, self._since(began), status, code))

    def _charge_unanswered(self, target: Target) -> None:
        """A try that was sent and not waited for: the provider may bill its input, and nobody will say how much."""
        row, usage = self.row, Usage(estimate_tokens(len(self.input)), 0, source="estimated")
        cost = None if target.rates is None else price(usage, target.rates)
        if cost is not None:
            self._unanswered_nano_usd = (self._unanswered_nano_usd or 0) + cost
        if row.usage_source is None:
            row.input_tokens, row.output_tokens, row.usage_source = usage.input_tokens, 0, usage.source

    def first_chunk(self) -> None:
        """The first content of a stream has come."""
        self.row.time_to_first_chunk_s = self._since(self._began)

    def answered(self, answer: Answer) -> None:
        """Takes over what the answer says: model, finish, usage (or an estimate), cost."""
        row = self.row
        row.response_model = _short(answer.model)
        row.system_fingerprint = _short(answer.system_fingerprint)
        row.finish_reason = _short(answer.finish_reason)
        self.output = answer.text
        usage = self._usage(answer)
        row.service_tier = _short(usage.service_tier)
        row.input_tokens = usage.input_tokens
        row.output_tokens = usage.output_tokens
        row.cache_read_input_tokens = usage.cache_read_input_tokens
        row.cache_write_input_tokens = usage.cache_write_input_tokens
        row.cache_write_1h_input_tokens = usage.cache_write_1h_input_tokens
        row.reasoning_output_tokens = usage.reasoning_output_tokens
        row.audio_input_tokens = usage.audio_input_tokens
        row.audio_output_tokens = usage.audio_output_tokens
        row.usage_source = usage.source
        rates = None if self.target is None else self.target.rates
        cost = None if rates is None or answer.running else price(usage, rates)
        if self.charge is None or self.charge(answer.finish_reason is not None):
            row.cost_nano_usd = cost
        else:
            row.cost_nano_usd, row.saved_cost_nano_usd = 0, cost
            self.free = True

    def _usage(self, answer: Answer) -> Usage:
        """What the provider counted, also nothing; what it did not count is estimated, and marked so."""
        arrived = estimate_tokens(len(answer.text) + answer.unseen_chars)
        if answer.usage is None or answer.usage.input_tokens >= MOST or answer.usage.output_tokens >= MOST:
            return Usage(estimate_tokens(len(self.input)), arrived, source="estimated")
        if answer.finish_reason is None and arrived > answer.usage.output_tokens:
            # The stream broke before its final count: Anthropic tells the input first, and with it next to no output.
            return msgspec.structs.replace(answer.usage, output_tokens=arrived, source="estimated")
        return answer.usage

    def failed(self, error: TidegateError) -> None:
        """Notes why there is no (whole) answer."""
        row = self.row
        row.outcome = "error" if isinstance(error, UpstreamError) or error.http_status >= 500 else "rejected"
        row.http_status = error.http_status
        row.error_type = error.code
        text = str(error) if self.target is None else self.target.redact(str(error))
        row.error_message = text[:MAX_MESSAGE_CHARS]

    def close(self, outcome: Outcome | None = None, *, status: int | None = None) -> None:
        """Writes the record; every later call is a no-op."""
        if self.closed:
            return
        self.closed = True
        row = self.row
        if outcome is not None:
            row.outcome = outcome
        if status is not None:
            row.http_status = status
        row.latency_s = self._since(self._began)
        if self._unanswered_nano_usd is not None:
            row.cost_nano_usd = (row.cost_nano_usd or 0) + self._unanswered_nano_usd
        hold, charge, recorded = self.hold, None, False
        if hold is not None:
            tokens = 0 if self.free else (row.input_tokens or 0) + (row.output_tokens or 0)
            charge = hold.settle(tokens, paid(row), None if self.target is None else self.target.name)
        needed = row.origin != "live" or row.outcome in ("error", "lost") or row.output_valid is False
        content = None
        if (needed or self.keep_content) and row.outcome != "rejected":
            variables = self.variables if len(self.input) <= MAX_CONTENT_CHARS else None  # they are within it
            content = ContentRow(row.id, row.start, _clip(self.input), _clip(self.output), variables)
        try:
            recorded = self._spool.append(encode_entry(Entry(row, content, charge)))
        finally:
            if hold is not None:
                hold.end(recorded=recorded)

    @property
    def elapsed_s(self) -> float:
        """Since the call came in."""
        return self._since(self._began)

    def _since(self, began: float) -> float:
        """Seconds, in whole microseconds."""
        return int((self._clock.monotonic() - began) * 1e6 + 0.5) / 1e6


def _short(name: str | None) -> str | None:
    """A provider's name for something; a line with one of megabytes would not be stored."""
    return name if name is None or len(name) <= MAX_NAME_CHARS else name[:MAX_NAME_CHARS]


def _clip(text: str) -> str:
    if len(text) <= MAX_CONTENT_CHARS:
        return text
    return f"{text[:MAX_CONTENT_CHARS]}… [cut, {len(text):,} characters in all]"


def encode_entry(entry: Entry) -> bytes:
    """The spool line."""
    try:
        return _encode(entry)
    except UnicodeEncodeError:
        # A lone surrogate (half an emoji) is the one thing a str can hold that UTF-8 can not: it becomes a `?`.
        plain = msgspec.to_builtins(entry)
        return _encode(_clean(plain))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
