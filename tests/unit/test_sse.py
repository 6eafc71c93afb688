"""Server-sent events from bytes cut anywhere."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.errors import UpstreamProtocol
from tidegate.dialects import sse
from tidegate.dialects.sse import EventSplitter, data_of

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


@given(places=st.lists(st.integers(0, 8)))
def test_a_byte_order_mark_is_not_part_of_the_first_event(places: list[int]) -> None:
    assert datas(cut(b"\xef\xbb\xbfdata: x\n\n", places)) == [b"x"]


def test_what_only_begins_like_a_byte_order_mark_is_no_such() -> None:
    assert EventSplitter().feed(b"\xef\xbb\n\n") == [b"\xef\xbb"]
    assert EventSplitter().feed(b"") == []


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r", b"\r\n\n"])
def test_an_event_is_handed_out_with_the_byte_that_ends_it(end: bytes) -> None:
    """Nobody waits for what may still belong to its last line end."""
    splitter = EventSplitter()
    for _ in range(2):
        for byte in b"data: x" + end[:-1]:
            assert splitter.feed(bytes([byte])) == []
        assert splitter.feed(end[-1:]) == [b"data: x"]


@pytest.mark.parametrize("pieces", [1, 100])
def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 4 << 20)
    splitter, piece = EventSplitter(), b"x" * (sse.MAX_EVENT_BYTES // pieces)
    for _ in range(pieces):
        splitter.feed(piece)
    with pytest.raises(UpstreamProtocol, match="more than 4 MiB"):
        splitter.feed(piece)


def test_a_large_event_in_small_pieces_is_read_once() -> None:
    """Looking through all of it for every piece would take hours of CPU for one of 40 MB."""
    piece = b"x" * 1_000
    splitter = EventSplitter()
    began = time.process_time()
    for _ in range(40_000):
        assert splitter.feed(piece) == []
    [event] = splitter.feed(b"\n\n")
    assert len(event) == 40_000_000
    assert time.process_time() - began < 2


def test_what_is_incomplete_stays_in_the_rest() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n\ndata: b") == [b"data: a"]
    assert splitter.rest == b"data: b"
