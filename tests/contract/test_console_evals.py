"""The Evals part of the console: lists, trends, one run, two runs, calibrations; their filters, and hostile answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from tests import seed
from tests.contract.test_console import PAYLOADS, Tags, client_of
from tidegate.core.agreement import wilson
from tidegate.core.evaluation import CheckResult, Repeat, Run, Score, ToolUse
from tidegate.core.ids import uuid7
from tidegate.core.instant import iso_utc

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
JUDGE = {
    "format": 1,
    "kind": "rubric",
    "prompts": ["a" * 64],
    "votes": 1,
    "reduce": "mean",
    "logprobs": False,
}
SUITE = {
    "repeats": 2,
    "checks": [{"is-json": None}],
    "gate": {"metrics": {"pass-rate": {"margin": 0.1}}},
    "judges": {"tone": {**JUDGE, "fields": {}, "pass_at": 4, "min_kappa": 0.5}},
}
CASES = [
    {
        "id": f"case-{number}",
        "inputs": {"question": f"question {number}"},
        "tags": ["even" if number % 2 == 0 else "odd"],
    }
    for number in range(60)
]
PEOPLE = [1, 2, 3, 4, 5] * 6


def sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def save(
    project: seed.Seeded,
    *,
    failing: int = 0,
    said: str = "no",
    version: int = 1,
    suite: dict[str, Any] = SUITE,
    cases: list[dict[str, Any]] = CASES,
    minutes: int = 5,
) -> Run:
    """A run whose first `failing` cases fail in both repeats, saying `said`."""
    at = NOW - timedelta(minutes=minutes)
    digest = next(one.digest for one in project.registry.versions(seed.NAME) if one.number == version)
    golden = "\n".join(json.dumps(case) for case in cases)
    results = [
        Repeat(
            case["id"],
            repeat,
            said if number < failing else seed.GOOD,
            (CheckResult("is-json", number >= failing, said if number < failing else ""),),
            call_id=project.call_id(at),
            cost_nano_usd=1_000_000,
            scores=(Score("tone", 2.0 if number < failing else 5.0, number >= failing, said, 0, ("judge-call",)),),
            tool_calls=(ToolUse("look_up", {"order": said}, "t", said),),
        )
        for number, case in enumerate(cases)
        for repeat in range(2)
    ]
    run = Run(
        id=uuid7(int(at.timestamp() * 1_000), project.random.getrandbits(80)),
        prompt=seed.NAME,
        version=version,
        digest=digest,
        suite_digest=sha(json.dumps(suite)),
        golden_digest=sha(golden),
        started_at=iso_utc(int(at.timestamp()) * 10**9),
        finished_at=iso_utc(int(at.timestamp() + 1) * 10**9),
        repeats=2,
        results=tuple(results),
    )
    project.registry.save_run(run, suite=json.dumps(suite), golden=golden)
    return run


def calibrate(project: seed.Seeded, *, wrong: int = 0) -> Run:
    """30 labels; the judge contradicts people on the first `wrong`."""
    artifact = seed.artifact("You judge.")
    version = project.registry.register("judges/tone", artifact)
    labels = [{"id": f"l{n}", "output": f"answer {n}", "human": {"ann": human}} for n, human in enumerate(PEOPLE)]
    text = json.dumps(JUDGE, sort_keys=True, separators=(",", ":"))
    golden = "\n".join(json.dumps(label) for label in labels)
    run = Run(
        id=uuid7(int(NOW.timestamp() * 1_000), project.random.getrandbits(80)),
        prompt="judges/tone",
        version=version.number,
        digest=version.digest,
        suite_digest=sha(text),
        golden_digest=sha(golden),
        started_at=iso_utc(int(NOW.timestamp()) * 10**9),
        finished_at=iso_utc(int(NOW.timestamp() + 1) * 10**9),
        repeats=1,
        results=tuple(
            Repeat(
                f"l{n}", 0, f"answer {n}", scores=(Score("tone", float(6 - human if n < wrong else human), None, "so"),)
            )
            for n, human in enumerate(PEOPLE)
        ),
    )
    project.registry.save_run(run, suite=text, golden=golden)
    return run


@pytest.fixture
def project(tmp_path: Path) -> Iterator[seed.Seeded]:
    with seed.incident(tmp_path, NOW, calls=5) as seeded:
        yield seeded


@pytest.fixture
def client(project: seed.Seeded) -> TestClient:
    return client_of(project)


def ids(client: TestClient, query: str) -> list[str]:
    return [run["id"] for run in client.get(f"/runs.json?{query}").json()["runs"]]


def test_the_list_filters_by_all_it_offers(client: TestClient, project: seed.Seeded) -> None:
    mine, calibration = save(project), calibrate(project)
    gates = ids(client, "kind=gate")
    assert (len(gates), ids(client, "kind=eval"), ids(client, "kind=calibration")) == (2, [mine.id], [calibration.id])
    assert ids(client, "verdict=FAIL&version=v2") == ids(client, "version=2") == gates[:1]
    assert ids(client, "prompt=judges/tone") == [calibration.id]
    assert mine.id in ids(client, "since=2026-11-23T14:55:00Z")
    assert mine.id not in ids(client, "since=2026-11-23T14:55:01Z")
    assert len(ids(client, "since=1d")) == 4
    assert "No run matches" in client.get("/runs?verdict=UNUSABLE").text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/runs?verdict=PAS", "Did you mean"),
        ("/runs?kind=gates", "Did you mean"),
        ("/runs?version=x", "not a version"),
        ("/runs?since=yesterday", "not an instant"),
        ("/runs?before=nobody", "No run matches"),
        ("/runs/trend?prompt=nobody", "no prompt named"),
        ("/runs/compare?a=x&b=y", "no run"),
    ],
)
def test_a_wrong_filter_is_one_sentence(client: TestClient, path: str, said: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (200, 400, 404)
    assert said in answer.text


def test_a_pass_rate_has_wilsons_interval_and_its_n(client: TestClient, project: seed.Seeded) -> None:
    run = save(project, failing=15)
    figure = next(one for one in client.get("/runs.json").json()["runs"] if one["id"] == run.id)["figure"]
    expected = wilson(45, 60)
    assert (figure["value"], figure["n"]) == (0.75, 60)
    assert (figure["low"], figure["high"]) == pytest.approx((expected.low, expected.high))
    assert figure["text"] in client.get("/runs").text


def test_cases_of_one_cluster_count_once(client: TestClient, project: seed.Seeded) -> None:
    save(project, failing=30, cases=[case | {"cluster": f"c{index // 2}"} for index, case in enumerate(CASES)])
    figure = client.get("/runs.json?kind=eval").json()["runs"][0]["figure"]
    assert (figure["value"], figure["n"]) == (0.5, 30)


def test_figures_are_read_from_the_answers_once(client: TestClient, project: seed.Seeded) -> None:
    save(project)
    assert client.get("/runs").status_code == 200
    read: list[str] = []
    whole = project.registry.run
    project.registry.run = lambda run_id: read.append(run_id) or whole(run_id)  # type: ignore[method-assign,func-returns-value]
    client.get("/runs")
    client.get("/runs/trend")
    assert read == []


def test_pages_of_runs_follow_one_another(client: TestClient, project: seed.Seeded) -> None:
    for _ in range(55):
        save(project, cases=CASES[:1])
    first = client.get("/runs.json").json()
    second = client.get(f"/runs.json?before={first['older']}").json()
    found = [run["id"] for run in first["runs"] + second["runs"]]
    assert (len(found), len(set(found)), second["older"]) == (57, 57, None)


def test_a_trend_breaks_where_runs_do_not_compare(client: TestClient, project: seed.Seeded) -> None:
    save(project, minutes=4)
    save(project, minutes=3, cases=CASES[:50])
    save(project, minutes=2, cases=CASES[:50], suite={**SUITE, "repeats": 3})
    page = client.get("/runs/trend?kind=eval").text
    assert "Golden set changed here" in page
    assert "Suite changed here" in page
    data = client.get("/runs/trend.json?kind=eval").json()
    assert [chart["title"] for chart in data["charts"]] == ["Pass rate", "tone"]
    assert [row["segment"] for row in data["charts"][0]["spec"]["data"]["values"]] == [0, 1, 2]
    assert all(row["low"] <= row["v"] <= row["high"] for row in data["charts"][0]["spec"]["data"]["values"])


def test_a_trend_marks_deployments_between_the_runs(client: TestClient) -> None:
    data = client.get("/runs/trend.json").json()
    assert [move["label"] for move in data["runs"][0]["moves"]] == ["deploy v2 staging", "forced v2"]
    assert [move["label"] for move in data["runs"][1]["moves"]] == ["deploy v1", "deploy v1 staging"]


def test_a_run_says_its_verdict_first_and_leads_to_every_call(client: TestClient, project: seed.Seeded) -> None:
    run = save(project, failing=1)
    page = client.get(f"/runs/{run.id}?show=failing").text
    assert "59 of 60 cases pass in every repeat. Measured, not gated." in page
    for repeat in run.results[:2]:
        assert f'href="/calls/{repeat.call_id}"' in page
    assert 'href="/calls/judge-call"' in page
    gate = client.get("/runs.json?verdict=FAIL").json()["runs"][0]["id"]
    page = client.get(f"/runs/{gate}").text
    assert page.index("is-json must pass") < page.index("Metrics") < page.index("Cases</h2>")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 60),
        ("show=failing", 20),
        ("tag=odd", 30),
        ("tag=odd&show=failing", 10),
        ("q=QUESTION+59", 1),
        ("show=error", 0),
    ],
)
def test_cases_are_filtered_on_the_server(client: TestClient, project: seed.Seeded, query: str, found: int) -> None:
    run = save(project, failing=20)
    cases = client.get(f"/runs/{run.id}.json?{query}").json()["cases"]
    assert (cases["found"], cases["total"]) == (found, 60)
    assert len(cases["rows"]) == min(found, 50)
    assert client.get(f"/runs/{run.id}?{query}").status_code == 200
    assert client.get(f"/runs/{run.id}?show=x").status_code == 400


def test_two_runs_stand_beside_each_other_by_the_gates_statistics(client: TestClient, project: seed.Seeded) -> None:
    before, after = save(project), save(project, failing=12, version=2, said="so sorry")
    data = client.get(f"/runs/compare.json?a={before.id}&b={after.id}").json()
    rate, tone = data["report"]["metrics"]
    assert (rate["name"], rate["baseline"], rate["candidate"], rate["margin"]) == ("pass-rate", 1.0, 0.8, 0.1)
    assert rate["delta"] == pytest.approx(-0.2)
    assert rate["interval"][0] < rate["delta"] < rate["interval"][1] < 0
    assert (tone["name"], tone["delta"]) == ("tone", pytest.approx(-0.6))
    assert data["cases"]["counts"]["broken"] == 12
    page = client.get(f"/runs/compare?a={before.id}&b={after.id}&show=broken").text
    assert "sorry</ins>" in page
    assert "What changed in the prompt" in page


def test_runs_that_do_not_quite_compare_say_so(client: TestClient, project: seed.Seeded) -> None:
    before, after = save(project, cases=CASES[:40]), save(project, cases=CASES[20:])
    page = client.get(f"/runs/compare?a={before.id}&b={after.id}").text
    assert "20 cases are in both, 20 only in the first, 20 only in the second" in page
    assert "Both runs are of one version" in page
    other = save(project, suite={**SUITE, "checks": [{"contains": "x"}]})
    assert "The suites check differently" in client.get(f"/runs/compare?a={after.id}&b={other.id}").text
    assert client.get(f"/runs/compare?a={after.id}&b={calibrate(project).id}").status_code == 400


def test_a_run_is_judged_again_under_the_margins_of_the_address(client: TestClient, project: seed.Seeded) -> None:
    run = save(project, failing=6, suite={key: value for key, value in SUITE.items() if key != "judges"})
    high = client.get(f"/runs/{run.id}.json?pass-rate.floor=0.95").json()["again"]
    low = client.get(f"/runs/{run.id}.json?pass-rate.floor=0.85").json()["again"]
    assert (high["verdict"], low["verdict"]) == ("FAIL", "PASS")
    assert "write NAME.margin" in client.get(f"/runs/{run.id}?pass-rate.floor=lots").text
    assert project.registry.run(run.id).verdict is None


def test_a_calibration_says_whether_the_judge_may_gate(client: TestClient, project: seed.Seeded) -> None:
    run = save(project)
    good = calibrate(project)
    page = client.get(f"/runs/{good.id}").text
    assert "MAY GATE" in page
    data = client.get(f"/runs/{good.id}.json").json()
    assert [one["name"] for one in data["estimates"]] == ["κ", "TPR", "TNR"]
    assert data["calibration"]["kappa"]["value"] == 1.0
    assert data["judge"]["pass_at"] == 4  # as the suite that uses it says
    assert data["used_by"] == [[seed.NAME, "tone"]]
    assert f'href="/runs/{good.id}"' in client.get(f"/runs/{run.id}").text


def test_a_judge_that_disagrees_may_not_gate(client: TestClient, project: seed.Seeded) -> None:
    save(project)
    bad = calibrate(project, wrong=20)
    assert "MAY NOT GATE" in client.get(f"/runs/{bad.id}").text
    data = client.get(f"/runs/{bad.id}.json").json()
    assert (data["answers"][0]["gap"], data["apart"]) == (4.0, 16)


@pytest.mark.parametrize("payload", [*PAYLOADS, "\ud800 half an emoji"])
def test_whatever_answers_and_judges_say_stays_text(client: TestClient, project: seed.Seeded, payload: str) -> None:
    before, after = save(project), save(project, failing=1, said=payload)
    for path in (f"/runs/{after.id}?show=failing", f"/runs/compare?a={before.id}&b={after.id}", "/runs", "/runs/trend"):
        answer = client.get(path)
        assert answer.status_code == 200
        found = Tags(answer.text)
        assert not {tag for tag, _ in found.tags} & {"img", "iframe", "object", "embed", "base", "x"}
        assert all(not name.startswith("on") and name != "style" for _, attributes in found.tags for name in attributes)
        scripts = [attributes for tag, attributes in found.tags if tag == "script"]
        assert all("src" in script or script.get("type") == "application/json" for script in scripts)
        assert "\u202e" not in answer.text
        assert "\x1b" not in answer.text
    assert client.get(f"/runs/{after.id}.json").status_code == 200


def test_a_stored_suite_of_another_shape_is_no_bug(client: TestClient, project: seed.Seeded) -> None:
    for suite in (
        {"checks": [], "judges": {"x": 1}},
        {"checks": [], "judges": [], "gate": {"metrics": {"pass-rate": 3}}},
    ):
        run = save(project, suite=suite)
        other = msgspec.structs.replace(run, id=uuid7(1, project.random.getrandbits(80)))
        project.registry.save_run(other, suite=json.dumps(suite), golden="")
        for path in ("/runs", "/runs/trend", f"/runs/{run.id}", f"/runs/compare?a={other.id}&b={run.id}"):
            assert client.get(path).status_code == 200


def test_a_calibrations_figure_is_called_by_its_name(client: TestClient, project: seed.Seeded) -> None:
    """It stands in the same column as pass rates."""
    run = calibrate(project, wrong=2)
    rows = client.get("/runs.json?kind=calibration").json()["runs"]
    assert [(row["id"], row["figure"]["text"]) for row in rows] == [(run.id, "κ 0.83")]
    assert "<th>Agreement</th>" in client.get("/runs?kind=calibration").text


def test_a_prompts_page_counts_the_cases_of_every_run(client: TestClient, project: seed.Seeded) -> None:
    save(project, failing=5)
    assert '<td class="num">55/60</td>' in client.get(f"/prompts/{seed.NAME}").text


def test_a_judges_page_says_how_it_is_calibrated_and_not_how_it_is_deployed(
    client: TestClient, project: seed.Seeded
) -> None:
    calibrate(project)
    page = client.get("/prompts/judges/tone").text
    assert "tidegate judge calibrate tone<" in page
    assert "/deploy/" not in page
