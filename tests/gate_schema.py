"""What `gate --json` prints, held against the published schema."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

SCHEMA = Path(__file__).parents[1] / "docs" / "reference" / "gate-report.schema.json"


@cache
def _validator() -> Any:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    for part in schema["$defs"].values():
        part["additionalProperties"] = False  # readers may meet more; our own tests shall not
    return jsonschema_rs.validator_for(schema)


def gate_json(text: str) -> Any:
    """The parsed output; fails when it is not as published, or holds what the schema does not name."""
    value = json.loads(text)
    assert [f"{error.instance_path}: {error.message}" for error in _validator().iter_errors(value)] == []
    return value
