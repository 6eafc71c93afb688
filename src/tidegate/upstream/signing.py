"""
What a request needs from us besides a fixed header: a signature over it, or a token that is fetched and runs out.

Most providers take their key as a header and have no signer; their calls do nothing here.
"""

from __future__ import annotations

from typing import Protocol

from tidegate.ports import Clock, Upstream, UpstreamRequest


class Signer(Protocol):
    """Belongs to one provider. Implementations: sigv4.SigV4, google_token.ServiceAccount."""

    async def sign(self, request: UpstreamRequest, upstream: Upstream, clock: Clock) -> UpstreamRequest:
        """
        The request with its credential, good for sending now; so it is asked again for every try.

        Raises UpstreamError, with status 401 where whoever gives out tokens refuses to.
        """
        ...

    def refused(self) -> None:
        """The provider did not accept what was signed last."""
        ...

    def redact(self, text: str) -> str:
        """`text` without what this signer knows, should the provider have echoed it."""
        ...
