"""Is a live answer what its prompt promised? Any text, any JSON, or JSON valid under a schema."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NoReturn

from tidegate.core.artifact import Output
from tidegate.core.json_schema import NotASchema, flaws, validator

MAX_PROBLEM_CHARS = 200


def problem(output: Output, digest: str, text: str) -> str | None:
    """
    What is wrong with `text` as an answer of the artifact with this digest, in one sentence; None when nothing is.

    Not to be asked of `format: text`: any text is valid there.
    """
    try:
        value = _decode(text)
    except (ValueError, RecursionError):
        start = text.strip()[:40]
        return f"not JSON: it starts with {start!r}" if start else "not JSON: it is empty"
    if output.format == "json":
        return None
    try:
        found = flaws(_validator(digest, json.dumps(output.schema)), value)
    except NotASchema as error:
        return f"the prompt's schema can not be used: {error}"[:MAX_PROBLEM_CHARS]
    if not found:
        return None
    place = "".join(f"[{part!r}]" if isinstance(part, int) else f".{part}" for part in found[0].path)
    return f"${place}: {found[0].message}"[:MAX_PROBLEM_CHARS]


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")  # though Python reads it


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


@lru_cache(512)
def _validator(digest: str, schema: str) -> Any:
    return validator(json.loads(schema))
