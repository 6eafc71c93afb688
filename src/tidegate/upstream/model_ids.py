"""
Whether a model's id names one snapshot for good, or whatever its provider serves under that name today.

Providers date their snapshots in their own ways (2026-03): OpenAI `-2025-04-14` and `-0613`, Anthropic `-20250929`,
Vertex AI `@20250929` and `-001`, Bedrock `-v1:0`, Mistral `-2411`, Cohere `-08-2024`; a registry of weights pins by
digest.
"""

from __future__ import annotations

import re

_YEAR, _MONTH, _DAY = r"20[0-9]{2}", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12][0-9]|3[01])"
_PINNED = re.compile(
    rf"""[-@:.]
    (?: {_YEAR}-{_MONTH}-{_DAY} | {_YEAR}{_MONTH}{_DAY}
      | {_MONTH}-?{_DAY} | {_MONTH}-{_YEAR} | 2[3-9]{_MONTH}
      | 00[0-9] | v[0-9]:[0-9] | sha256:[0-9a-f]{{12,64}} | [0-9a-f]{{40}} )
    (?![0-9a-z])""",
    re.VERBOSE,
)


def pinned(model: str) -> bool:
    """True when `provider/model`, or a bare model id, names a snapshot."""
    return _PINNED.search(model.partition("/")[2] or model) is not None
