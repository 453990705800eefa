"""An engine that starts with the first thing it is given: nothing is lost, nothing waits for ever."""

import asyncio

from offhook.realtime.engine import (
    CancelResponse,
    EngineFailed,
    EngineStart,
    EngineUnavailable,
)
from offhook.realtime.engine_at_need import MAX_WAITING, EngineAtNeed

START = EngineStart("sess_1", "audio/pcm", "gpt-realtime")


class Engine:
    def __init__(self, *, fault=None):
        self.go = asyncio.Event()
        self.fault = fault
        self.started = None
        self.given = []
        self.closed = 0

    async def start(self, start, emit):
        self.started = start
        await self.go.wait()
        if self.fault is not None:
            raise self.fault

    def hear(self, audio):
        self.given.append(audio)

    def handle(self, command):
        self.given.append(command)

    async def close(self):
        self.closed += 1


class Desk:
    def __init__(self, *, fault=None, limit_s=5.0):
        self.engine = Engine(fault=fault)
        self.format = "audio/pcm"
        self.told = []
        self.at_need = EngineAtNeed(self.engine, lambda: self.format, limit_s=limit_s)

    async def start(self):
        await self.at_need.start(START, self.told.append)


async def turns(count=4):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_it_starts_with_the_first_sound_in_the_format_of_that_moment():
    desk = Desk()
    await desk.start()
    await turns()
    assert desk.engine.started is None
    desk.format = "audio/pcmu"
    desk.at_need.hear(b"1")
    desk.at_need.handle(CancelResponse("resp_1"))
    desk.at_need.hear(b"2")
    await turns()
    assert desk.engine.started.audio_format == "audio/pcmu"
    assert desk.engine.given == []
    desk.engine.go.set()
    await turns()
    desk.at_need.hear(b"3")
    assert desk.engine.given == [b"1", CancelResponse("resp_1"), b"2", b"3"]
    assert desk.told == []
    await desk.at_need.close()
    assert desk.engine.closed == 1


async def test_an_engine_that_cannot_be_had_is_told_once():
    for fault, said in (
        (EngineUnavailable("no memory"), "no memory"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ):
        desk = Desk(fault=fault)
        await desk.start()
        desk.engine.go.set()
        desk.at_need.hear(b"1")
        await turns()
        desk.at_need.hear(b"2")
        await turns()
        (failed,) = desk.told
        assert isinstance(failed, EngineFailed)
        assert said in failed.message
        assert desk.engine.given == []


async def test_an_engine_that_never_starts_is_given_up():
    desk = Desk(limit_s=0.0)
    await desk.start()
    desk.at_need.hear(b"1")
    await turns(8)
    assert [type(event) for event in desk.told] == [EngineFailed]


async def test_what_waits_is_bounded():
    desk = Desk()
    await desk.start()
    for _ in range(MAX_WAITING + 5):
        desk.at_need.hear(b"1")
    assert [type(event) for event in desk.told] == [EngineFailed]
    await desk.at_need.close()


async def test_a_session_that_ends_meanwhile_starts_nothing_more():
    desk = Desk()
    await desk.start()
    desk.at_need.hear(b"1")
    await turns()
    await desk.at_need.close()
    desk.engine.go.set()
    desk.at_need.hear(b"2")
    await turns()
    assert (desk.engine.given, desk.told, desk.engine.closed) == ([], [], 1)
