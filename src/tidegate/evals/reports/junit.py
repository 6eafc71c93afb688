"""
JUnit XML: one test suite per prompt, one test case per golden case, and one more, `(gate)`, for the verdict.

The file has a failure or an error exactly when the exit code is not 0, so a program that reads nothing else agrees with
the gate. A case that fails under a PASS (the margin allows it, or the baseline fails it too) is therefore *skipped*,
with its reason. What was only measured, by `eval`, has no verdict: there every case that does not pass is a failure.

    FAIL → failure    INCONCLUSIVE → failure of that type    UNUSABLE, a case without an answer → error
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from tidegate.core.errors import TidegateError
from tidegate.core.evaluation import CaseVerdict, Repeat
from tidegate.evals.reports.figures import asked, figure, interval
from tidegate.evals.reports.judged import Judged, outcome
from tidegate.evals.reports.plain import cut, one_line
from tidegate.evals.said import label, usable

MAX_OUTPUT = 10_000
MAX_MESSAGE = 1_000
GATE = "(gate)"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


def junit(judged: Sequence[Judged]) -> bytes:
    """The whole file."""
    return _whole([_suite(number, one) for number, one in enumerate(judged)])


def unjudged(error: TidegateError) -> bytes:
    """The file of a gate that could not judge: one error."""
    suite = ET.Element("testsuite", _suite_attributes(0, "tidegate", "1970-01-01T00:00:00"))
    case = ET.SubElement(suite, "testcase", classname="tidegate", name=GATE, time="0")
    _problem(case, "error", type(error).__name__, str(error), "")
    return _whole([_finished(suite, out="")])


def _whole(suites: Sequence[ET.Element]) -> bytes:
    root = ET.Element("testsuites", name="tidegate")
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in suites)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in suites):.3f}")
    root.extend(suites)
    ET.indent(root)
    text: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return text + b"\n"


def _suite(number: int, judged: Judged) -> ET.Element:
    run, report = judged.run, judged.report
    suite = ET.Element("testsuite", _suite_attributes(number, run.prompt, run.started_at))
    properties = ET.SubElement(suite, "properties")
    known = {"candidate": label(run), "digest": run.digest, "run": run.id, "git.commit": run.git_commit or ""}
    if report is not None:
        known |= {"verdict": report.verdict, "baseline": report.baseline or "", "cost_usd": f"{report.cost_usd:.9f}"}
        for metric in report.metrics:
            known[f"metric.{metric.name}"] = figure(metric.candidate, metric.scale)
            known[f"metric.{metric.name}.baseline"] = figure(metric.baseline, metric.scale)
            known[f"metric.{metric.name}.interval"] = interval(metric.interval, metric.scale)
            known[f"metric.{metric.name}.asked"] = asked(metric)
            known[f"metric.{metric.name}.verdict"] = metric.verdict
    for name, value in known.items():
        if value not in ("", "–"):
            ET.SubElement(properties, "property", name=one_line(name), value=one_line(value, MAX_MESSAGE))
    _verdict(suite, judged)
    excused = report is not None and report.verdict == "PASS"
    times = _times(run.results)
    for case in judged.cases:
        _case(suite, run.prompt, case, times[case.id], excused=excused)
    said = [] if report is None else [report.reason, *report.notes]
    return _finished(suite, out="\n".join(said))


def _suite_attributes(number: int, name: str, started_at: str) -> dict[str, str]:
    instant = TIMESTAMP.match(started_at)
    return {
        "id": str(number),
        "package": "tidegate",
        "name": one_line(name),
        "timestamp": instant[0] if instant else "1970-01-01T00:00:00",
        "hostname": "localhost",
    }


def _verdict(suite: ET.Element, judged: Judged) -> None:
    report, prompt = judged.report, judged.run.prompt
    case = ET.SubElement(suite, "testcase", classname=_class(prompt), name=GATE, time="0")
    if report is None:
        if not usable(judged.run):
            _problem(case, "error", "UNUSABLE", "more than 2 % of the calls ended in errors", "")
    elif report.verdict != "PASS":
        kind = "error" if report.verdict == "UNUSABLE" else "failure"
        _problem(case, kind, report.verdict, report.reason, "\n".join(report.notes))


def _case(suite: ET.Element, prompt: str, case: CaseVerdict, seconds: float, *, excused: bool) -> None:
    test = ET.SubElement(suite, "testcase", classname=_class(prompt), name=one_line(case.id), time=f"{seconds:.3f}")
    result = outcome(case)
    if result == "passes":
        return
    message = f"{case.candidate_passed}/{case.repeats} passed: {case.reason}"
    if excused:
        _problem(test, "skipped", "allowed", f"{message} (the gate allows it)", None)
    elif result == "unanswered":
        _problem(test, "error", "no answer", case.reason, "")
    else:
        _problem(test, "failure", case.change, message, case.output)


def _problem(case: ET.Element, tag: str, kind: str, message: str, text: str | None) -> None:
    found = ET.SubElement(case, tag, message=one_line(message, MAX_MESSAGE), type=one_line(kind))
    if text is not None:
        shown, left = cut(text, MAX_OUTPUT)
        found.text = shown + (f"\n… {left:,} more characters" if left else "")


def _finished(suite: ET.Element, *, out: str) -> ET.Element:
    cases = suite.findall("testcase")
    kinds = Counter(child.tag for case in cases for child in case)
    suite.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(kinds[tag]))
    suite.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")
    ET.SubElement(suite, "system-out").text = cut(out, MAX_OUTPUT)[0]
    ET.SubElement(suite, "system-err")
    return suite


def _times(results: Sequence[Repeat]) -> Counter[str]:
    times: Counter[str] = Counter()
    for result in results:
        times[result.case_id] += result.latency_s or 0  # type: ignore[assignment]  # seconds, not a count
    return times


def _class(prompt: str) -> str:
    """Readers show dots as a tree."""
    return one_line(prompt).replace("/", ".")
