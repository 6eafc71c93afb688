"""Server-sent events from bytes cut anywhere."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.errors import UpstreamProtocol
from tidegate.dialects.sse import MAX_EVENT_BYTES, EventSplitter, data_of

STREAM = 'data: {"a":"é"}\n\n: ping\n\nevent: x\ndata: one\ndata: two\n\ndata:tight\n\n\n\ndata: [DONE]\n\n'.encode()
EXPECTED = [b'{"a":"\xc3\xa9"}', None, b"one\ntwo", b"tight", b"[DONE]"]


def datas(chunks: list[bytes]) -> list[bytes | None]:
    splitter = EventSplitter()
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    assert splitter.rest == b""
    return [data_of(event) for event in events]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@given(places=st.lists(st.integers(0, 200)))
def test_any_cut_and_any_line_end_give_the_same_events(line_end: bytes, places: list[int]) -> None:
    stream = STREAM.replace(b"\n", line_end)
    assert datas([*cut(stream, places), b"\n" if line_end == b"\r" else b""]) == EXPECTED


def test_one_byte_at_a_time() -> None:
    assert datas([bytes([byte]) for byte in STREAM]) == EXPECTED


def test_a_byte_order_mark_is_not_part_of_the_first_event() -> None:
    assert datas([b"\xef\xbb\xbfdata: x\n\n"]) == [b"x"]


def test_an_endless_event_is_refused() -> None:
    splitter = EventSplitter()
    with pytest.raises(UpstreamProtocol, match="more than 4 MiB"):
        splitter.feed(b"data: " + b"x" * (MAX_EVENT_BYTES + 1))


def test_what_is_incomplete_stays_in_the_rest() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n\ndata: b") == [b"data: a"]
    assert splitter.rest == b"data: b"
