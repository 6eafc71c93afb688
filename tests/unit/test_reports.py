"""The report files: whole, and safe whatever a model said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import msgspec
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.unit.judged import BAD, GOOD, HOSTILE, RATE, judged
from tidegate.cli.reports import BEGINNINGS
from tidegate.core.errors import BadInput
from tidegate.core.evaluation import EXIT_CODES, Verdict
from tidegate.evals.reports import junit as junit_module
from tidegate.evals.reports import markdown as markdown_module
from tidegate.evals.reports import page as page_module
from tidegate.evals.reports.judged import Judged
from tidegate.evals.reports.junit import junit
from tidegate.evals.reports.markdown import MAX_BYTES, markdown
from tidegate.evals.reports.page import page
from tidegate.evals.reports.plain import one_line, plain

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KINDS = ("broken", "fixed", "flaky", "same")


def html(*prompts: Judged, command: str = "tidegate gate") -> str:
    return page(prompts, command=command, version="0.1.0", now=NOW).decode("utf-8")


class Reader(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data


# plain text


def test_what_hides_is_spelt_out_and_the_rest_stays() -> None:
    assert plain("a\x00b\x1b[0m\u202ec\ud800\uffff") == "a\\x00b\\x1b[0m\\u202ec\\ud800\\uffff"
    kept = "é e\u0301 ‘x’ 中文 مرحبا 👩\u200d💻\n\tz"
    assert plain(kept) == kept
    assert one_line("a\nb\tc") == "a\\x0ab    c"
    assert one_line("abcdef", 3) == "abc…"


# HTML


def test_the_page_says_the_verdict_and_shows_what_made_it() -> None:
    text = " ".join(Reader(html(judged(*KINDS))).text.split())
    for said in (
        "FAIL support/answer · v1 → v2 is-json must pass, and it fails in all 3 repeats of 'case-0'.",
        "the baseline v1 is main at 1a2b3c4d5e.",
        "cost per call $0.000141 was $0.000112 (+26%)",
        "input tokens 169 was 150 (+13%)",
        "100% → 90% −10.0 points",
        "interval −19.0 to −1.0",
        "asked ≥ 80%, drop ≤ 2 points",
        "long worse pass-rate 7 90% 50% −40.0 −60.0 to −20.0",
        "short grounded 9 4.1 4.2 +0.10 −0.20 to +0.30",
        "all 4 failing 2 broken 1 fixed 1 flaky 1 same 1",
        "is-json: is not JSON",
        "prompts/support/answer/golden.jsonl:1",
        "git checkout 1a2b3c4d # and the changes that were not committed tidegate gate",
        "It repeats the context.",
        "brief friendly",
    ):
        assert said in text


def test_the_words_that_changed_are_marked_on_both_sides() -> None:
    text = html(judged("broken"))
    assert "<ins>Hi there!\n\n</ins>" in text
    old = judged("fixed")
    assert "<del>Hi there!\n\n</del>" in html(old)


def test_two_json_answers_are_compared_line_by_line_and_one_beside_prose_as_it_is() -> None:
    assert "{\n  &#34;answer&#34;: &#34;within 30 days&#34;," in html(judged("same"))
    assert "{\n  &#34;answer" not in html(judged("broken")).split("Repeats")[0]


def test_a_page_needs_nothing_but_itself_and_runs_nothing() -> None:
    for prompts in ([judged(*KINDS)], [judged(*KINDS, hostile=True)]):
        tags = Reader(html(*prompts)).tags
        assert not {tag for tag, _ in tags} & {"script", "iframe", "object", "img", "form", "base", "style-src"}
        for tag, attributes in tags:
            assert not [name for name in attributes if name.startswith("on")]
            for name in ("src", "href", "action", "srcset"):
                assert (attributes.get(name) or "#").startswith(("#", "data:image/svg+xml,")), (tag, attributes)
        policy = next(a["content"] for t, a in tags if t == "meta" and a.get("http-equiv"))
        assert policy is not None
        assert policy.startswith("default-src 'none';")
        assert "script" not in policy


def test_hostile_text_adds_no_tag_to_the_page() -> None:
    calm, attacked = judged(*KINDS, "error"), judged(*KINDS, "error", hostile=True)
    expected = {tag for tag, _ in Reader(html(calm)).tags}
    read = Reader(html(attacked, command=HOSTILE))
    assert {tag for tag, _ in read.tags} <= expected
    assert "<script>alert(1)</script>" in read.text, "and yet the reader sees what was said"
    assert not re.search("[\x00\x1b\u202e]", html(attacked))


@pytest.mark.parametrize("count", [0, 1, 500])
def test_any_number_of_cases_makes_a_page(count: int) -> None:
    text = html(judged(*[KINDS[index % 4] for index in range(count)]))
    assert Reader(text).tags.count(("html", {"lang": "en"})) == 1
    assert text.count('<details class="case') == count
    assert ("This run has no cases." in text) == (count == 0)
    assert len(text) < 3_000_000


def test_long_answers_are_cut_and_what_is_missing_is_counted() -> None:
    text = html(judged("broken", long=5_000))
    assert len(text) < 200_000
    left = len(BAD) * 5_000 - page_module.MAX_TEXT
    assert f"… {left:,} more characters" in text


def test_many_long_answers_share_one_page() -> None:
    text = html(judged(*(["broken"] * 300), long=2_000))
    assert len(text) < 3 * page_module.ALL_TEXT


def test_several_prompts_are_listed_above() -> None:
    read = Reader(html(judged("broken"), judged("same", verdict="PASS")))
    assert [a["href"] for t, a in read.tags if t == "a"] == ["#p0", "#p1"]
    assert {a["id"] for t, a in read.tags if t == "article"} == {"p0", "p1"}


def test_a_run_that_nothing_judged_is_called_measured() -> None:
    text = " ".join(Reader(html(Judged(judged(*KINDS).run))).text.split())
    assert "MEASURED support/answer · v2 2 of 4 cases pass in every repeat." in text
    assert "broken" not in text.partition("eval report")[2]


# JUnit


def suites(*prompts: Judged) -> list[ET.Element]:
    root = ET.fromstring(junit(prompts))  # noqa: S314 - our own text
    return valid_junit(root)


def valid_junit(root: ET.Element) -> list[ET.Element]:
    """The rules that the JUnit schemas of Jenkins and of Ant's reporter share; returns the suites."""
    number = re.compile(r"\d+"), re.compile(r"\d+(\.\d+)?")
    assert root.tag == "testsuites"
    assert set(root.attrib) <= {"name", "time", "tests", "failures", "errors", "disabled"}
    for suite in root:
        assert suite.tag == "testsuite"
        required = {"name", "tests", "failures", "errors", "time", "timestamp", "hostname", "id", "package"}
        assert required <= set(suite.attrib) <= required | {"skipped"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        assert all(number[0].fullmatch(suite.attrib[name]) for name in ("tests", "failures", "errors", "id"))
        order = [child.tag for child in suite]
        places = ["properties", "testcase", "system-out", "system-err"]
        assert order == sorted(order, key=places.index)
        assert order.count("system-out") == order.count("system-err") == 1
        for case in suite.iter("testcase"):
            assert set(case.attrib) == {"name", "classname", "time"}
            assert number[1].fullmatch(case.attrib["time"])
            assert len(case) <= 1
            for child in case:
                assert child.tag in {"failure", "error", "skipped"}
                assert set(child.attrib) == {"message", "type"}
        for prop in suite.iter("property"):
            assert set(prop.attrib) == {"name", "value"}
        for kind, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert suite.attrib[attribute] == str(len(list(suite.iter(kind))))
        assert suite.attrib["tests"] == str(len(list(suite.iter("testcase"))))
    for attribute in ("tests", "failures", "errors"):
        assert root.attrib[attribute] == str(sum(int(suite.attrib[attribute]) for suite in root))
    return list(root)


def test_every_case_is_a_test_and_its_failure_says_why() -> None:
    (suite,) = suites(judged(*KINDS, "error"))
    cases = {case.attrib["name"]: case for case in suite.iter("testcase")}
    assert list(cases) == ["(gate)", "case-0", "case-4", "case-2", "case-1", "case-3"]
    assert [child.tag for child in cases["(gate)"]] == ["failure"]
    failure = cases["case-0"][0]
    assert (failure.tag, failure.attrib["type"], failure.text) == ("failure", "broken", BAD)
    assert failure.attrib["message"] == "0/3 passed: is-json: is not JSON"
    assert [len(cases[name]) for name in ("case-1", "case-3")] == [0, 0]
    assert cases["case-4"][0].tag == "error"
    assert cases["case-0"].attrib == {"name": "case-0", "classname": "support.answer", "time": "1.500"}
    values = {prop.attrib["name"]: prop.attrib["value"] for prop in suite.iter("property")}
    assert values["metric.pass-rate"] == "90%"
    assert values["metric.pass-rate.interval"] == "−19.0 to −1.0"
    assert values["metric.grounded.verdict"] == "INCONCLUSIVE"
    assert values["verdict"] == "FAIL"


@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "INCONCLUSIVE", "UNUSABLE"])
@pytest.mark.parametrize("kinds", [("same",), KINDS, ("error", "same"), ()])
def test_a_failure_or_an_error_stands_there_exactly_when_the_exit_code_is_not_0(
    verdict: Verdict, kinds: tuple[str, ...]
) -> None:
    (suite,) = suites(judged(*kinds, verdict=verdict))
    red = int(suite.attrib["failures"]) + int(suite.attrib["errors"]) > 0
    assert red == (EXIT_CODES[verdict] != 0)


