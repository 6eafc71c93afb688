"""The port Reply as HTTP answers it, over real sockets: framing, order, departure, back-pressure, failure, the end."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.contract.edge.client import CHUNKED, PLAIN, POST, TEXT, Client, Pieces, echo, error_of, eventually, serving
from tidegate.gateway.edge import Edge, HttpReply, Request

# --- answers ------------------------------------------------------------------------------------------------------


async def test_a_whole_answer_has_its_length_a_date_and_the_handlers_headers() -> None:
    async with serving() as port, Client(port) as client:
        client.send(POST + b"Content-Length: 5\r\n\r\nhello")
        status, headers, body = await client.answer()
        assert (status, body) == (200, b"POST /  5 hello")
        assert headers["content-type"] == "text/plain"
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", headers["date"])


async def test_target_headers_and_peer_reach_the_handler_as_sent() -> None:
    seen: list[Request] = []

    async def keep(request: Request, reply: HttpReply) -> None:
        seen.append(request)
        await echo(request, reply)

    async with serving(keep) as port, Client(port) as client:
        client.send(b"GET /a%2Fb?x=1&y=? HTTP/1.1\r\nHOST: a\r\nX-Two: 1\r\nx-two: 2 \t\r\nX-Empty:\r\n\r\n")
        await client.answer()
        client.send(b"GET http://elsewhere.example/p?q HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.answer()
        client.send(b"GET http://elsewhere.example?q=/x HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.answer()
    assert (seen[0].path, seen[0].query, seen[0].peer) == ("/a%2Fb", "x=1&y=?", "127.0.0.1")
    assert seen[0].headers == {"host": "a", "x-two": "1, 2", "x-empty": ""}
    assert (seen[1].path, seen[1].query) == ("/p", "q")
    assert (seen[2].path, seen[2].query) == ("/", "q=/x")


async def test_a_stream_arrives_piece_by_piece_and_ends_cleanly() -> None:
    pieces = Pieces()
    async with serving(pieces) as port, Client(port) as client:
        client.send(PLAIN)
        await client.until(b"\r\n\r\n")  # the head does not wait for the first piece
        for text in (b"one", b"two"):
            pieces.queue.put_nowait(text)
            assert await client.until(text + b"\r\n") == b"3\r\n" + text + b"\r\n"
        pieces.queue.put_nowait(None)
        assert await client.until(b"0\r\n\r\n")
        pieces.queue.put_nowait(None)
        client.send(PLAIN)  # the connection is kept
        assert (await client.answer())[0] == 200


async def test_the_tail_and_the_end_of_a_stream_are_one_write() -> None:
    async def tail(request: Request, reply: HttpReply) -> None:
        await reply.start(200, TEXT, streamed=True)
        await reply.send(b"")  # an empty chunk would end the body
        await reply.send(b"head")
        await reply.end(b"tail")

    async with serving(tail) as port, Client(port) as client:
        client.send(PLAIN)
        assert (await client.answer())[2] == b"headtail"


async def test_head_gets_the_headers_without_the_body() -> None:
    async def stream(request: Request, reply: HttpReply) -> None:
        await reply.start(200, TEXT, streamed=True)
        await reply.send(b"x")
        await reply.end(b"y")

    async with serving() as port, Client(port) as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"content-length: 10\r\n" in await client.until(b"\r\n\r\n")
        client.send(PLAIN)
        assert (await client.answer())[0] == 200
    async with serving(stream) as port, Client(port) as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await client.rest()).endswith(b"\r\n\r\n")


async def test_no_content_has_neither_length_nor_chunks() -> None:
    async def empty(request: Request, reply: HttpReply) -> None:
        await reply.start(204, (), streamed=False)
        await reply.end(b"nobody sees this")

    async with serving(empty) as port, Client(port) as client:
        client.send(PLAIN + PLAIN)
        for _ in range(2):
            head = await client.until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 204 No Content\r\n")
            assert b"content-length" not in head
            assert b"chunked" not in head


async def test_http_1_0_gets_no_chunks_and_keeps_alive_only_when_it_asks() -> None:
    async def stream(request: Request, reply: HttpReply) -> None:
        await reply.start(200, TEXT, streamed=True)
        await reply.end(b"all of it")

    async with serving(stream) as port, Client(port) as client:
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = await client.rest()
        assert answer.endswith(b"connection: close\r\n\r\nall of it")
    async with serving() as port, Client(port) as client:
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.answer())[1]["connection"] == "keep-alive"
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer())[1]["connection"] == "close"
        assert await client.rest() == b""


async def test_connection_close_is_honoured_and_bytes_after_it_are_nobodys() -> None:
    async with serving() as port, Client(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + PLAIN)
        assert (await client.answer())[1]["connection"] == "close"
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "headers",
    [
        (("x", "a\r\nset-cookie: b"),),
        (("x", "a\nb"),),
        (("x", "a\0b"),),
        (("x\r\ny", "z"),),
        (("x", "späß→"),),
        (("Content-Length", "3"),),
        (("transfer-encoding", "chunked"),),
    ],
)
async def test_a_header_that_could_split_or_contradict_the_head_is_refused(headers: tuple[tuple[str, str]]) -> None:
    refused: list[ValueError] = []

    async def handler(request: Request, reply: HttpReply) -> None:
        try:
            await reply.start(200, headers, streamed=True)
        except ValueError as error:
            refused.append(error)
        await reply.start(200, TEXT, streamed=False)
        await reply.end(b"fine")

    async with serving(handler) as port, Client(port) as client:
        client.send(PLAIN)
        assert (await client.answer())[2] == b"fine"
    assert len(refused) == 1


async def test_any_name_and_value_that_http_allows_goes_out_as_it_is() -> None:
    odd = (("x-%s", "100 %"), ("X-Many", "a"), ("x-many", "b: %d"), ("x-empty", ""), ("x-latin", "é"))

    async def handler(request: Request, reply: HttpReply) -> None:
        await reply.start(299, odd, streamed=False)
        await reply.end()

    async with serving(handler) as port, Client(port) as client:
        client.send(PLAIN)
        status, headers, _ = await client.answer()
        assert status == 299
        said = {name: headers[name] for name in ("x-%s", "x-many", "x-empty", "x-latin")}
        assert said == {"x-%s": "100 %", "x-many": "b: %d", "x-empty": "", "x-latin": "é"}


async def test_an_offer_to_upgrade_is_ignored_and_its_body_read() -> None:
    """Java's HTTP client offers h2c with its first request."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    async with serving() as port, Client(port) as client:
        client.send(b"POST /x?y HTTP/1.1\r\nHost: a\r\n" + offer + b"Content-Length: 3\r\n\r\na")
        client.send(b"bc" + PLAIN)
        assert (await client.answer())[2] == b"POST /x y 3 abc"
        assert (await client.answer())[2] == b"GET /  0 "
        client.send(CHUNKED[:-2] + offer + b"\r\n2\r\nhi\r\n0\r\n\r\n")
        assert (await client.answer())[2] == b"POST /  2 hi"
        client.send(PLAIN[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await client.answer())[2] == b"GET /  0 "


async def test_expect_100_continue_is_answered_before_the_body() -> None:
    async with serving() as port, Client(port) as client:
        client.send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc")
        assert (await client.answer())[2] == b"POST /  3 abc"
        client.send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
        assert (await client.answer())[0] == 200  # the body was there: nothing to ask for
        client.send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\na")
        await asyncio.sleep(0.02)
        client.send(b"bc")
        assert (await client.answer())[0] == 200  # it had begun


async def test_a_body_too_large_is_refused_instead_of_continued() -> None:
    async with serving(max_body_bytes=10) as port, Client(port) as client:
        client.send(POST + b"Content-Length: 11\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.answer())[0] == 413


# --- order --------------------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    running = most = 0

    async def slow_first(request: Request, reply: HttpReply) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert len(reply._wire._parser.ready) < 300  # type: ignore[attr-defined]
        await asyncio.sleep(0.05 if request.path == "/0" else 0)
        await echo(request, reply)
        running -= 1

    async with serving(slow_first) as port, Client(port) as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(2000)))
        for number in range(2000):
            assert (await client.answer())[2] == b"GET /%d  0 " % number
    assert most == 1


