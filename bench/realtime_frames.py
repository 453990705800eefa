"""
The CPU that 20 ms of sound cost a session, from a client's frame to the engine's ears and from its voice to a frame.

One process and no network: a `SessionRunner` with the real session and JSON, an engine that only takes, and a
client that only counts. So it is what Offhook's own code costs, without the WebSocket library and the kernel. Each
figure is the median of seven rounds of 5,000 frames, by the clock of the thread.

    python bench/realtime_frames.py             a table
    python bench/realtime_frames.py --check     the same; exits with 1 when a frame costs more than 30 microseconds
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from offhook import ids
from offhook.clock import SystemClock
from offhook.realtime.engine import (
    AudioFormat,
    Engine,
    EngineCommand,
    EngineEvent,
    EngineStart,
    Respond,
    ResponseSpeech,
    VoiceActivity,
)
from offhook.realtime.runner import SessionRunner
from offhook.realtime.session import Session
from offhook.realtime.session_config import parse_accept
from offhook.realtime.sideband_audio import bytes_per_ms

TARGET_US = 30.0
FRAME_MS = 20
FRAMES, ROUNDS = 5_000, 7
Frames = list[Callable[[], None]]


class Mute(Engine):
    """Takes sound, of which each frame is silence to it, and says what it is told to say."""

    def __init__(self) -> None:
        self.frames = 0
        self.asked: list[Respond] = []
        self.emit: Callable[[EngineEvent], None] = lambda event: None

    async def start(self, start: EngineStart, emit: Callable[[EngineEvent], None]) -> None:
        self.emit = emit

    def hear(self, audio: bytes) -> None:
        self.frames += 1
        self.emit(VoiceActivity(0.0, self.frames * FRAME_MS))

    def handle(self, command: EngineCommand) -> None:
        if isinstance(command, Respond):
            self.asked.append(command)

    async def close(self) -> None: ...


class Counter:
    """A client that reads at once."""

    def __init__(self) -> None:
        self.bytes = 0

    def send(self, frame: bytes) -> None:
        self.bytes += len(frame)

    def close(self, code: int, reason: str) -> None: ...


async def session(
    client_format: AudioFormat, engine_format: AudioFormat, *, sip: bool
) -> tuple[SessionRunner, Mute, Counter, Callable[[str], None]]:
    """Return a session's parts, and what takes a frame from its client."""
    shape: dict[str, Any] = {"type": client_format}
    if client_format == "audio/pcm":
        shape["rate"] = 24000
    config = parse_accept(
        {"type": "realtime", "model": "m", "audio": {"input": {"format": shape}, "output": {"format": shape}}}
    )
    core = Session(
        config,
        session_id="sess_1",
        audio_format=engine_format,
        new_id=ids.opaque_id,
        sip=sip,
        max_duration_s=3600,
    )
    engine, client = Mute(), Counter()
    runner = SessionRunner(core, engine, clock=SystemClock())
    await runner.start(EngineStart("sess_1", engine_format, "m"))
    attachment = runner.attach(client, events=frozenset({"audio"}))
    return runner, engine, client, attachment.receive


def timed(work: Callable[[], None]) -> float:
    """Return the microseconds of one frame."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        for _ in range(FRAMES):
            work()
        rounds.append((time.thread_time_ns() - began) / FRAMES / 1000)
    return statistics.median(rounds)


async def heard(client_format: AudioFormat, engine_format: AudioFormat) -> float:
    """Measure an append of a client's to the engine's next frame."""
    runner, engine, _, take = await session(client_format, engine_format, sip=False)
    sound = (bytes(range(256)) * 4)[: FRAME_MS * bytes_per_ms(client_format)]
    audio = base64.b64encode(sound)
    frame = json.dumps({"type": "input_audio_buffer.append", "audio": audio.decode()})
    cost = timed(lambda: take(frame))
    if engine.frames < FRAMES * ROUNDS * 0.99:
        raise SystemExit(f"{engine.frames} of {FRAMES * ROUNDS} frames were heard")
    await runner.close("done")
    return cost


async def said(client_format: AudioFormat, engine_format: AudioFormat, *, sip: bool) -> float:
    """Measure 20 ms of the engine's voice to a client's `response.output_audio.delta`."""
    runner, engine, client, take = await session(client_format, engine_format, sip=sip)
    take('{"type": "response.create"}')
    asked = engine.asked[0]
    audio = bytes(range(256)) * 4
    speech = ResponseSpeech(
        asked.response_id, asked.generation, "", audio[: FRAME_MS * bytes_per_ms(engine_format)]
    )
    before = client.bytes
    cost = timed(lambda: engine.emit(speech))
    # A resampler gives its sound in lumps, so bytes are counted: base64 alone is more than the sound itself.
    sound = FRAMES * ROUNDS * FRAME_MS * bytes_per_ms(client_format)
    if client.bytes - before < sound:
        raise SystemExit(f"{client.bytes - before} bytes came for {sound} of sound")
    await runner.close("done")
    return cost


async def measure() -> dict[str, float]:
    return {
        "in, pcm 24 kHz": await heard("audio/pcm", "audio/pcm"),
        "in, G.711": await heard("audio/pcmu", "audio/pcmu"),
        "in, A-law heard as 24 kHz": await heard("audio/pcma", "audio/pcm"),
        "out, pcm 24 kHz": await said("audio/pcm", "audio/pcm", sip=False),
        "out, G.711": await said("audio/pcmu", "audio/pcmu", sip=False),
        "out, a call's sound to a sideband as 24 kHz": await said("audio/pcm", "audio/pcmu", sip=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help=f"exit with 1 above {TARGET_US:g} microseconds")
    arguments = parser.parse_args()
    costs = asyncio.run(measure())
    for name, cost in costs.items():
        print(f"{name:45} {cost:6.1f} µs for 20 ms")
    if arguments.check and max(costs.values()) > TARGET_US:
        sys.exit(1)


if __name__ == "__main__":
    main()
