"""
Sessions without a phone: how soon one opens, and whether one core holds a hundred that listen and speak.

`offhook serve` with engine `scripted`, alone on one core with all its threads; the clients share the rest. Each of N
clients opens `?model=`, and then appends 20 ms of 24 kHz sound every 20 ms, by turns a second of a tone and two of
silence, staggered. So each session has a turn every three seconds: it is heard, committed, transcribed and answered
with sound by server VAD. Measured:

    turn      from sending the frame that ends the silence after the tone to the answer's first delta
    late      how late the clients were with their own frames: what they could not keep up with is not the node's
    opening   while all that goes on, ten more sessions a second: from the end of the handshake to `session.created`

A turn that is not answered, an answer that is not whole, and an `error` are counted; there must be none.

    python bench/plain_sessions.py                 1, 10, 50 and 100 sessions, about two minutes
    python bench/plain_sessions.py --check         the same; exits with 1 when a target is missed
    python bench/plain_sessions.py --sessions 100 --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import uvloop
import websockets
from marks import spread
from pacing import HTTP_PORT, KEY, SIP_PORT, cpu_seconds, start_server

from offhook.audio import tones

CORES = sorted(os.sched_getaffinity(0))
OPENING_P95_MS = 10.0
FRAME_S, TONE, SILENCE = 0.02, 50, 100
CYCLE = TONE + SILENCE
"Frames of one turn."
SILENCE_MS = 500
OPENED_A_SECOND = 10
URL = f"ws://127.0.0.1:{HTTP_PORT}/v1/realtime?model=scripted"
HEADERS = {"Authorization": f"Bearer {KEY}"}
CONFIG = f"""
[server]
http = "127.0.0.1:{HTTP_PORT}"
https = ""
shutdown_grace_s = 0
[sip]
listen = ["udp:127.0.0.1:{SIP_PORT}"]
[calls]
max_concurrent = 500
[engine]
kind = "scripted"
[[projects]]
id = "proj_bench"
api_keys = ["{KEY}"]
[[projects.trunks]]
sources = ["127.0.0.0/8"]
"""
SESSION = {
    "type": "session.update",
    "session": {
        "type": "realtime",
        "audio": {
            "input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": SILENCE_MS}},
            "output": {"voice": "marin"},
        },
    },
}


def _append(sound: bytes) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode()})


LOUD = _append(tones.tone(440.0, 20, level=0.3, rate=24000).tobytes())
QUIET = _append(bytes(960))


class Client:
    """One session, from its opening to the end of its last turn."""

    def __init__(self, number: int, total: int) -> None:
        self._offset_s = number * CYCLE * FRAME_S / total
        self.events: Counter[str] = Counter()
        self.late_ms: list[float] = []
        self.turn_ms: list[float] = []
        self.sound = 0
        "Bytes of base64 that came."
        self.turns = 0
        self._answered = asyncio.Event()
        self._silent_at: float | None = None

    async def run(self, begin_at: float, turns: int) -> None:
        async with websockets.connect(URL, additional_headers=HEADERS, compression=None) as socket:
            await socket.send(json.dumps(SESSION))
            reading = asyncio.create_task(self._read(socket, turns))
            try:
                await self._speak(socket, begin_at + self._offset_s, turns)
                await asyncio.wait_for(self._answered.wait(), 10)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _speak(self, socket: websockets.ClientConnection, at: float, turns: int) -> None:
        for number in range(turns * CYCLE):
            if (wait := at - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            self.late_ms.append(1000 * (time.monotonic() - at))
            place = number % CYCLE
            await socket.send(LOUD if place < TONE else QUIET)
            if place == TONE + SILENCE_MS // 20 - 1:
                self.turns += 1
                self._silent_at = time.monotonic()
            at += FRAME_S

    async def _read(self, socket: websockets.ClientConnection, turns: int) -> None:
        async for frame in socket:
            event = orjson.loads(frame)
            self.events[event["type"]] += 1
            if event["type"] == "response.output_audio.delta":
                self.sound += len(event["delta"])
                if self._silent_at is not None:
                    self.turn_ms.append(1000 * (time.monotonic() - self._silent_at))
                    self._silent_at = None
            elif event["type"] == "response.done":
                self.events[event["response"]["status"]] += 1
                if self.events["response.done"] == turns:
                    self._answered.set()


async def open_some(until: float) -> list[float]:
    """Open and close sessions at a steady pace; return the time each one waited for its first event, in ms."""
    waited = []
    while (now := time.monotonic()) < until:
        async with websockets.connect(URL, additional_headers=HEADERS, compression=None) as socket:
            opened = time.monotonic()
            event = orjson.loads(await socket.recv())
            waited.append(1000 * (time.monotonic() - opened))
            assert event["type"] == "session.created", event
        await asyncio.sleep(max(0.0, now + 1 / OPENED_A_SECOND - time.monotonic()))
    return waited


async def measure(sessions: int, seconds: float) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="offhook-bench-"))
    server = await start_server(folder, CONFIG)
    node_core, others = CORES[-1:], CORES[:-1] or CORES
    for thread in os.listdir(f"/proc/{server.pid}/task"):
        os.sched_setaffinity(int(thread), node_core)
    os.sched_setaffinity(0, others)
    turns = max(1, round(seconds / (CYCLE * FRAME_S)))
    clients = [Client(number, sessions) for number in range(sessions)]
    begin_at = time.monotonic() + 0.5 + 0.02 * sessions
    try:
        running = [asyncio.create_task(client.run(begin_at, turns)) for client in clients]
        await asyncio.sleep(begin_at + CYCLE * FRAME_S - time.monotonic())
        cpu, began = cpu_seconds(server.pid), time.monotonic()
        until = begin_at + turns * CYCLE * FRAME_S
        waited = await open_some(until)
        cpu, elapsed = cpu_seconds(server.pid) - cpu, time.monotonic() - began
        await asyncio.gather(*running)
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(server.wait(), 30)
    events = sum((client.events for client in clients), Counter())
    share = cpu / elapsed
    return {
        "sessions": sessions,
        "cpu_percent_of_a_core": round(100 * share, 1),
        "cpu_us_for_20_ms_in": round(1e6 * share * FRAME_S / sessions, 1),
        "turns": sum(client.turns for client in clients),
        "answered": events["completed"],
        "same_sound": len({client.sound for client in clients}) == 1,
        "errors": events["error"],
        "turn_ms": spread([ms for client in clients for ms in client.turn_ms]),
        "late_ms": spread([ms for client in clients for ms in client.late_ms]),
        "opening_ms": spread(waited),
    }


def show(result: dict[str, Any]) -> None:
    turn, late, opening = result["turn_ms"], result["late_ms"], result["opening_ms"]
    print(
        f"{result['sessions']:4} sessions: {result['cpu_percent_of_a_core']:.1f} % of a core"
        f" ({result['cpu_us_for_20_ms_in']:.0f} µs for 20 ms of each),"
        f" {result['answered']} of {result['turns']} turns answered, {result['errors']} errors,"
        f" turn p50 {turn['p50']:.1f} p95 {turn['p95']:.1f} max {turn['max']:.1f} ms,"
        f" opening p50 {opening['p50']:.1f} p95 {opening['p95']:.1f} max {opening['max']:.1f} ms (n {opening['n']}),"
        f" clients late p99 {late['p99']:.1f} ms",
        flush=True,
    )


def missed(result: dict[str, Any]) -> list[str]:
    """Return what is not as it should be."""
    faults = []
    if result["answered"] != result["turns"] or not result["same_sound"]:
        faults.append(
            f"{result['turns'] - result['answered']} turns without an answer, or answers of different length"
        )
    if result["errors"]:
        faults.append(f"{result['errors']} errors")
    if result["opening_ms"]["p95"] > OPENING_P95_MS:
        faults.append(f"opening p95 {result['opening_ms']['p95']:.1f} ms is above {OPENING_P95_MS:g}")
    if result["cpu_percent_of_a_core"] >= 100:
        faults.append("the core is full")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, nargs="*", default=[1, 10, 50, 100])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    faults = []
    for sessions in arguments.sessions:
        result = uvloop.run(measure(sessions, arguments.seconds))
        if arguments.json:
            print(json.dumps(result), flush=True)
        else:
            show(result)
        faults += [f"{sessions} sessions: {fault}" for fault in missed(result)]
    if arguments.check and faults:
        sys.exit("missed: " + "; ".join(faults))


if __name__ == "__main__":
    main()
