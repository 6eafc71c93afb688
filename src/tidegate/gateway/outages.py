"""What the log says of providers that fail: once as it begins and once when it is over, however many calls it meets."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from tidegate.core.errors import UpstreamError, UpstreamRejected
from tidegate.ports import Clock

QUIET_S = 60.0
"""A provider that fails now and then is said to at most this often."""
REFUSES_US = (401, 402, 403, 407)
log = logging.getLogger("tidegate.upstream")


@dataclass(slots=True)
class _Outage:
    since: float
    said: bool
    tries: int = 0


class Outages:
    """Of one gateway process."""

    def __init__(self, clock: Clock) -> None:
        self.running: dict[str, _Outage] = {}
        """Provider → its outage."""
        self._clock = clock
        self._last: dict[str, float] = {}

    def failed(self, provider: str, error: UpstreamError) -> None:
        """A try of this provider failed; what is only about the request, or a rate, is no outage."""
        if isinstance(error, UpstreamRejected) and error.http_status < 500 and error.http_status not in REFUSES_US:
            return
        outage = self.running.get(provider)
        if outage is None:
            now = self._clock.monotonic()
            said = now - self._last.get(provider, now - QUIET_S) >= QUIET_S
            outage = self.running[provider] = _Outage(now, said)
            if said:
                self._last[provider] = now
                log.warning("%s Further failures are in the records, not here.", _sentence(str(error)))
        outage.tries += 1

    def answered(self, provider: str) -> None:
        """A try of this provider got its answer."""
        outage = self.running.pop(provider, None)
        if outage is not None and outage.said:
            lasted_s = self._clock.monotonic() - outage.since
            log.warning("provider %r answers again: %d tries failed within %.0f s.", provider, outage.tries, lasted_s)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
