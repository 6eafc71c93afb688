"""Checks of how much: words, tokens, money, time, and how sure the model was."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.core.usage import estimate_tokens
from tidegate.evals.checks.check import (
    Answer,
    Finding,
    Kind,
    Probe,
    as_count,
    as_map,
    as_number,
    as_share,
    graded,
    unknowable,
)

RANGE = ("max", "min")


def _word_count(value: Any) -> Probe:
    if isinstance(value, dict):
        least, most = bounds(value)
    else:
        least = most = as_count(value, "a number of words")

    def probe(answer: Answer) -> Finding:
        words = len(answer.text.split())
        return _within(words, f"is {words} {'word' if words == 1 else 'words'} long", least, most)

    return probe


def _output_tokens(value: Any) -> Probe:
    least, most = bounds(value)

    def probe(answer: Answer) -> Finding:
        counted = answer.said.output_tokens
        tokens = estimate_tokens(len(answer.text)) if counted is None else counted
        return _within(tokens, f"is {'about ' if counted is None else ''}{tokens} tokens long", least, most)

    return probe


def bounds(value: Any) -> tuple[int, int | None]:
    """(least, most) of `{max: N, min: N}`. Raises ValueError."""
    given = as_map(value, "{max: N}, {min: N} or both", RANGE)
    for key, bound in given.items():
        if not isinstance(bound, int) or isinstance(bound, bool) or bound < 0:
            raise ValueError(f"{key} is a whole number, 0 or more, not {bound!r}")
    least, most = given.get("min", 0), given.get("max")
    if most is not None and least > most:
        raise ValueError(f"min {least} is above max {most}")
    return least, most


def _within(count: int, said: str, least: int, most: int | None) -> Finding:
    if least == most:
        return Finding(count == least, f"{said}, {'exactly' if count == least else 'not'} {least}")
    if most is not None and count > most:
        return Finding(False, f"{said}, over the {most} allowed")
    if count < least:
        return Finding(False, f"{said}, under the {least} asked for")
    return Finding(True, f"{said}, within {least} to {'any' if most is None else most}")


def _cost(value: Any = None, *, threshold: Any = None) -> Probe:
    most = _limit(value, threshold, "an amount of US dollars")

    def probe(answer: Answer) -> Finding:
        nano_usd = answer.said.cost_nano_usd
        if nano_usd is None:
            return unknowable("what the call cost is not known: this model has no price")
        return _at_most(nano_usd / 1e9, most, "cost ${:.6g}")

    return probe


def _latency(value: Any = None, *, threshold: Any = None) -> Probe:
    most = _limit(value, threshold, "a number of milliseconds")

    def probe(answer: Answer) -> Finding:
        if answer.said.latency_s is None:
            return unknowable("how long the call took is not known")
        return _at_most(answer.said.latency_s * 1_000, most, "took {:.0f} ms")

    return probe


def _perplexity(value: Any = None, *, threshold: Any = None) -> Probe:
    most = _limit(value, threshold, "a perplexity", needed=False)

    def probe(answer: Answer) -> Finding:
        measured = _measured(answer)
        return _NO_LOGPROBS if measured is None else _at_most(measured, most, "has a perplexity of {:.4g}")

    return probe


def _perplexity_score(value: Any = None, *, threshold: Any = None) -> Probe:
    least = 0.0 if value is None and threshold is None else as_share(_limit(value, threshold, "a score"))

    def probe(answer: Answer) -> Finding:
        measured = _measured(answer)
        return _NO_LOGPROBS if measured is None else graded("perplexity score", 1 / (1 + measured), least)

    return probe


_NO_LOGPROBS = unknowable(
    "the provider sent no log-probabilities of the answer's tokens, so its perplexity is not known"
)


def _measured(answer: Answer) -> float | None:
    """exp of the mean negative log-probability of the answer's tokens."""
    tokens = answer.said.logprobs
    if not tokens:
        return None
    return math.exp(min(-math.fsum(token.logprob for token in tokens) / len(tokens), 700))


def _limit(value: Any, threshold: Any, what: str, *, needed: bool = True) -> float:
    if value is not None and threshold is not None:
        raise ValueError("the limit stands twice: as the value and as `threshold`; give it once")
    given = threshold if value is None else value
    if given is None and not needed:
        return math.inf
    return as_number(given, f"the limit, {what},")


def _at_most(measured: float, most: float, said: str) -> Finding:
    holds = measured <= most
    return Finding(holds, f"{said.format(measured)}, {'within' if holds else 'over'} the limit of {most:g}")


def _kind(make: Callable[..., Probe], summary: str, example: Any, *, needs_logprobs: bool = False) -> Kind:
    return Kind(make, summary, example, ("threshold",), needs_logprobs)


KINDS: Mapping[str, Kind] = {
    "word-count": Kind(
        _word_count,
        "The answer has so many words: a number, or `{min: N, max: N}`.",
        {"word-count": {"min": 20, "max": 120}},
    ),
    "output-tokens": Kind(
        _output_tokens,
        "The provider counted so many output tokens; where it counts none they are estimated, and the reason says so.",
        {"output-tokens": {"max": 300}},
    ),
    "cost": _kind(_cost, "The call cost at most so many US dollars.", {"cost": 0.002}),
    "latency": _kind(_latency, "The call took at most so many milliseconds.", {"latency": 2000}),
    "perplexity": _kind(
        _perplexity,
        "The answer's perplexity is at most this; needs a provider with log-probabilities.",
        {"perplexity": 1.5},
        needs_logprobs=True,
    ),
    "perplexity-score": _kind(
        _perplexity_score,
        "1 / (1 + perplexity) is at least this.",
        {"perplexity-score": None, "threshold": 0.4},
        needs_logprobs=True,
    ),
}
