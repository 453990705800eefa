"""Sessions without a call over a real WebSocket, with the scripted engine (API rows S01 to S03, S10 to S21, E23)."""

import asyncio
import base64
import json

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from offhook.audio import g711, tones
from offhook.realtime.engine import EngineUnavailable
from offhook.realtime.engines.scripted import Reply, Script, ScriptedFactory, Turn
from offhook.server.sideband_limits import SidebandLimits
from testbed.plain_desk import (
    FRAME,
    QUIET,
    SCRIPT,
    append,
    formats,
    receive,
    say,
    serving,
    sound_of,
    speak,
    update,
)
from testbed.waiting import until

# Opening.


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/realtime", "?model=gpt-realtime"),
        ("/openai/v1/realtime", "?model=gpt-realtime"),
        ("/openai/realtime", "?api-version=2025-04-01-preview&deployment=gpt-realtime"),
    ],
)
async def test_a_session_opens_with_its_model_and_pcm(path, query):
    async with serving() as desk, desk.connect(query, path=path) as ws:
        event = json.loads(await ws.recv())
    assert event["type"] == "session.created"
    session = event["session"]
    assert session["model"] == "gpt-realtime"
    assert session["id"].startswith("sess_")
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert session["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"


@pytest.mark.parametrize(
    ("query", "status", "code", "param"),
    [
        ("", 400, "missing_required_parameter", "call_id"),
        ("?model=", 400, "missing_required_parameter", "call_id"),
        ("?model=m&intent=translation", 400, "invalid_value", "intent"),
        ("?model=hosted", 501, "not_supported", "model"),
        ("?model=m&call_id=rtc_u0_1", 404, "call_id_not_found", ""),
    ],
)
async def test_what_is_wrong_is_said_before_the_upgrade(query, status, code, param):
    async with serving() as desk:
        found, error = await desk.refused(query)
        assert (found, error["code"], error["param"]) == (status, code, param)
        assert desk.sessions.live == 0


async def test_a_model_of_an_upstream_names_it():
    async with serving() as desk:
        _, error = await desk.refused("?model=hosted")
    assert "openai" in error["message"]


async def test_wrong_keys():
    async with serving() as desk:
        for key in ("sk-wrong", "ek_1"):
            status, error = await desk.refused(key=key)
            assert (status, error["code"]) == (401, "invalid_api_key")


async def test_a_key_as_subprotocol():
    """Row S08."""
    async with serving() as desk:
        host, port = desk.server.address
        async with connect(
            f"ws://{host}:{port}/v1/realtime?model=m",
            subprotocols=["realtime", "openai-insecure-api-key.sk-a"],
        ) as ws:
            assert ws.subprotocol == "realtime"
            await receive(ws, "session.created")


async def test_the_beta_is_refused_and_takes_no_place():
    async with serving() as desk, desk.connect(**{"OpenAI-Beta": "realtime=v1"}) as ws:
        await receive(ws, "error")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.rcvd.code == 4000
        assert desk.sessions.live == 0


# Room.


async def test_no_engine_is_503_and_the_slot_comes_back():
    async with serving(slots=1) as desk:
        async with desk.connect() as first:
            await receive(first, "session.created")
            status, error = await desk.refused()
            assert (status, error["code"]) == (503, "engine_unavailable")
        await until(lambda: desk.sessions.live == 0)
        async with desk.connect() as second:
            await receive(second, "session.created")


async def test_a_project_is_bounded_by_its_own_limit_and_the_node_by_its():
    async with serving(most=2, max_calls=1) as desk, desk.connect() as first:
        await receive(first, "session.created")
        status, error = await desk.refused()
        assert (status, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
        async with desk.connect(key="sk-b") as second:
            await receive(second, "session.created")
            status, error = await desk.refused(key="sk-b")
            assert (status, "node is full" in error["message"]) == (429, True)
        await first.close()
        await until(lambda: desk.sessions.live == 0)
        async with desk.connect() as again:
            await receive(again, "session.created")


async def test_a_draining_node_takes_none_and_waits_for_those_that_are_there():
    async with serving() as desk, desk.connect() as ws:
        await receive(ws, "session.created")
        closing = asyncio.create_task(desk.sessions.close(grace_s=5))
        await asyncio.sleep(0)
        assert (await desk.refused())[0] == 503
        await say(ws, "response.create")
        assert (await receive(ws, "response.done"))["response"]["status"] == "completed"
        await ws.close()
        await asyncio.wait_for(closing, 15)
        assert desk.sessions.live == 0


async def test_the_node_goes_away_with_1001_so_that_clients_open_another_elsewhere():
    async with serving() as desk, desk.connect() as ws:
        await receive(ws, "session.created")
        await desk.sessions.close(grace_s=0)
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.rcvd.code == 1001


async def test_the_session_expires():
    """Row S20."""
    async with serving(limit_s=0.2) as desk, desk.connect() as ws:
        error = (await receive(ws, "error"))["error"]
        assert error["code"] == "session_expired"
        with pytest.raises(ConnectionClosed) as caught:
            await receive(ws, "never")
        assert caught.value.rcvd.code == 1000
        await until(lambda: desk.sessions.live == 0)


async def test_an_engine_that_dies_is_told_and_closes_with_1011():
    async with serving(Script(dies_after_ms=100)) as desk, desk.connect() as ws:
        for _ in range(6):
            await append(ws, QUIET["audio/pcm"])
        error = (await receive(ws, "error"))["error"]
        assert (error["type"], error["code"]) == ("server_error", "engine_failed")
        with pytest.raises(ConnectionClosed) as caught:
            await receive(ws, "never")
        assert caught.value.rcvd.code == 1011
        await until(lambda: desk.sessions.live == 0)


async def test_a_client_that_is_too_far_behind_is_dropped_and_its_place_is_free():
    script = Script(greeting="x" * 1000)
    async with serving(script, slots=1, limits=SidebandLimits(queued_frames=50)) as desk:
        async with desk.connect() as ws:
            await say(ws, "response.create")
            with pytest.raises(ConnectionClosed) as caught:
                await receive(ws, "never")
            assert caught.value.rcvd is None
        await until(lambda: desk.sessions.live == 0)
        async with desk.connect() as again:
            await receive(again, "session.created")


class SlowFactory(ScriptedFactory):
    """Engines that take a while, or for ever, to start."""

    opening_s = 1.0

    def __init__(self, script, *, fails=""):
        super().__init__(script)
        self.go = asyncio.Event()
        self.fails = fails

    def create(self):
        engine, start = super().create(), None
        start = engine.start

        async def slowly(*args):
            await self.go.wait()
            if self.fails:
                raise EngineUnavailable(self.fails)
            await start(*args)

        engine.start = slowly
        return engine


async def test_the_session_is_there_before_its_engine_and_no_sound_is_lost():
    factory = SlowFactory(SCRIPT)
    async with serving(factory=factory) as desk, desk.connect() as ws:
        await receive(ws, "session.created")
        await update(ws, audio={"input": {"turn_detection": None, "transcription": {"model": "whisper-1"}}})
        for _ in range(50):
            await append(ws, FRAME["audio/pcm"])
        await say(ws, "input_audio_buffer.commit")
        await receive(ws, "input_audio_buffer.committed")
        await say(ws, "response.create")
        factory.go.set()
        done = await receive(ws, "conversation.item.input_audio_transcription.completed")
        assert (done["transcript"], done["usage"]["seconds"]) == ("What is the weather?", 1.0)
        assert (await receive(ws, "response.done"))["response"]["status"] == "completed"


async def test_an_engine_that_cannot_start_ends_the_session_and_says_why():
    factory = SlowFactory(SCRIPT, fails="no graphics card")
    factory.go.set()
    async with serving(factory=factory) as desk, desk.connect() as ws:
        await say(ws, "response.create")
        error = (await receive(ws, "error"))["error"]
        assert "no graphics card" in error["message"]
        with pytest.raises(ConnectionClosed) as caught:
            await receive(ws, "never")
        assert caught.value.rcvd.code == 1011


# Talking.


async def test_a_turn_by_voice_with_a_function_call():
    async with serving() as desk, desk.connect() as ws:
        tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
        await update(ws, tools=[tool], audio={"input": {"transcription": {"model": "whisper-1"}}})
        seen = []
        await speak(ws)
        call = await receive(ws, "response.function_call_arguments.done", seen=seen)
        assert json.loads(call["arguments"]) == {"city": "Berlin"}
        await receive(ws, "response.done", seen=seen)
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
        await say(ws, "conversation.item.create", item=output)
        await say(ws, "response.create")
        done = await receive(ws, "response.done", seen=seen)
    said = [e["transcript"] for e in seen if e["type"] == "response.output_audio_transcript.done"]
    assert said == ["It is sunny in Berlin."]
    assert done["response"]["status"] == "completed"
    kinds = [event["type"] for event in seen]
    for kind in ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"):
        assert kinds.count(kind) == 1
    heard = [e["transcript"] for e in seen if e["type"].endswith("input_audio_transcription.completed")]
    assert heard == ["What is the weather?"]
    assert not [kind for kind in kinds if kind.startswith("output_audio_buffer.")]
    # 60 ms a character, 48 bytes a ms.
    assert len(sound_of(seen)) == len("It is sunny in Berlin.") * 60 * 48


@pytest.mark.parametrize("hears", FRAME)
@pytest.mark.parametrize("speaks", FRAME)
async def test_each_format_is_heard_and_spoken(hears, speaks):
    async with serving(Script((Turn("Hi", (Reply("Hello there."),)),))) as desk, desk.connect() as ws:
        session = await update(ws, **formats(hears, speaks))
        assert session["audio"]["output"]["format"]["type"] == speaks
        seen = []
        await speak(ws, hears)
        await receive(ws, "response.done", seen=seen)
    sound = sound_of(seen)
    ms = len("Hello there.") * 60
    assert abs(len(sound) - ms * (48 if speaks == "audio/pcm" else 8)) <= 160
    samples = (
        np.frombuffer(sound, "<i2") if speaks == "audio/pcm" else g711.decode(sound, g711.law_of(speaks))
    )
    spectrum = np.abs(np.fft.rfft(samples.astype(float)))
    rate = 24000 if speaks == "audio/pcm" else 8000
    assert abs(np.argmax(spectrum) * rate / len(samples) - 440) < 5


async def test_g711_both_ways_is_the_engines_own_and_is_not_converted():
    async with serving(Script(greeting="Hello.")) as desk, desk.connect() as ws:
        await update(ws, **formats("audio/pcmu", "audio/pcmu"))
        seen = []
        await say(ws, "response.create")
        await receive(ws, "response.done", seen=seen)
    second = g711.encode(tones.tone(440.0, 1000, level=0.2), "PCMU")
    assert sound_of(seen) == second[: len("Hello.") * 60 * 8]


async def test_a_format_that_changes_after_sound_counts_for_what_comes_next():
    async with serving(Script(greeting="Hello.")) as desk, desk.connect() as ws:
        await update(ws, audio={"input": {"turn_detection": None}})
        await append(ws, FRAME["audio/pcm"] * 10)
        await update(ws, **formats("audio/pcmu", "audio/pcma"))
        await append(ws, FRAME["audio/pcmu"] * 10)
        await say(ws, "input_audio_buffer.commit")
        item = (await receive(ws, "conversation.item.done"))["item"]
        await say(ws, "conversation.item.retrieve", item_id=item["id"])
        retrieved = (await receive(ws, "conversation.item.retrieved"))["item"]
        # 400 ms in what the client now sends, up to a frame of filter.
        assert abs(len(base64.b64decode(retrieved["content"][0]["audio"])) - 400 * 8) <= 160
        seen = []
        await say(ws, "response.create", response={"conversation": "none", "input": []})
        await receive(ws, "response.done", seen=seen)
    assert abs(len(sound_of(seen)) - len("Hello.") * 60 * 8) <= 8


async def test_speech_interrupts_a_response_and_the_client_says_what_was_heard():
    async with serving() as desk, desk.connect() as ws:
        await speak(ws)  # the first turn calls a function
        await receive(ws, "response.done")
        await speak(ws)
        item = (await receive(ws, "response.output_item.added"))["item"]
        await receive(ws, "response.output_audio.delta")
        seen = []
        await speak(ws, quiet=0)
        done = await receive(ws, "response.done", seen=seen)
        assert done["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        kinds = [event["type"] for event in seen]
        assert "input_audio_buffer.speech_started" in kinds
        assert not {"conversation.item.truncated", "output_audio_buffer.cleared"} & set(kinds)
        for end in (10**6, 600):
            await say(ws, "conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=end)
            cut_at = (await receive(ws, "conversation.item.truncated"))["audio_end_ms"]
            # What was told cannot have been heard longer than it lasts.
            assert cut_at <= min(
                end, len(done["response"]["output"][0]["content"][0]["transcript"]) * 65 + 20
            )
        assert cut_at == 600
        await say(ws, "conversation.item.retrieve", item_id=item["id"])
        kept = (await receive(ws, "conversation.item.retrieved"))["item"]["content"][0]
        assert kept["transcript"] == "Once upon"[: len(kept["transcript"])]
        assert len(base64.b64decode(kept["audio"])) == 600 * 48
