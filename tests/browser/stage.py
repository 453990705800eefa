"""Calls for the pages to show: real ones, from a phone of the testbed to a node in a process of its own."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband

__all__ = ["ADMIN_KEY", "HOSTILE_NAME", "Stage", "Stories"]

ADMIN_KEY = "ak-offhook-browser-tests"
HOSTILE_NAME = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp.exe"
TARGET = "tel:+14155550123"
SCRIPT = {
    "greeting": "Good morning, this is the dental clinic.",
    "turns": [
        {
            "hears": "Good morning, when are you open?",
            "replies": [{"says": "From nine to five, Monday to Friday."}],
        },
        {"hears": "And on Saturdays?", "replies": [{"says": "On Saturdays we are closed."}]},
        {"hears": "Then put me through to the doctor.", "replies": [{"says": "One moment, please."}]},
    ],
}
SESSION = {
    "model": "gpt-realtime",
    "instructions": "You are the receptionist of a dental clinic.",
    "audio": {
        "input": {
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
            "transcription": {"model": "whisper-1"},
        }
    },
}


@dataclass
class Stories:
    """Ids of the calls that were placed, by what became of them."""

    transferred: str = ""
    refused_transfer: str = ""
    hostile: str = ""
    unanswered: str = ""
    live: str = ""
    live_call: PhoneCall | None = field(default=None, repr=False)


class Stage:
    """A node with an app and a phone. Enter it in the loop that shall drive them."""

    def __init__(self, folder: Path) -> None:
        self.node = Node(
            folder,
            script=SCRIPT,
            seats=2,
            seat_lines={0: "record = true"},
            server=f'admin_key = "{ADMIN_KEY}"',
        )
        self.stories = Stories()

    @property
    def url(self) -> str:
        return self.node.base_url.removesuffix("/v1")

    async def __aenter__(self) -> Stage:
        self.node.__enter__()
        self.app = await DeveloperApp(self.node).__aenter__()
        self.phone = await Phone(self.node).__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.phone.__aexit__(None, None, None)
        await self.app.__aexit__(None, None, None)
        self.node.__exit__()

    async def play(self) -> Stories:
        """Place the calls, one after the other; the last one lives on."""
        stories = self.stories
        stories.hostile = await self._hostile()
        stories.unanswered = await self._ring_in_vain()
        stories.transferred = await self._transfer("Anna Miller", (202, (100, 180, 200)), turns=3)
        stories.refused_transfer = await self._transfer("Tom Baker", (202, (100, 486)), turns=1)
        stories.live, stories.live_call = await self.answered("Priya Shah")
        return stories

    async def answered(
        self, display_name: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> tuple[str, PhoneCall]:
        """Return a call that was accepted and answered, and its id."""
        call = await self.phone.dial(self.app.seat.project, headers=headers, display_name=display_name)
        call_id = (await self.app.incoming()).call_id
        await self.app.accept(call_id, **SESSION)
        await call.answered()
        return call_id, call

    async def say(self, call: PhoneCall) -> None:
        """Speak, and wait until the agent answers."""
        at = time.monotonic()
        call.speak(500)
        await call.hears_sound(since=at)

    async def end(self, call: PhoneCall) -> None:
        """Hang up as the caller."""
        call.hang_up()
        await call.ended()

    async def _ring_in_vain(self) -> str:
        call = await self.phone.dial(self.app.seat.project)
        call_id = (await self.app.incoming()).call_id
        await call.rings()
        call.hang_up()
        await call.refused()
        return call_id

    async def _transfer(self, name: str, on_refer: tuple[int, tuple[int, ...]], turns: int) -> str:
        call_id, call = await self.answered(name)
        call.on_refer = on_refer
        async with Sideband(self.app.client, call_id, events="call") as sideband:
            await sideband.wait_for("session.created")
            for number in range(turns):
                call.speak(500)
                await self._wait(lambda count=number + 1: len(sideband.of_type("response.done")) >= count)
            await self.app.client.realtime.calls.refer(call_id, target_uri=TARGET)
            await self._wait(
                lambda: any(
                    update["status"] in ("completed", "failed")
                    for update in sideband.of_type("call.refer.updated")
                )
            )
        if not call.ended_by and on_refer[1][-1] != 200:
            await self.app.client.realtime.calls.hangup(call_id)
        await call.ended()
        return call_id

    async def _hostile(self) -> str:
        call_id, call = await self.answered(HOSTILE_NAME, (("X-Note", "\u001b[31mred " + "x" * 7_000),))
        await self.end(call)
        return call_id

    @staticmethod
    async def _wait(holds: object, timeout: float = 20.0) -> None:
        async with asyncio.timeout(timeout):
            while not holds():  # type: ignore[operator]
                await asyncio.sleep(0.05)
