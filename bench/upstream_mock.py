"""
A Realtime API that costs little, as a process of its own, for measuring what lies before it.

It speaks WebSocket by hand: with a hundred calls, its own lateness would be measured as the node's. To each caller it
says 200 ms, in deltas of 100 ms sent at once, and rests: 0.3 s while there are few calls, so that enough is measured,
1.5 s while there are many, which is still more talk than people stand. Each fourth time it says a second, and 100 to
400 ms into that hears the caller speak (`input_audio_buffer.speech_started`). All sound is marked (`marks.py`).

As a script it obeys one JSON object per line on stdin and answers on stdout, and ends with stdin:

    {"reset": true}      forget what was measured
    {"report": true}     answers with the figures

The first line it prints is `{"port": ...}`. From asyncio, use `UpstreamMock`.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import json
import random
import sys
import time
from typing import Any, cast

import orjson
import uvloop
from marks import find_marks, marked, spread
from websockets.frames import apply_mask

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
LONGEST_LINE = 64 << 20
DELTA_FRAMES = 5
SHORT_FRAMES, LONG_FRAMES = 10, 50
MANY = 20
"Calls: with more, each rests longer."
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Figures:
    """What was measured since the last reset."""

    def __init__(self) -> None:
        self.up_ms: list[float] = []
        self.lost = 0
        self.doubled = 0
        self.unmarked = 0
        self.truncations = 0
        self.faults: list[str] = []
        self.interruptions: list[list[float]] = []
        "Call, number of the response, and when `speech_started` was sent."
        self.begun = time.monotonic()
        self.cpu = time.process_time()

    def report(self) -> dict[str, Any]:
        elapsed = time.monotonic() - self.begun
        return {
            "up_ms": spread(self.up_ms),
            "lost": self.lost,
            "doubled": self.doubled,
            "unmarked": self.unmarked,
            "truncations": self.truncations,
            "faults": self.faults[:5],
            "interruptions": self.interruptions,
            "own_cpu_percent": round(100 * (time.process_time() - self.cpu) / elapsed, 1),
        }


class Mock:
    """The process's work."""

    def __init__(self) -> None:
        self.figures = Figures()
        self.calls = 0

    def obey(self, line: bytes) -> None:
        command = json.loads(line)
        if command.get("reset"):
            self.figures = Figures()
        if command.get("report"):
            print(json.dumps(self.figures.report()), flush=True)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Session(self), "127.0.0.1", 0)
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        gc.freeze()
        while line := await commands.readline():
            self.obey(line)
        server.close()


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, mock: Mock) -> None:
        self.mock = mock
        self.transport: asyncio.Transport
        self.open = False
        self.rest = b""
        self.session: dict[str, Any] = {"type": "realtime", "id": f"sess_{id(self):x}"}
        self.call: int | None = None
        self.last = 0
        self.responses = 0
        self.talking: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.talking is not None:
            self.talking.cancel()
            self.mock.calls -= 1

    # Frames (RFC 6455 section 5.2).

    def data_received(self, data: bytes) -> None:
        at = time.monotonic_ns()
        data = self.rest + data
        if not self.open:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self.rest = head
                return
            self.upgrade(head)
        start = 0
        while (frame := self.frame_at(data, start)) is not None:
            opcode, payload, start = frame
            self.take(opcode, payload, at)
        self.rest = data[start:]

    @staticmethod
    def frame_at(data: bytes, start: int) -> tuple[int, bytes, int] | None:
        if len(data) < start + 6:
            return None
        length, at = data[start + 1] & 0x7F, start + 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        end = at + 4 + length
        if len(data) < end:
            return None
        return data[start] & 0x0F, apply_mask(data[at + 4 : end], data[at : at + 4]), end

    def upgrade(self, head: bytes) -> None:
        lines = (line.partition(b":") for line in head.split(b"\r\n"))
        key = next(value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.open = True
        self.say("session.created", session=self.session)

    def write(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        size = bytes((length,)) if length < 126 else b"\x7e" + length.to_bytes(2, "big")
        self.transport.write(bytes((0x80 | opcode,)) + size + payload)

    def say(self, event_type: str, **fields: Any) -> None:
        event = {"type": event_type, "event_id": f"event_{random.getrandbits(64):016x}", **fields}
        self.write(TEXT, orjson.dumps(event))

    # What comes up.

    def take(self, opcode: int, payload: bytes, at: int) -> None:
        if opcode == TEXT:
            self.event(orjson.loads(payload), at)
        elif opcode == PING:
            self.write(PONG, payload)
        elif opcode == CLOSE:
            self.write(CLOSE, payload)
            self.transport.close()

    def event(self, event: dict[str, Any], at: int) -> None:
        match event["type"]:
            case "input_audio_buffer.append":
                self.hear(base64.b64decode(event["audio"]), at)
            case "session.update":
                self.session |= event["session"]
                self.say("session.updated", session=self.session)
            case "conversation.item.truncate":
                self.mock.figures.truncations += 1
                told = {name: event[name] for name in ("item_id", "content_index", "audio_end_ms")}
                self.say("conversation.item.truncated", **told)
            case other:
                self.mock.figures.faults.append(f"{other} was not expected")

    def hear(self, audio: bytes, at: int) -> None:
        figures, found = self.mock.figures, False
        for call, number, sent in find_marks(audio):
            found = True
            figures.up_ms.append((at - sent) / 1e6)
            if self.call is None:
                self.call, self.last = call, number - 1
                self.mock.calls += 1
                self.talking = asyncio.get_running_loop().create_task(self.talk())
            if call != self.call:
                figures.faults.append(f"call {self.call} heard call {call}")
            figures.lost += max(0, number - self.last - 1)
            figures.doubled += number <= self.last
            self.last = max(self.last, number)
        figures.unmarked += not found

    # What goes down.

    async def talk(self) -> None:
        await asyncio.sleep(random.random())
        while True:
            long = self.responses % 4 == 3
            await self.respond(LONG_FRAMES if long else SHORT_FRAMES, interrupted=long)
            rest = 0.3 if self.mock.calls <= MANY else 1.5
            await asyncio.sleep(rest * random.uniform(0.8, 1.2))

    async def respond(self, frames: int, *, interrupted: bool) -> None:
        self.responses += 1
        number, call = self.responses, self.call
        assert call is not None
        response = {"id": f"resp_{call}_{number}", "object": "realtime.response", "output": []}
        item = {"id": f"item_{call}_{number}", "type": "message", "role": "assistant", "content": []}
        place = {"response_id": response["id"], "item_id": item["id"], "output_index": 0, "content_index": 0}
        self.say("response.created", response=response | {"status": "in_progress"})
        self.say("response.output_item.added", response_id=response["id"], output_index=0, item=item)
        self.say("conversation.item.added", previous_item_id=None, item=item)
        self.say("response.content_part.added", **place, part={"type": "audio", "transcript": ""})
        for _ in range(frames // DELTA_FRAMES):
            audio = marked(call, number, time.monotonic_ns()) * DELTA_FRAMES
            self.say("response.output_audio.delta", **place, delta=base64.b64encode(audio).decode())
        if interrupted:
            await asyncio.sleep(random.uniform(0.1, 0.4))
            self.mock.figures.interruptions.append([call, number, time.monotonic()])
            self.say("input_audio_buffer.speech_started", item_id=f"user_{call}_{number}", audio_start_ms=0)
        else:
            await asyncio.sleep(frames * 0.02)
        self.say("response.output_audio.done", **place)
        self.say("response.output_audio_transcript.done", **place, transcript="Good morning.")
        item |= {"content": [{"type": "output_audio", "transcript": "Good morning."}]}
        self.say("response.output_item.done", response_id=response["id"], output_index=0, item=item)
        status = "cancelled" if interrupted else "completed"
        self.say("response.done", response=response | {"status": status, "output": [item]})


class UpstreamMock:
    """A mock's process, from asyncio."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port

    @classmethod
    async def start(cls) -> UpstreamMock:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
        )
        assert process.stdout is not None
        return cls(process, json.loads(await process.stdout.readline())["port"])

    def reset(self) -> None:
        self._write({"reset": True})

    async def report(self) -> dict[str, Any]:
        self._write({"report": True})
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return answer

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    def _write(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")


if __name__ == "__main__":
    uvloop.run(Mock().run())
