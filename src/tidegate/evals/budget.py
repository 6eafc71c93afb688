"""What one eval or gate may spend, over all of its runs: bounded before it is spent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """`limit_nano_usd` None: no cap, the sum is still kept. A unit is one repeat, with what its judges cost."""

    limit_nano_usd: int | None = None
    spent_nano_usd: int = 0
    dearest_nano_usd: int = 0
    under_way: int = 0

    def fits(self, repeats: int) -> bool:
        """Whether `repeats` more, each as dear as the dearest so far, stay under the limit."""
        if self.limit_nano_usd is None:
            return True
        return self.spent_nano_usd + (self.under_way + repeats) * self.dearest_nano_usd <= self.limit_nano_usd

    def spend(self, cost_nano_usd: int) -> None:
        """One call has been paid for."""
        self.spent_nano_usd += cost_nano_usd

    def learn(self, cost_nano_usd: int) -> None:
        """What a whole repeat turned out to cost, whenever it was paid for."""
        self.dearest_nano_usd = max(self.dearest_nano_usd, cost_nano_usd)