async def test_a_request_may_arrive_byte_by_byte() -> None:
    async with serving() as port, Client(port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in (
            CHUNKED.replace(b"POST /", b"POST /path?query") + b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nTrailer: 1\r\n\r\n"
        ):
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.answer())[2] == b"POST /path query 5 abcde"


async def test_input_behind_a_running_request_is_bounded() -> None:
    pieces = Pieces()
    async with serving(pieces) as port, Client(port) as client:
        client.send(PLAIN)
        await pieces.running.wait()
        client.send(bytes(64 << 20))
        await asyncio.sleep(0.2)
        transport = client._writer.transport
        assert transport.get_write_buffer_size() > 40 << 20  # it is still the client's


async def test_a_large_request_behind_a_running_one_is_served_after_it() -> None:
    async def slow_get(request: Request, reply: HttpReply) -> None:
        await asyncio.sleep(0.05 if request.method == "GET" else 0)
        await echo(request, reply)

    async with serving(slow_get) as port, Client(port) as client:
        client.send(PLAIN)
        await asyncio.sleep(0.02)
        client.send(POST + b"Content-Length: 1000000\r\n\r\n" + bytes(1_000_000) + PLAIN)
        assert [(await client.answer())[2][:14] for _ in range(3)] == [b"GET /  0 ", b"POST /  100000", b"GET /  0 "]


