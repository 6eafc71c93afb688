"""The key of a kept answer: the same for what asks the same, and different for everything else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from tidegate.core.kept import NOT_SHAPING, answer_key, keyed_hash

SECRET = b"s" * 32
SCOPE = ("default", "support", None)
NAMES = st.text(min_size=1, max_size=8) | st.sampled_from(["messages", "input", "temperature", "tools", "store"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(NAMES.filter(lambda name: name not in NOT_SHAPING), VALUES, min_size=1, max_size=5)


def raw(body: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}


def key(fields: dict[str, msgspec.Raw], *, scope: tuple[object, ...] = SCOPE, secret: bytes = SECRET) -> bytes:
    return answer_key(keyed_hash(secret), scope, fields)


@given(BODIES, BODIES)
def test_another_request_has_another_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    assume(raw(one) != raw(other))
    assert key(raw(one)) != key(raw(other))


@given(BODIES, st.data())
def test_every_byte_of_every_value_counts(body: dict[str, Any], data: st.DataObject) -> None:
    """Also spaces, and how a letter is written: a provider goes by bytes, and so may its model."""
    fields = raw(body)
    name = data.draw(st.sampled_from(sorted(fields)))
    value = bytes(fields[name])
    at = data.draw(st.integers(0, len(value) - 1))
    flipped = value[:at] + bytes([value[at] ^ data.draw(st.integers(1, 255))]) + value[at + 1 :]
    assert key({**fields, name: msgspec.Raw(flipped)}) != key(fields)
    assert key({**fields, name: msgspec.Raw(value + b" ")}) != key(fields)


@given(BODIES, st.data())
def test_a_key_more_or_less_counts(body: dict[str, Any], data: st.DataObject) -> None:
    fields = raw(body)
    name = data.draw(st.sampled_from(sorted(fields)))
    fewer = {other: value for other, value in fields.items() if other != name}
    assert key(fewer) != key(fields)


@given(BODIES, st.randoms(use_true_random=False), st.dictionaries(st.sampled_from(sorted(NOT_SHAPING)), VALUES))
def test_order_and_what_does_not_shape_an_answer_do_not_count(
    body: dict[str, Any], random: Any, more: dict[str, Any]
) -> None:
    fields = list({**raw(body), **raw(more)}.items())
    random.shuffle(fields)
    assert key(dict(fields)) == key(raw(body))


@given(BODIES, st.lists(st.none() | st.text(max_size=4), min_size=1, max_size=4))
def test_another_scope_or_secret_has_another_key(body: dict[str, Any], scope: list[Any]) -> None:
    fields = raw(body)
    assume(tuple(scope) != SCOPE)
    assert key(fields, scope=tuple(scope)) != key(fields)
    assert key(fields, secret=b"t" * 32) != key(fields)


def test_what_stands_in_a_value_can_not_pass_for_a_key() -> None:
    """Values are JSON, so they end where they end."""
    one = {"a": msgspec.Raw(b'"x"'), "b": msgspec.Raw(b'"y"')}
    other = {"a": msgspec.Raw(b'"x\\",\\"b\\":\\"y"')}
    assert key(one) != key(other)
    assert key({"a": msgspec.Raw(b"1")}, scope=("p", "q")) != key({"a": msgspec.Raw(b"1")}, scope=("p,q",))