def test_a_case_that_the_gate_allows_to_fail_is_skipped_with_its_reason() -> None:
    (suite,) = suites(judged("flaky", verdict="PASS"))
    (skipped,) = suite.iter("skipped")
    assert skipped.attrib["message"] == "1/3 passed: is-json: is not JSON (the gate allows it)"


def test_hostile_text_is_well_formed_xml_without_control_characters() -> None:
    body = junit([judged(*KINDS, "error", hostile=True, ids=tuple(HOSTILE + str(i) for i in range(5)))])
    (suite,) = valid_junit(ET.fromstring(body))  # noqa: S314
    assert len(list(suite.iter("testcase"))) == 6
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", body.decode("utf-8"))
    assert "&#0" not in body.decode("utf-8")


def test_long_answers_do_not_fill_the_xml() -> None:
    assert len(junit([judged("broken", long=10_000)])) < 3 * junit_module.MAX_OUTPUT


def test_a_measured_run_has_a_failure_for_every_case_that_does_not_pass() -> None:
    (suite,) = suites(Judged(judged(*KINDS).run))
    assert suite.attrib["failures"] == "2"
    assert not list(suite.iter("skipped"))


def test_what_could_not_be_judged_is_an_error() -> None:
    (suite,) = valid_junit(ET.fromstring(junit_module.unjudged(BadInput(HOSTILE))))  # noqa: S314
    assert suite.attrib["errors"] == "1"


