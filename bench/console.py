"""
The console's promise: every page in less than 200 ms over a million calls.

    uv run python -m bench.console [--calls 1000000] [--runs 500] [--rounds 15] [--keep FOLDER] [--check]

Writes the calls of eight days as a gateway's spool lines, lets the recorder store them, and adds the runs of a suite of
60 cases, twice each, that were judged, and two of 1,000 cases. Then a console of its own process is asked for each page
over one connection: `first_ms` is the first time (the very first page of a project has the chart bundle written, too),
`p50_ms` and `p95_ms` are of the rounds after that, `cpu_ms` what one costs the process on all its threads: it minds
neighbours less. Every tenth call has content. `rss_mib` is what the process holds after its start, and after all pages.
`--keep` leaves the project in a folder, and measures the one that is there already. Writes results/console.json.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import quote

import msgspec

from bench.machine import RESULTS, describe
from tidegate import compose
from tidegate.config import Project
from tidegate.core.artifact import Artifact, Input, Message, Output
from tidegate.core.evaluation import CheckResult, Repeat, Run, Score
from tidegate.core.ids import uuid7
from tidegate.core.instant import iso_utc
from tidegate.core.ledger import Version
from tidegate.evals.summary import summarise
from tidegate.prompts.registry import Registry
from tidegate.simulate.stage import free_port
from tidegate.system import SystemClock
from tidegate.telemetry.record import AttemptRow, CallRow, ContentRow, Entry
from tidegate.telemetry.recorder import Recorder
from tidegate.telemetry.spool import SpoolWriter

PROMISED_MS = 200.0
DAYS = 8
SEGMENT = 10_000
SEGMENTS_AT_ONCE = 10
NAME = "support/answer"
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
ANSWER = '{"answer": "Passwords are reset on the sign-in page with the link Forgot password."}'
SUITE = {
    "repeats": 2,
    "checks": [{"is-json": None}],
    "gate": {"metrics": {"pass-rate": {"margin": 0.1}}},
    "judges": {
        "tone": {
            "format": 1,
            "kind": "rubric",
            "prompts": ["a" * 64],
            "votes": 1,
            "reduce": "mean",
            "logprobs": False,
            "fields": {},
            "pass_at": 4,
            "min_kappa": 0.5,
        }
    },
}
CONFIG = "providers: {local: {dialect: openai, base_url: http://127.0.0.1:9/v1}}\nconsole: {port: PORT}\n"


def artifact(text: str) -> Artifact:
    """A version."""
    return Artifact(
        messages=(Message("system", text), Message("user", "Context: {{ context }}\n\nQuestion: {{ question }}")),
        model="local/m-2026-03-01",
        params={"temperature": 0.2},
        inputs={"question": Input(), "context": Input()},
        output=Output("schema", SCHEMA),
    )


def traffic(calls: int, versions: list[Version], now: datetime, draw: random.Random) -> Iterator[Entry]:
    """The calls of eight days until now, oldest first."""
    begun = now - timedelta(days=DAYS)
    step = timedelta(days=DAYS) / calls
    for number in range(calls):
        at = begun + number * step
        version = versions[min(len(versions) - 1, len(versions) * number // calls)]
        row = CallRow(
            id=uuid7(int(at.timestamp() * 1_000), draw.getrandbits(80)),
            start=iso_utc(int(at.timestamp() * 1_000_000) * 1_000),
            streamed=number % 3 == 0,
            prompt=NAME,
            version=version.number,
            digest=version.digest,
            environment="production",
            provider="local",
            request_model="m-2026-03-01",
            response_model="m-2026-03-01",
            outcome="ok",
            http_status=200,
            finish_reason="stop",
            input_tokens=draw.randint(140, 260),
            output_tokens=draw.randint(24, 60),
            usage_source="provider",
            cost_nano_usd=draw.randint(44_000, 60_000),
            latency_s=round(draw.lognormvariate(-0.9, 0.35), 4),
            attempts=[AttemptRow("local/m-2026-03-01", 0.4, 200)],
            output_valid=draw.random() > 0.02,
            key="shop",
            service=("web-chat", "mail-bot")[number % 2],
        )
        if not row.output_valid:
            row.output_problem = "not JSON: expected value at line 1 column 1."
        if draw.random() < 0.01:
            row.outcome, row.http_status, row.output_valid, row.output_problem = "error", 504, None, None
            row.error_type, row.error_message = "upstream_timeout", "local: no byte for 20 s."
        yield Entry(row, content(row) if number % 10 == 0 else None)


def content(row: CallRow) -> ContentRow:
    """About 600 bytes of it."""
    question = f"Call {row.id}: how do I reset my password without the old one? " * 4
    said = [{"role": "system", "content": "Answer as JSON."}, {"role": "user", "content": question}]
    return ContentRow(row.id, row.start, msgspec.json.encode(said).decode(), ANSWER, {"question": question})


def record(project: Project, entries: Iterator[Entry]) -> None:
    """Into the spool, and from there into the lake, as it goes while a gateway runs."""
    recorder, clock = Recorder(project.spool, project.lake), SystemClock()
    written = 0
    writer: SpoolWriter | None = None
    for number, entry in enumerate(entries):
        if number % SEGMENT == 0:
            if writer is not None:
                writer.close()
                written += 1
                if written % SEGMENTS_AT_ONCE == 0:
                    recorder.once()
            writer = SpoolWriter(project.spool, clock=clock, writer_id=f"bench{number:012d}")
        assert writer is not None
        assert writer.append(msgspec.json.encode(entry))
    if writer is not None:
        writer.close()
    recorder.once()


def save_runs(registry: Registry, versions: list[Version], runs: int, now: datetime, draw: random.Random) -> None:
    """`runs` of 60 cases and two of 1,000, as whoever evaluated them stored them."""
    for number in range(runs + 2):
        cases = 60 if number < runs else 1_000
        at = now - timedelta(hours=runs + 2 - number)
        version = versions[number % len(versions)]
        golden = "\n".join(
            json.dumps({"id": f"case-{case}", "inputs": {"question": f"question {case}"}, "tags": [f"tag-{case % 5}"]})
            for case in range(cases)
        )
        results = [
            Repeat(
                f"case-{case}",
                repeat,
                ANSWER,
                (CheckResult("is-json", draw.random() < 0.95, ""),),
                call_id=f"call-{case}-{repeat}",
                cost_nano_usd=52_000,
                latency_s=0.4,
                input_tokens=180,
                output_tokens=31,
                scores=(Score("tone", float(draw.choice((3, 4, 4, 5))), True, "", 0, ()),),
            )
            for case in range(cases)
            for repeat in (1, 2)
        ]
        suite = json.dumps(SUITE)
        run = Run(
            id=uuid7(int(at.timestamp() * 1_000), draw.getrandbits(80)),
            prompt=NAME,
            version=version.number,
            digest=version.digest,
            suite_digest=hashlib.sha256(suite.encode()).hexdigest(),
            golden_digest=hashlib.sha256(golden.encode()).hexdigest(),
            started_at=iso_utc(int(at.timestamp()) * 10**9),
            finished_at=iso_utc(int(at.timestamp() + 30) * 10**9),
            repeats=2,
            results=tuple(results),
        )
        registry.save_run(run, suite=suite, golden=golden, summary=summarise(run, suite, golden))


def fill(root: Path, calls: int, runs: int) -> float:
    """A project with all of it; returns the seconds that the calls took."""
    (root / "prompts").mkdir(parents=True)
    (root / "tidegate.yaml").write_text(CONFIG.replace("PORT", str(free_port(4001))), "utf-8")
    project = compose.own_project(root / "tidegate.yaml")
    draw, now = random.Random(17), datetime.now(UTC)
    with closing(compose.own_registry(project)) as registry:
        versions = [registry.register(NAME, artifact(f"Answer as JSON, version {number}.")) for number in range(4)]
        registry.deploy(NAME, "v4", who="bench", reason="to have one live", force=True)
        save_runs(registry, versions, runs, now, draw)
    began = time.perf_counter()
    record(project, traffic(calls, versions, now, draw))
    return time.perf_counter() - began


def pages(project: Project) -> dict[str, str]:
    """Name → address."""
    now = datetime.now(UTC)
    week = quote(f"{now - timedelta(days=7):%Y-%m-%dT%H:%M:%SZ}")
    with closing(compose.own_registry(project)) as registry:
        newest, older = (run.id for run in registry.runs(NAME, limit=2))
        small = registry.runs(NAME, limit=3)[2].id
    with closing(compose.own_registry(project)):
        call = compose.own_call_log(project).calls(limit=1)[0]["id"]
    return {
        "overview": "/overview",
        "overview-24h": "/overview?window=24h",
        "overview-7d": "/overview?window=7d",
        "overview-7d-by-model": "/overview?window=7d&by=model",
        "calls": "/calls",
        "calls-invalid-of-v4": "/calls?valid=no&version=4",
        "calls-7-days-text": f"/calls?from={week}&q=timeout",
        "calls-text-one-match": f"/calls?q={call[-12:]}",
        "calls-text-no-match": "/calls?q=no-such-text",
        "calls-7-days-no-match": f"/calls?from={week}&service=nobody",
        "call": f"/calls/{call}",
        "prompts": "/prompts",
        "prompt": f"/prompts/{NAME}",
        "runs": "/runs",
        "trend": f"/runs/trend?prompt={NAME}",
        "run": f"/runs/{small}",
        "run-large": f"/runs/{newest}",
        "comparison-large": f"/runs/compare?a={older}&b={newest}",
    }


@contextmanager
def console(project: Project) -> Iterator[subprocess.Popen[bytes]]:
    """A console of its own process, once it listens."""
    command = [sys.executable, "-m", "tidegate", "serve", "--only", "console", "--config", str(project.file)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                ask(http.client.HTTPConnection("127.0.0.1", project.config.console.port, timeout=5), "/livez")
                break
            except OSError:
                assert time.monotonic() < deadline, "the console does not answer"
                time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def ask(connection: http.client.HTTPConnection, path: str) -> float:
    """Milliseconds until the whole page is there."""
    began = time.perf_counter()
    connection.request("GET", path, headers={"accept": "text/html"})
    answer = connection.getresponse()
    body = answer.read()
    took = 1_000 * (time.perf_counter() - began)
    assert answer.status == 200, f"{path}: {answer.status} {body[:400]!r}"
    return took


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """That the process used until now."""
    fields = Path(f"/proc/{process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(process: subprocess.Popen[bytes]) -> float:
    """What the process holds now."""
    status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


def measure(project: Project, rounds: int) -> dict[str, Any]:
    """Every page, once and then `rounds` times."""
    addresses = pages(project)
    found: dict[str, dict[str, float]] = {}
    began = time.perf_counter()
    with console(project) as process:
        start_s = time.perf_counter() - began
        held = rss_mib(process)
        connection = http.client.HTTPConnection("127.0.0.1", project.config.console.port, timeout=60)
        for name, path in addresses.items():
            first = ask(connection, path)
            before_s = cpu_s(process)
            took = sorted(ask(connection, path) for _ in range(rounds))
            each_ms = 1_000 * (cpu_s(process) - before_s) / rounds
            p95 = quantiles(took, n=20)[-1] if len(took) > 1 else took[0]
            figures = {"first_ms": first, "p50_ms": median(took), "p95_ms": p95, "cpu_ms": each_ms}
            found[name] = {key: round(value, 1) for key, value in figures.items()}
            print(f"{name:24} " + "  ".join(f"{key} {value:7.1f}" for key, value in figures.items()), flush=True)
        return {
            "start_s": round(start_s, 2),
            "rss_mib": {"started": held, "after_all_pages": rss_mib(process)},
            "pages": found,
        }


def main() -> None:
    """Measures, prints, and keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", type=Path, help="where the project is left, and taken from the next time")
    parser.add_argument("--check", action="store_true", help="writes nothing, exits 1 above the promised figure")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": describe(), "calls": options.calls, "runs": options.runs}
    with tempfile.TemporaryDirectory() as scratch:
        root: Path = options.keep or Path(scratch) / "project"
        if not (root / "tidegate.yaml").exists():
            fill(root, options.calls, options.runs)
        result |= measure(compose.own_project(root / "tidegate.yaml"), options.rounds)
    if options.check:
        slow = {name: page["p95_ms"] for name, page in result["pages"].items() if page["p95_ms"] > PROMISED_MS}
        sys.exit(f"slower than {PROMISED_MS:.0f} ms: {slow}" if slow else 0)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "console.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result["rss_mib"]))


if __name__ == "__main__":
    main()
