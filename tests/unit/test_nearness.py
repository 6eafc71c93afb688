"""How near two texts are: against the values of nltk 3.10.4, and against the definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.evals.checks.nearness import Meteor, bleu, gleu, levenshtein, rouge_1, treebank
from tidegate.evals.checks.similarity import _stemmer

WORDS = st.lists(st.sampled_from(["a", "b", "c", "the", "cats", "cat.", "😀", "日本"]), max_size=12).map(" ".join)


@pytest.mark.parametrize(
    ("text", "reference", "as_bleu", "as_gleu", "as_meteor"),
    [
        (
            "It is a guide to action which ensures that the military always obeys the commands of the party",
            "It is a guide to action that ensures that the military will forever heed Party commands",
            *(0.42086, 0.454545, 0.694444),
        ),
        (
            "You can return an item within 30 days of delivery with the receipt",
            "Returns are accepted within 30 days of delivery with the receipt",
            *(0.559368, 0.565217, 0.799162),
        ),
        ("the quick brown fox jumps", "the quick brown fox jumps over the lazy dog", 0.449329, 0.466667, 0.562791),
        ("Größe 日本 😀 ist gut für alle heute", "Größe 日本 😀 ist gut für uns alle", 0.707107, 0.730769, 0.864796),
    ],
)
def test_scores_are_those_of_nltk(text: str, reference: str, as_bleu: float, as_gleu: float, as_meteor: float) -> None:
    """sentence_bleu, sentence_gleu, and single_meteor_score with the original Porter stemmer and no WordNet."""
    assert bleu(text, [reference]) == pytest.approx(as_bleu, abs=1e-6)
    assert gleu(text, [reference]) == pytest.approx(as_gleu, abs=1e-6)
    assert Meteor().score(text, [reference], _stemmer()) == pytest.approx(as_meteor, abs=1e-6)


def test_an_order_without_a_match_is_smoothed() -> None:
    """Four words of which only single ones match: (1/4 · 1e-7³)^(1/4), as promptfoo has it."""
    assert bleu("a x y z", ["a b c d"]) == pytest.approx((0.25 * 1e-21) ** 0.25)


def test_what_is_shorter_than_the_reference_pays_for_it() -> None:
    assert bleu("a b c d e", ["a b c d e f g"]) == pytest.approx(2.718281828 ** (1 - 7 / 5))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("They'll save and invest more.", ["They", "'ll", "save", "and", "invest", "more", "."]),
        ("hi, my name can't hello,", ["hi", ",", "my", "name", "ca", "n't", "hello", ","]),
        ('"We beat teams," Slocum said.', ["``", "We", "beat", "teams", ",", "''", "Slocum", "said", "."]),
        ("I cannot work!", ["I", "can", "not", "work", "!"]),
        (
            "Is it $5.00 (or 5%)? -- maybe...",
            [*["Is", "it", "$", "5.00", "(", "or", "5", "%", ")", "?", "--", "maybe", "..."]],
        ),
        ("Don't you? 'Tis gonna", [*["Do", "n't", "you", "?", "'T", "is", "gon", "na"]]),
        ("", []),
    ],
)
def test_tokens_are_those_of_the_penn_treebank(text: str, tokens: list[str]) -> None:
    """As nltk's TreebankWordTokenizer has them."""
    assert treebank(text) == tokens


def test_recall_counts_a_word_as_often_as_it_is_there() -> None:
    assert rouge_1("the the the", "the cat the dog") == 0.5
    assert rouge_1("The cat", "the cat") == 0.5


@given(WORDS, WORDS)
def test_scores_are_shares_and_equal_texts_score_one(text: str, reference: str) -> None:
    scores = [bleu(text, [reference]), gleu(text, [reference]), rouge_1(text, reference)]
    scores.append(Meteor().score(text, [reference], _stemmer()))
    assert all(0 <= score <= 1 + 1e-9 for score in scores)
    if reference.split():
        assert (
            bleu(reference, ["x", reference]) == gleu(reference, ["x", reference]) == rouge_1(reference, reference) == 1
        )
        assert Meteor().score(reference, [reference], _stemmer()) >= 0.5


def slow_levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@given(st.text(alphabet="ab😀é日", max_size=80), st.text(alphabet="ab😀é日", max_size=80))
def test_edits_are_counted_as_the_table_counts_them(a: str, b: str) -> None:
    assert levenshtein(a, b) == slow_levenshtein(a, b) == levenshtein(b, a)


@pytest.mark.parametrize(("a", "b", "edits"), [("kitten", "sitting", 3), ("", "", 0), ("", "abc", 3), ("a😀", "a", 1)])
def test_known_distances(a: str, b: str, edits: int) -> None:
    assert levenshtein(a, b) == edits
