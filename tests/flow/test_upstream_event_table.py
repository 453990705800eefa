"""
Each event of the protocol through an upstream call: what comes down is what was sent, and what goes up too.

But for what is ours to say on a phone call, and that is said here event by event.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from testbed import DeveloperApp, Node, Phone
from testbed.event_table import EventType, read
from testbed.protocol import Strictness, validate
from testbed.rtp import Rtp
from testbed.upstream import FIELDS, Upstream, UpstreamSession

pytestmark = pytest.mark.asyncio(loop_scope="module")

Event = dict[str, Any]

KEY = "sk-upstream-table-2Bv8"
TABLE = read()
OURS = {
    "session.created",  # each connection is told its own, once
    "conversation.created",  # of the beta, once for each connection to an upstream; there may be several
    "output_audio_buffer.started",  # what the phone plays is told by what the phone was sent
    "output_audio_buffer.stopped",
    "output_audio_buffer.cleared",
}
_MARK = "of_next_year"
"A field that no table knows yet."
ON_REQUEST = "response.output_audio.delta"
"Told to those who asked with `events=audio`."


def examples(side: str) -> list[Any]:
    """Return every example of one side's events, each with a name for the report."""
    found = []
    for kind in TABLE:
        if kind.side == side:
            found += [pytest.param(one, id=f"{kind.name}-{n}") for n, one in enumerate(kind.examples())]
    return found


@pytest.fixture(scope="module")
def address() -> Iterator[socket.socket]:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    yield bound
    bound.close()


@pytest.fixture(scope="module")
def upstream_node(tmp_path_factory: pytest.TempPathFactory, address: socket.socket) -> Iterator[Node]:
    engine = f"""
        kind = "scripted"
        [upstreams.hosted]
        url = "ws://127.0.0.1:{address.getsockname()[1]}/v1/realtime"
        api_key_env = "TEST_KEY_TABLE"
        [models]
        "*" = "hosted"
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY_TABLE", KEY)
        with Node(tmp_path_factory.mktemp("table"), engine=engine) as running:
            yield running


@dataclass
class Between:
    """One call, as its two ends see it. `audio` is a sideband that asked for sound."""

    session: UpstreamSession
    plain: ClientConnection
    audio: ClientConnection
    numbers: Iterator[int]

    async def down(self, frame: str) -> tuple[list[str], list[str]]:
        """Send a frame down; return what came of it on the two sidebands."""
        end = {"type": "response.table.end", "event_id": f"event_end{next(self.numbers)}"}
        await self.session.send_raw(frame)
        await self.session.send_raw(json.dumps(end))
        return await _until(self.plain, end), await _until(self.audio, end)

    async def up(self, frame: str) -> tuple[list[Event], list[Event]]:
        """Send a frame up; return what came up of it, and the errors that its sender was told."""
        end = f"end_{next(self.numbers)}"
        since = len(self.session.received)
        await self.plain.send(frame)
        await self.plain.send(json.dumps({"type": "input_audio_buffer.clear", "event_id": end}))
        last = await self.session.wait_for(
            "input_audio_buffer.clear", lambda event: event.get("event_id") == end, after=since
        )
        came = self.session.received[since : self.session.received.index(last)]
        marker = {"type": "response.table.end", "event_id": f"event_{end}"}
        await self.session.send_raw(json.dumps(marker))
        told = [json.loads(one) for one in await _until(self.plain, marker)]
        await _until(self.audio, marker)
        errors = [event for event in told if event["type"] == "error"]
        return [event for event in came if event["type"] != "input_audio_buffer.append"], errors


async def _until(connection: ClientConnection, end: Event) -> list[str]:
    frames: list[str] = []
    async with asyncio.timeout(15):
        while json.loads(frame := str(await connection.recv())) != end:
            frames.append(frame)
    # What we say of the phone's own sound comes when it comes.
    return [one for one in frames if "output_audio_buffer." not in one or _MARK in one]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def between(upstream_node: Node, address: socket.socket) -> AsyncIterator[Between]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream(address, key=KEY))
        app = await stack.enter_async_context(DeveloperApp(upstream_node))
        phone = await stack.enter_async_context(Phone(upstream_node))
        rtp = await stack.enter_async_context(Rtp())
        call = await phone.dial(app.seat.project, media_port=rtp.port)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id)
        await call.answered()
        url = f"{upstream_node.base_url.replace('http', 'ws', 1)}/realtime?call_id={call_id}"
        headers = {"Authorization": f"Bearer {app.seat.api_key}"}
        sidebands = [
            await stack.enter_async_context(connect(url + asked, additional_headers=headers))
            for asked in ("", "&events=audio")
        ]
        for sideband in sidebands:
            assert json.loads(await sideband.recv())["type"] == "session.created"
        session = await upstream.opened()
        yield Between(session, *sidebands, itertools.count(1))
        # Items that nobody made are truncated here; other tests judge what the mock makes of that.
        session.faults.clear()


async def test_the_table_is_whole() -> None:
    assert len([kind for kind in TABLE if kind.side == "server"]) == 46
    judged = {kind.name: _fields(kind) for kind in TABLE if kind.side == "client"}
    assert judged == FIELDS


def _fields(kind: EventType) -> tuple[set[str], set[str]]:
    required = {field.name for field in kind.fields if field.required}
    return required - {"type"}, {field.name for field in kind.fields} - required - {"event_id"}


@pytest.mark.parametrize("event", examples("server"))
async def test_a_server_event_comes_down_as_it_was_sent(between: Between, event: Event) -> None:
    validate(json.dumps(event).encode(), Strictness(audio=True))  # else the example is wrong
    sent = event | {_MARK: {"deep": [1, 2.5, None, "ü"]}}

    plain, audio = await between.down(json.dumps(sent))

    whole = [] if event["type"] in OURS else [sent]
    assert [_exact(one) for one in audio] == [_exact(json.dumps(one)) for one in whole]
    assert plain == ([] if event["type"] == ON_REQUEST else audio)


def _exact(frame: str) -> str:
    """Return a frame so that frames with the same fields, in the same order, of the same types are equal."""
    return json.dumps(json.loads(frame))


@pytest.mark.parametrize("event", examples("client"))
async def test_a_client_event_goes_up_as_it_was_sent(between: Between, event: Event) -> None:
    came, errors = await between.up(json.dumps(event))

    match event["type"]:
        case "input_audio_buffer.append":
            assert came == []
            assert [error["error"]["event_id"] for error in errors] == [event.get("event_id")]
        case "output_audio_buffer.clear":
            assert event not in came
        case _:
            assert [json.dumps(one) for one in came] == [json.dumps(_as_it_goes_up(event))]


def _as_it_goes_up(event: Event) -> Event:
    """Take out what the phone and the connection decide: formats and the model (rows E03, E04 and E06)."""
    event = copy.deepcopy(event)
    given = event.get("session") or event.get("response") or {}
    given.pop("model", None)
    for side in given.get("audio", {}).values():
        side.pop("format", None)
    return event
