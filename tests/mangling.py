"""JSON as nobody should send it: a valid value with a few of its nodes broken, and its bytes cut anywhere."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

NUMBERS: tuple[float, ...] = (0, 1, -1, 3, 129, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.5, 1e308, 5e-324)
TEXTS = (
    *("", " ", "x", "\0", "a\r\nb: c", "data: x\n\ndata: [DONE]", "é" * 200, "😀", "x" * 3_000, "[DONE]", "null", "5"),
    *("text", "image_url", "file", "tool_use", "tool_result", "thinking", "function_call", "reasoning", "json_schema"),
    *("user", "assistant", "system", "tool", "stop", "length", "STOP", "SAFETY", "completed", "incomplete", "failed"),
    *("gemini:", "bedrock:", "signature:", "AAAA", "data:,", "data:x;base64,", "prompt:answer", "prompt:", "oai/m"),
)
SHAPES: tuple[Any, ...] = (
    *([], {}, [[]], [None], [{}], [1], ["x"], {"type": 1}, {"type": "text"}, {"": ""}, [[[[]]]], {"role": "user"}),
    *({"type": "text", "text": "x"}, {"text": "x"}, {"error": {"message": "x"}}, None, True, False),
)
TOKENS = (
    *("NaN", "-Infinity", "1e999", "-0.0", "1e5", "1.0", "9" * 5_000, "18446744073709551616", "tru", "", "01", ".5"),
    *('"\\ud800"', '"\\udc00x"', '"a\nb"', '{"a":1,"a":2}', "[1,]", "[" * 1_500 + "]" * 1_500),
)
"""What stands in the text as it is: most are no JSON."""
KEYS = (
    "x",
    "",
    "type",
    "index",
    "id",
    "error",
    "role",
    "content",
    "usage",
    "name",
    "stream",
    "variables",
    "n",
    "model",
)
BYTES = (b"\xff", b"\xc3", b"\0", b'"', b"{", b"}", b",", b"\\", b"\r", b"\n\n", b"\xed\xa0\x80", b"data: ", b": hi\n")
_MARK = "\x01token"


def broken(value: Any, random: Random) -> Any:
    """`value` with one node replaced, removed, doubled, wrapped, swapped, renamed or joined by another."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return _odd(random)
    holder, key = random.choice(places)
    node = holder[key]
    match random.randrange(8):
        case 0 | 1:
            holder[key] = _odd(random)
        case 2:
            del holder[key]
        case 3 if isinstance(holder, list):
            holder.insert(random.randrange(len(holder) + 1), copy.deepcopy(node))
        case 4:
            holder[key] = random.choice([[node], {"type": node}, [node, node], str(node)])
        case 5:
            other, name = random.choice(places)
            holder[key] = copy.deepcopy(other[name])
        case 6 if isinstance(node, dict):
            node[random.choice(KEYS)] = _odd(random)
        case 7 if isinstance(holder, dict):
            holder[random.choice((*KEYS, *holder))] = holder.pop(key)
        case _:
            holder[key] = _odd(random)
    return value


def written(value: Any, random: Random) -> bytes:
    """As JSON, or nearly: sometimes a few bytes are wrong."""
    text = json.dumps(value)
    for at, token in enumerate(TOKENS):
        text = text.replace(json.dumps(f"{_MARK}{at}"), token)
    body = bytearray(text.encode())
    if random.random() < 0.1 and body:
        at = random.randrange(len(body))
        body[at : at + random.choice((0, 0, 1, 9))] = random.choice((*BYTES, bytes(body[:40])))
    return bytes(body)


def cut(body: bytes, random: Random) -> list[bytes]:
    """The same bytes in pieces."""
    places = sorted(random.randrange(len(body) + 1) for _ in range(random.choice((0, 0, 1, 3, 12))))
    return [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True) if start < end]


def _odd(random: Random) -> Any:
    kind = random.randrange(5)
    if kind == 0:
        return f"{_MARK}{random.randrange(len(TOKENS))}"
    return copy.deepcopy(random.choice((NUMBERS, TEXTS, TEXTS, SHAPES)[kind - 1]))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every node as (what holds it, its key)."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from _places(inner)
