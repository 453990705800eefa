"""The driver: one inbox, each event encoded once, faults kept to one session."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import time
from typing import Any

import orjson
import pytest

from offhook.realtime.conversation import AUDIO_HELD_S
from offhook.realtime.engine import (
    EngineFailed,
    EngineStart,
    EngineUnavailable,
    Respond,
    ResponseFinished,
    ResponseSpeech,
    VoiceActivity,
)
from offhook.realtime.engines.scripted import Reply, Script, ScriptedEngine, ScriptedFactory, Turn
from offhook.realtime.runner import SessionRunner
from offhook.realtime.session import Session
from offhook.realtime.session_config import parse_accept

START = EngineStart("sess_1", "audio/pcmu", "m")


class Clock:
    now = 5.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0


class Client:
    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.types: list[str] = []
        self.closed: list[tuple[int, str]] = []

    def send(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.types.append(orjson.loads(frame)["type"])

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


class EchoEngine:
    """Answers inside `handle`, before it returns."""

    def __init__(self) -> None:
        self.handled: list[Any] = []
        self.closed = 0

    async def start(self, start: EngineStart, emit: Any) -> None:
        self.emit = emit

    def hear(self, audio: bytes) -> None:
        pass

    def handle(self, command: Any) -> None:
        self.handled.append(command)
        if isinstance(command, Respond):
            self.emit(ResponseSpeech(command.response_id, command.generation, "Hi.", b"\0" * 800))
            self.emit(ResponseFinished(command.response_id, command.generation))

    async def close(self) -> None:
        self.closed += 1


def build(engine: Any = None, **options: Any) -> SessionRunner:
    counter = itertools.count(1)
    session = Session(
        parse_accept({"type": "realtime"}),
        session_id="sess_1",
        audio_format="audio/pcmu",
        new_id=lambda prefix: f"{prefix}_{next(counter)}",
        sip=True,
        max_duration_s=options.pop("max_duration_s", 3600.0),
    )
    clock = options.pop("clock", None) or Clock()
    return SessionRunner(session, engine or EchoEngine(), clock=clock, **options)


async def test_an_engine_that_answers_at_once_is_heard_in_order() -> None:
    runner = build()
    await runner.start(START)
    client = Client()
    runner.attach(client).receive('{"type":"response.create"}')
    assert client.types[:4] == [
        "session.created",
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
    ]
    assert client.types[-1] == "response.done"
    await runner.close("done")


async def test_what_no_client_asked_for_is_told_to_all() -> None:
    runner = build()
    await runner.start(START)
    client = Client()
    runner.attach(client)
    runner.ask({"type": "response.create"})
    assert client.types[:2] == ["session.created", "response.created"]
    assert client.types[-1] == "response.done"
    await runner.close("done")


async def test_nobody_is_told_what_is_wrong_with_what_no_client_asked_for() -> None:
    runner = build()
    await runner.start(START)
    client = Client()
    runner.attach(client)
    runner.ask({"type": "response.creat"})
    assert client.types == ["session.created"]
    await runner.close("done")
    runner.ask({"type": "response.create"})
    assert client.types == ["session.created"]


async def test_a_client_that_retrieves_without_end_is_refused_and_the_rest_is_served() -> None:
    runner, client, attachment, item_id = await speaking(60)
    frame = orjson.dumps({"type": "conversation.item.retrieve", "item_id": item_id}).decode()
    for _ in range(100):
        attachment.receive(frame)
    refused = [event for event in map(orjson.loads, client.frames) if event["type"] == "error"]
    taken = 100 - len(refused)
    assert taken == 8 * AUDIO_HELD_S // 60
    assert {(event["error"]["type"], event["error"]["code"]) for event in refused} == {
        ("rate_limit_error", "rate_limit_exceeded")
    }
    while client.types.count("conversation.item.retrieved") < taken:
        await asyncio.sleep(0)
    attachment.receive(frame)
    while client.types.count("conversation.item.retrieved") == taken:
        await asyncio.sleep(0)
    assert client.types.count("error") == len(refused)
    await runner.close("done")


async def test_an_event_is_encoded_once_for_all() -> None:
    runner = build()
    await runner.start(START)
    one, two = Client(), Client()
    first, _ = runner.attach(one), runner.attach(two)
    first.receive('{"type":"response.create"}')
    assert all(a is b for a, b in zip(one.frames[1:], two.frames[1:], strict=True))
    await runner.close("done")


async def speaking(seconds: int, **options: Any) -> tuple[SessionRunner, Client, Any, str]:
    """Return a session whose agent has begun to say something that long, and the item's id."""

    class Long(EchoEngine):
        def handle(self, command: Any) -> None:
            if isinstance(command, Respond):
                sound = b"\x10" * 8000 * seconds
                self.emit(ResponseSpeech(command.response_id, command.generation, "Hm.", sound))

    runner = build(Long(), **options)
    await runner.start(START)
    client = Client()
    attachment = runner.attach(client)
    attachment.receive('{"type":"response.create"}')
    added = next(
        event for event in map(orjson.loads, client.frames) if event["type"] == "conversation.item.added"
    )
    return runner, client, attachment, added["item"]["id"]


