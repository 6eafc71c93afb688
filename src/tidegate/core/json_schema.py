"""
JSON Schema as it is meant here: 2020-12 unless `$schema` says otherwise, and whole in itself: nothing is fetched from
anywhere, no file and no address. It hides the engine and what it trips over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jsonschema_rs

HALF = "holds half a character (a lone surrogate), which is no text"


class NotASchema(ValueError):
    """What is wrong with a schema, without a full stop; `path` is where in it."""

    def __init__(self, message: str, path: Sequence[str | int] = ()) -> None:
        super().__init__(message)
        self.path = list(path)


class Flaw(NamedTuple):
    """Where a value breaks its schema, and how."""

    path: list[str | int]
    message: str


def validator(schema: Any) -> Any:
    """What `flaws` compares values with. Raises NotASchema."""
    try:
        return jsonschema_rs.validator_for(schema, retriever=_fetch_nothing)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        said = str(getattr(error, "message", error)).split(" and retrieving it failed")[0]
        raise NotASchema(said.removesuffix("."), getattr(error, "instance_path", ())) from error
    except (ValueError, RecursionError) as error:  # what is no JSON to begin with
        raise NotASchema(HALF if "UnicodeEncodeError" in str(error) else str(error)) from error


def flaws(validator: Any, value: Any) -> list[Flaw]:
    """Everything in which a JSON value breaks its schema; empty when it fits."""
    try:
        return [Flaw(error.instance_path, error.message) for error in validator.iter_errors(value)]
    except UnicodeEncodeError:
        return [Flaw([], HALF)]


def _fetch_nothing(uri: str) -> NoReturn:
    raise ValueError(uri)
