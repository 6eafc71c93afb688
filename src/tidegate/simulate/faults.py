"""
Faults on demand: what a provider does wrong, as one line of text.

    status=429; retry-after=2          an error status, with OpenAI's error body
    delay=0.5                          seconds before anything is sent
    first-byte=0.5                     seconds between a stream's head and its first event
    cut=3; how=rst                     the connection ends after 3 events: by FIN (default) or RST
    stall=3                            nothing more is sent after 3 events, and the connection stays open
    garbage=3                          after 3 events comes one that is not JSON
    error=3                            after 3 events an error object comes inside the 200
    not-http                           the answer is not HTTP at all
    batch=expired                      half of a batch is answered, the rest is not; batch.py knows more fates

A whole answer is hit by 0 only: half-way, or by being garbage or an error itself. Any line may hold `p=0.2` (of the
requests) and `times=2` (then never again). A request names its own fault in the header `x-simulate`; a server has a
script of them, of which the first that strikes is taken.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from tidegate.core.errors import BadInput, nearest

HEADER = "x-simulate"


class Fault(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """One thing that goes wrong. Counts are events before it; None: that does not go wrong."""

    status: int | None = None
    retry_after: str | None = None
    delay: float = 0.0
    first_byte: float = 0.0
    cut: int | None = None
    how: Literal["fin", "rst"] = "fin"
    stall: int | None = None
    garbage: int | None = None
    error: int | None = None
    not_http: bool = False
    batch: Literal["errored", "expired", "cancelled", "failed", "stuck"] | None = None
    p: float = 1.0
    times: int | None = None

    @property
    def after(self) -> int | None:
        """The number of events that still pass, or None when they all do."""
        return next((count for count in self.interruptions() if count is not None), None)

    def interruptions(self) -> tuple[int | None, ...]:
        """Of these, one line holds one at most."""
        return self.cut, self.stall, self.garbage, self.error


NONE = Fault()


def parse_fault(line: str) -> Fault:
    """The fault that a line describes. Raises BadInput."""
    fields: dict[str, Any] = {}
    names = [field.encode_name for field in msgspec.structs.fields(Fault)]
    for part in filter(None, (part.strip() for part in line.split(";"))):
        name, equals, value = part.partition("=")
        if name not in names:
            raise BadInput(f"fault {line!r}: nothing is called {name!r}.{nearest(name, names)}")
        fields[name] = value.strip() if equals else True
    try:
        fault = msgspec.convert(fields, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise BadInput(f"fault {line!r}: {error}.") from error
    if fault.status is not None and not 400 <= fault.status <= 599:
        raise BadInput(f"fault {line!r}: a status is from 400 to 599.")
    if sum(count is not None for count in fault.interruptions()) > 1:
        raise BadInput(f"fault {line!r}: cut, stall, garbage and error exclude each other.")
    return fault


class Script:
    """The faults of a server: draws one for each request, with a seed."""

    def __init__(self, faults: Iterable[Fault], seed: int) -> None:
        self._random = random.Random(f"faults {seed}")
        self._faults = list(faults)
        self._struck = [0] * len(self._faults)

    def draw(self) -> Fault:
        """The fault of the next request: the first of the script that strikes, else NONE."""
        for number, fault in enumerate(self._faults):
            if (fault.times is None or self._struck[number] < fault.times) and self.strikes(fault):
                self._struck[number] += 1
                return fault
        return NONE

    def strikes(self, fault: Fault) -> bool:
        """Throws the dice for one fault."""
        return fault.p >= 1 or self._random.random() < fault.p
