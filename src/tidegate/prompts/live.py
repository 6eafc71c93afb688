"""
What a gateway serves prompts from: a snapshot of the registry in memory, replaced whole within 250 ms of a change.

The registry blocks, so it is asked in a thread; calls only ever read memory. When the store can not be reached, the
last snapshot stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from tidegate.core.errors import TidegateError
from tidegate.core.ledger import Served, Snapshot
from tidegate.prompts.registry import Registry

POLL_S = 0.1
MAX_FOUND = 2_048
log = logging.getLogger("tidegate.prompts")


class LivePrompts:
    """Implements ports.PromptSource. `run` is its owner task; `refresh` must have succeeded before the first call."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._snapshot = Snapshot(generation=-1, live={})
        self._found: OrderedDict[tuple[str, str], Served] = OrderedDict()

    def live(self, prompt: str, environment: str) -> Served | None:
        """What the environment points at in the last snapshot."""
        return self._snapshot.live.get((prompt, environment))

    def names(self) -> list[str]:
        """Every prompt that is live somewhere, sorted."""
        return sorted(self._snapshot.prompts())

    async def find(self, prompt: str, selector: str) -> Served:
        """Any stored version; those found before come from memory. Raises NotFound."""
        key = (prompt, selector)
        if key in self._found:
            return self._found[key]
        found = await asyncio.to_thread(self._registry.served, prompt, selector)
        # A version or digest never changes its meaning; an environment's name does, so it is not kept.
        if selector == f"v{found.version}" or found.digest.startswith(selector):
            self._found[key] = found
            if len(self._found) > MAX_FOUND:
                self._found.popitem(last=False)
        return found

    async def refresh(self) -> None:
        """Swaps in a new snapshot when the registry has changed."""
        generation = await asyncio.to_thread(self._registry.generation)
        if generation != self._snapshot.generation:
            self._snapshot = await asyncio.to_thread(self._registry.snapshot)

    async def run(self) -> None:
        """Keeps the snapshot fresh until cancelled."""
        broken = False
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
                broken = False
            except TidegateError as error:
                if not broken:
                    log.warning("the control store can not be read, serving the last snapshot: %s", error)
                broken = True
