"""
`@openai/agents-realtime`, unmodified: a call with `OpenAIRealtimeSIP` over TLS, and a session without a call with
`OpenAIRealtimeWebSocket` and an `ek_` token, at a node whose voice is the scripted engine.

Run by `make compat`; exit status 0 when all went well. Every frame is judged twice: in the apps by the SDK's own
schemas, and here by openai-python's types.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from testbed import Node, Phone, Strictness  # noqa: E402
from testbed.agents_js import RULES  # noqa: E402
from testbed.app_process import AppProcess  # noqa: E402
from testbed.npm import install, node, version  # noqa: E402
from testbed.script import GREETING, LONG, SCRIPT, SHORT, SLOW, TOOL  # noqa: E402


async def place_call(offhook: Node, program: str) -> None:
    seat = offhook.seat()
    environment = {"NODE_EXTRA_CA_CERTS": str(offhook.ca), "OPENAI_BASE_URL": offhook.https_base_url}
    command = [program, str(HERE / "call.mjs")]
    async with AppProcess(offhook, seat, command, environment) as app, Phone(offhook, "tls") as phone:
        await app.told("listening")
        call = await phone.dial(seat.project)
        await call.answered()
        created = await app.event("session.created")
        assert created["session"]["instructions"] == "Be brief."
        assert [tool["name"] for tool in created["session"]["tools"]] == [TOOL]
        await app.event("output_audio_buffer.stopped")
        await call.hears_sound(200)

        since = len(app.events)
        call.speak()
        await app.event("output_audio_buffer.stopped", since)

        since = len(app.events)
        call.speak()
        await app.told("tool ended", result="nine to five")
        await app.event("output_audio_buffer.started", since)
        heard = time.monotonic()
        await call.hears_sound(200, since=heard)
        print("  the tool was called and its output answered", flush=True)

        since = len(app.events)
        call.press("*")
        await app.event("output_audio_buffer.cleared", since)
        await app.event("conversation.item.truncated", since)
        await call.hears_silence(300)
        print("  a key interrupted the answer", flush=True)

        since = len(app.events)
        call.speak()
        await app.event("output_audio_buffer.started", since)
        await call.hears_sound(200, since=time.monotonic())
        since = len(app.events)
        call.speak()
        await app.event("output_audio_buffer.cleared", since)
        await app.event("output_audio_buffer.stopped", since)
        print("  a voice interrupted the next one", flush=True)

        call.press("#")
        history = (await app.told("history"))["history"]
        assert (await call.ended()).cause == "remote_bye"
        await app.told("connection", status="disconnected")
        app.judge(Strictness(), embedded=True)
        print(f"  {len(app.events)} events, all valid and in order", flush=True)
    assert history[0] == f"assistant: {GREETING}", history
    assert f"{TOOL}: nine to five" in history, history
    assert f"assistant: {SHORT}" in history, history


async def hold_session(offhook: Node, program: str) -> None:
    seat = offhook.seat()
    async with AppProcess(offhook, seat, [program, str(HERE / "session.mjs")]) as app:
        await app.ends()
        app.judge(Strictness(audio=True), embedded=True)
        await app.told("done")
        print(f"  without a call: {len(app.events)} events, all valid and in order", flush=True)
        assert (await app.told("tool"))["day"] == "monday"
        assert (await app.told("tool ended"))["result"] == "nine to five"
        history = (await app.told("history"))["history"]
        rewritten = (await app.told("rewritten"))["history"]
    assert history[:3] == ["user: Good morning.", f"assistant: {SHORT}", "user: When are you open?"], history
    assert history[3] == f"{TOOL}: nine to five", history
    assert history[5:] == ["user: And on other days?", f"assistant: {LONG}"], history
    assert SLOW[0].startswith(history[4].removeprefix("assistant: ").strip()), history
    assert rewritten == ["user: Good evening.", *history[1:]], rewritten


def main() -> None:
    program = node(HERE.parent / "node22")
    install(HERE)
    printed = subprocess.run(
        [program, str(HERE / "schema.mjs")], capture_output=True, text=True, timeout=60, check=True
    )
    assert printed.stdout == RULES.read_text(), f"{RULES.name} is not what schema.mjs prints"
    print(f"@openai/agents-realtime {version(HERE, '@openai/agents-realtime')}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="offhook-compat-") as folder,
        Node(Path(folder), script=SCRIPT, seats=2) as offhook,
    ):
        asyncio.run(asyncio.wait_for(place_call(offhook, program), 90))
        asyncio.run(asyncio.wait_for(hold_session(offhook, program), 90))
    print("@openai/agents-realtime: ok")


if __name__ == "__main__":
    main()
