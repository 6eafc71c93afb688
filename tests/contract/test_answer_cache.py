"""What every adapter of ports.AnswerCache does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.core.kept import KeptAnswer
from tidegate.fakes import FixedClock
from tidegate.ports import AnswerCache
from tidegate.stores.memory import ENTRY_BYTES, MemoryAnswers

MAX_BYTES = 64 << 10
Make = Callable[[FixedClock], AnswerCache]


def in_memory(clock: FixedClock) -> AnswerCache:
    return MemoryAnswers(max_bytes=MAX_BYTES, clock=clock)


@pytest.fixture(params=[in_memory], ids=["memory"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


def kept(body: bytes = b"{}", prompt: str | None = None, digest: str | None = None) -> KeptAnswer:
    return KeptAnswer(body=body, streamed=False, kept_ns=1, prompt=prompt, digest=digest)


async def test_what_is_kept_is_there_until_its_time_is_up(make: Make) -> None:
    clock = FixedClock()
    answers = make(clock)
    assert await answers.get(b"a") is None
    await answers.put(b"a", kept(b"1"), 10)
    await answers.put(b"a", kept(b"2"), 10)
    clock.move(9.9)
    assert await answers.get(b"a") == kept(b"2")
    clock.move(0.1)
    assert await answers.get(b"a") is None


async def test_time_that_steps_back_keeps_nothing_longer(make: Make) -> None:
    clock = FixedClock()
    answers = make(clock)
    await answers.put(b"a", kept(), 10)
    clock.unix_ns -= 10**15
    clock.seconds += 10
    assert await answers.get(b"a") is None


async def test_the_largest_is_kept_and_a_larger_one_is_not(make: Make) -> None:
    answers = make(FixedClock())
    await answers.put(b"a", kept(b"x" * (answers.largest - ENTRY_BYTES)), 10)
    await answers.put(b"b", kept(b"x" * (answers.largest + 1)), 10)
    assert await answers.get(b"a") is not None
    assert await answers.get(b"b") is None


async def test_a_purge_takes_what_it_names(make: Make) -> None:
    answers = make(FixedClock())
    entries = {b"1": ("p", "d1"), b"2": ("p", "d2"), b"3": ("q", "d1"), b"4": (None, None)}
    for key, (prompt, digest) in entries.items():
        await answers.put(key, kept(prompt=prompt, digest=digest), 10)
    assert await answers.purge("p", "d1") == 1
    assert [await answers.get(key) is not None for key in entries] == [False, True, True, True]
    assert await answers.purge("p") == 1
    assert await answers.purge() == 2
    assert [await answers.get(key) for key in entries] == [None] * 4


async def test_one_that_is_too_large_takes_the_place_of_an_older_one_all_the_same(make: Make) -> None:
    """Who asked anew has the new answer: the next one must not get the old one again."""
    answers = make(FixedClock())
    await answers.put(b"a", kept(b"old"), 10)
    await answers.put(b"a", kept(b"x" * (answers.largest + 1)), 10)
    assert await answers.get(b"a") is None


@given(st.lists(st.tuples(st.sampled_from("pgd"), st.integers(0, 20), st.integers(0, 9_000)), max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_its_room_is_bounded_whatever_happens(make: Make, steps: list[tuple[str, int, int]]) -> None:
    """Nothing that was not put comes out, and what it says it holds is what it holds."""
    clock = FixedClock()
    answers = make(clock)
    put: dict[bytes, KeptAnswer] = {}
    for what, number, size in steps:
        key = b"%d" % number
        if what == "p":
            put[key] = kept(b"x" * size)
            await answers.put(key, put[key], 1 + number)
        elif what == "g":
            assert await answers.get(key) in (None, put.get(key))
        else:
            clock.move(size / 3_000)
        if isinstance(answers, MemoryAnswers):
            assert answers.bytes <= MAX_BYTES
    await answers.purge()
    if isinstance(answers, MemoryAnswers):
        assert (answers.bytes, len(answers)) == (0, 0)
