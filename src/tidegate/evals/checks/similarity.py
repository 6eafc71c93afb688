"""Checks of how near an answer is to a text that was hoped for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from tidegate.evals.checks import nearness
from tidegate.evals.checks.check import (
    Answer,
    Finding,
    Kind,
    Probe,
    as_count,
    as_number,
    as_share,
    as_text,
    graded,
    quoted,
)

EDITS = 5
MAX_CHARS = 20_000
"""Edits between longer texts are not counted: it would take too long."""


def _rouge_n(value: Any, *, threshold: Any = 0.75) -> Probe:
    reference, least = _reference(value), as_share(threshold)
    return lambda answer: graded("ROUGE-N", nearness.rouge_1(answer.text, reference), least)


def _bleu(value: Any, *, threshold: Any = 0.5) -> Probe:
    references, least = _references(value), as_share(threshold)
    return lambda answer: graded("BLEU", nearness.bleu(answer.text, references), least)


def _gleu(value: Any, *, threshold: Any = 0.5) -> Probe:
    references, least = _references(value), as_share(threshold)
    return lambda answer: graded("GLEU", nearness.gleu(answer.text, references), least)


def _meteor(value: Any, *, threshold: Any = 0.5, alpha: Any = 0.9, beta: Any = 3.0, gamma: Any = 0.5) -> Probe:
    references, least = _references(value), as_share(threshold)
    meteor = nearness.Meteor(as_number(alpha, "alpha"), as_number(beta, "beta"), as_number(gamma, "gamma"))
    if max(meteor.alpha, meteor.gamma) > 1:
        raise ValueError("alpha and gamma are from 0 to 1")
    stem = _stemmer()
    return lambda answer: graded("METEOR", meteor.score(answer.text, references, stem), least)


def _levenshtein(value: Any, *, threshold: Any = EDITS) -> Probe:
    reference, most = as_text(value), as_count(threshold, "threshold")
    if len(reference) > MAX_CHARS:
        raise ValueError(f"takes a text of at most {MAX_CHARS:,} characters")

    def probe(answer: Answer) -> Finding:
        apart = abs(len(answer.text) - len(reference))
        if apart > most or len(answer.text) > MAX_CHARS:
            return Finding(
                apart <= most, f"is at least {apart} edits from {quoted(reference)}, over the {most} allowed"
            )
        edits = nearness.levenshtein(answer.text, reference)
        said = f"is {edits} {'edit' if edits == 1 else 'edits'} from {quoted(reference)}"
        return Finding(edits <= most, f"{said}, {'within' if edits <= most else 'over'} the {most} allowed")

    return probe


def _reference(value: Any) -> str:
    text = as_text(value)
    if not text.strip():
        raise ValueError("needs a text to compare with, not an empty one")
    return text


def _references(value: Any) -> Sequence[str]:
    if value == []:
        raise ValueError("needs a text to compare with, or a list of them")
    return [_reference(one) for one in (value if isinstance(value, list) else [value])]


@cache
def _stemmer() -> Callable[[str], str]:
    import snowballstemmer  # noqa: PLC0415 – one check in a hundred needs it

    return lru_cache(maxsize=20_000)(snowballstemmer.stemmer("porter").stemWord)


_TEXT = "Within 30 days of delivery, with the receipt."

KINDS: Mapping[str, Kind] = {
    "levenshtein": Kind(
        _levenshtein,
        f"At most so many characters have to be changed to get this text; {EDITS} unless `threshold` says otherwise.",
        {"levenshtein": "Within 30 days.", "threshold": 3},
        ("threshold",),
    ),
    "rouge-n": Kind(
        _rouge_n,
        "How many of the text's words the answer has (ROUGE-1 recall); at least 0.75.",
        {"rouge-n": _TEXT, "threshold": 0.6},
        ("threshold",),
    ),
    "bleu": Kind(
        _bleu,
        "How many of the answer's 1- to 4-word runs the text, or one of several, has; at least 0.5.",
        {"bleu": [_TEXT, "You have 30 days from delivery."], "threshold": 0.3},
        ("threshold",),
    ),
    "gleu": Kind(
        _gleu,
        "The lesser of precision and recall of 1- to 4-word runs; at least 0.5, and kinder to short texts than `bleu`.",
        {"gleu": _TEXT},
        ("threshold",),
    ),
    "meteor": Kind(
        _meteor,
        "Words and stems in common, in how many pieces; at least 0.5. Knows no synonyms.",
        {"meteor": _TEXT, "threshold": 0.7, "weight": 2},
        ("threshold", "alpha", "beta", "gamma"),
    ),
}
