"""
Access tokens for a Google service account: a signed claim is exchanged for a token, which is good for about an hour.

Source: Google, "Using OAuth 2.0 for server to server applications" (2026-11). One exchange at a time, whoever asks; a
new token is fetched while the old one is still good, so that calls wait for the first one only.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import msgspec

from tidegate.core.address import is_loopback
from tidegate.core.errors import BadInput, UpstreamProtocol, UpstreamRejected
from tidegate.ports import Clock, Upstream, UpstreamRequest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLAIM_S = 3_600
"""The longest that Google takes."""
EARLY_S = 300.0
"""How long before a token runs out the next one is fetched."""
AGAIN_S = 5.0
"""After an exchange that failed, while the old token is good."""
MAX_ANSWER_BYTES = 64 << 10
WAIT_S = 10.0
log = logging.getLogger("tidegate.upstream")


class _Account(msgspec.Struct):
    type: str
    client_email: str
    private_key: str
    private_key_id: str = ""
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105  an address


class _Granted(msgspec.Struct):
    access_token: str = ""
    expires_in: int = 0
    error: str = ""


class ServiceAccount:
    """Implements signing.Signer. Belongs to one event loop."""

    def __init__(self, key_file: str, field: str) -> None:
        """
        Args:
            key_file: the JSON that Google makes for a key of a service account.
            field: names it in errors (`providers.vertex.service_account`).

        Raises BadInput, without a word of what it holds.
        """
        self._account = account = _account(key_file, field)
        self._key = _private_key(account.private_key, field)
        url = urlsplit(account.token_uri)
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname or "")):
            raise BadInput(f"{field}: its token_uri must begin with https://.")
        self._origin, self._path = f"{url.scheme}://{url.netloc}", url.path or "/"
        self._token: str | None = None
        self._ends = 0.0
        """The monotonic second at which the token is no good any more."""
        self._next = 0.0
        """The second from which it may be renewed early."""
        self._fetching: asyncio.Task[str] | None = None

    async def sign(self, request: UpstreamRequest, upstream: Upstream, clock: Clock) -> UpstreamRequest:
        """The request with a token that is good for now. Raises UpstreamError."""
        token, now = self._token, clock.monotonic()
        if token is None or now >= self._ends:
            token = await asyncio.shield(self._fetch_once(upstream, clock))  # who leaves does not stop it for others
        elif now >= self._next:
            self._fetch_once(upstream, clock)
        return msgspec.structs.replace(request, headers=(*request.headers, ("authorization", f"Bearer {token}")))

    def refused(self) -> None:
        """Fetches another token before the next call: this one may have been revoked."""
        self._token = None

    def redact(self, text: str) -> str:
        """Without the token."""
        return text.replace(self._token, "[redacted]") if self._token else text

    def _fetch_once(self, upstream: Upstream, clock: Clock) -> asyncio.Task[str]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(upstream, clock))
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, task: asyncio.Task[str]) -> None:
        self._fetching = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("no new access token of %s: %s", self._account.client_email, error)

    async def _fetch(self, upstream: Upstream, clock: Clock) -> str:
        began = clock.monotonic()
        self._next = began + AGAIN_S
        form = {"grant_type": GRANT, "assertion": self._claim(clock.now_ns() // 1_000_000_000)}
        request = UpstreamRequest(
            origin=self._origin,
            method="POST",
            path=self._path,
            headers=(("content-type", "application/x-www-form-urlencoded"), ("user-agent", "tidegate")),
            body=urlencode(form).encode(),
            connect_s=WAIT_S,
            first_byte_s=WAIT_S,
            idle_s=WAIT_S,
        )
        async with upstream.request(request) as answer:
            body = await answer.read(MAX_ANSWER_BYTES)
        granted = _granted(answer.status, body)
        self._token, self._ends = granted.access_token, began + granted.expires_in
        self._next = self._ends - EARLY_S
        return granted.access_token

    def _claim(self, now: int) -> str:
        """A JSON Web Token, signed with RS256 (RFC 7519, RFC 7515)."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

        account = self._account
        head = {"alg": "RS256", "typ": "JWT", "kid": account.private_key_id}
        said = {"iss": account.client_email, "scope": SCOPE, "aud": account.token_uri, "iat": now, "exp": now + CLAIM_S}
        text = b".".join(_base64(msgspec.json.encode(part)) for part in (head, said))
        return b".".join((text, _base64(self._key.sign(text, PKCS1v15(), SHA256())))).decode()


def _account(key_file: str, field: str) -> _Account:
    try:
        account = msgspec.json.decode(key_file, type=_Account)
    except (msgspec.DecodeError, RecursionError):
        account = None
    if account is None or account.type != "service_account":
        raise BadInput(f"{field}: is not the JSON key file of a Google service account.") from None
    return account


def _private_key(pem: str, field: str) -> RSAPrivateKey:
    # 30 ms of import that only such a provider pays for.
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise BadInput(f"{field}: its private_key is not an RSA key in PEM, without a password.") from None
    return key


def _granted(status: int, body: bytes) -> _Granted:
    try:
        granted = msgspec.json.decode(body, type=_Granted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        granted = _Granted()
    if status == 200 and granted.access_token.isascii() and granted.access_token.isprintable() and granted.expires_in:
        return granted
    why = granted.error if granted.error.replace("_", "").isalnum() else f"HTTP {status}"
    said = f"Google gave no access token to the service account: {why}."
    if 400 <= status < 500 and status not in (408, 429):
        raise UpstreamRejected(said, status=401, body=b"")
    raise UpstreamProtocol(said) if status == 200 else UpstreamRejected(said, status=503, body=b"")


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
