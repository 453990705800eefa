"""The upstream engine alone, on a mock upstream: what a long call brings with it when a connection is lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from offhook.realtime.engine import (
    EngineFailed,
    EngineStart,
    KeepUpstream,
    PauseUpstream,
    ReopenUpstream,
    ResumeUpstream,
    SendUpstream,
    UpstreamEvent,
    UpstreamLost,
    UpstreamNote,
    UpstreamOpened,
)
from offhook.realtime.engines.upstream import connection
from offhook.realtime.engines.upstream.engine import UpstreamEngine
from offhook.realtime.engines.upstream.target import Upstream as Target
from testbed.upstream import Upstream, UpstreamSession

LONG = 2500
"Items of a call of an hour."


class Voice:
    """An engine that is open, its upstream's session, and what it emitted."""

    def __init__(self, upstream: Upstream, engine: UpstreamEngine) -> None:
        self.upstream = upstream
        self.engine = engine
        self.emitted: list[Any] = []
        self.session: UpstreamSession

    async def start(self) -> None:
        await self.engine.start(EngineStart("sess_1", "audio/pcmu", "gpt-realtime"), self.emitted.append)
        self.session = await self.upstream.opened()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.emitted if isinstance(event, kind)]


@pytest.fixture
async def voice() -> AsyncIterator[Voice]:
    bound = socket.create_server(("127.0.0.1", 0))
    async with Upstream(bound, key="sk-up-1") as upstream:
        port = bound.getsockname()[1]
        target = Target("main", f"http://127.0.0.1:{port}/v1", key="sk-up-1")
        voice = Voice(upstream, UpstreamEngine([target], tls={"main": None}))
        await voice.start()
        yield voice
        await voice.engine.close()
    bound.close()


def _item(number: int) -> dict[str, Any]:
    content = [{"type": "input_text", "text": f"Sentence {number}."}]
    return {"id": f"item_{number}", "type": "message", "role": "user", "content": content}


async def test_a_long_conversation_is_told_whole_to_the_next_upstream(voice: Voice) -> None:
    await voice.session.close(1011)
    await _until(lambda: voice.of(UpstreamLost))
    voice.engine.handle(ReopenUpstream({"type": "realtime"}, [_item(number) for number in range(LONG)]))
    session = await voice.upstream.opened()
    await session.until(lambda: len(session.of_type("conversation.item.create")) == LONG, "all items")
    assert [event["item"]["id"] for event in session.of_type("conversation.item.create")] == [
        f"item_{number}" for number in range(LONG)
    ]
    assert len(voice.of(UpstreamLost)) == 1
    assert [type(event) for event in voice.emitted if not isinstance(event, UpstreamNote)].count(
        UpstreamOpened
    ) == 2


async def test_all_that_an_app_sent_meanwhile_goes_up(voice: Voice) -> None:
    """As many as are held while nobody is there, and those that were not answered."""
    for number in range(1000 + 64):
        voice.engine.handle(SendUpstream({"type": "conversation.item.create", "item": _item(number)}))
    session = voice.session
    await session.until(lambda: len(session.of_type("conversation.item.create")) == 1064, "all events")
    assert not voice.of(UpstreamLost)


async def _until(holds: Any) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_connection_that_is_not_wanted_any_more_is_let_be(voice: Voice) -> None:
    voice.upstream.plan.append("late")
    voice.engine.handle(ReopenUpstream({"type": "realtime"}, []))
    unwanted = await voice.upstream.opened()
    voice.engine.handle(KeepUpstream())
    await unwanted.gone()
    voice.engine.handle(SendUpstream({"type": "input_audio_buffer.commit"}))
    await voice.session.wait_for("input_audio_buffer.commit")
    assert len(voice.of(UpstreamOpened)) == 1


async def test_what_cannot_be_sent_on_is_passed_over(voice: Voice) -> None:
    """Kept, it would stop the connection that is told of it."""
    await voice.session.send_raw(
        '{"type":"conversation.item.done","item":{"id":' + "[" * 400 + "]" * 400 + "}}"
    )
    await voice.session.send("x.y")
    await _until(lambda: voice.of(UpstreamEvent))
    assert [event.event["type"] for event in voice.of(UpstreamEvent)] == ["x.y"]


@pytest.mark.parametrize("paused", [False, True])
async def test_an_upstream_that_answers_no_ping_is_lost_unless_we_read_nothing(
    voice: Voice, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    """The answer waits behind all the sound that we let wait, in a ping that was under way too."""
    monkeypatch.setattr(connection, "PING_S", 0.2)
    await voice.session.close(1011)
    await _until(lambda: voice.of(UpstreamLost))
    voice.engine.handle(ReopenUpstream({"type": "realtime"}, []))
    session = await voice.upstream.opened()
    await _until(lambda: len(voice.of(UpstreamOpened)) == 2)
    session._connection.transport.pause_reading()
    await asyncio.sleep(0.25)
    if paused:
        voice.engine.handle(PauseUpstream())
        await asyncio.sleep(0.4)
        assert len(voice.of(UpstreamLost)) == 1
        session._connection.transport.resume_reading()
        voice.engine.handle(ResumeUpstream())
        await asyncio.sleep(0.5)
        assert len(voice.of(UpstreamLost)) == 1
    else:
        await _until(lambda: len(voice.of(UpstreamLost)) == 2)


OPUS = {"type": "audio/opus"}
SLOW = {"type": "audio/pcm", "rate": 16000}


@pytest.mark.parametrize("answer", [OPUS, SLOW])
async def test_a_format_that_we_do_not_know_is_not_taken_for_another(voice: Voice, answer: Any) -> None:
    """It would be noise in the caller's ear. 24 kHz is asked for next; then the upstream is passed over."""
    await voice.session.close(1011)
    await _until(lambda: voice.of(UpstreamLost))
    voice.upstream.plan.append("late")
    voice.engine.handle(ReopenUpstream({"type": "realtime"}, []))
    session = await voice.upstream.opened()
    session.updates = False
    await session.created()
    for number in (1, 2):
        await session.until(lambda: len(session.of_type("session.update")) == number, "another update")  # noqa: B023
        await session.send("session.updated", session={"audio": {"output": {"format": answer}}})
    await _until(lambda: voice.of(EngineFailed))
    assert answer["type"] in voice.of(EngineFailed)[0].message
    await session.gone()
