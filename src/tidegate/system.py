"""The real clock and the real randomness. Tests use their own."""

from __future__ import annotations

import random
import secrets
import time


class SystemClock:
    """Implements ports.Clock."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970 UTC."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds that only ever grow."""
        return time.perf_counter()


class SystemRandom:
    """Implements ports.Random. Seeded once from the system; fast, and not for keys."""

    def __init__(self) -> None:
        source = random.Random(secrets.randbits(256))
        self.bits = source.getrandbits
        self.uniform = source.random
