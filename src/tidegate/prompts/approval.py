"""
Whether a version may go to an environment: the one reading of gate runs and second approvals.

An approval is a gate run that said PASS: of one digest, under one suite and one golden set. When any of the three is
another one, there is no approval. A second approver's yes holds for the same three. A verdict of FAIL takes back an
earlier PASS under the same measure; what was inconclusive decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.core.artifact import short
from tidegate.core.evaluation import Run
from tidegate.core.ledger import Approval, Measure, Policy, Version, changed
from tidegate.ports import ControlTransaction

RUNS_SEARCHED = 1_000
OVERRULE = "overrule with --force --reason"


@dataclass(frozen=True, slots=True)
class Finding:
    """What stands for a deploy, and what stands against it."""

    run: Run | None
    """The gate run that approves the version, asked for or not."""
    second: Approval | None
    """Somebody else's yes that still holds."""
    refusal: str | None
    """Why the policy says no, and what would change its mind."""


def of(
    tx: ControlTransaction,
    policy: Policy,
    version: Version,
    environment: str,
    *,
    who: str,
    measure: Measure | None,
) -> Finding:
    """What a deploy of `version` by `who` finds. `measure`: only runs under just this count; None: under any."""
    every = tx.runs(version.prompt, version.digest, RUNS_SEARCHED)
    gates = _decided([run for run in every if measure in (None, measure_of(run))])
    run = gates[0] if gates and gates[0].verdict == "PASS" else None
    said = standing(tx, version, environment, run)
    second = next((one for one in reversed(said) if not same_person(one.who, who)), None)
    refusal = None
    if environment in policy.protects and run is None:
        refusal = _not_approved(version, environment, gates, every, measure)
    elif environment in policy.second_approver and second is None:
        refusal = _not_seconded(version, environment, said, tx.approvals(version.prompt, environment), who)
    return Finding(run, second, refusal)


def standing(tx: ControlTransaction, version: Version, environment: str, run: Run | None) -> list[Approval]:
    """The second approvals that hold for `version`, approved by `run`; oldest first."""
    measured = (run.suite_digest, run.golden_digest) if run else (None, None)
    return [
        one
        for one in tx.approvals(version.prompt, environment)
        if one.digest == version.digest and (one.suite_digest, one.golden_digest) == measured
    ]


def measure_of(run: Run) -> Measure:
    """What a run was measured by."""
    return Measure(run.suite_digest, run.golden_digest)


def same_person(one: str, other: str) -> bool:
    """Whether two names in the ledger are one person's."""
    return one.strip().casefold() == other.strip().casefold()


def _decided(runs: Sequence[Run]) -> list[Run]:
    """The gate runs that came to a verdict, newest first; without any, those that came to none."""
    return [run for run in runs if run.verdict in ("PASS", "FAIL")] or [run for run in runs if run.verdict is not None]


def _not_approved(
    version: Version, environment: str, gates: Sequence[Run], every: Sequence[Run], measure: Measure | None
) -> str:
    name = f"{version.prompt} {version.name} ({short(version.digest)})"
    passed = next((run for run in every if run.verdict == "PASS"), None)
    if not gates and measure is not None and passed is not None:
        what = changed(measure_of(passed), measure)
        return (
            f"{name} passed its gate (run {passed.id}) before its {what} changed, so {environment} does not take it."
            f" Run `tidegate gate {version.prompt} --version {version.name}`, or {OVERRULE}."
        )
    if not gates:
        return (
            f"{name} has no gate run, and {environment} takes only what passed one."
            f" Run `tidegate gate {version.prompt}`, or {OVERRULE}."
        )
    why = str((gates[0].gate or {}).get("reason") or "").strip()
    when = gates[0].finished_at[:19].replace("T", " ")
    return (
        f"{name} is not approved for {environment}: its gate said {gates[0].verdict} at {when} UTC"
        + (f": {why.removesuffix('.')}" if why else "")
        + f". Mend it and run `tidegate gate {version.prompt}`, or {OVERRULE}."
    )


def _not_seconded(
    version: Version, environment: str, said: Sequence[Approval], every: Sequence[Approval], who: str
) -> str:
    name = f"{version.prompt} {version.name} ({short(version.digest)})"
    void = [one for one in every if one.digest == version.digest and one not in said]
    if said:
        why = f"was approved by {said[-1].who} alone, who deploys it; {environment} asks for a second person"
    elif void:
        why = (
            f"was approved by {void[-1].who} under another suite or golden set, so that does not hold for {environment}"
        )
    else:
        why = f"has no second approver yet, and {environment} asks for one"
    option = "" if environment == "production" else f" --env {environment}"
    return (
        f"{name} {why}. Somebody other than {who} runs"
        f" `tidegate approve {version.prompt} --version {version.name}{option}`, or {OVERRULE}."
    )
