"""
How near one text is to another, by published formulae. Pure; every score is from 0 to 1.

    rouge_1       Lin 2004, ROUGE-1: clipped unigram recall over Penn Treebank tokens
    bleu          Papineni et al. 2002, up to 4-grams, smoothed where an order matches nothing
    gleu          Wu et al. 2016: the lesser of n-gram precision and recall, up to 4-grams
    Meteor        Banerjee & Lavie 2005, matching words and Porter stems (no synonyms)
    levenshtein   edits of single characters, by Hyyrö's bit vectors (2003)

Several references: the best of them counts. What is equal scores 1, an empty text 0.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Words = list[str]
MAX_ORDER = 4
NO_MATCH = 1e-7
"""Stands for a precision of zero, whose logarithm there is none of."""

_TREEBANK: Sequence[tuple[re.Pattern[str], str]] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^\"", "`` "),
        (r"(``)", r" \1 "),
        (r"([ (\[{<])(\"|'{2})", r"\1 `` "),
        (r"([:,])([^\d])", r" \1 \2"),
        (r"([:,])$", r" \1 "),
        (r"\.\.\.", " ... "),
        (r"[;@#$%&]", r" \g<0> "),
        (r"([^.])(\.)([\])}>\"']*)\s*$", r"\1 \2\3 "),
        (r"[?!]", r" \g<0> "),
        (r"([^'])' ", r"\1 ' "),
        (r"[\[\](){}<>]", r" \g<0> "),
        (r"--", " -- "),
        (r"''", " '' "),
        (r"\"", " '' "),
    )
)
_CONTRACTIONS: Sequence[tuple[re.Pattern[str], str]] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([^' ])('[sSmMdD]|') ", r"\1 \2 "),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
        (r"(?i)\b(can)(not)\b", r" \1 \2 "),
        (r"(?i)\b(d)('ye)\b", r" \1 \2 "),
        (r"(?i)\b(gim|lem)(me)\b", r" \1 \2 "),
        (r"(?i)\b(gon|wan)(na)(?=\s)", r" \1 \2 "),
        (r"(?i)\b(got)(ta)\b", r" \1 \2 "),
        (r"(?i)\b(more)('n)\b", r" \1 \2 "),
        (r"(?i) ('t)(is|was)\b", r" \1 \2 "),
    )
)


def treebank(text: str) -> Words:
    """Words and signs as the Penn Treebank has them: `don't` is `do`, `n't`."""
    for pattern, replacement in _TREEBANK:
        text = pattern.sub(replacement, text)
    text = f" {text} "
    for pattern, replacement in _CONTRACTIONS:
        text = pattern.sub(replacement, text)
    return text.split()


def rouge_1(text: str, reference: str) -> float:
    """The share of the reference's tokens that the text has, each as often as it has it."""
    wanted = Counter(treebank(reference))
    return (Counter(treebank(text)) & wanted).total() / wanted.total() if wanted else 0.0


def bleu(text: str, references: Sequence[str]) -> float:
    """The geometric mean of n-gram precisions, less a penalty for being short."""
    words = text.lower().split()
    others = [reference.lower().split() for reference in references]
    if not words or words in others:
        return float(bool(words))
    logarithms = 0.0
    for order in range(1, MAX_ORDER + 1):
        grams = _grams(words, order)
        matched = max((grams & _grams(other, order)).total() for other in others)
        logarithms += math.log(matched / grams.total() if matched else NO_MATCH) / MAX_ORDER
    nearest = min((len(other) for other in others), key=lambda length: abs(length - len(words)))
    brevity = 1.0 if len(words) > nearest else math.exp(1 - nearest / len(words))
    return brevity * math.exp(logarithms)


def gleu(text: str, references: Sequence[str]) -> float:
    """The share of n-grams in common, of whichever text has more of them."""
    words = _undotted(text.lower())
    return max(_gleu(words, _undotted(reference.lower())) for reference in references)


def _gleu(words: Words, others: Words) -> float:
    if not words or words == others:
        return float(bool(words))
    grams, wanted = (
        sum((_grams(side, order) for order in range(1, MAX_ORDER + 1)), Counter[tuple[str, ...]]())
        for side in (words, others)
    )
    return (grams & wanted).total() / max(grams.total(), wanted.total())


@dataclass(frozen=True, slots=True)
class Meteor:
    """How METEOR weighs."""

    alpha: float = 0.9
    """How much recall counts against precision."""
    beta: float = 3.0
    """How steeply words out of order are punished."""
    gamma: float = 0.5
    """The most that they can cost."""

    def score(self, text: str, references: Sequence[str], stem: Callable[[str], str]) -> float:
        """`stem` makes a word of lower-case letters into its stem."""
        words = _undotted(text.lower())
        return max(self._score(words, _undotted(reference.lower()), stem) for reference in references)

    def _score(self, words: Words, others: Words, stem: Callable[[str], str]) -> float:
        matched = _aligned(words, others, stem)
        if not matched:
            return 0.0
        precision, recall = len(matched) / len(words), len(matched) / len(others)
        mean = precision * recall / (self.alpha * precision + (1 - self.alpha) * recall)
        chunks = 1 + sum((b[0] - a[0], b[1] - a[1]) != (1, 1) for a, b in pairwise(matched))
        return mean * (1 - self.gamma * math.pow(chunks / len(matched), self.beta))


def _aligned(words: Words, others: Words, stem: Callable[[str], str]) -> list[tuple[int, int]]:
    """(place in `words`, place in `others`) of matching words, each used once: first equal ones, then equal stems."""
    matched: list[tuple[int, int]] = []
    left, free = list(enumerate(words)), list(enumerate(others))
    for form in (str, stem):
        places: dict[str, list[int]] = defaultdict(list)
        for place, word in free:
            places[form(word)].append(place)
        unmatched = []
        for place, word in reversed(left):
            candidates = places.get(form(word))
            if candidates:
                matched.append((place, candidates.pop()))
            else:
                unmatched.append((place, word))
        taken = {other for _, other in matched}
        left, free = unmatched[::-1], [(place, word) for place, word in free if place not in taken]
    return sorted(matched)


def levenshtein(a: str, b: str) -> int:
    """The fewest insertions, deletions and replacements of a character that turn `a` into `b`."""
    if len(a) < len(b):
        a, b = b, a
    if not b:
        return len(a)
    where: dict[str, int] = defaultdict(int)
    for place, char in enumerate(b):
        where[char] |= 1 << place
    mask, last = (1 << len(b)) - 1, 1 << (len(b) - 1)
    plus, minus, distance = mask, 0, len(b)
    for char in a:
        equal = where.get(char, 0)
        diagonal = (((equal & plus) + plus) ^ plus) | equal | minus
        up, down = minus | ~(diagonal | plus), plus & diagonal
        if up & last:
            distance += 1
        elif down & last:
            distance -= 1
        up, down = (up << 1) | 1, down << 1
        plus, minus = (down | ~(diagonal | up)) & mask, up & diagonal & mask
    return distance


def _undotted(text: str) -> Words:
    return [word.rstrip(".") for word in text.split()]


def _grams(words: Words, order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + order]) for at in range(len(words) - order + 1))