# Markdown


def tokens(text: str) -> Iterator[Token]:
    """All of a GitHub-like reading: tables, links of bare addresses, HTML."""
    for token in MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").parse(text):
        yield token
        yield from token.children or ()


def test_the_comment_says_verdict_metrics_and_changed_cases() -> None:
    text = markdown([judged(*KINDS)], project="shop", command="tidegate gate")
    assert text.startswith("<!-- tidegate:gate shop -->\n\n### ❌ FAIL · `support/answer`\n")
    assert "| `pass-rate` | 100% | 90% | −10.0 | −19.0 to −1.0 | ≥ 80%, drop ≤ 2 points | ❌ FAIL |" in text
    assert "cost per call $0.000112 → $0.000141 (+26%)" in text
    assert "<details><summary>case-0: broken, 3/3 → 0/3 repeats pass</summary>" in text
    assert f"`v2` answered\n\n```\n{BAD}\n```" in text
    assert f"`v1` answered\n\n```\n{GOOD}\n```" in text
    assert "Worse in: `long` (`pass-rate` −40.0, 7 cases).\n" in text
    assert "case-3" not in text, "what stayed the same is not in the way"
    assert "```diff\n@@ system message @@\n-brief\n+friendly\n```" in text


def test_hostile_text_makes_no_markup_link_mention_or_reference() -> None:
    text = markdown([judged(*KINDS, hostile=True, ids=(HOSTILE, "b", "c", "d"))], project="shop", command=HOSTILE)
    calm = markdown([judged(*KINDS)], project="shop", command="tidegate gate")
    found = list(tokens(text))
    assert {token.type for token in found} <= {token.type for token in tokens(calm)}
    for token in found:
        if token.type in ("html_block", "html_inline"):
            tags = {tag for tag, _ in Reader(token.content).tags}
            assert tags <= {"details", "summary", "sub"}, token.content
        if token.type not in ("fence", "code_inline", "code_block", "inline"):
            assert not re.search(r"@\w|(?<![&\w])#\d|GH-\d|://|www\.", token.content), token.content
    assert text.count("<!--") == 1 or text.index("tidegate:gate other") > 0
    assert text.count("<details>") == calm.count("<details>")
    first, *rest = [token for token in found if token.type == "html_block" and token.content.startswith("<!--")]
    assert first.content.strip() == "<!-- tidegate:gate shop -->"
    assert rest == []


