"""The embedded voice with its models: what it hears, says and survives."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from offhook.realtime.engine import (
    CancelResponse,
    EngineStart,
    EngineUnavailable,
    FunctionCallArguments,
    FunctionCallStarted,
    Respond,
    ResponseFinished,
    ResponseSpeech,
    ResponseText,
    Transcribe,
    Transcribed,
    TranscriptionFailed,
    VoiceActivity,
)
from offhook.realtime.engines.local import sound
from offhook.realtime.engines.local.brain import Ended, Say
from offhook.realtime.engines.local.brain_chat import ChatBrain
from offhook.realtime.engines.local.config import BrainConfig, LocalConfig
from offhook.realtime.engines.local.engine import LocalFactory
from offhook.realtime.engines.local.listening import Listening
from offhook.realtime.engines.local.process import Role

pytestmark = [pytest.mark.models, pytest.mark.asyncio(loop_scope="module")]

PATIENCE_S = 90
"Workers have a lower priority than the rest of the machine, so a busy one lets them wait."
BYTES_PER_S = {"audio/pcmu": 8000, "audio/pcma": 8000, "audio/pcm": 48000}


@pytest.fixture(scope="module")
def cache():
    """The speech model is put together once, where a node on this machine would look for it too."""
    return LocalConfig().cache_dir


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def factory(cache):
    factory = LocalFactory(LocalConfig(workers=1, cache_dir=cache))
    assert not factory.ready
    await factory.start()
    assert factory.ready
    yield factory
    await factory.close()
    assert not factory.ready


class Ear:
    """A session's place: gets events, and waits for them."""

    def __init__(self):
        self.events = []
        self._news = asyncio.Event()

    def __call__(self, event):
        self.events.append(event)
        self._news.set()

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    async def wait(self, kind, count=1, timeout=PATIENCE_S):
        async with asyncio.timeout(timeout):
            while len(self.of(kind)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(kind)[-1]


@pytest_asyncio.fixture(loop_scope="module")
async def talk(factory):
    """Start engines for a test; close them after it."""
    engines = []

    async def start(audio_format="audio/pcmu"):
        engine, ear = factory.create(), Ear()
        engines.append(engine)
        await engine.start(EngineStart("sess_1", audio_format, "local"), ear)
        return engine, ear

    yield start
    for engine in engines:
        await engine.close()


def respond(text_or_items=(), **changes):
    given = {
        "response_id": "resp_1",
        "generation": 1,
        "items": text_or_items,
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "audio": True,
        "voice": "ash",
        "speed": 1.0,
        "max_output_tokens": "inf",
    }
    return Respond(**{**given, **changes})


class Says:
    """A brain that says one thing."""

    def __init__(self, *texts):
        self.texts = texts

    async def respond(self, command):
        for text in self.texts:
            yield Say(text)
        yield Ended()


@pytest.fixture
def brain(factory, monkeypatch):
    return lambda *texts: monkeypatch.setattr(factory, "brain", Says(*texts))


async def speech(talk, brain, text, audio_format="audio/pcmu"):
    """Return a text spoken."""
    brain(text)
    engine, ear = await talk(audio_format)
    engine.handle(respond())
    await ear.wait(ResponseFinished)
    return b"".join(event.audio for event in ear.of(ResponseSpeech))


def line_noise(samples, audio_format, level=0.003):
    noise = np.random.default_rng(7).standard_normal(samples).astype(np.float32) * level
    return sound.encode(noise, audio_format)


def with_noise(audio, audio_format, before_s, after_s, level=0.003):
    """Return speech with line noise under, before and after it."""
    rate = sound.rate_of(audio_format)
    words = sound.decode(audio, audio_format).astype(np.float32) / 32768
    whole = np.concatenate((np.zeros(int(before_s * rate)), words, np.zeros(int(after_s * rate)))).astype(
        np.float32
    )
    noise = np.random.default_rng(7).standard_normal(len(whole)).astype(np.float32) * level
    return sound.encode(whole + noise, audio_format)


STORY = """
My grandmother kept bees behind the old house by the river. Every morning she walked down to them before breakfast and
told them the news of the village. She said that bees which are not told the news will leave. When my uncle moved to
the city she told them, and when the bridge was closed for repairs she told them that too. One winter she was ill, and
nobody thought of the bees until the postman came by and asked about honey. So I went down through the snow, feeling
rather foolish, and told them everything that I could remember since the harvest. They hummed a little. In spring they
were all still there, and she laughed and gave me a jar.
"""


def words_of(text):
    return re.findall(r"[a-z0-9]+", text.lower())


@pytest.mark.parametrize("audio_format", ["audio/pcmu", "audio/pcma", "audio/pcm"])
async def test_what_is_said_is_understood(talk, brain, audio_format):
    text = "Please call the front desk and ask for an early breakfast tomorrow morning."
    audio = await speech(talk, brain, text, audio_format)
    engine, ear = await talk(audio_format)
    engine.handle(Transcribe("item_1", 3, with_noise(audio, audio_format, 0.3, 0.3)))
    heard = await ear.wait(Transcribed)
    assert words_of(heard.text) == words_of(text)
    assert (heard.item_id, heard.revision) == ("item_1", 3)
    assert heard.seconds == pytest.approx(len(audio) / BYTES_PER_S[audio_format] + 0.6, abs=0.01)


async def test_numbers_and_times_are_read_as_people_say_them(talk, brain):
    audio = await speech(talk, brain, "The total is $49.50, due at 9:30 am.")
    engine, ear = await talk()
    engine.handle(Transcribe("item_1", 1, audio))
    text = (await ear.wait(Transcribed)).text
    assert "49" in text
    assert "50" in text
    assert re.search("9.?30", text)


async def test_a_prompt_helps_with_names(talk, brain):
    audio = await speech(talk, brain, "This is Siobhan from Offhook.")
    engine, ear = await talk()
    engine.handle(Transcribe("item_1", 1, audio, prompt="Siobhan, Offhook"))
    assert "Offhook" in (await ear.wait(Transcribed)).text


async def test_noise_has_no_words(talk):
    engine, ear = await talk()
    engine.handle(Transcribe("item_1", 1, b"\xff" * 8000))
    assert len((await ear.wait(Transcribed)).text) < 20


async def test_long_speech_is_transcribed_to_its_end(talk, brain, monkeypatch):
    monkeypatch.setattr("offhook.realtime.engines.local.engine.TRANSCRIPT_S", PATIENCE_S)
    audio = await speech(talk, brain, STORY)
    assert len(audio) > 32 * 8000
    engine, ear = await talk()
    engine.handle(Transcribe("item_1", 1, audio))
    heard = words_of((await ear.wait(Transcribed)).text)
    told = words_of(STORY)
    assert heard[-1] == told[-1]
    assert len(set(told) & set(heard)) > 0.9 * len(set(told))


async def test_an_unknown_language_fails_clearly(talk):
    engine, ear = await talk()
    engine.handle(Transcribe("item_1", 1, b"\xff" * 8000, language="xx-YY"))
    failed = await ear.wait(TranscriptionFailed)
    assert failed.code == "unsupported_language"
    assert "'xx-YY'" in failed.message


async def test_only_the_newest_revision_is_transcribed(talk, brain):
    audio = await speech(talk, brain, "Good morning everybody.")
    engine, ear = await talk()
    for revision in range(1, 6):
        engine.handle(Transcribe("item_1", revision, audio))
    assert (await ear.wait(Transcribed)).revision == 5
    assert len(ear.of(Transcribed)) == 1


# Voice activity


@pytest.mark.parametrize("audio_format", ["audio/pcmu", "audio/pcma", "audio/pcm"])
async def test_speech_in_line_noise_is_found(talk, brain, audio_format):
    """Onset within 200 ms, offset within 400 ms, nothing found before, and time counted without gaps."""
    audio = await speech(talk, brain, "I would like to book a table for two.", audio_format)
    sound_ms = 1000 * len(audio) / BYTES_PER_S[audio_format]
    whole = with_noise(audio, audio_format, 1.0, 1.5)
    engine, ear = await talk(audio_format)
    frame = BYTES_PER_S[audio_format] // 50
    for at in range(0, len(whole), frame):
        engine.hear(whole[at : at + frame])
    total_ms = 1000 * len(whole) / BYTES_PER_S[audio_format]
    await ear.wait(VoiceActivity, int(total_ms // 32) - 1)
    found = ear.of(VoiceActivity)
    assert [event.end_ms for event in found] == [32.0 * (i + 1) for i in range(len(found))]
    speaking = [event.end_ms for event in found if event.probability > 0.5]
    assert 1000 < speaking[0] < 1200
    # The voice's audio ends with 220 ms of its own silence.
    assert abs(speaking[-1] - (1000 + sound_ms - 220)) < 400
    within = [event for event in found if 1200 < event.end_ms < 1000 + sound_ms - 220]
    assert sum(event.probability > 0.5 for event in within) / len(within) > 0.8


async def test_calls_do_not_hear_each_other(talk, brain):
    audio = await speech(talk, brain, "I would like to book a table for two.")
    quiet = line_noise(len(audio), "audio/pcmu")
    pairs = [(await talk(), audio if number % 2 else quiet) for number in range(8)]
    for at in range(0, len(audio) - 160, 160):
        for (engine, _), sounds in pairs:
            engine.hear(sounds[at : at + 160])
    for number, ((_, ear), _) in enumerate(pairs):
        await ear.wait(VoiceActivity, len(audio) // 256 - 2)
        loud = sum(event.probability > 0.5 for event in ear.of(VoiceActivity))
        assert (loud > 20) == bool(number % 2)


async def test_frames_of_odd_sizes_are_taken(talk):
    engine, ear = await talk()
    for size in (0, 1, 159, 161, 800, 3000):
        engine.hear(b"\xff" * size)
    await ear.wait(VoiceActivity, (1 + 159 + 161 + 800 + 3000) // 256)
    assert ear.events[-1].end_ms == (4121 // 256) * 32


# Responses


async def test_a_whole_turn(talk, factory):
    """The receptionist greets, is answered aloud, understands, and decides by calling the app's tool."""
    engine, ear = await talk()
    engine.handle(respond())
    end = await ear.wait(ResponseFinished)
    assert end.status == "completed"
    assert {"brain", "tts"} <= end.timings.keys()
    greeting = ear.of(ResponseSpeech)
    assert "name" in greeting[-1].text
    assert all(event.audio for event in greeting)

    brain = factory.brain
    try:
        factory.brain = Says("This is Robert, I am calling about a delivery.")
        caller, caller_ear = await talk()
        caller.handle(respond())
        await caller_ear.wait(ResponseFinished)
    finally:
        factory.brain = brain
    engine.handle(Transcribe("item_1", 1, b"".join(event.audio for event in caller_ear.of(ResponseSpeech))))
    heard = await ear.wait(Transcribed)
    assert "Robert" in heard.text

    tool = {
        "type": "function",
        "name": "make_screening_decision",
        "parameters": {"properties": {"decision": {"enum": ["ALLOW", "REJECT", "VOICEMAIL"]}}},
    }
    said = {"type": "message", "role": "user", "content": [{"type": "input_audio", "transcript": heard.text}]}
    engine.handle(respond([said], response_id="resp_2", tools=[tool]))
    await ear.wait(ResponseFinished, 2)
    (call,) = ear.of(FunctionCallStarted)
    assert (call.response_id, call.name) == ("resp_2", "make_screening_decision")
    assert [event.delta for event in ear.of(FunctionCallArguments)] == ['{"decision": "ALLOW"}']
    assert ear.events.index(call) > ear.events.index(ear.of(ResponseSpeech)[-1])
    assert ear.events[-1] == ear.of(ResponseFinished)[-1]


async def test_a_written_answer_has_no_sound(talk):
    engine, ear = await talk()
    engine.handle(respond(audio=False))
    await ear.wait(ResponseFinished)
    assert ear.of(ResponseSpeech) == []
    assert "receptionist" in "".join(event.text for event in ear.of(ResponseText))


async def test_sentences_are_spoken_one_by_one_with_their_words(talk, brain):
    brain("First **one. Sec", "ond** one! \U0001f600 ", "Third")
    engine, ear = await talk()
    engine.handle(respond())
    await ear.wait(ResponseFinished)
    assert [event.text for event in ear.of(ResponseSpeech)] == ["First one.", "Second one!", "Third"]


async def test_speed_changes_the_length(talk, brain):
    brain("The quick brown fox jumps over the lazy dog.")
    engine, ear = await talk()
    lengths = []
    for number, speed in enumerate((0.25, 1.0, 1.5), 1):
        engine.handle(respond(response_id=f"resp_{number}", speed=speed))
        await ear.wait(ResponseFinished, number)
        lengths.append(sum(len(event.audio) for event in ear.of(ResponseSpeech)) - sum(lengths))
    assert lengths[0] > 1.5 * lengths[1] > 1.8 * lengths[2]


async def test_a_sentence_is_made_once(talk, factory, brain, monkeypatch):
    first = await speech(talk, brain, "I say this to everybody.")
    made = []
    monkeypatch.setattr(factory.speakers, "submit", made.append)
    assert await speech(talk, brain, "I say this to everybody.") == first
    assert made == []


async def test_speech_begins_and_ends_without_long_silence(talk, brain):
    audio = sound.decode(await speech(talk, brain, "Hello."), "audio/pcmu")
    loud = np.flatnonzero(np.abs(audio.astype(int)) > 1000)
    assert loud[0] < 0.1 * 8000
    assert len(audio) - loud[-1] < 0.5 * 8000
    assert 3000 < np.abs(audio.astype(int)).max() < 32000


async def test_a_cancelled_response_is_silent_at_once(talk, brain):
    brain(*(f"This is sentence number {number} for you to hear. " for number in range(200)))
    engine, ear = await talk()
    engine.handle(respond())
    await ear.wait(ResponseSpeech, 2)
    engine.handle(CancelResponse("resp_1"))
    count = len(ear.events)
    brain("Yes?")
    began = time.monotonic()
    engine.handle(respond(response_id="resp_2"))
    await ear.wait(ResponseFinished)
    assert time.monotonic() - began < 5, "nothing of the first response is still queued"
    assert {event.response_id for event in ear.events[count:]} == {"resp_2"}


async def test_a_cancelled_response_closes_the_language_models_connection_within_100_ms(
    talk, factory, monkeypatch
):
    """Whether the answer is being waited for or spoken at that moment."""
    closed = asyncio.Queue()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        chunk = b'data: {"choices": [{"delta": {"content": "One more sentence for you to hear. "}}]}\n\n'
        writer.write(chunk * 300)
        while await reader.read(4096):
            pass
        closed.put_nowait(time.monotonic())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    brain = ChatBrain(BrainConfig(kind="chat_completions", base_url=f"http://127.0.0.1:{port}", model="m"))
    await brain.start()
    monkeypatch.setattr(factory, "brain", brain)
    engine, ear = await talk()
    engine.handle(respond())
    await ear.wait(ResponseSpeech, 3)
    began = time.monotonic()
    engine.handle(CancelResponse("resp_1"))
    assert await asyncio.wait_for(closed.get(), 15) - began < 0.1
    assert ear.of(ResponseFinished) == []
    await brain.close()
    server.close()
    await server.wait_closed()


async def test_cancelling_what_is_not_there_is_harmless(talk):
    engine, _ = await talk()
    engine.handle(CancelResponse("resp_9"))


async def test_a_brain_that_crashes_ends_its_response(talk, factory, monkeypatch, caplog):
    class Crashes:
        async def respond(self, command):
            yield Say("Well")
            raise RuntimeError("no idea")

    monkeypatch.setattr(factory, "brain", Crashes())
    engine, ear = await talk()
    engine.handle(respond())
    end = await ear.wait(ResponseFinished)
    assert (end.status, end.error_code) == ("failed", "brain_crashed")
    assert "no idea" in end.error_message


async def test_nothing_comes_after_close(talk, brain):
    brain("One more sentence for you to hear. " * 20)
    engine, ear = await talk()
    engine.handle(respond())
    engine.handle(Transcribe("item_1", 1, b"\xff" * 8000))
    engine.hear(b"\xff" * 1600)
    await engine.close()
    await engine.close()
    engine.hear(b"\xff" * 1600)
    count = len(ear.events)
    other, other_ear = await talk()
    brain("Hello.")
    other.handle(respond())
    await other_ear.wait(ResponseFinished)
    assert len(ear.events) == count


# Workers


async def ready(factory):
    """Wait until every worker that was lost has been replaced."""
    async with asyncio.timeout(PATIENCE_S):
        while not factory.ready:
            await asyncio.sleep(0.02)


async def killed(pool):
    """Kill a pool's only worker by its pid; wait until another is ready."""
    (worker,) = pool.supervisor.workers
    os.kill(worker.pid, signal.SIGKILL)

    async def replaced():
        async with asyncio.timeout(PATIENCE_S):
            while not (pool.ready and worker not in pool.supervisor.workers):
                await asyncio.sleep(0.02)

    return replaced


async def test_a_worker_killed_at_work_fails_its_job_and_is_replaced(talk, factory):
    engine, ear = await talk()
    engine.handle(Transcribe("item_1", 1, line_noise(20 * 8000, "audio/pcmu", 0.1)))
    async with asyncio.timeout(PATIENCE_S):
        while factory.transcribers.waiting:
            await asyncio.sleep(0.005)
    replaced = await killed(factory.transcribers)
    failed = await ear.wait(TranscriptionFailed)
    assert failed.code == "engine_worker_died"
    engine.handle(Transcribe("item_2", 1, b"\xff" * 8000))
    assert (await ear.wait(Transcribed)).item_id == "item_2"
    await replaced()
    assert factory.ready


async def test_a_speaker_killed_at_work_fails_its_response_and_is_replaced(talk, factory, brain):
    brain(*(f"This is another sentence, number {number}. " for number in range(100)))
    engine, ear = await talk()
    engine.handle(respond())
    await ear.wait(ResponseSpeech)
    replaced = await killed(factory.speakers)
    end = await ear.wait(ResponseFinished)
    assert (end.status, end.error_code) == ("failed", "engine_worker_died")
    brain("Hello.")
    engine.handle(respond(response_id="resp_2"))
    assert (await ear.wait(ResponseFinished, 2)).status == "completed"
    await replaced()


async def test_a_new_ear_goes_on_where_the_lost_one_was(talk, factory):
    engine, ear = await talk()
    for _ in range(50):
        engine.hear(b"\xff" * 160)
    await ear.wait(VoiceActivity, 31)
    replaced = await killed(factory.listening)
    await asyncio.sleep(0.1)
    for _ in range(50):
        engine.hear(b"\xff" * 160)
    await replaced()
    await ear.wait(VoiceActivity, 31 + 31)
    times = [event.end_ms for event in ear.of(VoiceActivity)]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(2000, abs=32)


async def test_a_stuck_worker_is_replaced(factory):
    failures = []
    from offhook.realtime.engines.local.workers import Job

    header = {"type": "transcribe", "format": "audio/pcmu", "language": None, "prompt": None}
    replaced = factory.transcribers.supervisor.replaced
    job = Job(
        header, line_noise(25 * 8000, "audio/pcmu", 0.1), failures.append, failures.append, timeout_s=0.1
    )
    factory.transcribers.submit(job)
    async with asyncio.timeout(PATIENCE_S):
        while not (failures and factory.transcribers.supervisor.replaced > replaced and factory.ready):
            await asyncio.sleep(0.02)
    assert failures[0].code == "engine_worker_stuck"


async def test_ctrl_c_and_terminate_do_not_reach_workers(factory):
    await ready(factory)
    workers = [
        worker
        for part in (factory.listening, factory.speakers, factory.transcribers)
        for worker in part.supervisor.workers
    ]
    assert len(workers) == 3
    for worker in workers:
        # A group of its own, so that Ctrl-C does not reach it; our session, so that its nice value counts (autogroup).
        assert (os.getpgid(worker.pid), os.getsid(worker.pid)) == (worker.pid, os.getsid(0))
        assert os.getpriority(os.PRIO_PROCESS, worker.pid) > os.getpriority(os.PRIO_PROCESS, 0)
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    await asyncio.sleep(0.1)
    assert all(worker.ready for worker in workers)


async def test_workers_end_when_the_node_dies():
    node = """
import asyncio, os
from offhook.realtime.engines.local.listening import Listening
from offhook.realtime.engines.local.process import Role

async def main():
    listening = Listening(Role("vad", 1), 0.02)
    await listening.start()
    print(*(worker.pid for worker in listening.supervisor.workers), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", node], stdout=subprocess.PIPE)
    try:
        pid = int(await asyncio.to_thread(process.stdout.readline))
        assert Path(f"/proc/{pid}").exists()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    async with asyncio.timeout(PATIENCE_S):
        while is_alive(pid):
            await asyncio.sleep(0.02)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_closing_ends_the_workers():
    listening = Listening(Role("vad", 1), 0.02)
    await listening.start()
    (worker,) = listening.supervisor.workers
    pid = worker.pid
    await listening.close()
    assert not is_alive(pid)


# The factory


async def test_it_says_what_it_is(factory):
    about = factory.describe()
    assert about["follows_instructions"] is False
    assert "follows rules, not instructions" in about["note"]
    assert '[engine.brain] kind = "chat_completions", base_url and model' in about["note"]


async def test_slots_are_limited_and_given_back(factory, monkeypatch):
    await ready(factory)
    monkeypatch.setattr(factory, "_slots", 1)
    engine = factory.create()
    with pytest.raises(EngineUnavailable, match="all 1 sessions"):
        factory.create()
    await engine.close()
    await factory.create().close()


async def test_an_engine_needs_a_started_factory(cache):
    with pytest.raises(EngineUnavailable, match="not ready"):
        LocalFactory(LocalConfig(cache_dir=cache)).create()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"whisper_dir": Path("/nowhere")}, "whisper_dir: there is no model.bin in /nowhere"),
        ({"voice_model": Path("/nowhere.onnx")}, "voice_model: /nowhere.onnx is not a file"),
        (
            {"brain": BrainConfig(rules=Path("/nowhere.toml"))},
            "engine.brain.rules: /nowhere.toml cannot be read",
        ),
        ({"cache_dir": Path("/proc/none")}, "cache_dir: the speech model cannot be written below /proc/none"),
    ],
)
async def test_what_is_missing_is_named_at_start(cache, settings, complaint):
    factory = LocalFactory(LocalConfig(**{"cache_dir": cache, **settings}))
    with pytest.raises(EngineUnavailable, match=re.escape(complaint)):
        await factory.start()
    await factory.close()


async def test_a_model_that_cannot_be_loaded_stops_the_start(tmp_path, cache):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    factory = LocalFactory(LocalConfig(cache_dir=cache, workers=1, voice_model=broken))
    with pytest.raises(EngineUnavailable, match=r"tts: .*broken\.onnx"):
        await factory.start()
