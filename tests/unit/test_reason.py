"""Why a provider refused: found in every dialect's error body, and never the cause of another failure."""

from __future__ import annotations

import pytest

from tidegate.dialects.reason import MAX_CHARS, reason


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"error": {"message": "bad schema", "type": "invalid_request_error", "code": null}}', "bad schema"),
        (b'{"type": "error", "error": {"type": "not_found_error", "message": "model: x"}}', "model: x"),
        (b'{"error": {"code": 400, "message": "Bad\\n  field", "status": "INVALID_ARGUMENT"}}', "Bad field"),
        (b'{"error": "model not loaded"}', "model not loaded"),
        (b'{"object": "error", "message": "too long"}', "too long"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"error": {"message": "' + b"x" * 9_000 + b'"}}', "x" * MAX_CHARS),
    ],
)
def test_a_reason_is_one_line(body: bytes, found: str) -> None:
    assert reason(body) == found


SMALL = [
    b"",
    b"<html>",
    b"[]",
    b"null",
    b"{}",
    b'{"error": null}',
    b'{"error": {"message": 3}}',
    b'{"message": "\xff"}',
]
DEEP = [b"[" * 60_000, b'{"error":' * 6_000, b'{"x":' + b"[" * 60_000]


@pytest.mark.parametrize("body", [*SMALL, *DEEP], ids=lambda body: repr(body[:30]))
def test_what_gives_none_is_no_failure(body: bytes) -> None:
    assert reason(body) == ""