@pytest.mark.parametrize("text", ["`", "```\n</details>", "~~~\n`````` x", "", "\n\n\n", "    code"])
def test_no_answer_ends_its_own_fence(text: str) -> None:
    fenced = markdown_module.fenced(text) + "\n\nafter\n"
    kinds = [(token.type, token.content.rstrip("\n")) for token in tokens(fenced) if token.type in ("fence", "inline")]
    assert kinds == [("fence", (text or "(empty)").rstrip("\n")), ("inline", "after")] or text == "\n\n\n"


def test_a_comment_fits_whatever_there_is_to_say() -> None:
    wide = "\U0001f600" * 1_000
    many = [judged(*(["broken"] * 50), ids=tuple(wide + str(i) for i in range(50)), long=50) for _ in range(40)]
    text = markdown(many, project="shop", command=wide * 50)
    assert len(text.encode()) <= MAX_BYTES
    assert "Cut short for" in text
    assert "</details>\n" in text
    assert text.count("<details>") == text.count("</details>")


def test_the_worst_prompt_comes_first() -> None:
    text = markdown([judged("same", verdict="PASS"), judged("broken")], project="p", command="c")
    assert text.index("❌ FAIL") < text.index("✅ PASS ·")


def test_what_could_not_be_judged_is_said_in_a_comment_too() -> None:
    text = markdown_module.unjudged(BadInput("no key"), project="shop", command="tidegate gate")
    assert text.startswith("<!-- tidegate:gate shop -->\n")
    assert "could not judge" in text
    assert "no key" in text


def test_our_own_files_are_known_by_how_they_begin() -> None:
    one = judged("broken")
    bodies = {
        "--html": html(one).encode(),
        "--junit": junit([one]),
        "--markdown": markdown([one], project="shop", command="c").encode(),
    }
    assert all(bodies[option].startswith(beginning) for option, beginning in BEGINNINGS.items())
    assert junit_module.unjudged(BadInput("x")).startswith(BEGINNINGS["--junit"])


def test_a_floor_alone_is_drawn_with_the_value_and_a_margin_with_the_change() -> None:
    metrics = (RATE, msgspec.structs.replace(RATE, margin=None, candidate_interval=(0.8, 1.0)))
    with_margin, floor_alone = (html(judged("same", metrics=(metric,))) for metric in metrics)
    assert (">margin<" in with_margin, ">floor<" in with_margin) == (True, False)
    assert (">margin<" in floor_alone, ">floor<" in floor_alone) == (False, True)
    assert 'cx="88.4%"' in floor_alone
