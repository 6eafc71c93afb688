"""What is sent in one turn of the loop leaves together, at its end."""

from __future__ import annotations

import asyncio

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
