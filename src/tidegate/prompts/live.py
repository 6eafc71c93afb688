"""
What a gateway serves prompts from: a snapshot of the registry in memory, replaced whole when the registry changes.

A thread of its own follows the registry, which blocks; calls only ever read memory, and the swap is the assignment of
one reference. While the store can not be reached the last snapshot stays. It is also kept in a file, so that a gateway
can start without its store.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import msgspec

from tidegate.core.errors import TidegateError, Unusable
from tidegate.core.instant import iso_utc
from tidegate.core.keys import Key, KeyRing
from tidegate.core.ledger import Freshness, Served, Snapshot
from tidegate.core.selector import means
from tidegate.ports import Clock
from tidegate.prompts.registry import Registry
from tidegate.prompts.snapshot_file import SnapshotFile

LOOK_S = 0.5
"""The longest a change can go unnoticed when nobody tells of it; also what the end of the thread may take."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
"""Between two looks at a store that can not be reached."""
MAX_FOUND = 2_048
FINDERS = 2
"""Questions to the store at once."""
FIND_S = 5.0
"""How long a call waits for a version that is live nowhere."""
log = logging.getLogger("tidegate.prompts")


class LivePrompts:
    """Implements ports.PromptSource. `run` is its owner task; `refresh` must have succeeded before the first call."""

    def __init__(self, registry: Registry, clock: Clock, file: SnapshotFile | None = None) -> None:
        self._registry = registry
        self._clock = clock
        self._file = file
        self._snapshot: Snapshot | None = None
        self._names: list[str] = []
        self._freshness = Freshness(following=False, source="store", read_at="")
        self._written: Snapshot | None = None
        self._keys: tuple[Sequence[Key], KeyRing] = ((), KeyRing())
        self._found: OrderedDict[tuple[str, str], Served] = OrderedDict()
        # Not the loop's own threads: a store that hangs would fill them, and hold up fsync and large requests.
        self._finders = ThreadPoolExecutor(FINDERS, "tidegate-find")

    def live(self, prompt: str, environment: str) -> Served | None:
        """What the environment points at in the last snapshot."""
        return self._snapshot.live.get((prompt, environment)) if self._snapshot else None

    def names(self) -> list[str]:
        """Every prompt that is live somewhere, sorted."""
        return self._names

    def keys(self) -> KeyRing:
        """The keys of the last snapshot."""
        return self._keys[1]

    def freshness(self) -> Freshness:
        """How the last snapshot stands with the store."""
        return self._freshness

    async def find(self, prompt: str, selector: str) -> Served:
        """Any stored version; those found before come from memory. Raises NotFound, Unusable without the store."""
        key = (prompt, selector)
        if key in self._found:
            return self._found[key]
        try:
            found = await self._ask(prompt, selector)
        except Unusable:
            live = self._live_as(prompt, selector)
            if live is None:
                raise
            return live
        # A version or digest never changes its meaning; an environment's name does, so it is not kept.
        if means(selector, found.version, found.digest):
            self._found[key] = found
            if len(self._found) > MAX_FOUND:
                self._found.popitem(last=False)
        return found

    async def _ask(self, prompt: str, selector: str) -> Served:
        try:
            async with asyncio.timeout(FIND_S):
                return await asyncio.get_running_loop().run_in_executor(
                    self._finders, self._registry.served, prompt, selector
                )
        except TimeoutError:
            raise Unusable(f"the control store has not answered for {FIND_S:g} s. Call again later.") from None

    def close(self) -> None:
        """Nobody is looked up any more."""
        self._finders.shutdown(wait=False, cancel_futures=True)

    async def refresh(self) -> None:
        """
        Looks at the registry, and swaps in a new snapshot when it has changed.

        Without a store, the first time, the snapshot is the file's. Raises what the store raised when there is none.
        """
        await asyncio.to_thread(self._start if self._snapshot is None else self._look)

    async def run(self) -> None:
        """Keeps the snapshot fresh until cancelled; that takes as long as one look."""
        stop = threading.Event()
        # No executor's thread: the process would wait for it at its end, however long the store does not answer.
        follower = threading.Thread(target=self._follow, args=(stop,), name="tidegate-prompts", daemon=True)
        follower.start()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stop.set()
            self.close()
            await asyncio.to_thread(follower.join, LOOK_S + 0.2)
            raise

    def _follow(self, stop: threading.Event) -> None:
        pause = FIRST_PAUSE_S
        try:
            while not stop.is_set():
                try:
                    self._save()
                    self._look(LOOK_S)
                    pause = FIRST_PAUSE_S
                except TidegateError as error:
                    if self._freshness.following:
                        log.warning("the control store can not be read, serving the last snapshot: %s", error)
                        self._lost()
                    stop.wait(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            self._lost()

    def _lost(self) -> None:
        self._freshness = msgspec.structs.replace(self._freshness, following=False)

    def _start(self) -> None:
        try:
            self._look()
        except TidegateError as error:
            if not self._load(error):
                raise

    def _look(self, wait_s: float = 0.0) -> None:
        """Waits up to `wait_s` for a change; one that came while the store was away is found in any case."""
        before = self._snapshot
        if (
            before is not None
            and self._freshness.following
            and self._registry.wait_for_change(before.generation, wait_s) == before.generation
        ):
            return
        after = self._registry.snapshot(before)
        if after.anew:
            log.warning(
                "the control store's ledger does not hold what was served until now: another store, or one put back"
                " from a backup. Following it."
            )
        self._swap(after, Freshness(True, "store", iso_utc(self._clock.now_ns())))

    def _swap(self, snapshot: Snapshot, freshness: Freshness) -> None:
        if self._snapshot is None or snapshot.live.keys() != self._snapshot.live.keys():
            self._names = sorted(snapshot.prompts())
        if snapshot.keys != self._keys[0]:
            self._keys = snapshot.keys, KeyRing(snapshot.keys)
        self._snapshot = snapshot
        self._freshness = freshness

    def _load(self, reason: TidegateError) -> bool:
        """Takes the snapshot of the file; False when there is none that can be used."""
        if self._file is None:
            return False
        try:
            found = self._file.read()
        except TidegateError as error:
            log.warning("the last snapshot can not be used: %s", error)
            return False
        if found is None:
            return False
        snapshot, read_at = found
        age_s = self._clock.now_ns() / 1e9 - datetime.fromisoformat(read_at).timestamp()
        log.warning(
            "the control store can not be read, serving the snapshot of %s (%s old): %s",
            read_at,
            timedelta(seconds=max(0, round(age_s))),
            reason,
        )
        self._swap(snapshot, Freshness(False, "file", read_at))
        self._written = snapshot
        return True

    def _save(self) -> None:
        snapshot = self._snapshot
        written = self._written
        if self._file is None or snapshot is None:
            return
        if written and (snapshot.head, snapshot.keys) == (written.head, written.keys):
            return
        self._written = snapshot
        try:
            self._file.write(snapshot, self._freshness.read_at)
        except TidegateError as error:
            log.warning("a gateway could not start from the last snapshot: %s", error)

    def _live_as(self, prompt: str, selector: str) -> Served | None:
        """A version that is live in some environment is in memory, also without the store."""
        served = self._snapshot.versions() if self._snapshot else ()
        asked = (one for one in served if one.prompt == prompt and means(selector, one.version, one.digest))
        found = next(asked, None)
        return found and msgspec.structs.replace(found, split=None)
