"""A node with calls, and a browser, for all tests of the run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from browser.chromium import Browser, binaries
from browser.stage import ADMIN_KEY, Stage


class Running:
    """A stage in a loop of its own, beside the browser's blocking calls."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    binaries()
    stage = Stage(tmp_path_factory.mktemp("pages"))
    running = Running(stage)
    try:
        running.do(stage.__aenter__())
        try:
            running.do(stage.play())
            yield running
        finally:
            running.do(stage.__aexit__())
    finally:
        running.end()


@pytest.fixture(scope="session")
def window(running: Running) -> Iterator[Browser]:
    with Browser(running.stage.url, ADMIN_KEY) as browser:
        yield browser


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """Somebody logged in, at a desk, by day. Nothing may have been complained of when the test is over."""
    window.look()
    window.log_in()
    window.run("localStorage.clear()")
    window.complaints()
    yield window
    assert window.complaints() == []
