"""A server with sessions without a call and the scripted engine; the test can reach both, and is the client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from offhook.audio import g711, tones
from offhook.calls.errors import call_not_found
from offhook.clock import SystemClock
from offhook.realtime.directory import EngineDirectory
from offhook.realtime.engines.scripted import Call, Reply, Script, ScriptedFactory, Turn
from offhook.realtime.engines.upstream.engine import UpstreamFactory
from offhook.realtime.engines.upstream.target import Upstream
from offhook.realtime.plain_sessions import PlainSessions
from offhook.server import HttpServer, ServerServices, create_app
from offhook.server.sideband_limits import SidebandLimits
from offhook.tenants import ConfiguredProjects, Project

__all__ = [
    "FRAME",
    "QUIET",
    "SCRIPT",
    "Desk",
    "append",
    "append_frame",
    "formats",
    "receive",
    "say",
    "serving",
    "sound_of",
    "speak",
    "update",
]

SCRIPT = Script(
    turns=(
        Turn(
            "What is the weather?",
            (Reply("", (Call("get_weather", '{"city":"Berlin"}'),)), Reply("It is sunny in Berlin.")),
        ),
        Turn("Tell me a story.", (Reply("Once upon a time. " * 20, sentence_ms=200),)),
        Turn("Stop.", (Reply("Fine."),)),
    )
)
FRAME = {
    "audio/pcm": tones.tone(300.0, 20, level=0.3, rate=24000).astype("<i2").tobytes(),
    "audio/pcmu": g711.encode(tones.tone(300.0, 20, level=0.3), "PCMU"),
    "audio/pcma": g711.encode(tones.tone(300.0, 20, level=0.3), "PCMA"),
}
QUIET = {"audio/pcm": b"\0" * 960, "audio/pcmu": b"\xff" * 160, "audio/pcma": b"\xd5" * 160}


class NoCalls:
    def find(self, project_id, call_id):
        raise call_not_found()

    def list(self, project_id):
        return []


class Desk:
    """A server whose sessions the test can reach."""

    def __init__(self, server, sessions, factory):
        self.server, self.sessions, self.factory = server, sessions, factory

    def connect(self, query="?model=gpt-realtime", *, path="/v1/realtime", key="sk-a", **headers):
        host, port = self.server.address
        return connect(
            f"ws://{host}:{port}{path}{query}",
            additional_headers={"Authorization": f"Bearer {key}", **headers},
            compression=None,
            max_size=None,
        )

    async def refused(self, *args, **kwargs):
        with pytest.raises(InvalidStatus) as caught:
            async with self.connect(*args, **kwargs):
                pass
        answer = caught.value.response
        return answer.status_code, json.loads(answer.body)["error"]


@contextlib.asynccontextmanager
async def serving(script=SCRIPT, *, slots=0, limit_s=3600.0, most=50, factory=None, limits=None, **project):
    clock = SystemClock()
    factory = factory or ScriptedFactory(script, slots=slots)
    engines = EngineDirectory(
        {"scripted": factory, "up": UpstreamFactory([Upstream("openai", "wss://api.openai.com/v1")])},
        default="scripted",
        models={"hosted": "up"},
    )
    await engines.start()
    sessions = PlainSessions(engines, clock=clock, max_sessions=most, session_limit_s=limit_s)
    projects = ConfiguredProjects(
        [Project("proj_a", api_keys=("sk-a",), **project), Project("proj_b", api_keys=("sk-b",))]
    )
    services = ServerServices(
        projects=projects,
        calls=NoCalls(),
        clock=clock,
        sessions=sessions,
        sideband=limits or SidebandLimits(),
    )
    server = HttpServer(create_app(services), host="127.0.0.1", port=0)
    await server.start()
    try:
        yield Desk(server, sessions, factory)
    finally:
        await sessions.close(grace_s=0)
        await server.close()
        await engines.close()


async def receive(ws, *types, seen=None):
    """Return the next event of these types; `seen` gets all that come."""
    async with asyncio.timeout(15):
        while True:
            event = json.loads(await ws.recv())
            if seen is not None:
                seen.append(event)
            if event["type"] in types:
                return event


async def say(ws, kind, **fields):
    await ws.send(json.dumps({"type": kind, **fields}))


def append_frame(audio):
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()})


async def append(ws, audio):
    await ws.send(append_frame(audio))


async def speak(ws, audio_format="audio/pcm", *, loud=20, quiet=40):
    for frame, count in ((FRAME[audio_format], loud), (QUIET[audio_format], quiet)):
        for _ in range(count):
            await append(ws, frame)


def sound_of(events):
    return b"".join(
        base64.b64decode(e["delta"]) for e in events if e["type"] == "response.output_audio.delta"
    )


async def update(ws, **session):
    await say(ws, "session.update", session={"type": "realtime", **session})
    return (await receive(ws, "session.updated", "error"))["session"]


def formats(hears, speaks):
    def of(name):
        return {"type": name, "rate": 24000} if name == "audio/pcm" else {"type": name}

    return {"audio": {"input": {"format": of(hears)}, "output": {"format": of(speaks)}}}
