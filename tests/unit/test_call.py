"""What the headers of a call say of it, each by itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tidegate.core.errors import InvalidRequest
from tidegate.gateway.cache_control import CacheControl
from tidegate.gateway.call import DESCRIBING, Call, described

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAID: dict[str, tuple[str, dict[str, Any]]] = {
    "cache-control": ("no-store", {"cache": CacheControl(write=False)}),
    "traceparent": (f"00-{TRACE}-b7ad6b7169203331-01", {"trace_id": TRACE}),
    "x-request-id": ("req-1", {"request_id": "req-1"}),
    "x-tidegate-cache": ("max-age=60", {"cache": CacheControl(max_age_s=60)}),
    "x-tidegate-conversation": ("conv-1", {"conversation_id": "conv-1"}),
    "x-tidegate-origin": ("eval", {"origin": "eval"}),
    "x-tidegate-service": ("shop", {"service": "shop"}),
    "x-tidegate-tags": ("team=support", {"tags": {"team": "support"}}),
    "x-tidegate-user": ("ada@example.com", {"user_id": "ada@example.com"}),
}


@pytest.mark.parametrize("name", sorted(DESCRIBING | SAID.keys()))
def test_each_header_is_heard_also_alone(name: str) -> None:
    value, expected = SAID[name]
    call = Call(b"{}", headers={"content-type": "application/json", name: value})
    assert described(call) == msgspec.structs.replace(call, **expected)


@pytest.mark.parametrize("name", ["traceparent", "x-request-id", "x-tidegate-service", "x-tidegate-user"])
@pytest.mark.parametrize("value", ["", "two words", "a\tb", "x" * 129])
def test_what_is_no_plain_name_is_left_out(name: str, value: str) -> None:
    call = Call(b"{}", headers={name: value})
    assert described(call) == call


@pytest.mark.parametrize(("name", "value"), [("x-tidegate-tags", "none"), ("x-tidegate-cache", "maybe")])
def test_a_wrong_one_is_said_later_and_the_others_are_heard(name: str, value: str) -> None:
    call = described(Call(b"{}", headers={name: value, "x-tidegate-user": "ada"}))
    assert (type(call.wrong), call.user_id) == (InvalidRequest, "ada")