async def test_a_long_item_is_retrieved_without_holding_the_loop() -> None:
    """Both agents SDKs retrieve after every turn (row E20); the loop sends every call's sound meanwhile."""
    runner, client, attachment, item_id = await speaking(60)
    frame = orjson.dumps({"type": "conversation.item.retrieve", "item_id": item_id}).decode()
    held: list[float] = []
    before = time.perf_counter()
    attachment.receive(frame)
    turns = 0
    while client.types[-1] != "conversation.item.retrieved":
        held.append(time.perf_counter() - before)
        await asyncio.sleep(0)
        before = time.perf_counter()
        turns += 1
    assert turns >= 60
    # On a quiet machine a turn takes 0.2 ms; in one go it was 25 ms.
    assert sorted(held)[len(held) // 2] < 0.001
    assert len(client.frames[-1]) > 60 * 48000 * 4 / 3
    await runner.close("done")


async def test_what_was_asked_for_comes_before_the_session_closes() -> None:
    """Row S17."""
    runner, client, attachment, item_id = await speaking(5)
    attachment.receive(orjson.dumps({"type": "conversation.item.retrieve", "item_id": item_id}).decode())
    await runner.close("bye")
    assert "conversation.item.retrieved" in client.types
    assert client.closed == [(1000, "bye")]


class Sender:
    played_samples = 0
    queued_samples = 0

    def play(self, audio: bytes) -> None:
        self.queued_samples += len(audio)

    def clear(self) -> int:
        return 0


@pytest.mark.parametrize("sounding", [False, True])
async def test_a_frame_costs_next_to_nothing(sounding: bool) -> None:
    """Fifty of them a second for each of hundreds of calls: counted in calls of functions, which is exact."""
    playout = Sender()
    runner, _, attachment, _ = await speaking(60, playout=playout)
    if not sounding:
        attachment.receive('{"type":"output_audio_buffer.clear"}')
    called: list[str] = []
    sys.setprofile(lambda frame, event, arg: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        for _ in range(10):
            playout.played_samples += 160
            runner.receive_audio(b"\xff" * 160)
    finally:
        sys.setprofile(None)
    assert len(called) <= 10 * 12, called[:15]
    assert not {"_update_idle", "_advance"} & set(called)
    await runner.close("done")


async def test_expires_at_is_known_from_the_first_event() -> None:
    runner = build(max_duration_s=600.0)
    client = Client()
    runner.attach(client)
    assert orjson.loads(client.frames[0])["session"]["expires_at"] == 1_700_000_600
    await runner.close("done")


async def test_expiry_is_told_to_the_owner_and_the_session_goes_on() -> None:
    """Row S20: the owner says BYE, then closes."""
    expired: list[bool] = []
    clock = Clock()
    runner = build(clock=clock, max_duration_s=60.0, on_expired=lambda: expired.append(True))
    await runner.start(START)
    client = Client()
    runner.attach(client)
    runner.handle_timer()
    assert expired == []
    clock.now += 60
    runner.handle_timer()
    assert expired == [True]
    assert orjson.loads(client.frames[-1])["error"]["message"].endswith("maximum duration of 1 minutes.")
    assert client.closed == []
    await runner.close("session_expired")


async def test_close_is_1000_once_and_frees_the_engine() -> None:
    """Row S16."""
    engine = EchoEngine()
    runner = build(engine)
    client = Client()
    attachment = runner.attach(client)
    await asyncio.gather(runner.close("bye"), runner.close("again"))
    assert client.closed == [(1000, "bye")]
    assert engine.closed >= 1
    assert runner.closed
    attachment.receive('{"type":"response.create"}')
    runner.receive_audio(b"\0" * 160)
    runner.receive_digit("1")
    runner.playout_drained()
    assert client.types == ["session.created"]


async def test_a_fault_stays_inside_its_session(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(EchoEngine):
        def handle(self, command: Any) -> None:
            raise RuntimeError("broken")

    runner = build(Broken())
    await runner.start(START)
    client = Client()
    with caplog.at_level(logging.CRITICAL):
        runner.attach(client).receive('{"type":"response.create"}')
    assert client.types == ["session.created", "response.created", "rate_limits.updated"]
    runner.receive_digit("1")
    assert client.types[-1] == "input_audio_buffer.dtmf_event_received"


async def test_a_fault_on_the_way_of_voice_activity_does_not_reach_the_worker_of_all_calls(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = EchoEngine()
    runner = build(engine)
    await runner.start(START)
    client = Client()
    runner.attach(client)

    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched, caplog.at_level(logging.CRITICAL):
        patched.setattr(runner.session, "receive_engine_event", broken)
        engine.emit(VoiceActivity(0.9, 32.0))
        patched.setattr(type(runner.session), "has_outputs", True)
        patched.setattr(runner.session, "outputs", broken)
        engine.emit(VoiceActivity(0.9, 64.0))
    runner.receive_digit("1")
    assert client.types[-1] == "input_audio_buffer.dtmf_event_received"
    await runner.close("done")


async def test_a_close_that_is_broken_off_still_frees_the_engine_and_closes_the_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, client = EchoEngine(), Client()
    runner = build(engine)
    await runner.start(START)
    runner.attach(client)
    monkeypatch.setattr(runner.session, "close", lambda *_: None)
    closing = asyncio.create_task(runner.close("hangup"))
    await asyncio.sleep(0)
    assert (engine.closed, client.closed) == (0, [])
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert (engine.closed, client.closed) == (1, [(1000, "hangup")])


async def test_a_dead_engine_is_reported() -> None:
    failures: list[str] = []
    engine = EchoEngine()
    runner = build(engine, on_failed=failures.append)
    await runner.start(START)
    engine.emit(EngineFailed("a worker died"))
    assert failures == ["a worker died"]
    await runner.close("failed")


async def test_an_engine_that_cannot_start_is_the_callers_affair() -> None:
    class Full(EchoEngine):
        async def start(self, start: EngineStart, emit: Any) -> None:
            raise EngineUnavailable("no room")

    runner = build(Full())
    with pytest.raises(EngineUnavailable):
        await runner.start(START)
    await runner.close("failed")


# The scripted engine's factory.


async def test_slots() -> None:
    factory = ScriptedFactory(slots=1)
    assert not factory.ready
    await factory.start()
    engine = factory.create()
    assert (factory.ready, factory.free) == (True, 0)
    with pytest.raises(EngineUnavailable, match="all 1 slots"):
        factory.create()
    await engine.close()
    await engine.close()
    assert factory.ready
    assert factory.create() is not None
    assert factory.describe()["kind"] == "scripted"


@pytest.mark.parametrize(
    ("audio_format", "loud", "quiet"),
    [
        ("audio/pcmu", b"\x00", b"\xff"),
        ("audio/pcma", b"\xaa", b"\xd5"),
        ("audio/pcm", b"\x00\x40", b"\x00\x00"),
    ],
)
async def test_it_hears_loudness_in_every_format(audio_format: Any, loud: bytes, quiet: bytes) -> None:
    engine = ScriptedEngine(Script(turns=(Turn("x", (Reply("y"),)),)))
    events: list[Any] = []
    await engine.start(EngineStart("s", audio_format, "m"), events.append)
    frame = 960 if audio_format == "audio/pcm" else 160
    engine.hear(loud * (frame // len(loud)))
    engine.hear(quiet * (frame // len(quiet)))
    assert [(event.probability, event.end_ms) for event in events] == [(1.0, 20.0), (0.0, 40.0)]


class Phone:
    """A playout whose clock the test moves."""

    played_samples = queued_samples = 0

    def play(self, audio: bytes) -> None:
        self.queued_samples += len(audio)

    def clear(self) -> int:
        dropped, self.queued_samples = self.queued_samples, 0
        return dropped


async def test_it_is_known_when_the_caller_has_heard_all() -> None:
    phone = Phone()
    runner = build(playout=phone)
    await runner.start(START)
    assert await runner.said() is True  # nothing is being said
    runner.attach(Client()).receive('{"type":"response.create"}')
    said = runner.said()
    assert not said.done()
    phone.played_samples, phone.queued_samples = phone.queued_samples, 0
    runner.playout_drained()
    assert await said is True
    await runner.close("done")


async def test_what_is_cut_short_is_not_said() -> None:
    phone = Phone()
    runner, _, attachment, _ = await speaking(1, playout=phone)
    first, second = runner.said(), runner.said()
    second.cancel()
    attachment.receive('{"type":"output_audio_buffer.clear"}')
    assert await first is False
    assert await runner.said() is True
    await runner.close("done")


async def test_what_the_end_of_the_session_cuts_off_is_not_said() -> None:
    runner, _, _, _ = await speaking(1, playout=Phone())
    said = runner.said()
    await runner.close("done")
    assert await said is False
