"""How hard a model shall think: OpenAI says it as a word, Anthropic and Gemini also as a number of tokens."""

from __future__ import annotations

EFFORT_TOKENS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 32_768, "max": 65_536}
"""The most that each effort may think. Our own numbers: providers that know only one of the two publish none."""


def tokens_for(effort: str) -> int | None:
    """The budget of an effort in tokens; None when the word is not known."""
    return 0 if effort == "none" else EFFORT_TOKENS.get(effort)


def effort_for(tokens: int) -> str:
    """The smallest effort that holds a budget; none for 0."""
    if tokens <= 0:
        return "none"
    return next((effort for effort, most in EFFORT_TOKENS.items() if tokens <= most), "max")
