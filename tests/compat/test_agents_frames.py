"""What other versions of the Agents SDKs put on the wire, sent as they send it (API section 7)."""

from __future__ import annotations

from typing import Any

import websockets

from testbed import DeveloperApp, Phone, PhoneCall, Socket
from testbed.script import TOOL

FUNCTION = {"type": "function", "name": TOOL, "description": "", "parameters": {"type": "object"}}


async def _answered(app: DeveloperApp, phone: Phone) -> tuple[PhoneCall, str, dict[str, str]]:
    """Return a call, the URL of its WebSocket and the headers to open it with."""
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id)
    await call.answered()
    url = f"{app.node.base_url.replace('http', 'ws', 1)}/realtime?call_id={call_id}"
    return call, url, {"Authorization": f"Bearer {app.seat.api_key}"}


async def test_the_python_sdk_of_the_year_before(app: DeveloperApp, phone: Phone) -> None:
    """
    0.6.5 sends `"format": null` in both directions right after it attached, and `response.create` before the update's
    answer (rows E03, X08). The tools must be there afterwards.
    """
    _, url, headers = await _answered(app, phone)
    session = {
        "type": "realtime",
        "model": "gpt-realtime",
        "instructions": "You are an old agent.",
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": None,
                "transcription": {"model": "gpt-4o-mini-transcribe"},
                "turn_detection": {"type": "semantic_vad"},
            },
            "output": {"format": None, "voice": "ash"},
        },
        "tools": [FUNCTION],
    }
    async with websockets.connect(url, additional_headers=headers) as connection:
        socket = Socket(connection)
        await socket.send(type="session.update", session=session)
        await socket.send(type="response.create")
        tracing = {"type": "realtime", "model": "gpt-realtime", "tracing": "auto"}
        await socket.send(type="session.update", session=tracing)
        await socket.until("output_audio_buffer.stopped")

    types = [event["type"] for event in socket.events]
    assert "error" not in types
    assert types[:2] == ["session.created", "session.updated"]
    created, first, second = (
        event["session"] for event in socket.events if event["type"].startswith("session.")
    )
    assert [tool["name"] for tool in first["tools"]] == [TOOL]
    assert first["audio"]["input"]["format"] == created["audio"]["input"]["format"]
    assert first["audio"]["output"]["voice"] == "ash"
    assert first["audio"]["input"]["turn_detection"]["interrupt_response"] is True
    assert first["model"] == created["model"]
    assert second["tracing"] == "auto"
    assert second["instructions"] == "You are an old agent."


async def test_the_javascript_sdk(app: DeveloperApp, phone: Phone) -> None:
    """
    0.20.0 offers its key as a subprotocol where it cannot set headers, asks for PCM at 24 kHz in both directions
    (rows S08, E04, X09), and interrupts with `output_audio_buffer.clear` alone (E17). The phone hears G.711 throughout.
    """
    call, url, _ = await _answered(app, phone)
    pcm = {"type": "audio/pcm", "rate": 24000}
    session = {
        "type": "realtime",
        "model": "gpt-realtime-2.1",
        "instructions": "You are a JavaScript agent.",
        "output_modalities": ["audio"],
        "audio": {
            "input": {"format": pcm, "noise_reduction": None, "turn_detection": {"type": "semantic_vad"}},
            "output": {"format": pcm, "voice": "ash", "speed": 1},
        },
        "tools": [FUNCTION],
    }
    protocols: Any = ["realtime", f"openai-insecure-api-key.{app.seat.api_key}", "openai-agents-sdk.0.20.0"]
    async with websockets.connect(url, subprotocols=protocols) as connection:
        assert connection.subprotocol == "realtime"
        socket = Socket(connection)
        await socket.send(type="session.update", session=session)
        await socket.send(type="session.update", session={"type": "realtime", "tracing": "auto"})
        await socket.send(type="response.create")
        created = await socket.until("session.created")
        updated = await socket.until("session.updated")
        await socket.until("output_audio_buffer.started")
        await call.hears_sound(200)
        await socket.send(type="output_audio_buffer.clear")
        cleared = await socket.until("output_audio_buffer.cleared")
        await call.hears_silence(200)

    assert "error" not in [event["type"] for event in socket.events]
    assert updated["session"]["audio"]["input"]["format"] == pcm
    assert updated["session"]["model"] == created["session"]["model"]
    started = next(event for event in socket.events if event["type"] == "output_audio_buffer.started")
    assert cleared["response_id"] == started["response_id"]
    assert call.alive