# --- departure ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_departure_cancels_the_handler_at_once(how: str) -> None:
    pieces = Pieces()
    async with serving(pieces) as port, Client(port) as client:
        client.send(PLAIN)
        await pieces.running.wait()
        if how == "close":
            client._writer.close()
        elif how == "reset":
            client._writer.transport.abort()
        else:
            client.half_close()
        assert await eventually(lambda: pieces.ended is not None) < 0.25
        assert isinstance(pieces.ended, asyncio.CancelledError)
        assert pieces.ended.args == ("the client has left",)
        await eventually(lambda: pieces.cleaned_up)  # the clean-up itself is not cancelled again


async def test_departure_cancels_a_handler_that_has_not_answered_yet() -> None:
    ended: list[BaseException] = []
    running = asyncio.Event()

    async def wait(request: Request, reply: HttpReply) -> None:
        running.set()
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            ended.append(error)
            raise

    async with serving(wait) as port, Client(port) as client:
        client.send(POST + b"Content-Length: 3\r\n\r\nabc")
        await running.wait()
        client._writer.close()
        assert await eventually(lambda: bool(ended)) < 0.25
    assert isinstance(ended[0], asyncio.CancelledError)


async def test_departure_in_the_middle_of_a_request_reaches_no_handler() -> None:
    async def never(request: Request, reply: HttpReply) -> None:
        raise AssertionError("a half request was handled")

    edge = Edge(never)
    port = await edge.start()
    async with Client(port) as client:
        client.send(POST + b"Content-Length: 3\r\n\r\nab")
        await eventually(lambda: edge.connections == 1)
        client.half_close()
        assert await client.rest() == b""
    await eventually(lambda: edge.connections == 0)
    await edge.close(0)


# --- back-pressure ------------------------------------------------------------------------------------------------


