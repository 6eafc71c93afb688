"""
A judge's answer → its verdict, or why there is none.

A verdict is a JSON object that carries the judgement's own id, which nobody who wrote the judged text can know: what a
judge repeats from that text is never taken for its verdict. The last such object counts, so that a judge may think
aloud and correct itself. It is held against what was offered only after it was chosen: an answer off the menu is no
reason to look for an earlier one. Whatever can not be read is unscored, never a bad score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from tidegate.evals.checks import clip
from tidegate.evals.judges.evidence import without_invisible

ID = "id"
MAX_CHARS = 64 << 10
MAX_TRIES = 200
"""Braces that are looked at; a hostile answer is not worth more."""

_OPENING = re.compile(r"\{\s*[\"}]")


class Unreadable(ValueError):
    """There is no verdict; the message says why, as the rest of "unscored: "."""


def last_verdict(output: str, token: str) -> tuple[dict[str, Any], str]:
    """
    The last JSON object of `output` that carries `token` as its id, and the text it was read from.

    Raises: Unreadable.
    """
    text = without_invisible(output)
    if not text.strip():
        raise Unreadable("the judge's answer is empty")
    if len(text) > MAX_CHARS:
        raise Unreadable(f"the judge's answer is longer than {MAX_CHARS >> 10} KiB")
    verdict, others = None, 0
    for found, written in _objects(text):
        if str(found.get(ID, "")).strip() == token:
            verdict = found, written
        else:
            others += 1
    if verdict is not None:
        return verdict
    if others:
        raise Unreadable(f"the judge's JSON does not carry the id of this judgement: '{clip(text, 120)}'")
    if text.lstrip()[:1] == "<":
        raise Unreadable(f"the judge answered with markup instead of JSON: '{clip(text, 120)}'")
    kind = "JSON that is not whole" if _OPENING.search(text) else "no JSON"
    raise Unreadable(f"the judge's answer holds {kind}: '{clip(text, 120)}'")


def _objects(text: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The JSON objects in a text that are part of no other, with what each was read from."""
    decoder = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant, parse_int=_whole)
    at = 0
    for _ in range(MAX_TRIES):
        opening = _OPENING.search(text, at)
        if opening is None:
            return
        start = opening.start()
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            at = start + 1
            continue
        yield found, text[start:end]
        at = end


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _whole(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number of more than 20 digits")
    return int(digits)
