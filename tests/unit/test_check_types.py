"""Every type of check: what passes, what fails, its `not-` form, and what it makes of an empty answer and of emoji."""

# ruff: noqa: E501 – the tables read best with one case a line

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.core.artifact import Artifact, Output, Tool
from tidegate.core.evaluation import CheckResult, ToolUse
from tidegate.evals.checks import KINDS, MAX_REASON, NOT, build
from tidegate.evals.spec import complaint
from tidegate.ports import PromptAnswer, TokenChance

SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "integer"}},
    "required": ["id"],
    "additionalProperties": False,
}
ARTIFACT = Artifact((), "p/m", output=Output("schema", SCHEMA), tools=(Tool("find", "", SCHEMA), Tool("stop")))
UNSAID = object()


def said(text: str = "", *tools: ToolUse, **more: Any) -> PromptAnswer:
    return PromptAnswer(text, tool_calls=tools, **more)


def use(name: str, **arguments: Any) -> ToolUse:
    return ToolUse(name, arguments)


def judge(type_: str, value: Any, answer: PromptAnswer | str, options: dict[str, Any] | None = None) -> CheckResult:
    seen = said(answer) if isinstance(answer, str) else answer
    return build(type_, type_, None if value is UNSAID else value, options).judge(seen, ARTIFACT)


FIND, REFUND = use("find_order", id=7, limit=10, trace_id="x", deep={"a": [1, 2], "b": 3}), use("refund", id=7)
SURE, UNSURE = (TokenChance("a", -0.1), TokenChance("b", -0.3)), (TokenChance("a", -3.0),)

