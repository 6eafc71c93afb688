"""
Server-sent events, from bytes cut anywhere (WHATWG HTML §9.2: LF, CRLF and CR end lines, a blank line ends an event).

Shared by every dialect that streams. Events stay bytes, so that what need not change is passed on as it came.
"""

from __future__ import annotations

from tidegate.core.errors import UpstreamProtocol

MAX_EVENT_BYTES = 64 << 20
"""As much as a whole answer may have: an event may hold a picture."""
BOM = b"\xef\xbb\xbf"
LF, CR = b"\n\r"
"""As numbers: one byte is found in bytes six times as fast as a text of one byte."""


class EventSplitter:
    """Collects chunks and hands out whole events, without the blank line that ended each."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        """The pieces of an event that is not complete; none of them is empty."""
        self._size = 0
        """Of these."""
        self._after_cr = False
        """A line ended in CR; it is one end with an LF that may follow."""
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """
        The events that `chunk` completes, in order; their lines end in LF.

        Raises UpstreamProtocol when one event grows beyond 64 MiB.
        """
        if not self._begun:
            chunk = self._begin(chunk)
        elif not self._rest and not self._after_cr and CR not in chunk and chunk[:1] != b"\n":
            end = chunk.find(b"\n\n")
            if 0 < end == len(chunk) - 2:
                return [chunk[:end]]  # one whole event, which is how most of them come
        if self._after_cr or CR in chunk:
            chunk = self._to_lf(chunk)
        if not chunk:
            return []
        rest = self._rest
        if rest:
            if b"\n\n" not in chunk and not (chunk[0] == LF == rest[-1][-1]):
                # Only the end of an event is looked for in all of it: what comes in many pieces is read once.
                self._keep(chunk)
                return []
            chunk = b"".join([*rest, chunk])
        parts = chunk.split(b"\n\n")
        last = parts.pop()
        rest.clear()
        self._size = 0
        if last:
            self._keep(last)
        # Three line ends in a row leave one at the start of the next event; it ends an empty line, not a field.
        return [event.lstrip(b"\n") for event in parts if event.strip(b"\n")]

    @property
    def rest(self) -> bytes:
        """What has come of an event that is not complete."""
        return b"".join(self._rest)

    def _keep(self, piece: bytes) -> None:
        self._rest.append(piece)
        self._size += len(piece)
        if self._size > MAX_EVENT_BYTES:
            raise UpstreamProtocol(f"the provider sent a stream event of more than {MAX_EVENT_BYTES >> 20} MiB")

    def _begin(self, chunk: bytes) -> bytes:
        """Without a byte order mark; of what may still become one nothing is said."""
        chunk = b"".join([*self._rest, chunk])
        self._begun = len(chunk) >= len(BOM) or not BOM.startswith(chunk)
        self._rest = [] if self._begun or not chunk else [chunk]
        return chunk.removeprefix(BOM) if self._begun else b""

    def _to_lf(self, chunk: bytes) -> bytes:
        if self._after_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def data_of(event: bytes) -> bytes | None:
    """The `data:` lines of an event joined by LF, or None for a comment or an event that has nothing in them."""
    if event.startswith(b"data: ") and LF not in event:
        return event[6:] or None
    values = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(values) or None
