"""What is sent in one turn of the loop leaves together, at its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from tidegate.gateway.connection import Connection as ClientConnection
from tidegate.gateway.connection import Shared
from tidegate.gateway.parser import Limits, Request
from tidegate.gateway.reply import HttpReply, error_body
from tidegate.upstream.connection import Connection as ProviderConnection
from tidegate.upstream.outbox import MOST, Outbox


class Sender:
    """Notes when it was told to send; may have `another` send after it."""

    def __init__(self, name: str, sent: list[str], outbox: Outbox | None = None, another: Sender | None = None) -> None:
        self.name = name
        self.sent = sent
        self.outbox = outbox
        self.another = another

    def send_now(self) -> None:
        self.sent.append(self.name)
        if self.outbox is not None and self.another is not None:
            self.outbox.add(self.another)


async def test_all_of_a_turn_send_at_its_end_in_order() -> None:
    sent: list[str] = []
    outbox = Outbox(asyncio.get_running_loop())
    for name in "abc":
        outbox.add(Sender(name, sent))
    assert sent == []
    await asyncio.sleep(0)
    assert sent == ["a", "b", "c"]


async def test_the_next_turn_has_its_own() -> None:
    sent: list[str] = []
    outbox = Outbox(asyncio.get_running_loop())
    for name in "ab":
        outbox.add(Sender(name, sent))
        await asyncio.sleep(0)
    assert sent == ["a", "b"]


async def test_a_crowd_does_not_wait_for_the_end_of_the_turn() -> None:
    sent: list[str] = []
    outbox = Outbox(asyncio.get_running_loop())
    for number in range(MOST + 1):
        outbox.add(Sender(str(number), sent))
    assert len(sent) == MOST
    await asyncio.sleep(0)
    assert len(sent) == MOST + 1


async def test_who_sends_may_have_another_send_in_the_next_turn() -> None:
    sent: list[str] = []
    outbox = Outbox(asyncio.get_running_loop())
    outbox.add(Sender("a", sent, outbox, Sender("b", sent)))
    await asyncio.sleep(0)
    assert sent == ["a"]
    await asyncio.sleep(0)
    assert sent == ["a", "b"]


class Wire(asyncio.Transport):
    """A transport that notes what happens to it, over a socket that leads nowhere."""

    def __init__(self, socket: socket.socket) -> None:
        super().__init__({"socket": socket, "peername": ("127.0.0.1", 1)})
        self.seen: list[object] = []
        self.closing = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: object) -> None:
        self.seen.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.seen.append("abort")


@pytest.fixture
def wire() -> Iterator[Wire]:
    with socket.socket() as unconnected:
        yield Wire(unconnected)


def client(wire: Wire) -> ClientConnection:
    async def handle(request: Request, reply: HttpReply) -> None:
        """Nobody asks."""

    connection = ClientConnection(Shared(handle, Limits(), 1 << 20, error_body))
    connection.connection_made(wire)
    return connection


async def test_an_answer_leaves_before_its_client_is_let_go_at_the_end_of_input(wire: Wire) -> None:
    connection = client(wire)
    connection.write(b"answer")
    connection.eof_received()
    assert wire.seen == [b"answer"]


async def test_what_was_written_leaves_before_a_reset(wire: Wire) -> None:
    connection = client(wire)
    connection.write(b"half an answer")
    connection.cut(reset=True)
    assert wire.seen == [b"half an answer", "abort"]


async def test_nothing_is_sent_to_a_client_that_is_gone(wire: Wire) -> None:
    connection = client(wire)
    connection.write(b"answer")
    wire.closing = True
    await asyncio.sleep(0)
    assert wire.seen == []


async def test_nothing_is_sent_to_a_provider_that_is_gone(wire: Wire) -> None:
    loop = asyncio.get_running_loop()
    connection = ProviderConnection(loop, Outbox(loop), "provider:80", lambda _: None)
    connection.connection_made(wire)
    connection.send(b"request", head_only=False)
    wire.closing = True
    await asyncio.sleep(0)
    assert wire.seen == []
    connection.close()
    connection.connection_lost(None)
