"""Is a live answer what its prompt promised? Any text, any JSON, or JSON valid under a schema."""

from __future__ import annotations

import json
from functools import lru_cache

import jsonschema_rs

from tidegate.core.artifact import Output

MAX_PROBLEM_CHARS = 200


def problem(output: Output, digest: str, text: str) -> str | None:
    """
    What is wrong with `text` as an answer of the artifact with this digest, in one sentence; None when nothing is.

    Not to be asked of `format: text`: any text is valid there.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        start = text.strip()[:40]
        return f"not JSON: it starts with {start!r}" if start else "not JSON: it is empty"
    if output.format == "json":
        return None
    errors = _validator(digest, json.dumps(output.schema)).iter_errors(value)
    first = next(iter(errors), None)
    if first is None:
        return None
    place = "".join(f"[{part!r}]" if isinstance(part, int) else f".{part}" for part in first.instance_path)
    return f"${place}: {first.message}"[:MAX_PROBLEM_CHARS]


@lru_cache(512)
def _validator(digest: str, schema: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json.loads(schema))
