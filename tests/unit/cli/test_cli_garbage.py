"""A full collection stops the world, and so waits until nobody is on the phone."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from offhook.cli import garbage


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    """What is frozen stays so: without a look at all that the run has imported, these tests are quick."""
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)


@pytest.fixture
def full_collections() -> Iterator[list[int]]:
    """Counts collections of everything."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            seen.append(1)

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


def middle_collections(count: int) -> None:
    for _ in range(count):
        gc.collect(1)


def churn() -> None:
    """Let objects pile up, as calls do, and the collector run by itself."""
    gc.collect(1)
    kept = [[] for _ in range(600_000)]
    del kept


def test_after_start_nothing_is_looked_at_again(full_collections: list[int]) -> None:
    garbage.settle()
    assert gc.get_freeze_count() > 1000
    del full_collections[:]
    churn()
    assert full_collections == []


def test_the_interpreters_own_setting_would_have_stopped_the_world(full_collections: list[int]) -> None:
    gc.collect()
    gc.freeze()
    del full_collections[:]
    churn()
    assert full_collections


def test_garbage_does_not_wait_for_ever(full_collections: list[int]) -> None:
    garbage.settle()
    del full_collections[:]
    kept = [[] for _ in range(garbage.FULL_AFTER * garbage.MIDDLE_AFTER * 700 * 2)]
    assert 1 <= len(full_collections) <= 2
    del kept


def test_it_is_taken_away_when_no_call_is_up(full_collections: list[int]) -> None:
    garbage.settle()
    middle_collections(1)
    del full_collections[:]
    assert not garbage.collect_if_idle(1)
    assert full_collections == []
    assert garbage.collect_if_idle(0)
    assert full_collections
    assert not garbage.collect_if_idle(0), "nothing has happened since"


async def test_it_looks_again_and_again_whether_calls_are_up(full_collections: list[int]) -> None:
    garbage.settle()
    middle_collections(1)
    del full_collections[:]
    calls = iter([2, 1, 0])
    asked = asyncio.Event()

    def count() -> int:
        left = next(calls, 0)
        if not left:
            asked.set()
        return left

    task = asyncio.create_task(garbage.collect_when_idle(count, every_s=0.0))
    await asyncio.wait_for(asked.wait(), 15)
    task.cancel()
    assert full_collections
