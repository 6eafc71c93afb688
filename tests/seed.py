"""
A project as the incident leaves it: two versions, a failed gate, a forced deploy, and calls whose validity drops at v2.

Everything is derived from `now` and a seed, so that pages and screenshots of it are the same each time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from tidegate.config import Config, Project
from tidegate.core.artifact import Artifact, Input, Message, Output
from tidegate.core.evaluation import CaseVerdict, CheckResult, GateReport, MetricVerdict, Repeat, Run, Verdict
from tidegate.core.ids import uuid7
from tidegate.core.instant import iso_utc
from tidegate.core.ledger import Version
from tidegate.prompts.registry import Registry
from tidegate.stores.control import open_control
from tidegate.telemetry.queries import CallLog
from tidegate.telemetry.record import AttemptRow, CallRow, ContentRow, Entry
from tidegate.telemetry.spool import SpoolWriter

NAME = "support/answer"
TARGET = "simulated/support-2026-03-01"
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "needs_human": {"type": "boolean"}},
    "required": ["answer", "needs_human"],
}
SYSTEM = (
    "You are a support assistant for Tidewater Mail.\n"
    "Answer only from the context. If it does not say, answer that you do not know and set needs_human.\n"
    'Answer with one JSON object: {"answer": string, "needs_human": boolean}.'
)
FRIENDLY = SYSTEM.replace("Tidewater Mail.", "Tidewater Mail. Be warm and friendly.")
QUESTION = (
    "Hi there, I have been locked out of my account since this morning, I tried the password from my notes and the one "
    "my browser remembers and neither works. How do I reset my password without the old one?"
)
CONTEXT = (
    "Passwords are reset on the sign-in page with the link Forgot password. Invoices are sent on the first of a month."
)
GOOD = '{"answer": "Passwords are reset on the sign-in page with the link Forgot password.", "needs_human": false}'
CHATTY = "I am so sorry that you are locked out, let us get you back in!\n\n" + GOOD
NOT_JSON = "not JSON: expected value at line 1 column 1."


class SteppedClock:
    """Implements ports.Clock; stands still until it is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def now_ns(self) -> int:
        return int(self.now.timestamp() * 1_000_000) * 1_000

    def monotonic(self) -> float:
        return self.now.timestamp()


class SeededRandom:
    """Implements ports.Random."""

    def __init__(self, seed: int) -> None:
        source = random.Random(seed)
        self.bits = source.getrandbits
        self.uniform = source.random


@dataclass
class Seeded:
    """The parts that a console is made of, and the clock that they share."""

    project: Project
    registry: Registry
    call_log: CallLog
    clock: SteppedClock
    random: random.Random

    def record(self, *entries: Entry) -> None:
        """Writes records as a gateway would; each call makes a segment of its own."""
        writer = SpoolWriter(self.project.spool, clock=self.clock, writer_id=f"seed{self.random.getrandbits(48):012x}")
        for entry in entries:
            assert writer.append(msgspec.json.encode(entry))
        writer.close()

    def call_id(self, at: datetime) -> str:
        return uuid7(int(at.timestamp() * 1_000), self.random.getrandbits(80))


@contextmanager
def empty(root: Path, now: datetime, *, zone: str = "UTC", port: int = 4001) -> Iterator[Seeded]:
    """A project without prompts and calls."""
    config = Config.model_validate({"timezone": zone, "console": {"port": port}})
    project = Project(root, config)
    clock = SteppedClock(now)
    store = open_control(project.control)
    try:
        registry = Registry(store, clock, SeededRandom(7), protects=config.gate.protects)
        yield Seeded(project, registry, CallLog(spool=project.spool, lake=project.lake), clock, random.Random(7))
    finally:
        store.close()


