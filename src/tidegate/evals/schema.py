"""JSON Schemas of eval.yaml and golden sets, for editors: they complete names and underline what is misspelt."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from tidegate.evals.checks import ABSENT, KINDS, NOT, SET
from tidegate.evals.golden import CaseLine
from tidegate.evals.spec import OPTIONS
from tidegate.evals.suite import SuiteFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def suite_schema() -> dict[str, Any]:
    """Of eval.yaml."""
    return _schema(SuiteFile, "tidegate: eval.yaml")


def golden_schema() -> dict[str, Any]:
    """Of a golden set in YAML: a list of cases. A line of JSONL is one of its items."""
    case = _schema(CaseLine, "tidegate: a case")
    defs = case.pop("$defs")
    case.pop("$schema")
    return {
        "$schema": DIALECT,
        "title": "tidegate: golden set",
        "type": "array",
        "items": {"$ref": "#/$defs/Case"},
        "$defs": {**defs, "Case": case},
    }


def _schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    schema = {"$schema": DIALECT, **model.model_json_schema(), "title": title}
    schema["properties"]["checks"]["items"] = {"$ref": "#/$defs/Check"}
    schema["$defs"] = {**schema.get("$defs", {}), "Check": _check()}
    return schema


def _check() -> dict[str, Any]:
    names = [name for base in KINDS for name in (base, NOT + base)]
    kinds = {name: {"description": KINDS[name.removeprefix(NOT)].summary} for name in names}
    number = {"type": "number", "minimum": 0}
    inner = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Check"}}
    return {
        "description": f"A check: its name, or a map of its name and what it takes. Not here: {', '.join(ABSENT)}.",
        "anyOf": [
            {"enum": names},
            {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": False,
                "properties": {
                    **kinds,
                    SET: {"description": "Several checks as one.", **inner},
                    **dict.fromkeys(OPTIONS, number),
                },
            },
        ],
    }
