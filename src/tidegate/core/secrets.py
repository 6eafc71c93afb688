"""
Keys that nobody should write into a file, known by their shape. What is found is named by its kind, never shown.

Shapes are those that their issuers publish (2026-03); a bearer token counts when it looks random. Patterns are RE2's:
the time is linear in the text, whatever it holds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import re2

REDACTED = "[redacted]"
RANDOM_BITS = 3.5
"""Shannon entropy per character from which a token looks random; English words stay below."""

_SHAPES = (
    ("a private key", r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    ("an Anthropic API key", r"\bsk-ant-[A-Za-z0-9_-]{20,}"),
    ("a Stripe key", r"\b[rs]k_live_[A-Za-z0-9]{20,}"),
    ("an OpenAI-style API key", r"\bsk-[A-Za-z0-9_-]{20,}"),
    ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})"),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}"),
    ("a Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{30,}"),
    ("a Groq API key", r"\bgsk_[A-Za-z0-9]{40,}"),
    ("a tidegate key", r"\btg_[0-9a-z]{8}_[0-9A-Za-z]{43}\b"),
    ("a JSON web token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    ("a bearer token", r"\b[Bb]earer[ \t]+[A-Za-z0-9._~+/=-]{20,}"),
)
_MUST_LOOK_RANDOM = ("an OpenAI-style API key", "a bearer token")
"""Prefixes that words may have too."""
_ANY = re2.compile("|".join(f"({pattern})" for _, pattern in _SHAPES))


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret stands in a text, and what it looks like (`an AWS access key`)."""

    start: int
    end: int
    kind: str


def find_secrets(text: str) -> Iterator[Secret]:
    """Everything in `text` that has the shape of a key, in order."""
    for found in _ANY.finditer(text):
        kind = _SHAPES[found.lastindex - 1][0]
        if kind not in _MUST_LOOK_RANDOM or _random(found[0].split()[-1].removeprefix("sk-")):
            yield Secret(found.start(), found.end(), kind)


def redact(text: str) -> str:
    """`text` with every such key replaced."""
    pieces, at = [], 0
    for secret in find_secrets(text):
        pieces += [text[at : secret.start], REDACTED]
        at = secret.end
    return "".join([*pieces, text[at:]])


def _random(token: str) -> bool:
    counts = Counter(token)
    bits = -sum(count / len(token) * math.log2(count / len(token)) for count in counts.values())
    return bits >= RANDOM_BITS and any(char.isdigit() for char in token) and any(char.isalpha() for char in token)
