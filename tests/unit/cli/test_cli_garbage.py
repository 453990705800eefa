"""The collector stops the world, and so it looks where nobody waits, and never at what calls cannot leave behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from offhook.cli import garbage
from offhook.cli.garbage import FREEZE_AFTER, IDLE_GROWTH, IDLE_LOOKS, MOST_GROWTH, Collector


class Memory:
    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self) -> int:
        return self.bytes


class Node:
    """Something that holds itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """The generations that were collected."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def collector(memory: Memory, collections: list[int]) -> Collector:
    """What is frozen by it stays so: without a look at all that the run has imported, these tests are quick."""
    made = Collector(memory)
    collections.clear()
    return made


def objects(count: int) -> list[list[int]]:
    return [[] for _ in range(count)]


def circle() -> weakref.ref[Node]:
    return weakref.ref(Node())


def test_while_calls_come_and_go_nothing_is_looked_at(collector: Collector, collections: list[int]) -> None:
    assert gc.get_freeze_count() > 1000
    up: list[list[list[int]]] = []
    for _ in range(300):  # with 20 up at a time
        up.append(objects(1000))
        del up[:-20]
        collector.look(len(up))
    assert collections == []


def test_the_interpreters_own_setting_would_have_stopped_the_world(collections: list[int]) -> None:
    gc.collect()
    gc.freeze()
    collections.clear()
    kept = objects(600_000)
    assert 2 in collections
    del kept


def test_calls_that_stay_go_out_of_sight_before_they_are_too_many(
    collector: Collector, collections: list[int]
) -> None:
    frozen = gc.get_freeze_count()
    kept = []
    for calls in range(20):
        kept.append(objects(FREEZE_AFTER + 1_000))
        collector.look(calls + 1)
    assert collections == []
    assert gc.get_freeze_count() > frozen + 20 * FREEZE_AFTER


def test_a_burst_between_two_looks_is_bounded(collector: Collector, collections: list[int]) -> None:
    kept = objects(garbage.YOUNG + 1_000)
    assert collections == [0]
    del kept


def test_circles_go_when_no_call_has_been_up_for_a_while(
    collector: Collector, collections: list[int]
) -> None:
    left = circle()
    kept = objects(garbage.WORTH_A_LOOK + 100)
    for _ in range(IDLE_LOOKS - 1):
        collector.look(0)
    collector.look(1)
    for _ in range(IDLE_LOOKS - 1):
        collector.look(0)
    assert left() is not None
    collector.look(0)
    assert left() is None
    assert collections == [2]
    for _ in range(IDLE_LOOKS):
        collector.look(0)
    assert collections == [2], "nothing has happened since"
    del kept


def test_circles_that_went_out_of_sight_go_once_the_process_has_grown(
    collector: Collector, memory: Memory, collections: list[int]
) -> None:
    left = circle()
    kept = objects(FREEZE_AFTER + 1_000)
    collector.look(1)
    for _ in range(2 * IDLE_LOOKS):
        collector.look(0)
    assert left() is not None
    memory.bytes = IDLE_GROWTH + 1
    collector.look(1)
    assert left() is not None, "somebody would hear it"
    for _ in range(IDLE_LOOKS):
        collector.look(0)
    assert left() is None
    del kept


def test_a_node_that_is_never_idle_does_not_grow_for_ever(
    collector: Collector, memory: Memory, collections: list[int]
) -> None:
    left = circle()
    kept = objects(FREEZE_AFTER + 1_000)
    collector.look(100)
    memory.bytes = MOST_GROWTH + 1
    collector.look(100)
    assert left() is None
    assert collections == [2]
    collector.look(100)
    assert collections == [2], "what it has now is where growth counts from"
    del kept


async def test_it_looks_again_and_again_whether_calls_are_up(collector: Collector) -> None:
    left = circle()
    kept = objects(garbage.WORTH_A_LOOK + 100)
    task = asyncio.create_task(collector.tend(lambda: 0, every_s=0.0))
    async with asyncio.timeout(15):
        while left() is not None:
            await asyncio.sleep(0)
    task.cancel()
    del kept


def test_the_memory_of_this_process_is_known() -> None:
    before = garbage.resident_bytes()
    kept = bytearray(64 << 20)
    kept[::4096] = b"x" * len(kept[::4096])
    assert garbage.resident_bytes() - before > 48 << 20
