"""
The gate's errors by simulation: how often it fails a version that is none the worse, and how often it sees a drop.

    uv run python -m bench.gate_power [--rounds 2000] [--quick] [--only TABLE]

Each round is two runs over one golden set and the gate's decision about them, made by the gate's own functions. The
cases are of three kinds, as in life: 70 % pass 98 times of 100, 20 % pass 80 times and 10 % 40 times. A score is a
judge's, 1 to 5: a case's own quality and the judge's mood. In clusters, five cases share a topic that one version may
happen to be good or bad at, so that their differences go together. A round of two looks decides with K repeats and,
where that is too little to tell, once more with 2K, as the gate does under a cost cap.

    changed nothing   false FAIL, with a margin of 0, where it is most likely: at most α
    a drop of 10 points, everywhere alike or in one case of ten entirely: FAIL at a margin of 2, the power
    a drop of just the margin, 10 points: false PASS, at most α
    must_pass         one check of every case, tried again where it breaks: false FAIL with nothing changed, and FAIL
                      where one case of the first kind never passes any more, or only one time in five

`--quick` plays 40 rounds and keeps nothing: it shows that this still runs. `--only` plays one table again.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any, Literal

from bench.machine import RESULTS, describe
from tidegate.core.evaluation import CheckResult, Repeat, Run, Verdict
from tidegate.core.stats import ALPHA, ALPHA_OF_TWO_LOOKS, Comparison, compare
from tidegate.evals.golden import Case
from tidegate.evals.guards import MOST_RECHECKED, RECHECK_REPEATS, breaks, rechecked

MIX = ((0.7, 0.98), (0.2, 0.8), (0.1, 0.4))
CLUSTER = 5
SHARED = 0.7
"""Of the luck of a repeat, in clusters: how likely a case has its cluster's luck instead of its own."""
DROP = 0.10
MARGIN = 0.02
SCALE = 4.0
"""Width of a judge's scale, 1 to 5."""
MUST_PASS = frozenset({"is-json"})

Metric = Literal["rate", "score"]
METRICS: tuple[Metric, ...] = ("rate", "score")
Change = Literal["none", "everywhere", "one in ten"]
Cases = list[list[float]]
"""Case by case its repeats."""


@dataclass(frozen=True)
class Gate:
    """One kind of gate."""

    n: int
    repeats: int
    clustered: bool
    metric: Metric
    looks: int
    change: Change
    margin: float
    """As a share of the scale."""


def chances(n: int) -> list[float]:
    """How likely each of n cases passes."""
    ends = [round(sum(share for share, _ in MIX[: index + 1]) * n) for index in range(len(MIX))]
    found = [MIX[sum(i >= end for end in ends)][1] for i in range(n)]
    # Clusters are of one topic, not of one difficulty.
    random.Random(n).shuffle(found)
    return found


def play(gate: Gate, rng: random.Random) -> tuple[bool, bool]:
    """One round: whether it ended in FAIL, and in PASS."""
    before, after = _sampler(gate, rng, changed=False), _sampler(gate, rng, changed=True)
    runs: tuple[Cases, Cases] = ([], [])
    alpha = ALPHA if gate.looks == 1 else ALPHA_OF_TWO_LOOKS
    for _ in range(gate.looks):
        for run, sample in zip(runs, (before, after), strict=True):
            run[:] = [[*had, *new] for had, new in zip(run or [[] for _ in range(gate.n)], sample(), strict=True)]
        compared = _compare(gate, runs, alpha)
        margin = gate.margin * compared.width
        if compared.worse_than(margin):
            return True, False
        if compared.within(margin):
            return False, True
    return False, False


