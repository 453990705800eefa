"""Listeners are told a little in each turn of the loop, and all at once only when too much waits."""

import asyncio

import pytest

from offhook.sip import telling
from offhook.sip.telling import MOST_WAITING, Telling


def read_nothing() -> None:
    return None


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_takes_long_has_a_turn_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "TURN_S", 0.0)
    told: list[int] = []
    queue = Telling(told.append, read_nothing)
    for number in range(3):
        queue.add(number)
    assert told == []
    seen = []
    for _ in range(3):
        await turns(1)
        seen.append(list(told))
    assert seen == [[0], [0, 1], [0, 1, 2]]


async def test_what_is_quick_shares_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "TURN_S", 60.0)
    told: list[int] = []
    queue = Telling(told.append, read_nothing)
    for number in range(3):
        queue.add(number)
    await turns(1)
    assert told == [0, 1, 2]


async def test_too_much_is_told_before_more_is_read() -> None:
    told: list[int] = []
    queue = Telling(told.append, read_nothing)
    for number in range(MOST_WAITING):
        queue.add(number)
    queue.relieve()
    assert told == []
    queue.add(MOST_WAITING)
    queue.relieve()
    assert told == list(range(MOST_WAITING + 1))


async def test_what_comes_while_something_is_told_is_told_after_it() -> None:
    told: list[str] = []

    def tell(word: str) -> None:
        if word == "first":
            queue.add("caused by the first")
            for _ in range(MOST_WAITING + 1):
                queue.add("more")
            queue.relieve()
        told.append(word)

    queue = Telling(tell, read_nothing)
    queue.add("first")
    queue.add("second")
    async with asyncio.timeout(30):
        while len(told) < MOST_WAITING + 4:
            await asyncio.sleep(0)
    assert told[:3] == ["first", "second", "caused by the first"]


async def test_nothing_is_told_after_the_end() -> None:
    told: list[int] = []
    queue = Telling(told.append, read_nothing)
    queue.add(1)
    queue.close()
    queue.add(2)
    await turns(3)
    assert told == []


async def test_what_came_meanwhile_is_read_before_each_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "TURN_S", 60.0)
    done: list[str] = []
    queue = Telling(lambda word: done.append(f"told {word}"), lambda: done.append("read"))
    queue.add("one")
    queue.add("two")
    await turns(1)
    assert done == ["read", "told one", "read", "told two"]


async def test_nothing_is_read_while_too_much_is_being_told() -> None:
    reads: list[None] = []
    queue: Telling[int] = Telling(lambda number: None, lambda: reads.append(None))
    for number in range(MOST_WAITING + 1):
        queue.add(number)
    assert queue.is_full
    queue.relieve()
    assert (reads, queue.is_full) == ([], False)
