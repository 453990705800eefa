"""The demo's processes: none may outlive it, however it ends."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from offhook.cli.demo.processes import Process, ended_after

POLITE = "print('up', flush=True); import time; time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + POLITE


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put the signal handlers back that the demo changes for its own process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def started(folder: Path, code: str) -> Process:
    process = Process("child", [sys.executable, "-c", code], folder / f"{time.monotonic_ns()}.log")
    up = asyncio.Event()
    await process.start(on_stdout=lambda line, at: up.set())
    await asyncio.wait_for(up.wait(), 30)
    return process


async def test_what_was_never_started_ends_too(tmp_path: Path) -> None:
    process = Process("child", ["/nonexistent"], tmp_path / "log")
    async with ended_after(process, limit_s=1):
        process.kill()
    assert process.returncode is None


async def test_they_end_when_the_time_is_over(tmp_path: Path) -> None:
    process = await started(tmp_path, POLITE)
    with pytest.raises(TimeoutError):
        async with ended_after(process, limit_s=0.05):
            await asyncio.sleep(60)
    assert process.returncode == -signal.SIGTERM


async def test_a_crash_that_was_wanted_is_no_fault_at_the_end(tmp_path: Path) -> None:
    killed, other = await started(tmp_path, POLITE), await started(tmp_path, POLITE)
    async with ended_after(killed, other, limit_s=10):
        killed.kill()
        assert await killed.wait() == -signal.SIGKILL
    assert other.returncode == -signal.SIGTERM


async def test_a_second_signal_hurries_and_leaves_nothing_behind(tmp_path: Path) -> None:
    processes = [await started(tmp_path, STUBBORN) for _ in range(2)]
    inside = asyncio.Event()

    async def play() -> None:
        async with ended_after(*processes, limit_s=None):
            inside.set()
            await asyncio.sleep(60)

    playing = asyncio.create_task(play())
    await inside.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.2)
    assert [process.returncode for process in processes] == [None, None]
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(playing, 15)
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2