async def test_a_reader_that_never_reads_holds_a_bounded_buffer() -> None:
    """256 KiB and the chunk that went over them, beyond what the kernel takes."""
    chunk = bytes(64 << 10)
    sent = 0
    replies: list[HttpReply] = []

    async def flood(request: Request, reply: HttpReply) -> None:
        nonlocal sent
        replies.append(reply)
        await reply.start(200, TEXT, streamed=True)
        for _ in range(1000):
            await reply.send(chunk)
            sent += 1

    async with serving(flood) as port, Client(port) as client:
        client._writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(PLAIN)
        await eventually(lambda: sent > 0)
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 1000
        wire = replies[0]._wire
        assert wire._transport.get_write_buffer_size() <= (256 << 10) + len(chunk) + 16  # type: ignore[attr-defined]
        client._writer.transport.resume_reading()  # type: ignore[attr-defined]
        await eventually(lambda: sent > before)


async def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    pieces = Pieces()
    async with serving(pieces, stall_s=0.2) as port, Client(port) as client:
        client._writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(PLAIN)
        for _ in range(200):
            pieces.queue.put_nowait(bytes(64 << 10))
        await eventually(lambda: pieces.ended is not None)
        assert isinstance(pieces.ended, asyncio.CancelledError)


async def test_a_reader_that_catches_up_may_go_on_as_slowly_as_it_likes() -> None:
    pieces = Pieces()
    async with serving(pieces, stall_s=0.1) as port, Client(port) as client:
        client._writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(PLAIN)
        for _ in range(100):
            pieces.queue.put_nowait(bytes(64 << 10))
        await asyncio.sleep(0.05)
        client._writer.transport.resume_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)
        pieces.queue.put_nowait(b"the end")
        pieces.queue.put_nowait(None)
        assert (await client.answer())[2].endswith(b"the end")


async def test_a_reader_that_takes_a_little_at_a_time_is_not_cut_off() -> None:
    size = 8 << 20

    async def large(request: Request, reply: HttpReply) -> None:
        await reply.start(200, TEXT, streamed=False)
        await reply.end(bytes(size))

    async with serving(large, stall_s=0.4) as port:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
            await asyncio.get_running_loop().run_in_executor(None, slow.connect, ("127.0.0.1", port))
            slow.setblocking(False)
            loop, got, began = asyncio.get_running_loop(), 0, time.monotonic()
            await loop.sock_sendall(slow, PLAIN)
            async with asyncio.timeout(20):
                while got < size:
                    part = await loop.sock_recv(slow, 32 << 10)
                    assert part, "cut off"
                    got += len(part)
                    await asyncio.sleep(0.003)
            assert time.monotonic() - began > 0.8


async def test_answers_to_pipelined_requests_wait_for_a_slow_reader() -> None:
    handled = 0

    async def large(request: Request, reply: HttpReply) -> None:
        nonlocal handled
        handled += 1
        await reply.start(200, TEXT, streamed=False)
        await reply.end(bytes(1 << 20))

    async with serving(large) as port, Client(port) as client:
        client._writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(PLAIN * 100)
        await eventually(lambda: handled > 0)
        await asyncio.sleep(0.2)
        assert handled < 20
        client._writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(100):
            assert len((await client.answer())[2]) == 1 << 20


# --- handlers that fail -------------------------------------------------------------------------------------------


async def fail_before(request: Request, reply: HttpReply) -> None:
    raise KeyError(request.headers["authorization"])


async def fail_held_back(request: Request, reply: HttpReply) -> None:
    await reply.start(200, TEXT, streamed=False)
    await reply.send(b"half")
    raise KeyError(request.headers["authorization"])


async def forget(request: Request, reply: HttpReply) -> None:
    await reply.start(200, TEXT, streamed=False)


