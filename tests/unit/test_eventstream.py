"""AWS's binary frames: whole whatever the cuts, and never taken when a bit of them is wrong."""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.frames import event, frame
from tidegate.core.errors import UpstreamProtocol
from tidegate.dialects.bedrock.eventstream import MAX_FRAME_BYTES, FrameSplitter, parse

PUBLISHED = bytes.fromhex(
    "0000003d0000002007fd83960c636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e7b27666f6f273a27626172277d8d9c08b1"
)
"""A message of AWS's own tests of this encoding: one header, and `{'foo':'bar'}`."""


def whole(headers: bytes, payload: bytes = b"") -> bytes:
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return head + struct.pack(">I", zlib.crc32(head))


def test_a_frame_as_aws_publishes_it() -> None:
    [found] = FrameSplitter().feed(PUBLISHED)
    assert parse(found) == ({"content-type": "application/json"}, b"{'foo':'bar'}")


@given(
    payloads=st.lists(st.binary(max_size=64), max_size=5),
    cuts=st.lists(st.integers(0, 600), max_size=12),
)
def test_frames_are_the_same_for_any_cuts(payloads: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(frame(payload, event_type="x") for payload in payloads)
    places = sorted({0, len(wire), *(min(cut, len(wire)) for cut in cuts)})
    splitter = FrameSplitter()
    found = [one for a, b in pairwise(places) for one in splitter.feed(wire[a:b])]
    assert [parse(one) for one in found] == [({":event-type": "x"}, payload) for payload in payloads]


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_frame_with_a_wrong_bit_is_never_taken(place: int, bit: int) -> None:
    good = event("contentBlockDelta", {"delta": {"text": "Hello"}})
    bad = bytearray(good)
    bad[place % len(good)] ^= 1 << bit
    splitter = FrameSplitter()
    with pytest.raises(UpstreamProtocol, match="damaged"):
        splitter.feed(bytes(bad))


def test_a_frame_that_claims_to_be_huge_is_refused_before_it_comes() -> None:
    prelude = struct.pack(">II", MAX_FRAME_BYTES + 1, 0)
    with pytest.raises(UpstreamProtocol, match="a frame of 4,194,305 bytes"):
        FrameSplitter().feed(prelude + struct.pack(">I", zlib.crc32(prelude)))


@pytest.mark.parametrize(("size", "headers"), [(15, 0), (0, 0), (40, 25), (20, 0xFFFFFFFF)])
def test_lengths_that_can_not_be_are_refused(size: int, headers: int) -> None:
    prelude = struct.pack(">II", size, headers)
    with pytest.raises(UpstreamProtocol, match="a frame of"):
        FrameSplitter().feed(prelude + struct.pack(">I", zlib.crc32(prelude)))


def test_headers_of_every_type_are_passed_over() -> None:
    values = {
        0: b"",
        1: b"",
        2: b"a",
        3: b"ab",
        4: b"abcd",
        5: b"abcdefgh",
        6: b"\x00\x02ab",
        8: b"abcdefgh",
        9: b"x" * 16,
    }
    headers = b"".join(b"\x01h" + bytes([kind]) + value for kind, value in values.items())
    text = b"\x01t\x07\x00\x02\xc3\xa9"
    assert parse(whole(headers + text, b"{}")) == ({"t": "é"}, b"{}")


@pytest.mark.parametrize(
    "headers",
    [b"\x05ab", b"\x01h\x0a", b"\x01h\x07\x00\x09ab", b"\x01h\x07\x00", b"\x01h\x07\x00\x01\xff", b"\x01h\x04ab"],
)
def test_headers_that_can_not_be_read_are_told(headers: bytes) -> None:
    [found] = FrameSplitter().feed(whole(headers))
    with pytest.raises(UpstreamProtocol, match="headers can not be read"):
        parse(found)
