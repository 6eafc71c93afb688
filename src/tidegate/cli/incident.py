"""
The demo's story, a method a chapter. Each step is the function behind the command it names; nothing is acted.

    a provider → v1 is gated and deployed → the friendly edit fails the gate, deploy refuses → it is forced and traffic
    shows what it does → rollback, timed to the first call that v1 serves
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from tidegate import compose
from tidegate.cli import calls, sql
from tidegate.cli.deploy import deploy, print_deployed
from tidegate.cli.gate import gate_prompts
from tidegate.cli.output import err, out
from tidegate.cli.rollback import rollback
from tidegate.core.errors import Refused, Unusable
from tidegate.core.evaluation import GateReport
from tidegate.simulate.stage import Stage
from tidegate.simulate.traffic import CONTEXT, SHORT, Customers, Sent

PROMPT = "support/answer"
EDIT = "Be warm and friendly."
CALLS_BEFORE = 180
CALLS_FORCED = 280
CALLS_AFTER = 60
CONCURRENCY = 3
"""Few at a time, so that the charts have a width."""
ROLLBACK_DEADLINE_S = 10.0
RECORDS_DEADLINE_S = 20.0
WHY_FORCED = "the launch is today"
WHY_ROLLED_BACK = "it chats before its JSON"
PER_VERSION = """select version, count(*) as calls, round(avg(cost_nano_usd) / 1e9, 9) as cost_per_request_usd,
  round(quantile_cont(latency_s, 0.5), 3) as p50_s, round(quantile_cont(latency_s, 0.95), 3) as p95_s,
  round(avg(output_valid::int), 4) as output_valid_rate