@pytest.mark.parametrize("handler", [fail_before, fail_held_back, forget])
async def test_a_failing_handler_is_a_500_and_one_line_without_content(
    handler: Callable[[Request, HttpReply], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(handler) as port, Client(port) as client:
        with caplog.at_level(logging.DEBUG):
            client.send(PLAIN[:-2] + b"Authorization: secret\r\n\r\n")
            status, _, body = await client.answer()
        assert status == 500
        assert error_of(body)["code"] == "internal_server_error"
        assert b"secret" not in body
    ours = [record for record in caplog.records if record.name == "tidegate.edge"]
    assert len(ours) == 1
    assert "secret" not in ours[0].getMessage()


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_a_stream_that_fails_never_ends_cleanly(version: bytes) -> None:
    go = asyncio.Event()

    async def fail_later(request: Request, reply: HttpReply) -> None:
        await reply.start(200, TEXT, streamed=True)
        await reply.send(b"half an answer")
        await go.wait()
        raise RuntimeError

    async with serving(fail_later) as port, Client(port) as client:
        client.send(PLAIN.replace(b"HTTP/1.1", version))
        await client.until(b"half an answer")
        go.set()
        with pytest.raises(ConnectionResetError):
            await client._reader.read()


async def test_a_reply_takes_its_steps_in_order() -> None:
    async def confused(request: Request, reply: HttpReply) -> None:
        states = [reply.started]
        with pytest.raises(RuntimeError, match="after start"):
            await reply.end()
        await reply.start(200, TEXT, streamed=False)
        assert [*states, reply.started] == [False, True]
        with pytest.raises(RuntimeError, match="twice"):
            await reply.start(200, TEXT, streamed=False)
        await reply.end(b"ok")
        with pytest.raises(RuntimeError, match="once"):
            await reply.end()

    async with serving(confused) as port, Client(port) as client:
        client.send(PLAIN)
        assert (await client.answer())[2] == b"ok"


# --- the end ------------------------------------------------------------------------------------------------------


async def test_closing_lets_running_handlers_finish_and_takes_nothing_new() -> None:
    pieces = Pieces()
    edge = Edge(pieces)
    port = await edge.start()
    async with Client(port) as busy, Client(port) as idle, Client(port) as partial:
        busy.send(PLAIN)
        partial.send(POST)
        await pieces.running.wait()
        await eventually(lambda: edge.connections == 3)
        closing = asyncio.create_task(edge.close(5))
        assert await idle.rest() == b""
        assert (await partial.answer())[0] == 503
        partial.half_close()
        with pytest.raises(ConnectionRefusedError):
            await Client(port).__aenter__()
        pieces.queue.put_nowait(b"last words")
        pieces.queue.put_nowait(None)
        assert (await busy.answer())[2] == b"last words"
        assert await busy.rest() == b""
        await closing
    assert pieces.ended is None


async def test_closing_cancels_what_outlives_its_grace() -> None:
    async def polite(request: Request, reply: HttpReply) -> None:
        await reply.start(200, TEXT, streamed=True)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as stop:
            await reply.end(str(stop).encode())
            raise

    async def silent(request: Request, reply: HttpReply) -> None:
        await asyncio.sleep(60)

    for handler, status, words in ((polite, 200, b"the server is closing"), (silent, 503, b"shutting down")):
        edge = Edge(handler)
        port = await edge.start()
        async with Client(port) as client:
            client.send(PLAIN)
            await eventually(lambda edge=edge: edge.running == 1)  # type: ignore[misc]
            began = time.monotonic()
            closing = asyncio.create_task(edge.close(0.1))
            got, _, body = await client.answer()
            assert (got, words in body) == (status, True)
            await closing
            assert time.monotonic() - began < 2
        assert (edge.connections, edge.running) == (0, 0)


async def test_a_taken_port_is_an_os_error() -> None:
    async with serving() as port:
        with pytest.raises(OSError, match="in use"):
            await Edge(echo).start("127.0.0.1", port)


async def test_small_writes_are_not_delayed() -> None:
    """TCP_NODELAY is on for every accepted connection."""
    seen: list[int] = []

    async def look(request: Request, reply: HttpReply) -> None:
        wire_socket = reply._wire._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        with socket.socket(fileno=socket.dup(wire_socket.fileno())) as twin:
            seen.append(twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        await echo(request, reply)

    async with serving(look) as port, Client(port) as client:
        client.send(PLAIN)
        await client.answer()
    assert seen == [1]