@contextmanager
def incident(
    root: Path,
    now: datetime,
    *,
    calls: int = 420,
    rolled_back: bool = False,
    zone: str = "UTC",
    port: int = 4001,
) -> Iterator[Seeded]:
    """v1 was live for 20 minutes, v2 was forced into production 9 minutes ago; perhaps rolled back 3 minutes ago."""
    with empty(root, now, zone=zone, port=port) as seeded:
        registry, clock = seeded.registry, seeded.clock
        clock.now = now - timedelta(minutes=26)
        v1 = registry.register(
            NAME, artifact(SYSTEM), description="Answers a customer's question from the help centre."
        )
        first = run_of(seeded, v1, now - timedelta(minutes=25), None)
        registry.save_run(first, suite="checks: []", golden="")
        clock.now = now - timedelta(minutes=20)
        registry.deploy(NAME, "v1", who="ada", reason="first version")
        registry.deploy(NAME, "v1", "staging", who="ada")
        clock.now = now - timedelta(minutes=12)
        v2 = registry.register(NAME, artifact(FRIENDLY), description=v1.description)
        registry.save_run(run_of(seeded, v2, clock.now, first), suite="checks: []", golden="")
        registry.deploy(NAME, "v2", "staging", who="sam", reason="try the friendlier tone")
        forced, back = now - timedelta(minutes=9), now - timedelta(minutes=3)
        clock.now = forced
        registry.deploy(NAME, "v2", who="sam", reason="marketing wants it today", force=True)
        if rolled_back:
            clock.now = back
            registry.rollback(NAME, who="ada", reason="the parser breaks on long questions")
        clock.now = now
        seeded.record(*_traffic(seeded, calls, {1: v1, 2: v2}, forced, back if rolled_back else now))
        yield seeded


def artifact(system: str) -> Artifact:
    return Artifact(
        messages=(
            Message("system", system),
            Message("user", "Context: {{ context }}\n\nQuestion: {{ question }}"),
        ),
        model=TARGET,
        params={"temperature": 0.2, "max_output_tokens": 300},
        inputs={"question": Input(max_chars=4_000), "context": Input()},
        output=Output("schema", SCHEMA),
    )


def call(seeded: Seeded, at: datetime, **changed: object) -> CallRow:
    """An ordinary good call of v1."""
    plain = {
        "id": seeded.call_id(at),
        "start": iso_utc(int(at.timestamp() * 1_000_000) * 1_000),
        "prompt": NAME,
        "version": 1,
        "environment": "production",
        "provider": "simulated",
        "request_model": "support-2026-03-01",
        "response_model": "support-2026-03-01",
        "outcome": "ok",
        "http_status": 200,
        "finish_reason": "stop",
        "input_tokens": 180,
        "output_tokens": 30,
        "usage_source": "provider",
        "cost_nano_usd": 54_000,
        "latency_s": 0.42,
        "attempts": [AttemptRow(TARGET, 0.41, 200)],
        "output_valid": True,
    }
    return msgspec.convert(plain | changed, CallRow)


def content(row: CallRow, output: str, *, question: str = QUESTION, system: str = SYSTEM) -> ContentRow:
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": f"Context: {CONTEXT}\n\nQuestion: {question}"},
    ]
    variables = {"question": question, "context": CONTEXT}
    return ContentRow(row.id, row.start, msgspec.json.encode(messages).decode(), output, variables)