from calls where service = 'shop' group by version order by version"""
OVERALL = """
select quantile_cont(latency_s, 0.5) as p50, quantile_cont(latency_s, 0.95) as p95 from calls where service = 'shop'
"""
INVALID = "not output_valid"


class Incident:
    """One telling of the story on one stage."""

    def __init__(self, stage: Stage, runner: asyncio.Runner, *, seed: int) -> None:
        self._stage = stage
        self._runner = runner
        self._seed = seed
        self._gates: list[GateReport] = []
        self._refused = False
        self._forced = ""
        self._rollback_s = 0.0
        self._served_after = ""
        self._rows: list[dict[str, Any]] = []
        self._latency: dict[str, Any] = {}

    def provider(self) -> None:
        """Chapter 1: a project and a provider."""
        stage = self._stage
        stage.copy_example("support-bot")
        self._project = compose.own_project(stage.config)
        out.print(Text("tidegate demo – the incident, end to end\n", "bold"))
        _chapter(1, "A provider, simulated")
        with _waiting("starting the simulated provider …"):
            stage.start_provider("--seed", str(self._seed), "--latency-ms", "30")
        out.print(f"project   {escape(str(stage.folder))}")
        out.print(f"provider  {stage.url('provider')}/v1  (a real HTTP server with a scripted model)")
        out.print(
            "[dim]Its rule: it answers with the fitting sentence of the context, as JSON; asked to be warm and "
            "friendly, it chats before its JSON when the question is long. No API key, no network.[/dim]",
            soft_wrap=False,
        )

    def first_version(self) -> None:
        """Chapter 2a: v1 passes its gate and goes live."""
        _chapter(2, "Friday: one friendly sentence")
        _typed(f"tidegate gate {PROMPT}")
        self._gate()
        _typed(f"tidegate deploy {PROMPT}")
        print_deployed(deploy(self._project, PROMPT))

    def friendly_edit(self) -> None:
        """Chapter 2b: the edit fails the gate, and deploy refuses it."""
        file = self._project.prompts / PROMPT / "prompt.md"
        text = file.read_text("utf-8")
        file.write_text(text.replace("\n\nuser:\n", f"\n{EDIT}\n\nuser:\n", 1), "utf-8")
        out.print(f'\nsomebody adds [bold]"{EDIT}"[/bold] to prompts/{PROMPT}/prompt.md')
        _typed(f"tidegate gate {PROMPT}")
        report = self._gate()
        out.print(f"exit code {report.exit_code}: the pull request is red.")
        _typed(f"tidegate deploy {PROMPT}")
        try:
            deploy(self._project, PROMPT)
        except Refused as refused:
            self._refused = True
            out.print(Text(f"tidegate: {refused}", "red"))

    def ship_it_anyway(self) -> None:
        """Chapter 3: traffic on v1, the forced deploy, traffic on v2, and what the records say."""
        _chapter(3, "It ships anyway")
        stage = self._stage
        _typed("tidegate serve")
        with _waiting("starting gateway, recorder and console …"):
            stage.start_serve()
        out.print(f"gateway   {stage.url('gateway')}/v1")
        out.print(f"console   {stage.url('console')}/")
        before = self._traffic("customers, on v1", CALLS_BEFORE)
        _typed(f'tidegate deploy {PROMPT} --force --reason "{WHY_FORCED}"')
        forced = deploy(self._project, PROMPT, force=True, reason=WHY_FORCED)
        self._forced = f"v{forced.deployment.to_version}"
        print_deployed(forced)
        self._first_served_by(self._forced)
        after = self._traffic(f"customers, on {self._forced}", CALLS_FORCED)
        self._read_records(sum(call.complete for call in [*before, *after]))
        _typed(f'tidegate sql "{PER_VERSION}"')
        sql.show(compose.call_log(self._project).sql(PER_VERSION))
        _typed(f'tidegate calls --where "{INVALID}" --limit 3')
        calls.show_newest(self._project, INVALID, 3)
        out.print(
            f"[dim]Every record names the version that served it: the invalid answers are {self._forced}'s, "
            "and only its.[/dim]"
        )

    def roll_back(self) -> None:
        """Chapter 4: the pointer goes back, and the next call is v1's."""
        _chapter(4, "Monday: rollback")
        _typed(f'tidegate rollback {PROMPT} --reason "{WHY_ROLLED_BACK}"')
        began = time.perf_counter()
        rollback(self._project, PROMPT, reason=WHY_ROLLED_BACK)
        self._served_after = self._first_served_by("v1")
        self._rollback_s = time.perf_counter() - began
        out.print(
            f"[bold green]v1 serves again {self._rollback_s:.2f} s after the command[/bold green], without a deploy."
        )
        self._traffic("customers, on v1 again", CALLS_AFTER)

    def summary(self) -> dict[str, Any]:
        """What `--json` prints."""
        first, second = self._gates
        return {
            "v1": {"passed": first.passed_cases, "cases": first.total_cases},
            "v2": {"passed": second.passed_cases, "cases": second.total_cases},
            "gate": {"verdict": second.verdict, "exit_code": second.exit_code},
            "deploy_refused": self._refused,
            "forced_version": self._forced,
            "calls": {f"v{row['version']}": row["calls"] for row in self._rows},
            "output_valid_rate": {f"v{row['version']}": row["output_valid_rate"] for row in self._rows},
            "cost_per_request_usd": {f"v{row['version']}": row["cost_per_request_usd"] for row in self._rows},
            "latency_s": {name: round(value, 4) for name, value in self._latency.items()},
            "rollback_seconds": round(self._rollback_s, 3),
            "served_after_rollback": self._served_after,
            "gateway_url": f"{self._stage.url('gateway')}/v1",
            "console_url": f"{self._stage.url('console')}/",
        }

    def _gate(self) -> GateReport:
        report = self._runner.run(gate_prompts(self._project, [PROMPT], quiet=out.quiet))[0]
        self._gates.append(report)
        return report

    def _traffic(self, label: str, count: int) -> list[Sent]:
        sent: list[Sent] = []
        bar = Progress(
            TextColumn(f"{label:22}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            console=err,
            disable=out.quiet or not err.is_terminal,
        )

        async def customers() -> None:
            async with Customers(self._stage.url("gateway"), PROMPT, seed=self._seed + count) as people:
                task = bar.add_task(label, total=count)

                def done(call: Sent) -> None:
                    sent.append(call)
                    bar.advance(task)

                await people.send(count, concurrency=CONCURRENCY, done=done)

        with bar:
            self._runner.run(customers())
        failed = [call for call in sent if not call.complete]
        if failed:
            raise Unusable(f"{len(failed)} of {count} calls failed, the first with status {failed[0].status}.")
        if not err.is_terminal:
            out.print(f"{label}: {count} calls")
        return sent

    def _first_served_by(self, version: str) -> str:
        """Calls until `version` answers; raises Unusable when it does not."""

        async def ask() -> str:
            async with Customers(self._stage.url("gateway"), PROMPT, seed=self._seed) as people:
                async with asyncio.timeout(ROLLBACK_DEADLINE_S):
                    while (sent := await people.one()).version != version:
                        pass
                return sent.version or ""

        try:
            return self._runner.run(ask())
        except TimeoutError as error:
            raise Unusable(f"{version} did not serve within {ROLLBACK_DEADLINE_S:.0f} s.") from error

    def _read_records(self, expected: int) -> None:
        log = compose.own_call_log(self._project)
        end = time.monotonic() + RECORDS_DEADLINE_S
        while True:
            self._rows = log.rows(PER_VERSION)
            if sum(row["calls"] for row in self._rows) >= expected:
                break
            if time.monotonic() > end:
                raise Unusable(f"only {sum(row['calls'] for row in self._rows)} of {expected} calls have a record.")
            time.sleep(0.1)
        self._latency = log.rows(OVERALL)[0]


def where_next(stage: Stage) -> None:
    """The last words: what to open and what to type."""
    variables = {"question": SHORT[0], "context": CONTEXT.split(". ")[0] + "."}
    body = json.dumps({"model": f"prompt:{PROMPT}", "variables": variables})
    out.print()
    out.print(
        Panel(
            Text.assemble(
                ("console  ", "bold"),
                (f"{stage.url('console')}/", f"cyan link {stage.url('console')}/"),
                ("\ngateway  ", "bold"),
                f"{stage.url('gateway')}/v1   (any OpenAI SDK: base_url)",
                ("\nproject  ", "bold"),
                f"{stage.folder}",
                ("\n\nCtrl-C ends everything.", "dim"),
            ),
            title="it stays up",
            title_align="left",
            border_style="green",
        ),
        soft_wrap=False,
    )
    out.print(
        f"curl -s {stage.url('gateway')}/v1/chat/completions -H 'content-type: application/json' -d '{body}'",
        markup=False,
    )


def _waiting(text: str) -> AbstractContextManager[object]:
    return out.status(text) if out.is_terminal and not out.quiet else nullcontext()


def _chapter(number: int, title: str) -> None:
    out.print()
    out.rule(f"[bold]{number} · {title}[/bold]", align="left", style="dim")


def _typed(command: str) -> None:
    out.print(Text.assemble(("\n$ ", "dim"), (command, "bold cyan")))
