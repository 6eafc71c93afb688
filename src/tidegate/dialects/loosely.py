"""
What a provider said almost as it is documented, read as what it means.

Look-alikes of a dialect write `"prompt_tokens": 12.0`, `"created": 1700000000.5`, null for what is nothing, an object
for its JSON text, and half an emoji. An answer is paid for, so it is not thrown away for that: whoever decodes
strictly, and fails, tries it here. What holds the answer itself must be there and of its kind.
"""

from __future__ import annotations

import json
import math
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from tidegate.core.errors import UpstreamProtocol

T = TypeVar("T")


def read(body: bytes | msgspec.Raw, kind: type[T], expected: str) -> T:
    """
    `body` as a `kind`: a Struct. Bytes that are no UTF-8 and halves of a surrogate pair become U+FFFD.

    Raises UpstreamProtocol: the provider's answer is not `expected`.
    """
    try:
        whole = json.dumps(json.loads(bytes(body).decode("utf-8", "replace")), ensure_ascii=False)
        read_: T = _as(kind, json.loads(whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")))
    except (_UnfitError, ValueError, RecursionError) as error:
        raise UpstreamProtocol(f"the provider's answer is not {expected}") from error
    return read_


class _UnfitError(Exception):
    """The value is of another kind, and means nothing of this one."""


def _as(kind: Any, given: Any) -> Any:
    if kind is Any:
        return given
    if kind is msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(given))
    if get_origin(kind) in (Union, UnionType):
        return _any_of(get_args(kind), given)
    if kind is str and isinstance(given, dict | list):
        return msgspec.json.encode(given).decode()
    if kind in (int, float):
        return _number(kind, given)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(given, dict):
        return _struct(kind, given)
    if get_origin(kind) is list and isinstance(given, list):
        return [_as(get_args(kind)[0], inner) for inner in given]
    if isinstance(given, get_origin(kind) or kind):
        return given
    raise _UnfitError


def _any_of(kinds: tuple[Any, ...], given: Any) -> Any:
    if given is None and NoneType in kinds:
        return None
    for kind in sorted(kinds, key=lambda kind: kind is str):  # an object becomes text where nothing else will do
        try:
            return _as(kind, given)
        except _UnfitError:
            continue
    raise _UnfitError


def _number(kind: type[int] | type[float], given: Any) -> int | float:
    """A number however it is written; a piece of a token is one."""
    try:
        number = float(given) if isinstance(given, str) else given
        if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number):
            return math.ceil(number) if kind is int else float(number)
    except (ValueError, OverflowError):
        pass
    raise _UnfitError


def _struct(kind: type[msgspec.Struct], given: dict[str, Any]) -> msgspec.Struct:
    """Null, an empty list for an object (PHP's), and what should be a number and is none, are left out."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        inner = given.get(field.encode_name)
        if inner is None:
            continue
        kinds = get_args(field.type) or (field.type,)
        try:
            values[field.name] = _as(field.type, inner)
        except _UnfitError:
            if not (int in kinds or float in kinds or inner == []):
                raise
    try:
        return kind(**values)
    except TypeError as error:
        raise _UnfitError from error