def run_of(seeded: Seeded, version: Version, at: datetime, baseline: Run | None) -> Run:
    """Three cases, three repeats; v2 fails the long one each time."""
    broken = version.number > 1
    results = [
        Repeat(
            case_id=case,
            repeat=repeat,
            output=CHATTY if broken and case == "password-long" else GOOD,
            checks=(
                CheckResult("is-json", not (broken and case == "password-long"), NOT_JSON if broken else ""),
                CheckResult("contains", True, ""),
            ),
            cost_nano_usd=52_000,
            latency_s=0.4 + 0.02 * repeat,
            input_tokens=180,
            output_tokens=31,
        )
        for case in ("password-long", "invoice-date", "unknown-topic")
        for repeat in (1, 2, 3)
    ]
    run_id = uuid7(int(at.timestamp() * 1_000), seeded.random.getrandbits(80))
    verdict: Verdict = "FAIL" if broken else "PASS"
    report = GateReport(
        prompt=NAME,
        verdict=verdict,
        exit_code=int(broken),
        reason="is-json must pass, and breaks in every repeat of password-long." if broken else "All floors hold.",
        baseline="v1" if baseline else None,
        candidate=version.name,
        candidate_digest=version.digest,
        metrics=(
            MetricVerdict(
                name="pass-rate",
                baseline=1.0 if baseline else None,
                candidate=2 / 3 if broken else 1.0,
                delta=-1 / 3 if baseline else None,
                interval=(-0.79, 0.02) if baseline else None,
                margin=0.02 if baseline else None,
                floor=None,
                verdict=verdict,
                reason="",
            ),
        ),
        cases=(
            CaseVerdict("password-long", 3, 0, 3, "broken", NOT_JSON, CHATTY, GOOD),
            CaseVerdict("invoice-date", 3, 3, 3, "same", "", GOOD, GOOD),
            CaseVerdict("unknown-topic", 3, 3, 3, "same", "", GOOD, GOOD),
        )
        if baseline
        else (),
        mde=0.31,
        cost_usd=0.000468,
        run_id=run_id,
        baseline_run_id=baseline.id if baseline else None,
        passed_cases=2 if broken else 3,
        total_cases=3,
        baseline_passed_cases=3 if baseline else None,
        diff=("@@ system message @@", f"-{SYSTEM.splitlines()[0]}", f"+{FRIENDLY.splitlines()[0]}") if baseline else (),
    )
    return Run(
        id=run_id,
        prompt=NAME,
        version=version.number,
        digest=version.digest,
        suite_digest="0" * 64,
        golden_digest="1" * 64,
        started_at=iso_utc(int(at.timestamp()) * 1_000_000_000),
        finished_at=iso_utc(int(at.timestamp() + 4) * 1_000_000_000),
        repeats=3,
        results=tuple(results),
        gate=msgspec.to_builtins(report),
        verdict=verdict,
        baseline_run_id=baseline.id if baseline else None,
    )


def _traffic(
    seeded: Seeded, calls: int, versions: dict[int, Version], forced: datetime, back: datetime
) -> Iterator[Entry]:
    now = seeded.clock.now
    draw = seeded.random
    for index in range(calls):
        at = now - timedelta(minutes=19.5) * (1 - (index + draw.random()) / calls) - timedelta(seconds=1)
        number = 2 if forced <= at < back else 1
        chatty = number == 2 and draw.random() < 0.22
        fate = draw.random()
        latency = draw.lognormvariate(-0.95 if number == 1 else -0.75, 0.35)
        row = call(
            seeded,
            at,
            version=number,
            digest=versions[number].digest,
            latency_s=round(latency, 4),
            attempts=[AttemptRow(TARGET, round(latency - 0.001, 4), 200)],
            input_tokens=draw.randint(140, 260),
            output_tokens=draw.randint(24, 40) + 22 * (number == 2),
            cost_nano_usd=draw.randint(44_000, 60_000) + 14_000 * (number == 2),
            streamed=draw.random() < 0.4,
            service=draw.choice(("web-chat", "web-chat", "mail-bot")),
            output_valid=not chatty,
            output_problem=NOT_JSON if chatty else None,
        )
        row.time_to_first_chunk_s = round(latency * 0.4, 4) if row.streamed else None
        if fate < 0.015:
            row.outcome, row.http_status, row.error_type = "error", 504, "upstream_timeout"
            row.error_message = "simulated: no byte for 20 s."
            row.attempts = [AttemptRow(TARGET, latency, None, "upstream_timeout"), AttemptRow(TARGET, 0.2, 503)]
        elif fate < 0.025:
            row.outcome = "client_closed"
        elif fate < 0.04:
            row.attempts = [
                AttemptRow(TARGET, latency * 0.3, 503, "upstream_rejected"),
                AttemptRow(TARGET, latency * 0.6, 200),
            ]
        if row.outcome != "ok":
            row.output_valid = row.output_problem = row.output_tokens = row.cost_nano_usd = row.finish_reason = None
        system = FRIENDLY if number == 2 else SYSTEM
        output = "" if row.outcome != "ok" else CHATTY if chatty else GOOD
        yield Entry(row, content(row, output, system=system))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
