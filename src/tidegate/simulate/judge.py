"""
`judge-2026-03-01`, the scripted judge: it goes by shared words alone, so that evals with judges run offline.

It reads what tidegate sends a judge: texts between `[begin NAME ID]` and `[end NAME ID]`, and a last message with the
verdict it wants. Its words are runs of four or more letters or digits, in lower case. A text *covers* a sentence when
one of its own sentences holds at least 60 % of that sentence's words. By that rule:

- rubric: 1 + 4 · the share of the answer's words that stand in the reference (else the context, else the question),
  rounded; binary: pass from a share of a half on; pairwise: the answer with the greater share, a tie within 0.05;
- groundedness: each sentence of the answer with two words or more is a claim, supported when the context covers it, and
  the covering sentence is the quote; context-recall: likewise for each numbered sentence of the reference;
- context-relevance and -precision: a passage is relevant when it shares a word with the question; answer-relevance: so
  is a sentence of the answer.

An answer that is a JSON object with the member `answer` is judged by that member. Its id is copied from the last
message and nowhere else. Asked for log-probabilities, it gives its score 0.8, and the scores beside it share the rest.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

JUDGE = "judge-2026-03-01"
COVERS = 0.6
SURE = 0.8

_ID = re.compile(r'\{"id": "([0-9a-f]{16})"')
_WORD = re.compile(r"\w{4,}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_NUMBERED = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)


def verdict(texts: Sequence[str]) -> str:
    """What the judge says to messages with these texts, the last of which asks for the verdict."""
    asked = _ID.search(texts[-1]) if texts else None
    if asked is None:
        return "Nothing is to be judged here."
    token = asked[1]
    fence = re.compile(rf"\[begin (\w+) {token}\]\n(.*?)\n\[end \1 {token}\]", re.DOTALL)
    found = {name: text for text in texts[:-1] for name, text in fence.findall(text)}
    for name in ("answer", "answer_a", "answer_b"):
        found[name] = _answer(found.get(name, ""))
    wanted = next(kind for mark, kind in _KINDS.items() if mark in texts[-1])
    return json.dumps({"id": token, **wanted(found)}, ensure_ascii=False)


def alternatives(token: str) -> list[tuple[str, float]]:
    """The log-probabilities of what the judge might have said instead of one token, itself first."""
    word = token.strip()
    if word in ("1", "2", "3", "4", "5"):
        others = [str(score) for score in (int(word) - 1, int(word) + 1) if 1 <= score <= 5]
    else:
        others = {"pass": ["fail"], "fail": ["pass"]}.get(word, [])
    if not others:
        return [(token, 0.0)]
    rest = math.log((1 - SURE) / len(others))
    return [(token, math.log(SURE)), *((token.replace(word, other), rest) for other in others)]


def _rubric(found: Mapping[str, str]) -> dict[str, Any]:
    share = _share(found["answer"], found)
    return {"reason": f"{share:.0%} of the words are found.", "score": 1 + round(4 * share)}


def _binary(found: Mapping[str, str]) -> dict[str, Any]:
    share = _share(found["answer"], found)
    return {"reason": f"{share:.0%} of the words are found.", "verdict": "pass" if share >= 0.5 else "fail"}


def _pairwise(found: Mapping[str, str]) -> dict[str, Any]:
    first, second = _share(found["answer_a"], found), _share(found["answer_b"], found)
    better = "tie" if abs(first - second) <= 0.05 else "A" if first > second else "B"
    return {"reason": f"{first:.0%} of the words of A are found, {second:.0%} of those of B.", "verdict": better}


def _groundedness(found: Mapping[str, str]) -> dict[str, Any]:
    claims = []
    for claim in [said for said in _sentences(found["answer"]) if len(_words(said)) > 1]:
        quote = _covering(found.get("context", ""), claim)
        claims.append({"claim": claim, "supported": quote is not None, "quote": quote or ""})
    return {"claims": claims}


def _recall(found: Mapping[str, str]) -> dict[str, Any]:
    sentences = []
    for number, sentence in _NUMBERED.findall(found.get("reference", "")):
        quote = _covering(found.get("context", ""), sentence)
        sentences.append({"sentence": int(number), "attributed": quote is not None, "quote": quote or ""})
    return {"sentences": sentences}


def _passages(found: Mapping[str, str]) -> dict[str, Any]:
    asked = _words(found.get("question", ""))
    numbered = _NUMBERED.findall(found.get("context", ""))
    return {"passages": [{"passage": int(number), "relevant": bool(asked & _words(text))} for number, text in numbered]}


def _statements(found: Mapping[str, str]) -> dict[str, Any]:
    asked = _words(found.get("question", ""))
    said = _sentences(found["answer"])
    return {"statements": [{"statement": text, "relevant": bool(asked & _words(text))} for text in said]}


_KINDS: Mapping[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
    '"score": <': _rubric,
    '"verdict": <"pass"': _binary,
    '"verdict": <"A"': _pairwise,
    '"claims": [': _groundedness,
    '"sentences": [': _recall,
    '"passages": [': _passages,
    '"statements": [': _statements,
}
"""What the wanted verdict holds → how the judge comes to it."""


def _answer(text: str) -> str:
    try:
        inside = json.loads(text)["answer"]
    except (ValueError, KeyError, TypeError):
        return text
    return inside if isinstance(inside, str) else text


def _share(answer: str, found: Mapping[str, str]) -> float:
    words = _words(answer)
    against = found.get("reference") or found.get("context") or found.get("question") or ""
    return len(words & _words(against)) / len(words) if words else 0.0


def _covering(text: str, sentence: str) -> str | None:
    words = _words(sentence)
    for one in _sentences(text):
        if words and len(words & _words(one)) >= COVERS * len(words):
            return one
    return None


def _sentences(text: str) -> list[str]:
    return [one.strip() for one in _SENTENCE_END.split(text) if _WORD.search(one)]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
