"""Calls for the pages to show: real ones, from a phone of the testbed to a node in a process of its own."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

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
    "instructions": (
        "You are the receptionist of a dental clinic. Answer in one sentence, say when we are open, and put callers "
        "through to the doctor who ask for her. Never give advice on medicine, and never promise an appointment."
    ),
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
    endpoint: str = ""
    "The path of an endpoint's page."
    delivery: str = ""
    "The path of a delivery's page: of what nobody took."
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
            trunk='name = "carrier"\nsources = ["127.0.0.1/32"]',
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
        stories.delivery = await self._call_nobody()
        stories.endpoint = await self._manage()
        await asyncio.to_thread(self._turn_away)
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

    async def _call_nobody(self) -> str:
        """Call a project at whose webhook nobody listens. Return the path of the delivery's page."""
        seat = next(seat for seat in self.node.seats if not seat.taken)
        call = await self.phone.dial(seat.project)
        await call.rings()
        listed = await self.node.get(seat, "/realtime/calls")
        await asyncio.sleep(1)  # for a second attempt
        call.hang_up()
        await call.refused()
        call_id = str(listed["data"][0]["id"])
        deliveries = (await self.node.get(seat, f"/webhook_deliveries?call_id={call_id}"))["data"]
        incoming = next(one for one in deliveries if one["event_type"] == "realtime.call.incoming")
        return f"/deliveries/{incoming['id']}"

    async def _manage(self) -> str:
        """Make what an operator makes: a project with its keys, and an endpoint of it that is told of nothing."""
        async with httpx2.AsyncClient(base_url=self.url, timeout=15) as client:

            async def post(path: str, key: str, **body: object) -> dict[str, Any]:
                answer = await client.post(path, json=body, headers={"Authorization": f"Bearer {key}"})
                assert answer.status_code == 200, answer.text
                made: dict[str, Any] = answer.json()
                return made

            settings = {
                "numbers": ["+14155550110", "+14155550111"],
                "trunks": [{"name": "trunk", "sources": ["198.51.100.7"]}],
            }
            await post("/admin/api/projects", ADMIN_KEY, id="proj_clinic", name="Dental clinic", **settings)
            keys = "/admin/api/projects/proj_clinic/keys"
            key = (await post(keys, ADMIN_KEY, name="production"))["key"]
            old = (await post(keys, ADMIN_KEY, name="old laptop"))["id"]
            await client.delete(f"{keys}/{old}", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
            about = {
                "name": "Wallboard",
                "url": "https://wallboard.example.com/events",
                "event_types": ["realtime.call.incoming", "realtime.call.ended"],
            }
            endpoint = await post("/v1/webhook_endpoints", key, **about)
            return f"/webhooks/proj_clinic/{endpoint['id']}"

    def _turn_away(self) -> None:
        """Have three strangers call: two from addresses that no trunk lists, and one for nobody."""
        for source, called, times in (
            ("127.0.0.77", "100", 4),
            ("127.0.0.9", "+14155550123", 1),
            ("127.0.0.1", "+14155550199", 2),
        ):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind((source, 0))
                for number in range(times):
                    stranger.sendto(_invite(source, called, number), self.node.sip["udp"])

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


def _invite(source: str, called: str, number: int) -> bytes:
    lines = (
        f"INVITE sip:{called}@offhook.example SIP/2.0",
        f"Via: SIP/2.0/UDP {source};branch=z9hG4bK{number}",
        "Max-Forwards: 70",
        f"From: <sip:stranger@{source}>;tag={number}",
        f"To: <sip:{called}@offhook.example>",
        f"Call-ID: {number}@{source}",
        "CSeq: 1 INVITE",
        f"Contact: <sip:{source}>",
        "Content-Length: 0",
    )
    return "\r\n".join((*lines, "", "")).encode()
