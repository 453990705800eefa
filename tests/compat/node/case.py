"""
openai-node, unmodified, over HTTPS and wss with the development CA: a call and a session without one whose voice is the
scripted engine, then a call whose voice is an upstream.

Run by `make compat`; exit status 0 when all went well. Every frame that the apps get is judged twice, by openai-node
and here by openai-python's types.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from testbed import Node, Phone, PhoneCall, Seat, Strictness  # noqa: E402
from testbed.app_process import AppProcess  # noqa: E402
from testbed.npm import install, node, version  # noqa: E402
from testbed.script import SCRIPT, SHORT, SLOW, TOOL, TOOL_ARGUMENTS  # noqa: E402
from testbed.upstream import Upstream, UpstreamSession  # noqa: E402

KEY_ENV = "TEST_KEY_NODE"
KEY = "sk-upstream-node-5Vw1"
LOUD = bytes([0x10, 0x90] * 80)
"A frame of sound, PCMU."


class NodeApp(AppProcess):
    """One of the apps here, over HTTPS, which is all that openai-node's WebSocket speaks."""

    def __init__(self, offhook: Node, seat: Seat, name: str = "call.mjs") -> None:
        environment = {"NODE_EXTRA_CA_CERTS": str(offhook.ca), "OPENAI_BASE_URL": offhook.https_base_url}
        command = [node(HERE.parent / "node22"), str(HERE / name)]
        super().__init__(offhook, seat, command, environment)


async def place_call(offhook: Node) -> None:
    seat = offhook.seat()
    async with NodeApp(offhook, seat) as app, Phone(offhook, "tls") as phone:
        await app.told("listening")
        not_found = await app.told("not found")
        assert (not_found["class"], not_found["status"]) == ("NotFoundError", 404), not_found
        assert (not_found["code"], not_found["param"]) == ("call_id_not_found", ""), not_found
        assert not_found["requestID"], "no request id"

        call = await phone.dial(seat.project, headers=[("X-Customer", "Zoë")])
        await call.answered()
        webhook = await app.told("webhook", type="realtime.call.incoming")
        assert {"name": "X-Customer", "value": "Zoë"} in webhook["data"]["sip_headers"]
        created = await app.event("session.created")
        assert created["session"]["instructions"] == "Be brief."
        await app.event("output_audio_buffer.stopped")
        await call.hears_sound(200)
        print("  the caller heard the greeting", flush=True)

        for asked_for in ("message", "function_call"):
            before = len(app.events)
            call.speak()
            done = await app.event("response.done", before)
            assert [item["type"] for item in done["response"]["output"]] == [asked_for], done
            if asked_for == "message":
                await app.event("output_audio_buffer.stopped", before)
        position = app.events.index(done)
        assert done["response"]["output"][0]["name"] == TOOL
        await app.event("output_audio_buffer.started", position)
        await call.hears_sound(200, since=time.monotonic())
        print("  the tool was called and its output answered", flush=True)

        position = len(app.events)
        call.press("*")
        await app.event("output_audio_buffer.cleared", position)
        await app.event("conversation.item.truncated", position)
        await call.hears_silence(300)
        print("  a key interrupted the answer", flush=True)
        await transfer(app, call, embedded=True)


async def hold_session(offhook: Node) -> None:
    async with NodeApp(offhook, offhook.seat(), "session.mjs") as app:
        await app.ends()
        app.judge(Strictness(audio=True), embedded=True)
        await app.told("done")
        assert (await app.told("spoken"))["said"] == SHORT
        cut = await app.told("cut")
        assert SLOW[0].startswith(cut["kept"]), cut
        assert cut["kept"] != SLOW[0], cut
        assert cut["bytes"] == 400 * 48, cut
        print(f"  without a call: {len(app.events)} events, all valid and in order", flush=True)


async def transfer(app: NodeApp, call: PhoneCall, *, embedded: bool = False) -> None:
    """Press the key on which the app transfers; judge all that it was sent."""
    call.press("1")
    await app.told("referred")
    assert (await call.ended()).cause == "remote_bye"
    closed = await app.told("closed")
    assert closed["code"] == 1000, closed
    app.judge(Strictness(), embedded=embedded)
    print(f"  transferred; {len(app.events)} events, all valid and in order", flush=True)


async def use_tool(session: UpstreamSession) -> None:
    since = len(session.received)
    await session.turn("When are you open?")
    called = await session.call_tool(TOOL, TOOL_ARGUMENTS)
    # After a reconnection the conversation so far may still be coming.
    created = await session.wait_for(
        "conversation.item.create",
        lambda event: event["item"].get("call_id") == called["call_id"],
        after=since,
    )
    assert created["item"]["output"] == "nine to five"
    await session.wait_for("response.create", after=since)


async def place_upstream_call(offhook: Node, address: socket.socket) -> None:
    seat = offhook.seat()
    async with (
        Upstream(address, key=KEY) as upstream,
        NodeApp(offhook, seat) as app,
        Phone(offhook, "tls") as phone,
    ):
        await app.told("listening")
        call = await phone.dial(seat.project)
        session = await upstream.opened()
        await call.answered()
        created = await app.event("session.created")
        assert created["session"]["id"] == session.id
        greeting = await session.wait_for("response.create")
        assert greeting["response"] == {"instructions": "Greet the caller."}
        item_id = await session.begin()
        await session.say(item_id, LOUD * 20, piece=700)
        await session.finish(item_id, "Good morning.")
        await app.event("output_audio_buffer.stopped")
        await call.hears_sound(200)
        await use_tool(session)
        print("  upstream: the caller heard the greeting, the tool was called", flush=True)

        position, began = len(app.events), time.monotonic()
        item_id = await session.begin()
        await session.say(item_id, LOUD * 150)
        await call.hears_sound(200, since=began)
        await session.interrupt(item_id)
        await app.event("output_audio_buffer.cleared", position)
        await app.event("conversation.item.truncated", position)
        print("  upstream: the caller interrupted", flush=True)

        position = len(app.events)
        item_id = await session.begin()
        await session.say(item_id, LOUD * 10)
        await app.event("output_audio_buffer.started", position)
        await session.close(1006)
        failed = await app.event("response.done", position)
        assert failed["response"]["status"] == "failed", failed
        session = await upstream.opened()
        await app.event("session.updated", position)
        await use_tool(session)
        print("  upstream: lost, opened again, the tool was called again", flush=True)
        await transfer(app, call)


def main() -> None:
    install(HERE)
    print(f"openai-node {version(HERE, 'openai')}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="offhook-compat-") as folder,
        Node(Path(folder), script=SCRIPT, seats=2) as offhook,
    ):
        asyncio.run(asyncio.wait_for(place_call(offhook), 60))
        asyncio.run(asyncio.wait_for(hold_session(offhook), 60))
    os.environ[KEY_ENV] = KEY
    with socket.socket() as address:
        address.bind(("127.0.0.1", 0))
        engine = f"""
            kind = "scripted"
            [upstreams.hosted]
            url = "ws://127.0.0.1:{address.getsockname()[1]}/v1/realtime"
            api_key_env = "{KEY_ENV}"
            [models]
            "*" = "hosted"
        """
        with (
            tempfile.TemporaryDirectory(prefix="offhook-compat-") as folder,
            Node(Path(folder), engine=engine) as offhook,
        ):
            asyncio.run(asyncio.wait_for(place_upstream_call(offhook, address), 60))
    print("openai-node: ok")


if __name__ == "__main__":
    main()