HOLDS: list[tuple[str, Any, PromptAnswer | str]] = [
    ("one-of", ["yes", "no"], " no\n"),
    ("one-of", "yes, no", "yes"),
    ("icontains", "REFUND 😀", "A Refund 😀!"),
    ("contains-all", ["a", "😀"], "😀 a"),
    ("contains-all", 'a, "b, c"', "b, c and a"),
    ("icontains-all", ["A", "É"], "é a"),
    ("contains-any", ["x", 5], "15"),
    ("icontains-any", "X, Y", "say y"),
    ("starts-with", "日本", "日本 today"),
    ("contains-json", UNSAID, 'so: {"a": [1]} and on'),
    ("contains-json", SCHEMA, '{"id": "x"} then {"id": 1}'),
    ("output-valid", UNSAID, '{"id": 1}'),
    ("is-xml", UNSAID, "<?xml version='1.0'?>\n<a b='1'>é 😀</a>"),
    ("is-xml", ["a.b.c", "a.@_x"], "<a x='1'><b><c/></b></a>"),
    ("is-xml", "a.b.1, a.b.name", "<a><b><name/></b><b/></a>"),
    ("is-xml", {"requiredElements": ["a"]}, "<a/>"),
    ("contains-xml", ["order.id"], "Here: <order><id>7</id></order>. 3 < 4"),
    ("contains-xml", ["b"], "an <a> never closed, a <b>one</b>"),
    ("is-html", UNSAID, "<!doctype html><html><body>Hello <br> you</body></html>"),
    ("is-html", UNSAID, "<p>Hello <b>you</b></p><my-card>x</my-card>"),
    ("contains-html", UNSAID, "So: <br> there"),
    ("contains-html", UNSAID, "<x>y</x>"),
    ("is-sql", UNSAID, "SELECT a FROM t WHERE b = '😀'"),
    ("is-sql", {"databaseType": "PostgreSQL"}, "SELECT a::text FROM t"),
    (
        "is-sql",
        {"allowedTables": ["(select|update)::null::t"], "allowedColumns": ["select::null::[ab]"]},
        "SELECT a, b FROM t",
    ),
    ("is-sql", {"allowedTables": ["select::s::t"]}, "WITH q AS (SELECT a FROM s.t) SELECT a FROM q"),
    ("is-sql", {"allowedColumns": ["update::null::a", "select::null::b"]}, "UPDATE t SET a = 1 WHERE b = 2"),
    ("is-sql", {"allowedColumns": ["insert::t::a"]}, "INSERT INTO t (a) VALUES (1)"),
    ("contains-sql", UNSAID, "Try ```sql\nSELECT 1\n```"),
    ("contains-sql", UNSAID, "SELECT 1"),
    ("word-count", 3, "one  two\nthree 😀"[:14]),
    ("word-count", "2", "one two"),
    ("word-count", {"min": 1, "max": 2}, "日本 today"),
    ("word-count", {"max": 0}, ""),
    ("cost", 0.001, said(cost_nano_usd=1_000_000)),
    ("latency", 1500, said(latency_s=1.5)),
    ("perplexity", 1.3, said("ab", logprobs=SURE)),
    ("perplexity", UNSAID, said("ab", logprobs=UNSURE)),
    ("perplexity-score", 0.4, said("ab", logprobs=SURE)),
    ("levenshtein", "kitten", "kitten 😀"),
    ("rouge-n", "the cat sat on the mat", "on the mat sat the cat"),
    ("bleu", "the quick brown fox jumps", "the quick brown fox jumps"),
    ("bleu", ["Paris", "It is Paris"], "paris"),
    ("gleu", "a b c d", "a b c d."),
    ("meteor", "the cats sat", "The cat sat"),
    ("is-refusal", UNSAID, ""),
    ("is-refusal", UNSAID, "I’m sorry, but I can’t help with that."),
    ("is-refusal", UNSAID, "As an AI, I have no feelings."),
    ("is-refusal", UNSAID, "I am unable to provide that."),
    ("is-refusal", UNSAID, said("Sure!", finish_reason="refusal")),
    ("finish-reason", "STOP", said(finish_reason="stop")),
    ("guardrails", UNSAID, said("x", finish_reason="stop")),
    ("is-valid-function-call", UNSAID, said("", use("find", id=1), use("stop"))),
    ("is-valid-openai-function-call", UNSAID, said("", use("find", id=1))),
    ("is-valid-openai-tools-call", UNSAID, said("", use("stop"))),
    ("tool-call-f1", ["find_order", "refund"], said("", REFUND, FIND, FIND)),
    ("tool-call-f1", "refund", said("", REFUND)),
    ("trajectory:tool-used", "Find_*", said("", FIND)),
    ("trajectory:tool-used", ["find_order", "refun?"], said("", REFUND, FIND)),
    ("trajectory:tool-used", {"name": "find*", "min": 2}, said("", FIND, REFUND, FIND)),
    ("trajectory:tool-used", {"pattern": "refund", "max": 0}, said("", FIND)),
    ("trajectory:tool-args-match", {"name": "find_order", "args": {"id": 7}}, said("", use("find_order", id=1), FIND)),
    ("trajectory:tool-args-match", {"name": "find_*", "arguments": {"deep": {"a": [1, 2]}}}, said("", FIND)),
    (
        "trajectory:tool-args-match",
        {
            "name": "find_order",
            "args": {"id": 7, "deep": {"a": [1, 2], "b": 3}},
            "mode": "exact",
            "defaults": {"limit": 10},
            "ignore": "trace_*",
        },
        said("", FIND),
    ),
    ("trajectory:tool-args-match", {"name": "refund", "args": {"id": 7.0}, "mode": "exact"}, said("", REFUND)),
    ("trajectory:tool-args-match", {"name": "stop", "args": {}, "mode": "exact"}, said("", use("stop"))),
    ("trajectory:tool-sequence", ["find_order", {"name": "refund"}], said("", FIND, use("x"), REFUND)),
    ("trajectory:tool-sequence", {"mode": "exact", "steps": ["find*", "refund"]}, said("", FIND, REFUND)),
    ("trajectory:step-count", {"max": 3}, said("done", FIND, REFUND)),
    ("trajectory:step-count", {"min": 2, "max": 2, "type": "tool"}, said("done", FIND, REFUND)),
    ("trajectory:step-count", {"min": 1, "max": 1, "pattern": "ref*"}, said("done", FIND, REFUND)),
]

