"""
SigV4 against the signatures that AWS publishes: its Signature Version 4 test suite (names as there), and the example of
its "Create a signed AWS API request" (`ListUsers`).
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tidegate.fakes import FakeUpstream, FixedClock
from tidegate.ports import UpstreamRequest
from tidegate.upstream.sigv4 import SigV4

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwt"
    "hAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVX"
    "AkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
FORM = "application/x-www-form-urlencoded"


def clock() -> FixedClock:
    return FixedClock(unix_ns=int(datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()) * 10**9)


def signer(token: str | None = None, service: str = "service") -> SigV4:
    return SigV4(
        access_key_id="AKIDEXAMPLE", secret_access_key=SECRET, session_token=token, region="us-east-1", service=service
    )


async def signed(
    by: SigV4,
    *,
    method: str = "POST",
    path: str = "/",
    body: bytes = b"",
    content_type: str | None = None,
    host: str = "example.amazonaws.com",
    at: FixedClock | None = None,
) -> dict[str, str]:
    headers = () if content_type is None else (("content-type", content_type),)
    request = UpstreamRequest(f"https://{host}", method, path, headers, body, 1, 1, 1)
    return dict((await by.sign(request, FakeUpstream(), at or clock())).headers)


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type", "signature"),
    [
        pytest.param(
            *("GET", "/", b"", None, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            id="get-vanilla",
        ),
        pytest.param(
            *("POST", "/", b"", None, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            id="post-vanilla",
        ),
        pytest.param(
            *("GET", "/?Param2=value2&Param1=value1", b"", None),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            id="get-vanilla-query-order-key-case",
        ),
        pytest.param(
            *("POST", "/", b"Param1=value1", FORM),
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            id="post-x-www-form-urlencoded",
        ),
        pytest.param(
            *("POST", "/", b"Param1=value1", f"{FORM}; charset=utf8"),
            "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
            id="post-x-www-form-urlencoded-parameters",
        ),
    ],
)
async def test_requests_of_the_suite(
    method: str, path: str, body: bytes, content_type: str | None, signature: str
) -> None:
    headers = await signed(signer(), method=method, path=path, body=body, content_type=content_type)
    assert headers["x-amz-date"] == "20150830T123600Z"
    scope = "Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    assert headers["authorization"].startswith(f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=")
    assert headers["authorization"].endswith(f", Signature={signature}")


async def test_a_session_token_is_sent_and_signed() -> None:
    """`post-sts-header-before` of the suite."""
    headers = await signed(signer(TOKEN))
    assert headers["x-amz-security-token"] == TOKEN
    assert headers["authorization"].endswith(
        "SignedHeaders=host;x-amz-date;x-amz-security-token, "
        "Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"
    )


async def test_the_example_of_the_user_guide() -> None:
    path, kind = "/?Action=ListUsers&Version=2010-05-08", f"{FORM}; charset=utf-8"
    headers = await signed(signer(service="iam"), method="GET", path=path, content_type=kind, host="iam.amazonaws.com")
    signature = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    assert headers["authorization"].endswith(f"SignedHeaders=content-type;host;x-amz-date, Signature={signature}")


async def test_a_call_of_bedrock_is_signed_as_botocore_does() -> None:
    """Made with botocore 1.44.5: a path that is encoded already is encoded once more."""
    by = SigV4(
        access_key_id="AKID", secret_access_key="SECRET", session_token="TOK", region="eu-central-1", service="bedrock"
    )
    headers = await signed(
        by,
        path="/model/eu.anthropic.claude-v1%3A0/converse",
        body=b'{"x":1}',
        content_type="application/json",
        host="bedrock-runtime.eu-central-1.amazonaws.com",
        at=FixedClock(unix_ns=1_772_366_400_000_000_000),
    )
    assert headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKID/20260301/eu-central-1/bedrock/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, "
        "Signature=7005d40a1172e0a858b71fcff541679257c3ed19c311aa389780364ce49d2921"
    )


async def test_every_part_of_a_request_is_signed() -> None:
    by = signer()
    later = clock()
    later.move(1)
    variants = [
        await signed(by),
        await signed(by, path="/model/a%3A0/converse"),
        await signed(by, path="/model/a%253A0/converse"),
        await signed(by, body=b"{}"),
        await signed(by, host="other.amazonaws.com"),
        await signed(by, content_type="application/json"),
        await signed(by, at=later),
    ]
    assert len({headers["authorization"] for headers in variants}) == len(variants)


async def test_a_new_day_has_a_new_key_and_the_old_day_is_not_kept() -> None:
    by, tomorrow = signer(), clock()
    first = await signed(by)
    tomorrow.move(86_400)
    second = await signed(by, at=tomorrow)
    assert "/20150831/" in second["authorization"]
    assert second == await signed(signer(), at=tomorrow)
    assert await signed(by) == first


def test_nothing_that_is_secret_is_told() -> None:
    by = signer(TOKEN)
    assert SECRET not in repr(by)
    said = f"The Canonical String should have been … x-amz-security-token:{TOKEN} … {SECRET}"
    redacted = by.redact(said)
    assert TOKEN not in redacted
    assert SECRET not in redacted
