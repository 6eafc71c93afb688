"""What a session tells while it works: what is about to happen, what was there already, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.core.ledger import Version
from tidegate.evals.batch import BatchProgress
from tidegate.evals.runner import Progress


@dataclass(frozen=True, slots=True)
class Planned:
    """What is about to happen, said before any money is spent."""

    candidate: Version
    baseline: Version | None
    baseline_stored: bool
    """The baseline's run is there already."""
    cases: int
    repeats: int
    calls: int
    """Of an agent, loops."""
    mde: float | None
    """Minimum detectable drop of the pass rate; None when there is nothing to compare with."""
    max_cost_nano_usd: int | None
    steps: int | None = None
    """The most calls of a loop; None where there is none."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What an interrupted run left behind."""

    version: Version
    calls: int
    """Of its cases, that need not be made again."""
    total: int
    cost_nano_usd: int
    started_at: str


class Watcher:
    """Told what a session is about to do and how far it is. This one does not care; commands bring their own."""

    def planned(self, planned: Planned) -> None:
        """Called once, before the first call."""

    def resumed(self, resumed: Resumed) -> None:
        """Called when a run goes on from where an earlier one was interrupted."""

    def batched(self, version: Version, progress: BatchProgress) -> None:
        """Called whenever the provider was asked how far a batch is."""

    def progressed(self, progress: Progress) -> None:
        """Called after every call."""

    def rechecking(self, cases: int, repeats: int) -> None:
        """Called when the gate tries so many cases again, so often on each side, as a guard of them broke."""

    def more_repeats(self, repeats: int) -> None:
        """Called when the gate buys repeats up to `repeats` a case."""
