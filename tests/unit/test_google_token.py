"""Tokens of a service account: fetched once for all, renewed before they run out, and refused in clear words."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.service_account import EMAIL, claims, key_file
from tidegate.core.errors import BadInput, UpstreamError, UpstreamRejected, UpstreamUnavailable
from tidegate.fakes import FakeUpstream, FixedClock, ScriptedAnswer
from tidegate.ports import UpstreamRequest
from tidegate.upstream.google_token import AGAIN_S, EARLY_S, SCOPE, ServiceAccount

FIELD = "providers.vertex.service_account"
CALL = UpstreamRequest("https://aiplatform.googleapis.com", "POST", "/v1", (("x", "y"),), b"{}", 1, 1, 1)


def granted(token: str, expires_in: int = 3_600) -> ScriptedAnswer:
    body = {"access_token": token, "expires_in": expires_in, "token_type": "Bearer"}
    return ScriptedAnswer(body=[json.dumps(body).encode()])


def account(**changes: Any) -> ServiceAccount:
    return ServiceAccount(key_file(**changes), FIELD)


async def bearer(by: ServiceAccount, upstream: FakeUpstream, clock: FixedClock) -> str:
    headers = dict((await by.sign(CALL, upstream, clock)).headers)
    assert headers["x"] == "y"
    return headers["authorization"].removeprefix("Bearer ")


async def test_a_signed_claim_is_exchanged_for_a_token() -> None:
    upstream, clock = FakeUpstream(granted("t-1")), FixedClock()
    assert await bearer(account(), upstream, clock) == "t-1"
    [request] = upstream.requests
    assert (request.origin, request.method, request.path) == ("https://oauth2.googleapis.com", "POST", "/token")
    form = parse_qs(request.body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    head, said = claims(form["assertion"][0])
    assert head == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    now = clock.now_ns() // 10**9
    assert said == {
        "iss": EMAIL,
        "scope": SCOPE,
        "aud": "https://oauth2.googleapis.com/token",
        "iat": now,
        "exp": now + 3_600,
    }


async def test_calls_share_one_token_and_one_exchange() -> None:
    by, upstream, clock = account(), FakeUpstream(granted("t-1")), FixedClock()
    assert await asyncio.gather(*(bearer(by, upstream, clock) for _ in range(50))) == ["t-1"] * 50
    clock.move(3_600 - EARLY_S - 1)
    assert await bearer(by, upstream, clock) == "t-1"
    assert len(upstream.requests) == 1


async def test_a_token_is_renewed_while_it_is_good() -> None:
    by, upstream, clock = account(), FakeUpstream(granted("t-1"), granted("t-2")), FixedClock()
    await bearer(by, upstream, clock)
    clock.move(3_600 - EARLY_S)
    assert await bearer(by, upstream, clock) == "t-1"  # nobody waits
    await asyncio.sleep(0.01)
    assert await bearer(by, upstream, clock) == "t-2"


async def test_a_token_that_ran_out_is_waited_for() -> None:
    by, upstream, clock = account(), FakeUpstream(granted("t-1"), granted("t-2")), FixedClock()
    await bearer(by, upstream, clock)
    clock.move(3_600)
    assert await bearer(by, upstream, clock) == "t-2"


async def test_a_token_that_can_not_be_renewed_serves_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    by, clock = account(), FixedClock()
    upstream = FakeUpstream(granted("t-1"), ScriptedAnswer(fails=UpstreamUnavailable("no way")), granted("t-3"))
    await bearer(by, upstream, clock)
    clock.move(3_600 - 10)
    assert await bearer(by, upstream, clock) == "t-1"
    await asyncio.sleep(0.01)
    assert f"no new access token of {EMAIL}: no way" in caplog.text
    assert await bearer(by, upstream, clock) == "t-1"
    await asyncio.sleep(0.01)
    assert len(upstream.requests) == 2  # not again at once
    clock.move(AGAIN_S)
    assert await bearer(by, upstream, clock) == "t-1"
    await asyncio.sleep(0.01)
    assert await bearer(by, upstream, clock) == "t-3"


async def test_a_refused_token_is_fetched_anew() -> None:
    by, upstream, clock = account(), FakeUpstream(granted("t-1"), granted("t-2")), FixedClock()
    await bearer(by, upstream, clock)
    by.refused()
    assert await bearer(by, upstream, clock) == "t-2"


async def test_a_client_that_leaves_does_not_stop_it_for_the_others() -> None:
    by, upstream, clock = account(), FakeUpstream(granted("t-1")), FixedClock()
    first = asyncio.create_task(bearer(by, upstream, clock))
    second = asyncio.create_task(bearer(by, upstream, clock))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "t-1"


@pytest.mark.parametrize(
    ("answer", "words", "status"),
    [
        (ScriptedAnswer(status=400, body=[b'{"error":"invalid_grant","error_description":"x"}']), "invalid_grant", 401),
        (ScriptedAnswer(status=401, body=[b"<html>"]), "HTTP 401", 401),
        (ScriptedAnswer(status=503, body=[b""]), "HTTP 503", 503),
        (ScriptedAnswer(status=429, body=[b"{}"]), "HTTP 429", 503),
        (ScriptedAnswer(body=[b"{}"]), "HTTP 200", None),
        (ScriptedAnswer(body=[b'{"access_token":"a\\r\\nb","expires_in":9}']), "HTTP 200", None),
        (ScriptedAnswer(body=[b'{"access_token":1}']), "HTTP 200", None),
    ],
)
async def test_no_token_is_told_clearly(answer: ScriptedAnswer, words: str, status: int | None) -> None:
    by = account()
    with pytest.raises(UpstreamError, match=f"Google gave no access token to the service account: {words}") as caught:
        await bearer(by, FakeUpstream(answer), FixedClock())
    assert status is None or (isinstance(caught.value, UpstreamRejected) and caught.value.http_status == status)
    # The next call asks again.
    assert await bearer(by, FakeUpstream(granted("t-2")), FixedClock()) == "t-2"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("sk-secret", "is not the JSON key file of a Google service account"),
        ('{"type":"authorized_user","client_email":"a","private_key":"sk-secret"}', "is not the JSON key file"),
        ('{"type":"service_account","client_email":"a"}', "is not the JSON key file"),
        (
            '{"type":"service_account","client_email":"a","private_key":"sk-secret"}',
            "its private_key is not an RSA key",
        ),
        (key_file(token_uri="http://evil.example/token"), "its token_uri must begin with https"),
        (key_file(token_uri="gopher://127.0.0.1/"), "its token_uri must begin with https"),
    ],
)
def test_a_key_file_that_is_none_is_told_without_what_it_holds(content: str, words: str) -> None:
    with pytest.raises(BadInput, match=rf"^providers\.vertex\.service_account: {words}") as caught:
        ServiceAccount(content, FIELD)
    assert "sk-secret" not in str(caught.value)


async def test_the_token_is_redacted() -> None:
    by = account()
    await bearer(by, FakeUpstream(granted("t-secret")), FixedClock())
    assert by.redact("your t-secret is bad") == "your [redacted] is bad"
    assert "t-secret" not in repr(by)
