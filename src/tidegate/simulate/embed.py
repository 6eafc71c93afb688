"""
The scripted embedding model: which vector a text gets, and the provider's side of OpenAI Embeddings.

`embed-2026-03-01` hashes. Every word of a text is one step along one dimension, forwards or backwards, and the sum of
all is scaled to length 1. So a text has the same vector on every machine, and texts that share words lie close. A token
of a list of tokens is a word.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from array import array
from collections.abc import Iterable
from math import hypot
from typing import Annotated, Any, Literal

import msgspec

from tidegate.simulate.rules import tokenize
from tidegate.simulate.wire import Failure, decode, no_such_model

EMBED = "embed-2026-03-01"
DIMENSIONS = 256
MAX_DIMENSIONS = 1_024
MAX_INPUTS = 2_048

_WORD = re.compile(r"\w+")


class EmbeddingRequest(msgspec.Struct):
    """The body's fields that mean something here."""

    model: str
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=MAX_DIMENSIONS)] = DIMENSIONS


def answer(body: bytes) -> bytes:
    """The JSON answer to one request. Raises Failure with the field's name where one is wrong."""
    request = decode(body, EmbeddingRequest)
    if request.model != EMBED:
        raise no_such_model(request.model)
    inputs = [_words(given, f"input[{index}]") for index, given in enumerate(_inputs(request.input))]
    data = []
    for index, (words, _) in enumerate(inputs):
        found = vector(words, request.dimensions)
        shown: object = found.tolist() if request.encoding_format == "float" else _base64(found)
        data.append({"object": "embedding", "index": index, "embedding": shown})
    count = sum(tokens for _, tokens in inputs)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return msgspec.json.encode({"object": "list", "data": data, "model": EMBED, "usage": usage})


def vector(words: Iterable[str], dimensions: int) -> array[float]:
    """The unit vector of a text's words, in 32-bit floats."""
    sums = [0.0] * dimensions
    for word in words:
        place, sign = divmod(int.from_bytes(hashlib.sha256(word.encode("utf-8", "replace")).digest()[:8]), 2)
        sums[place % dimensions] += 1.0 if sign else -1.0
    if not any(sums):
        sums[0] = 1.0
    length = hypot(*sums)
    return array("f", [part / length for part in sums])


def _inputs(given: str | list[Any]) -> list[Any]:
    """What to embed: one text, many texts, one list of tokens, or many."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise Failure(400, "'input' is empty.", param="input", code="empty_array")
    if len(given) > MAX_INPUTS and not isinstance(given[0], int):
        raise Failure(400, f"'input' has more than {MAX_INPUTS:,} texts.", param="input")
    return [given] if isinstance(given[0], int) else given


def _words(given: object, place: str) -> tuple[list[str], int]:
    """The words of one input and how many tokens it counts."""
    if isinstance(given, str) and given:
        return _WORD.findall(given.lower()), len(tokenize(given))
    if isinstance(given, list) and given and all(type(token) is int and token >= 0 for token in given):
        return [str(token) for token in given], len(given)
    raise Failure(400, f"'{place}' is neither a text nor a list of tokens, or is empty.", param=place)


def _base64(found: array[float]) -> str:
    little = array("f", found)
    if sys.byteorder == "big":
        little.byteswap()
    return base64.b64encode(little.tobytes()).decode()
