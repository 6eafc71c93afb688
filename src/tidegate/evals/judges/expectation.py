"""
A score as the expectation over the tokens a judge might have said (G-Eval, Liu et al., arXiv:2303.16634 §2.2).

Where a provider gives the chances of the alternatives of the score's token, Σ p(s)·s / Σ p(s) over the scores that were
offered says more than the one score that was drawn. Alternatives below 1 % are noise of the sampler and do not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tidegate.ports import TokenChance

LEAST = 0.01
_AROUND = ' \t\n":,}'


def expected(
    output: str, written: str, key: str, said: str, *, menu: Mapping[str, float], chances: Sequence[TokenChance]
) -> float | None:
    """
    The expected worth of a verdict's `key`; None where the tokens do not show it.

    Args:
        output: the judge's whole answer.
        written: the verdict, a part of it.
        said: the entry of the menu that it names.
        menu: what was offered, and what each is worth.
        chances: of the answer's tokens, in order.
    """
    at = _offset(output, written, key)
    token = None if at is None else _token_at(output, at, chances)
    if token is None:
        return None
    words = {word.casefold(): worth for word, worth in menu.items()}
    if token.token.strip(_AROUND).casefold() != said.casefold():
        return None  # one token holds more, or less, than the word
    weights: dict[float, float] = {}
    for text, logprob in dict([(token.token, token.logprob), *token.top]).items():
        worth, chance = words.get(text.strip(_AROUND).casefold()), math.exp(min(logprob, 0.0))
        if worth is not None and chance >= LEAST:
            weights[worth] = weights.get(worth, 0.0) + chance
    total = math.fsum(weights.values())
    return math.fsum(worth * chance for worth, chance in weights.items()) / total if total else None


def _offset(output: str, written: str, key: str) -> int | None:
    """Where the value of the verdict's last `key` begins in the output."""
    start = output.rfind(written)
    member = written.rfind(f'"{key}"')
    if start < 0 or member < 0:
        return None
    at = start + member + len(key) + 2
    while at < len(output) and output[at] in _AROUND:
        at += 1
    return at if at < len(output) else None


def _token_at(output: str, at: int, chances: Sequence[TokenChance]) -> TokenChance | None:
    end = 0
    if "".join(chance.token for chance in chances) != output:
        return None
    for chance in chances:
        end += len(chance.token)
        if at < end:
            return chance
    return None
