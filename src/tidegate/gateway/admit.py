"""
What a call takes of limits and budgets before its first attempt: estimated here, settled when its record is closed.

Money is reserved for the worst: every byte of the request a token, the whole of the bound on output, at the dearest
rates of any target that it may be sent to; and for every try but the last what its input probably costs. Tokens per
minute are taken as they will probably be, and put right later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from tidegate.core.errors import Unusable
from tidegate.core.usage import estimate_tokens
from tidegate.dialects.dialect import Fields
from tidegate.gateway.call import Call
from tidegate.gateway.record import Record, encode_entry
from tidegate.gateway.resolve import Plan
from tidegate.ports import Admission
from tidegate.telemetry.record import Entry

HIDDEN_TOKENS = 400
"""What a provider adds of its own: the words around messages, and Anthropic's instructions for tools (346)."""
BOUNDS: Mapping[str, tuple[str, ...]] = {
    "openai_chat": ("max_tokens", "max_completion_tokens"),
    "openai_responses": ("max_output_tokens",),
    "anthropic": ("max_tokens",),
}
"""By a client's dialect: another one's word for it binds nobody."""
BEYOND = 10**12
GEMINI_CONFIG = ("generationConfig", "generation_config")
GEMINI_BOUNDS = ("maxOutputTokens", "max_output_tokens")
GEMINI_COUNTS = ("candidateCount", "candidate_count")
_decode = msgspec.json.Decoder(int | float | str).decode


def admit(call: Call, plan: Plan, record: Record, admission: Admission, *, unbounded: int) -> None:
    """
    Takes the call's part of everything that concerns it; `record` holds it from here on, and gives it back.

    Args:
        unbounded: output tokens to reserve where the call sets no bound.
    Raises: Saturated, TooLarge, BudgetExhausted; Unusable when a call under a budget can not be written down.
    """
    row, path = record.row, plan.path
    size = _bytes(call, plan, record)
    bound, count = _output_bound(plan)
    output = (unbounded if bound is None else bound) * count
    tokens, most = estimate_tokens(size), 0
    for ceiling in path.ceilings:
        once = ceiling.nano_usd(size + HIDDEN_TOKENS, output)
        # What a try costs that nobody waited for to its end, in record.py.
        most = max(most, once + (path.tries - 1) * ceiling.nano_usd(tokens, 0))
    record.hold = hold = admission.admit(
        key=row.key,
        prompt=row.prompt,
        route=row.route,
        models=path.models,
        tokens=tokens + (bound or 0) * count,
        nano_usd=most,
    )
    if hold.most is not None and not hold.begin(encode_entry(Entry(row, None, hold.most))):
        raise Unusable("calls under a budget can not be written down: the gateway's disk is full. Call again later.")


def _bytes(call: Call, plan: Plan, record: Record) -> int:
    """At least as many as the input has tokens: a token of text is one byte or more."""
    if plan.prompted is None:
        return len(call.body)
    said = record.input
    rendered = len(said) if said.isascii() else len(said.encode("utf-8", "surrogatepass"))
    tools = sum(len(str(tool.parameters)) + len(tool.description) for tool in plan.prompted.tools)
    return len(call.body) + rendered + tools


def _output_bound(plan: Plan) -> tuple[int | None, int]:
    """The most output tokens of one answer, None where the call does not say, and how many answers there may be."""
    if plan.client.operation != "chat":
        return 0, 1
    prompted = plan.prompted
    if prompted is not None:
        return prompted.max_output_tokens, prompted.count or 1
    fields, most = plan.incoming.fields, None
    names = BOUNDS.get(plan.client.name)
    if names is None:
        return _gemini_bound(fields)
    for name in names:
        raw = fields.get(name)
        if raw is not None and (bound := _number(raw)) is not None and (most is None or bound > most):
            most = bound
    return most, _number(fields.get("n")) or 1


def _gemini_bound(fields: Fields) -> tuple[int | None, int]:
    """The largest of each, should a client spell it twice."""
    bounds: list[int] = []
    counts = [1]
    for name in GEMINI_CONFIG:
        try:
            config = msgspec.json.decode(fields[name], type=Fields) if name in fields else {}
        except (msgspec.DecodeError, RecursionError):
            continue
        bounds += [number for name in GEMINI_BOUNDS if (number := _number(config.get(name))) is not None]
        counts += [number for name in GEMINI_COUNTS if (number := _number(config.get(name))) is not None]
    return max(bounds, default=None), max(counts)


def _number(raw: msgspec.Raw | None) -> int | None:
    """A whole number that is not below 0, however it is written; None for anything else."""
    if raw is None:
        return None
    try:
        said = _decode(raw)
        number = float(said) if isinstance(said, str) else said
    except ValueError:  # msgspec's too
        return None
    return math.ceil(number) if 0 <= number < BEYOND else None