def _compare(gate: Gate, runs: tuple[Cases, Cases], alpha: float) -> Comparison:
    means = [[fmean(repeats) for repeats in run] for run in runs]
    clusters = [i // CLUSTER for i in range(gate.n)] if gate.clustered else None
    return compare(*means, clusters=clusters, width=1.0 if gate.metric == "rate" else SCALE, alpha=alpha)


def _sampler(gate: Gate, rng: random.Random, *, changed: bool) -> Callable[[], Cases]:
    """Plays `gate.repeats` repeats of every case each time it is called."""
    clusters = math.ceil(gate.n / CLUSTER)
    passing = _changed(gate, rng) if changed else chances(gate.n)

    def luck() -> Iterator[float]:
        shared = [rng.random() for _ in range(clusters)]
        for i in range(gate.n):
            yield shared[i // CLUSTER] if gate.clustered and rng.random() < SHARED else rng.random()

    def sample() -> Cases:
        looks = [list(luck()) for _ in range(gate.repeats)]
        return [[_value(gate, passing[i], look[i], rng) for look in looks] for i in range(gate.n)]

    return sample


def _changed(gate: Gate, rng: random.Random) -> list[float]:
    """What each case's chance becomes; on average it falls by the planted drop."""
    passing = chances(gate.n)
    if gate.change == "everywhere":
        return [max(0.0, chance - DROP) for chance in passing]
    if gate.change == "one in ten":
        whole = DROP / fmean(passing)
        broken = set(rng.sample(range(gate.n), round(whole * gate.n)))
        return [0.0 if i in broken else chance for i, chance in enumerate(passing)]
    return passing


def _value(gate: Gate, chance: float, luck: float, rng: random.Random) -> float:
    if gate.metric == "rate":
        return float(luck < chance)
    mood = -1 if luck > 0.8 else 1 if luck < 0.2 else 0
    return float(min(5, max(1, round(1 + 4 * chance + rng.gauss(0, 0.3)) + mood)))


def measure(task: tuple[Gate, int, int]) -> dict[str, Any]:
    """One kind of gate, played `rounds` times: shares of FAIL and PASS, in percent, and the error of the larger."""
    gate, rounds, seed = task
    rng = random.Random(seed)
    ends = [play(gate, rng) for _ in range(rounds)]
    fails, passes = (100 * fmean(end[i] for end in ends) for i in (0, 1))
    error = max(100 * math.sqrt(share / 100 * (1 - share / 100) / rounds) for share in (fails, passes, 100 / rounds))
    return {**asdict(gate), "fail_percent": round(fails, 2), "pass_percent": round(passes, 2), "error": round(error, 2)}


@dataclass(frozen=True)
class Guarded:
    """A gate that has nothing but one check of every case that must pass."""

    n: int
    repeats: int
    now: float | None
    """What the chance of one case becomes; None: nothing changed."""


def watch(guarded: Guarded, rng: random.Random) -> tuple[Verdict, int]:
    """One round: how it ended, and the calls of its recheck."""
    before, after = chances(guarded.n), chances(guarded.n)
    if guarded.now is not None:
        after[rng.choice([i for i, chance in enumerate(before) if chance == MIX[0][1]])] = guarded.now
    cases = [Case(str(i), 0, {}, None, (), (), None, critical=False) for i in range(guarded.n)]

    def run(version: int, of: Sequence[Case], repeats: int) -> Run:
        chance = before if version == 1 else after
        results = (
            Repeat(case.id, k, "", (CheckResult("is-json", rng.random() < chance[int(case.id)], ""),))
            for case in of
            for k in range(repeats)
        )
        return Run(str(version), "p", version, str(version), "", "", "", "", repeats, tuple(results))

    pair = run(2, cases, guarded.repeats), run(1, cases, guarded.repeats)
    found = breaks(*pair, MUST_PASS, cases)
    again = [one for one in found if one.recheck][:MOST_RECHECKED] if not any(one.sure for one in found) else []
    if again:
        tried = [one.case for one in again]
        rechecks = rechecked(again, run(2, tried, RECHECK_REPEATS), run(1, tried, RECHECK_REPEATS))
        found = breaks(*pair, MUST_PASS, cases, rechecks)
    verdict: Verdict = "FAIL" if any(one.sure for one in found) else "INCONCLUSIVE" if found else "PASS"
    return verdict, 2 * RECHECK_REPEATS * len(again)


def measure_guarded(task: tuple[Guarded, int, int]) -> dict[str, Any]:
    """One kind, played `rounds` times: shares of FAIL and INCONCLUSIVE, in percent; what FAIL would be if breaks were
    not tried again; and the mean number of calls that this takes."""
    guarded, rounds, seed = task
    rng = random.Random(seed)
    ends = [watch(guarded, rng) for _ in range(rounds)]
    fails, doubts = (100 * fmean(verdict == said for verdict, _ in ends) for said in ("FAIL", "INCONCLUSIVE"))
    return {
        **asdict(guarded),
        "fail_percent": round(fails, 2),
        "inconclusive_percent": round(doubts, 2),
        "error": round(100 * math.sqrt(max(fails / 100 * (1 - fails / 100), 1 / rounds) / rounds), 2),
        "breaks_percent": round(100 * fmean(calls > 0 or verdict == "FAIL" for verdict, calls in ends), 2),
        "calls": round(fmean(calls for _, calls in ends), 1),
    }


def gates(rates: Sequence[int] = (20, 50, 200)) -> dict[str, list[Gate]]:
    """What is played, by the table it is for."""
    null = [
        Gate(n, repeats, clustered, metric, looks, "none", 0.0)
        for metric in METRICS
        for looks, n, repeats, clustered in product((1, 2), rates, (1, 3), (False, True))
    ]
    plain = [gate for gate in null if gate.looks == 1 and not gate.clustered and gate.metric == "rate"]
    changes: tuple[Change, ...] = ("everywhere", "one in ten")
    power = [replace(gate, change=change, margin=MARGIN) for gate in plain for change in changes]
    return {
        "unchanged": null,
        "unchanged_margin_2": [replace(gate, margin=MARGIN) for gate in plain],
        "drop_10": power,
        "drop_of_the_margin": [replace(gate, margin=DROP) for gate in power],
    }


def guarded_gates(rates: Sequence[int] = (3, 20, 50, 200)) -> list[Guarded]:
    """What `must_pass` is played with."""
    return [Guarded(n, repeats, now) for now in (None, 0.0, 0.2) for n in rates for repeats in (1, 2, 3, 5)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2_000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=[*gates(), "must_pass"])
    options = parser.parse_args()
    rounds = 40 if options.quick else options.rounds
    rates = (20,) if options.quick else (20, 50, 200)
    file = RESULTS / "gate-power.json"
    result: dict[str, Any] = {"machine": describe(), "rounds": rounds, "alpha_percent": 100 * ALPHA}
    if options.only:
        result = json.loads(file.read_text("utf-8"))
        rounds = 40 if options.quick else result["rounds"]
    with ProcessPoolExecutor(max_workers=1 if options.quick else 2) as pool:

        def fill(name: str, measured: Callable[[Any], dict[str, Any]], kinds: Sequence[Any]) -> None:
            if options.only in (None, name):
                tasks = [(kind, rounds, 1_000 * index + len(name)) for index, kind in enumerate(kinds)]
                result[name] = list(pool.map(measured, tasks))
                worst = max(result[name], key=lambda row: row["fail_percent"])
                print(f"{name}: FAIL at most {worst['fail_percent']} % ± {worst['error']}")

        for name, kinds in gates(rates).items():
            fill(name, measure, kinds)
        fill("must_pass", measure_guarded, guarded_gates((3, *rates)))
    if "unchanged" in result:
        result["unchanged_worst"] = max(row["fail_percent"] for row in result["unchanged"])
    if not options.quick:
        file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