FAILS: list[tuple[str, Any, PromptAnswer | str, str | None]] = [
    ("one-of", ["yes", "no"], "Yes", "is 'Yes', none of yes, no"),
    ("one-of", ["yes"], "", None),
    ("icontains", "refund", "", "does not contain 'refund': ''"),
    ("contains-all", ["a", "x"], "a", "does not contain 'x': 'a'"),
    ("icontains-all", ["A", "x"], "a", None),
    ("contains-any", ["x", "y"], "a", "contains none of 'x', 'y': 'a'"),
    ("icontains-any", ["x"], "", None),
    ("starts-with", "Dear", "To Dear", "starts with 'To Dear', not with 'Dear'"),
    ("contains-json", UNSAID, "see [1] {no}", "contains no JSON object: 'see [1] {no}'"),
    ("contains-json", SCHEMA, '{"id": "x"}', 'contains JSON, but $.id breaks the schema: "x" is not of type "integer"'),
    ("output-valid", UNSAID, "{}", None),
    ("is-xml", UNSAID, "<a><b></a>", "not XML at line 1, column 9: mismatched tag; '<a><b></a>'"),
    ("is-xml", UNSAID, "", "not XML: the answer is empty"),
    ("is-xml", UNSAID, "<a/> and more", None),
    ("is-xml", ["a.c"], "<a><b/></a>", "XML, but without a.c"),
    ("is-xml", UNSAID, '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "not XML that is read: its document type declares entities or elements of its own"),
    ("is-xml", UNSAID, "<a>&undefined;</a>", None),
    ("contains-xml", UNSAID, "3 < 4 and <a", "contains no XML: '3 < 4 and <a'"),
    ("contains-xml", ["c"], "<a/>", "contains XML, but without c"),
    ("is-html", UNSAID, "Hello <b>you</b>", "not HTML: text stands outside of every element: 'Hello'"),
    ("is-html", UNSAID, "<?xml version='1.0'?><p>x</p>", "XML, not HTML"),
    ("is-html", UNSAID, "<order>x</order>", None),
    ("is-html", UNSAID, "", "not HTML: the answer is empty"),
    ("contains-html", UNSAID, "a < b and c > d &c", "contains no HTML: 'a < b and c > d &c'"),
    ("is-sql", UNSAID, "SELECT a FRM t x y", None),
    ("is-sql", UNSAID, "hello world", "not a statement of SQL: 'hello world'"),
    ("is-sql", UNSAID, "", "not SQL: there is none"),
    ("is-sql", {"allowedTables": ["select::null::t"]}, "SELECT a FROM t JOIN u ON true", "SQL, but it uses what is not allowed: select::null::u"),
    ("is-sql", {"allowedTables": ["select::null::t"]}, "DELETE FROM t", "SQL, but it uses what is not allowed: delete::null::t"),
    ("is-sql", {"allowedColumns": ["select::null::a"]}, "SELECT * FROM t", None),
    ("is-sql", {"allowedColumns": ["select::orders::id"]}, "SELECT o.total FROM orders o", "SQL, but it uses what is not allowed: select::orders::total"),
    ("contains-sql", UNSAID, "Try ```hello there you```", None),
    ("word-count", 2, "one", "is 1 word long, not 2"),
    ("word-count", {"min": 2}, "", "is 0 words long, under the 2 asked for"),
    ("word-count", {"max": 1}, "one two", "is 2 words long, over the 1 allowed"),
    ("cost", 0.001, said(cost_nano_usd=1_500_000), "cost $0.0015, over the limit of 0.001"),
    ("latency", 1500, said(latency_s=1.6), "took 1600 ms, over the limit of 1500"),
    ("perplexity", 2, said("a", logprobs=UNSURE), "has a perplexity of 20.09, over the limit of 2"),
    ("perplexity-score", 0.5, said("a", logprobs=UNSURE), "its perplexity score is 0.05, under the threshold 0.5"),
    ("levenshtein", "kitten", "something else", "is at least 8 edits from 'kitten', over the 5 allowed"),
    ("levenshtein", "abcdef", "ghijkl", "is 6 edits from 'abcdef', over the 5 allowed"),
    ("rouge-n", "the cat sat", "The Cat", "its ROUGE-N is 0.00, under the threshold 0.75"),
    ("bleu", "one two three four", "", "its BLEU is 0.00, under the threshold 0.5"),
    ("gleu", "one two", "", None),
    ("meteor", "one two", "", None),
    ("is-refusal", UNSAID, "Of course! 😀 Here is how.", "does not read as a refusal: 'Of course! 😀 Here is how.'"),
    ("is-refusal", UNSAID, "I'm sorry for the delay; here is your refund.", None),
    ("finish-reason", "stop", said(finish_reason="length"), "stopped because of length, not stop"),
    ("guardrails", UNSAID, said("", finish_reason="content_filter"), "was stopped by the provider's content filter"),
    ("is-valid-function-call", UNSAID, "plain text", "calls no tool: 'plain text'"),
    ("is-valid-function-call", UNSAID, said("", use("find", id="x")), "calls 'find', but in its arguments $.id breaks the schema: \"x\" is not of type \"integer\""),
    ("is-valid-openai-function-call", UNSAID, said("", use("fnd")), "calls 'fnd', which the prompt does not declare (it declares find, stop)"),
    ("is-valid-openai-tools-call", UNSAID, said("", ToolUse("find", "{oops")), "calls 'find' with arguments that are not JSON: '{oops'"),
    ("tool-call-f1", ["a", "b"], said("", use("a"), use("c")), "its tool-call F1 is 0.50, under the threshold 1: expected a, b, called a, c"),
    ("tool-call-f1", ["a"], "", None),
    ("trajectory:tool-used", ["find_order", "cancel"], said("", FIND), "called find_order, but never cancel"),
    ("trajectory:tool-used", {"name": "find*", "max": 1}, said("", FIND, FIND), "called find* twice, 1 wanted; in all: find_order, find_order"),
    ("trajectory:tool-used", "x", "", "called none, but never x"),
    ("trajectory:tool-args-match", {"name": "refund", "args": {"id": 8}}, said("", REFUND), "called refund with '{\"id\": 7}', not with '{\"id\": 8}'"),
    ("trajectory:tool-args-match", {"name": "refund", "args": {"id": True}}, said("", use("refund", id=1)), None),
    ("trajectory:tool-args-match", {"name": "find_order", "args": {"id": 7}, "mode": "exact"}, said("", FIND), None),
    ("trajectory:tool-args-match", {"name": "find_order", "args": {"deep": {"a": [1]}}}, said("", FIND), None),
    ("trajectory:tool-args-match", {"name": "find_order", "args": {"limit": 10}, "defaults": {"limit": 10}}, said("", FIND), None),
    ("trajectory:tool-args-match", {"name": "gone", "args": {}}, said("", FIND), "never called gone; it called find_order"),
    ("trajectory:tool-sequence", ["refund", "find_order"], said("", FIND, REFUND), "called find_order, refund: find_order did not come in its turn, number 2 of refund, find_order"),
    ("trajectory:tool-sequence", {"mode": "exact", "steps": ["refund"]}, said("", REFUND, FIND), "called refund, find_order, not exactly refund"),
    ("trajectory:step-count", {"max": 1}, said("done", FIND, REFUND), "took 3 steps, 0 to 1 wanted: find_order, refund, message"),
]  # fmt: skip

UNEVEN = {"trajectory:tool-used"}
"""Whose `not-` form is "none of them", and not "not all of them"."""


@pytest.mark.parametrize(("type_", "value", "answer"), HOLDS)
def test_what_holds_passes_and_its_opposite_says_why_not(type_: str, value: Any, answer: PromptAnswer | str) -> None:
    result = judge(type_, value, answer)
    assert (result.passed, result.reason) == (True, "")
    opposite = judge(NOT + type_, value, answer)
    assert not opposite.passed or type_ in UNEVEN
    assert 0 < len(opposite.reason) <= MAX_REASON or opposite.passed
    assert "\n" not in opposite.reason


@pytest.mark.parametrize(("type_", "value", "answer", "reason"), FAILS)
def test_what_does_not_hold_fails_with_a_fact(
    type_: str, value: Any, answer: PromptAnswer | str, reason: str | None
) -> None:
    result = judge(type_, value, answer)
    assert not result.passed
    assert result.reason == reason if reason is not None else result.reason
    assert judge(NOT + type_, value, answer).passed or type_ in UNEVEN


def test_every_type_is_in_both_tables() -> None:
    elsewhere = {"equals", "contains", "regex", "is-json", "output-tokens"}  # test_checks.py
    assert {row[0] for row in HOLDS} | elsewhere == set(KINDS)
    assert {row[0] for row in FAILS} | elsewhere == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_each_type_is_a_check(kind: str) -> None:
    example = KINDS[kind].example
    assert complaint(example) is None
    name = example if isinstance(example, str) else next(iter(example))
    assert name.removeprefix(NOT) == kind


@pytest.mark.parametrize(
    ("type_", "value", "answer"),
    [
        ("cost", 1, said("x")),
        ("latency", 1, said("x")),
        ("perplexity", 1, said("x")),
        ("perplexity-score", 0, said("x")),
        ("finish-reason", "stop", said("x")),
    ],
)
def test_what_nobody_knows_passes_neither_way(type_: str, value: Any, answer: PromptAnswer) -> None:
    for form in (type_, NOT + type_):
        result = judge(form, value, answer)
        assert not result.passed
        assert "not known" in result.reason or "did not say" in result.reason


@pytest.mark.parametrize("type_", ["output-valid", "is-valid-function-call"])
def test_what_the_prompt_promises_has_to_be_known(type_: str) -> None:
    for form in (type_, NOT + type_):
        assert not build(form, form, None).judge(said("{}", use("find", id=1))).passed


def test_a_text_is_all_that_a_prompt_without_an_output_promises() -> None:
    check = build("output-valid", "output-valid", None)
    assert check.judge(said(""), Artifact((), "p/m")).passed
    assert not check.judge(said("x"), Artifact((), "p/m", output=Output("json"))).passed


def test_none_of_several_tools_is_the_opposite_of_all_of_them() -> None:
    used_one = said("", FIND)
    assert not judge("trajectory:tool-used", ["find_order", "refund"], used_one).passed
    assert not judge("not-trajectory:tool-used", ["find_order", "refund"], used_one).passed
    assert judge("not-trajectory:tool-used", ["refund", "cancel"], used_one).passed


@pytest.mark.parametrize(
    ("type_", "value", "score"),
    [
        ("rouge-n", "a b c d", 0.75),
        ("tool-call-f1", "x", 0.0),
        ("gleu", "a b c e", 0.75),
        ("not-rouge-n", "a b c d", 0.25),
    ],
)
def test_a_check_that_grades_carries_its_score(type_: str, value: Any, score: float) -> None:
    assert judge(type_, value, "a b c e").score == pytest.approx(score, abs=0.26)


@pytest.mark.parametrize(
    ("written", "said_"),
    [
        ({"one-of": []}, "needs a list of texts"),
        ({"contains-all": ["a", ""]}, "an empty text"),
        ({"contains-any": None}, "needs a list of texts"),
        ({"starts-with": ""}, "an empty text"),
        ({"contains-json": 5}, "takes a JSON Schema"),
        ({"output-valid": {}}, "takes nothing"),
        ({"is-xml": {"elements": ["a"]}}, "takes the paths of elements"),
        ({"is-html": "p"}, "takes no value"),
        ({"is-sql": {"databaseType": "PostgreSQ"}}, "no SQL dialect is called 'PostgreSQ'. Did you mean 'postgresql'?"),
        ({"is-sql": {"tables": []}}, "takes databaseType and allowedTables and allowedColumns, not 'tables'"),
        ({"is-sql": {"allowedTables": ["("]}}, "allowedTables: not a pattern RE2 can use"),
        ({"word-count": "many"}, "a number of words is a number"),
        ({"word-count": 1.5}, "a number of words is a whole number"),
        ({"word-count": {"min": 3, "max": 2}}, "min 3 is above max 2"),
        ("cost", "the limit, an amount of US dollars, is a number"),
        ({"latency": -1}, "the limit, a number of milliseconds, is a number, 0 or more"),
        ({"cost": 1, "threshold": 2}, "the limit stands twice"),
        ({"perplexity-score": 2}, "threshold is a score from 0 to 1"),
        ({"levenshtein": "a", "threshold": 1.5}, "threshold is a whole number"),
        ({"rouge-n": "", "threshold": 0.5}, "needs a text to compare with"),
        ({"bleu": []}, "needs a text to compare with"),
        ({"gleu": "a", "threshold": 75}, "threshold is a score from 0 to 1, not 75"),
        ({"meteor": "a", "alpha": 2}, "alpha and gamma are from 0 to 1"),
        ({"finish-reason": "stopp"}, "Did you mean 'stop'?"),
        ({"tool-call-f1": [" "]}, "needs at least one name"),
        ({"trajectory:tool-used": {"min": 1}}, "needs the name of a tool"),
        ({"trajectory:tool-used": []}, "takes the name of a tool"),
        ({"trajectory:tool-args-match": {"name": "a"}}, "needs args"),
        ({"trajectory:tool-args-match": {"name": "a", "args": {}, "mode": "some"}}, "mode is partial or exact"),
        ({"trajectory:tool-args-match": {"name": "a", "args": {}, "ignore": [""]}}, "ignore is the name"),
        ({"trajectory:tool-sequence": {"steps": []}}, "takes a list of tools"),
        ({"trajectory:tool-sequence": {"mode": "any", "steps": ["a"]}}, "mode is in_order or exact"),
        ({"trajectory:step-count": {"max": 1, "type": "span"}}, "come from traces"),
        ({"trajectory:step-count": {"name": "a"}}, "takes {max: N}"),
        ({"contains": "a", "threshold": 1}, "beside 'contains' may stand weight, not 'threshold'"),
        ({"contains": "a", "weight": -1}, "weight is a number, 0 or more"),
        ({"rouge-n": "a", "treshold": 1}, "Did you mean 'threshold'?"),
        ({"javascript": "true"}, "runs code"),
        ({"trace-span-count": {}}, "spans of a trace"),
        ({"llm-rubric": "polite"}, "under `judges:`"),
        ({"not-assert-set": []}, "has no `not-` form"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_at_load(written: Any, said_: str) -> None:
    found = complaint(written)
    assert found is not None
    assert said_ in found


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        '{"a":' * 50_000,
        "<a>" * 50_000,
        "<" * 150_000,
        "<!--" * 50_000,
        "</a>" * 50_000,
        "(" * 40_000,
        "SELECT " + "(" * 3_000,
        '<a b="' * 25_000,
        "I can't " * 25_000,
        "`" * 150_000,
        ". " * 50_000,
        ("." + "'" * 300) * 300,
        "a" * 500_000,
        "word " * 50_000,
    ],
    ids=lambda text: text[:8],
)
def test_no_answer_takes_for_ever(text: str) -> None:
    """What a model writes may be anything; every check is done with it soon."""
    for kind, spec in KINDS.items():
        value, options = example(kind)
        began = time.monotonic()
        judge(kind, value, text, options)
        assert time.monotonic() - began < 8, (kind, spec.example)


def example(kind: str) -> tuple[Any, dict[str, Any]]:
    """The value and the options of a type's example, its templates filled in."""
    written = KINDS[kind].example
    if isinstance(written, str):
        return None, {}
    options = dict(written)
    value = options.pop(kind)
    if "{{" in str(value):
        value = "x" if isinstance(value, str) else {"name": "x", "args": {}}
    return value, options


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_answer_is_judged(text: str) -> None:
    """Whatever is answered, every type passes or gives a reason, and exactly one of the two forms passes."""
    for kind in KINDS:
        value, options = example(kind)
        results = [judge(form, value, text, options) for form in (kind, NOT + kind)]
        for result in results:
            assert result.passed != bool(result.reason)
        if "not known" not in results[0].reason and "did not say" not in results[0].reason:
            assert results[0].passed != results[1].passed
