"""
Two calls to an app on openai-node, over HTTPS and wss with the development CA: the voice of the first is the scripted
engine, that of the second an upstream.

Run by `run`; exit status 0 when all went well. The node and the phone are those of the Python tests
(`tests/testbed`); every frame that the app gets is judged twice, by openai-node and here by openai-python's types.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from testbed import Node, Phone, PhoneCall, Seat, Strictness  # noqa: E402
from testbed.protocol import check_order, validate  # noqa: E402
from testbed.script import SCRIPT, TOOL, TOOL_ARGUMENTS  # noqa: E402
from testbed.upstream import Upstream, UpstreamSession  # noqa: E402

KEY_ENV = "TEST_KEY_NODE"
KEY = "sk-upstream-node-5Vw1"
LOUD = bytes([0x10, 0x90] * 80)
"A frame of sound, PCMU."


class NodeApp:
    """`app.mjs` in a process of its own; `lines` is what it told."""

    def __init__(self, node: Node, seat: Seat) -> None:
        self.node, self.seat = node, seat
        self.lines: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> NodeApp:
        descriptor = self.seat.socket.fileno()
        environment = {
            "WEBHOOK_FD": str(descriptor),
            "PATH": os.environ["PATH"],
            "NODE_EXTRA_CA_CERTS": str(self.node.ca),
            "OPENAI_API_KEY": self.seat.api_key,
            "OPENAI_BASE_URL": self.node.https_base_url,
            "OPENAI_WEBHOOK_SECRET": self.seat.secret,
        }
        self.seat.socket.listen()
        self._process = await asyncio.create_subprocess_exec(
            "node",
            str(HERE / "app.mjs"),
            env=environment,
            pass_fds=(descriptor,),
            stdout=asyncio.subprocess.PIPE,
        )
        self._reader = asyncio.create_task(self._read())
        await self.told("listening")
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            self.lines.append(told)
            if told["what"] != "event":
                print("  app:", line.decode().strip()[:200], flush=True)
            self._changed.set()
            self._changed = asyncio.Event()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [line["event"] for line in self.lines if line["what"] == "event"]

    async def told(self, what: str, **fields: Any) -> dict[str, Any]:
        """Wait for the app to tell this; return the line."""
        async with asyncio.timeout(30):
            while True:
                changed = self._changed
                for line in self.lines:
                    if line["what"] == what and fields.items() <= line.items():
                        return line
                if self._process.returncode is not None:
                    raise AssertionError(f"app.mjs ended with {self._process.returncode}")
                await changed.wait()

    async def event(self, event_type: str, after: int = 0) -> dict[str, Any]:
        """Wait for an event at or after index `after` of `events`."""
        try:
            async with asyncio.timeout(15):
                while True:
                    changed = self._changed
                    for event in self.events[after:]:
                        if event["type"] == event_type:
                            return event
                    await changed.wait()
        except TimeoutError:
            came = [event["type"] for event in self.events[after:]]
            raise AssertionError(f"no {event_type}; came: {came}") from None


async def place_call(node: Node) -> None:
    seat = node.seat()
    async with NodeApp(node, seat) as app, Phone(node, "tls") as phone:
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
        print("  the tool was called and its output answered", flush=True)

        await transfer(app, call)


async def transfer(app: NodeApp, call: PhoneCall) -> None:
    """Press the key on which the app transfers; judge all that it was sent."""
    call.press("1")
    await app.told("referred")
    assert (await call.ended()).cause == "remote_bye"
    closed = await app.told("closed")
    assert closed["code"] == 1000, closed
    assert not (faults := [line for line in app.lines if line["what"] == "fault"]), faults
    for event in app.events:
        validate(json.dumps(event).encode(), Strictness())
    check_order(app.events)
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


async def place_upstream_call(node: Node, address: socket.socket) -> None:
    seat = node.seat()
    async with (
        Upstream(address, key=KEY) as upstream,
        NodeApp(node, seat) as app,
        Phone(node, "tls") as phone,
    ):
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
    with (
        tempfile.TemporaryDirectory(prefix="offhook-compat-") as folder,
        Node(Path(folder), script=SCRIPT) as node,
    ):
        asyncio.run(asyncio.wait_for(place_call(node), 60))
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
            Node(Path(folder), engine=engine) as node,
        ):
            asyncio.run(asyncio.wait_for(place_upstream_call(node, address), 60))
    print("openai-node: ok")


if __name__ == "__main__":
    main()
