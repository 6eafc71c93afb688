"""
AWS Signature Version 4, for services whose requests are POSTs with a body that is known.

Source: AWS, "Create a signed AWS API request" (IAM user guide, 2026-11). Checked against the signatures that AWS
publishes with it. What is signed: method, path, query, host, content type, time, session token and body.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote, urlsplit

import msgspec

from tidegate.ports import Clock, Upstream, UpstreamRequest

_SIGNED = ("content-type",)
"""Of the headers that a request brings along. A proxy may change others, such as user-agent."""


class SigV4:
    """Implements signing.Signer. The key of a day is derived once."""

    def __init__(
        self, *, access_key_id: str, secret_access_key: str, session_token: str | None, region: str, service: str
    ) -> None:
        self._id = access_key_id
        self._secret = secret_access_key
        self._token = session_token
        self._region = region
        self._service = service
        self._day = ""
        self._key = b""

    async def sign(self, request: UpstreamRequest, upstream: Upstream, clock: Clock) -> UpstreamRequest:
        """The request with `x-amz-date`, the session token where there is one, and the signature; never waits."""
        when = datetime.fromtimestamp(clock.now_ns() // 1_000_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
        ours = [("x-amz-date", when)]
        if self._token is not None:
            ours.append(("x-amz-security-token", self._token))
        signed = sorted(
            [
                ("host", urlsplit(request.origin).netloc.lower()),
                *ours,
                *((name, " ".join(value.split())) for name, value in request.headers if name in _SIGNED),
            ]
        )
        names = ";".join(name for name, _ in signed)
        path, _, query = request.path.partition("?")
        asked = "\n".join(
            [
                request.method,
                quote(path, safe="/-_.~"),  # once more: the path is encoded already
                "&".join(sorted(item if "=" in item else f"{item}=" for item in query.split("&") if item)),
                *(f"{name}:{value}" for name, value in signed),
                "",
                names,
                sha256(request.body).hexdigest(),
            ]
        )
        scope = f"{when[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{sha256(asked.encode()).hexdigest()}"
        signature = hmac.digest(self._key_of(when[:8]), text.encode(), "sha256").hex()
        credential = f"AWS4-HMAC-SHA256 Credential={self._id}/{scope}, SignedHeaders={names}, Signature={signature}"
        return msgspec.structs.replace(request, headers=(*request.headers, *ours, ("authorization", credential)))

    def refused(self) -> None:
        """Nothing to forget: the keys are those of the configuration."""

    def redact(self, text: str) -> str:
        """Without the secrets. AWS explains a wrong signature by all that it had signed, the session token included."""
        for secret in (self._secret, self._token, self._id):
            text = text.replace(secret, "[redacted]") if secret else text
        return text

    def _key_of(self, day: str) -> bytes:
        if day != self._day:
            key = b"AWS4" + self._secret.encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day, self._key = day, key
        return self._key
