"""What one eval or gate may spend, over all of its runs: bounded before it is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Tab:
    """Of one repeat that is under way: what it has paid so far, and what the call that it makes now may cost."""

    paid_nano_usd: int = 0
    next_nano_usd: int = 0

    def pay(self, whole_nano_usd: int) -> None:
        """Its calls have cost so much by now, and none is being made."""
        self.paid_nano_usd, self.next_nano_usd = whole_nano_usd, 0


@dataclass(slots=True)
class Budget:
    """`limit_nano_usd` None: no cap, the sum is still kept. A unit is one repeat, with what its judges cost."""

    limit_nano_usd: int | None = None
    spent_nano_usd: int = 0
    dearest_nano_usd: int = 0
    tabs: list[Tab] = field(default_factory=list)
    """Of the repeats under way: each may still cost what the dearest did, less what it has paid; or its next call."""

    def open(self) -> Tab:
        """A repeat begins."""
        tab = Tab()
        self.tabs.append(tab)
        return tab

    def close(self, tab: Tab) -> None:
        """It is over."""
        self.tabs.remove(tab)

    def fits(self, repeats: int) -> bool:
        """Whether `repeats` more, each as dear as the dearest so far, stay under the limit."""
        return self._holds(self._outstanding(self.tabs) + repeats * self.dearest_nano_usd)

    def affords(self, tab: Tab, cost_nano_usd: int) -> bool:
        """Whether a repeat under way may make one more call that costs so much, and all others come to their end."""
        others = self._outstanding([other for other in self.tabs if other is not tab])
        if fits := self._holds(others + cost_nano_usd):
            tab.next_nano_usd = cost_nano_usd
        return fits

    def _outstanding(self, tabs: Sequence[Tab]) -> int:
        return sum(max(tab.next_nano_usd, self.dearest_nano_usd - tab.paid_nano_usd) for tab in tabs)

    def _holds(self, more_nano_usd: int) -> bool:
        return self.limit_nano_usd is None or self.spent_nano_usd + more_nano_usd <= self.limit_nano_usd

    def spend(self, cost_nano_usd: int) -> None:
        """One call has been paid for."""
        self.spent_nano_usd += cost_nano_usd

    def learn(self, cost_nano_usd: int) -> None:
        """What a whole repeat turned out to cost, whenever it was paid for."""
        self.dearest_nano_usd = max(self.dearest_nano_usd, cost_nano_usd)
