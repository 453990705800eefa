"""What tests of the whole product share. Nothing here starts unless a test asks for it."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Generator, Iterator

import hypothesis  # noqa: F401 - while it can see who refers to what it registers: not in what is frozen
import pytest
import uvloop

from testbed import DeveloperApp, Node, Phone
from testbed.script import SCRIPT


def pytest_asyncio_loop_factories(config, item):
    """Run tests on the loop that the product runs on: its transports are not asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """
    Keep what lives as long as the run does out of the collector's sight.

    The modules and thousands of tests are some 400,000 objects. While the collector looked at them, whichever test
    happened to run stood still for 0.6 s, and for 1 s on a busy machine.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node for all tests of a run; each test takes a project of its own on it."""
    with Node(tmp_path_factory.mktemp("node"), script=SCRIPT, seats=400, unsubscribed_seats=1) as running:
        yield running


@pytest.fixture
async def app(node: Node) -> AsyncIterator[DeveloperApp]:
    async with DeveloperApp(node) as listening:
        yield listening


@pytest.fixture
async def phone(node: Node) -> AsyncIterator[Phone]:
    async with Phone(node) as ready:
        yield ready
