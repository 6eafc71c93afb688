"""The real clock and the real randomness. Tests use their own."""

from __future__ import annotations

import random
import secrets
import time


class SystemClock:
    """Implements ports.Clock."""

    now_ns = staticmethod(time.time_ns)
    """Nanoseconds since 1970 UTC."""
    monotonic = staticmethod(time.perf_counter)
    """Seconds that only ever grow."""


class SystemRandom:
    """Implements ports.Random. Seeded once from the system; fast, and not for keys."""

    def __init__(self) -> None:
        source = random.Random(secrets.randbits(256))
        self.bits = source.getrandbits
        self.uniform = source.random
