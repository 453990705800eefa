"""
Why a call failed, as the API says it: each fault is made on a running node, and the verdict has to name it.

Faults that take a minute, a carrier's oddity or another machine are told to the judge as recorded stories, in
`tests/unit/calls/test_verdict_stories.py`.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from typer.testing import CliRunner

from offhook.cli.main import app as command
from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband, Webhook
from testbed.invites import PLAIN, bend, write
from testbed.script import SCRIPT
from testbed.trunk import Trunk

TARGET = "tel:+14155550123"
RING_S = 2.5
WEBHOOK_S = 1.0
SRTP_SEAT, FULL_SEAT, FALLBACK_SEAT = 0, 1, 2
NORMAL = {"caller_hung_up", "app_hung_up", "transferred"}


class FaultyNode(Node):
    """Gives a webhook one second, and a call without sound two."""

    def _tables(self, script: Any, ring_timeout_s: float) -> Iterator[str]:
        for table in super()._tables(script, ring_timeout_s):
            yield table
            if table.startswith("[media]"):
                yield "timeout_s = 2"
            if table.startswith("[calls]"):
                yield f"webhook_timeout_s = {WEBHOOK_S}"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with FaultyNode(
        tmp_path_factory.mktemp("faulty"),
        script=SCRIPT,
        seats=60,
        unsubscribed_seats=1,
        ring_timeout_s=RING_S,
        calls="refer_outcome_s = 1",
        seat_lines={
            SRTP_SEAT: 'srtp = "required"',
            FULL_SEAT: "max_calls = 1",
            FALLBACK_SEAT: 'fallback = { accept = { type = "realtime", model = "gpt-realtime" } }',
        },
    ) as running:
        for special in (SRTP_SEAT, FULL_SEAT, FALLBACK_SEAT):
            running.seats[special].taken = True
        yield running


@pytest.fixture
async def caller(faulty: Node) -> AsyncIterator[Phone]:
    async with Phone(faulty) as ready:
        yield ready


async def newest(app: DeveloperApp) -> str:
    """Return the id of the project's newest call, which the app need not have been told of."""
    found = (await app.node.get(app.seat, "/realtime/calls?limit=1"))["data"]
    assert found
    return str(found[0]["id"])


async def ended(app: DeveloperApp, call_id: str) -> dict[str, Any]:
    async with asyncio.timeout(15):
        while (call := await app.node.describe(app.seat, call_id))["state"] != "ended":
            await asyncio.sleep(0.02)
    return call


async def verdict(app: DeveloperApp, call_id: str = "", *, of: str = "") -> dict[str, Any]:
    """
    Return the verdict on a call that is over, and check what holds for all of them.

    The webhook's last attempt may end after the call: with `of`, wait until that is the code.
    """
    call_id = call_id or await newest(app)
    await ended(app, call_id)
    async with asyncio.timeout(15):
        while True:
            found = await app.node.get(app.seat, f"/realtime/calls/{call_id}/verdict")
            if not of or found["code"] == of:
                break
            await asyncio.sleep(0.05)
    numbers = {entry["number"] for entry in await app.node.timeline(app.seat, call_id)}
    assert found["object"] == "realtime.call.verdict"
    assert found["call_id"] == call_id
    assert found["sentence"]
    for each in (found, *found["also"]):
        assert set(each["evidence"]) <= numbers
    return found


def codes(found: dict[str, Any]) -> list[str]:
    return [found["code"], *(other["code"] for other in found["also"])]


async def talking(app: DeveloperApp, phone: Phone, **session: Any) -> tuple[PhoneCall, str]:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    await app.accept(webhook.call_id, **session)
    await call.answered()
    return call, webhook.call_id


# Nobody decided.


async def test_a_webhook_that_is_down(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty, listening=False) as app:
        call = await caller.dial(app.seat.project)
        assert (await call.refused()).status == 480
        found = await verdict(app)
        assert (found["code"], found["blame"]) == ("webhook_unreachable", "app")
        assert app.seat.url in found["sentence"]
        assert "the ringing was ended with 480 at " in found["sentence"]
        assert found["remedy"]
        assert codes(found) == ["webhook_unreachable"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "webhook_error"),
        (401, "webhook_unauthorized"),
        (404, "webhook_wrong_path"),
        (308, "webhook_redirected"),
    ],
)
async def test_a_webhook_that_answers_with_an_error(
    faulty: Node, caller: Phone, status: int, code: str
) -> None:
    async with DeveloperApp(faulty) as app:
        app.status = status
        call = await caller.dial(app.seat.project)
        await call.refused()
        found = await verdict(app)
        assert (found["code"], found["blame"]) == (code, "app")
        assert f"answered {status}" in found["sentence"]
        assert codes(found) == [code]


async def test_a_webhook_that_never_answers(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:

        async def linger(webhook: Webhook) -> None:
            await asyncio.sleep(1.3 * WEBHOOK_S)

        app.on_incoming = linger
        call = await caller.dial(app.seat.project)
        await call.refused()
        found = await verdict(app)
        assert codes(found) == ["webhook_timeout"]
        assert "no answer within 1 s" in found["sentence"]


async def test_a_webhook_that_answers_after_the_carrier_has_cancelled(node: Node, phone: Phone) -> None:
    """The issue's own example, with smaller figures."""
    async with DeveloperApp(node) as app:
        cancelled = asyncio.Event()

        async def linger(webhook: Webhook) -> None:
            await cancelled.wait()
            await asyncio.sleep(0.5)

        app.on_incoming = linger
        call = await phone.dial(app.seat.project)
        webhook = await app.incoming()
        await asyncio.sleep(2.2)
        call.hang_up()
        await ended(app, webhook.call_id)
        under_way = await verdict(app, webhook.call_id)
        assert under_way["code"] == "webhook_slow"
        assert "had not answered when the carrier cancelled at " in under_way["sentence"]
        cancelled.set()
        async with asyncio.timeout(15):
            while "answered after" not in (found := await verdict(app, webhook.call_id))["sentence"]:
                await asyncio.sleep(0.05)
        assert (found["code"], found["blame"]) == ("webhook_slow", "app")
        assert "; the carrier cancelled at " in found["sentence"]
        titles = {
            entry["number"]: entry["title"] for entry in await app.node.timeline(app.seat, webhook.call_id)
        }
        shown = [titles[number] for number in found["evidence"]]
        assert shown[0].startswith("attempt 1 ")
        assert shown[1].startswith("CANCEL ")


async def test_an_app_that_never_decides(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        call = await caller.dial(app.seat.project)
        await call.refused()
        found = await verdict(app)
        assert codes(found) == ["never_accepted"]
        assert "neither accepted nor rejected" in found["sentence"]


async def test_an_accept_with_a_bad_body(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        call = await caller.dial(app.seat.project)
        webhook = await app.incoming()
        with pytest.raises(openai.BadRequestError):
            await app.accept(webhook.call_id, extra_body={"voice_of": "god"})
        await call.refused()
        found = await verdict(app)
        assert codes(found) == ["accept_refused"]
        assert "voice_of" in found["sentence"]
        assert "400" in found["sentence"]


async def test_an_accept_with_a_bad_body_and_then_a_good_one(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        call = await caller.dial(app.seat.project)
        webhook = await app.incoming()
        with pytest.raises(openai.BadRequestError):
            await app.accept(webhook.call_id, extra_body={"voice_of": "god"})
        await app.accept(webhook.call_id)
        await call.answered()
        call.speak(300)
        await call.hears_sound()
        call.hang_up()
        assert codes(await verdict(app, webhook.call_id)) == ["caller_hung_up"]


async def test_an_accept_that_comes_too_late(node: Node, phone: Phone) -> None:
    async with DeveloperApp(node) as app:
        call = await phone.dial(app.seat.project)
        webhook = await app.incoming()
        await asyncio.sleep(2.2)
        call.hang_up()
        await ended(app, webhook.call_id)
        with pytest.raises(openai.NotFoundError):
            await app.accept(webhook.call_id)
        found = await verdict(app, webhook.call_id)
        assert codes(found) == ["accepted_too_late"]


async def test_a_caller_who_gives_up_at_once_is_nobody_elses_fault(node: Node, phone: Phone) -> None:
    async with DeveloperApp(node) as app:
        call = await phone.dial(app.seat.project)
        webhook = await app.incoming()
        call.hang_up()
        found = await verdict(app, webhook.call_id)
        assert (codes(found), found["blame"]) == (["caller_gave_up"], "caller")


async def test_nobody_is_subscribed(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty, faulty.unsubscribed[0], listening=False) as app:
        call = await caller.dial(app.seat.project)
        await call.refused()
        assert codes(await verdict(app)) == ["nobody_subscribed"]


async def test_the_app_rejects(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        call = await caller.dial(app.seat.project)
        webhook = await app.incoming()
        await app.client.realtime.calls.reject(webhook.call_id, status_code=486)
        await call.refused()
        found = await verdict(app, webhook.call_id)
        assert codes(found) == ["rejected"]
        assert "with 486" in found["sentence"]


async def test_the_fallback_takes_a_call_that_the_app_should_have_had(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty, faulty.seats[FALLBACK_SEAT], listening=False) as app:
        call = await caller.dial(app.seat.project)
        await call.answered()
        call.speak(300)
        await call.hears_sound()
        call.hang_up()
        found = await verdict(app)
        assert codes(found) == ["fallback_answered", "webhook_unreachable"]


# The INVITE could not be taken.


@pytest.mark.parametrize(
    ("seat", "change", "code"),
    [
        (None, ("RTP/AVP 0 8 96 97", "RTP/AVP 18 96 97"), "no_common_codec"),
        (SRTP_SEAT, ("RTP/AVP 0", "RTP/AVP 0"), "srtp_required"),
        (None, ("RTP/AVP 0", "UDP/TLS/RTP/SAVPF 0"), "srtp_refused"),
        (None, ("c=IN IP4 127.0.0.1", "c=IN IP4 host.test"), "offer_unusable"),
    ],
)
async def test_an_offer_that_cannot_be_taken(
    faulty: Node, seat: int | None, change: tuple[str, str], code: str
) -> None:
    chosen = faulty.seats[seat] if seat is not None else None
    async with DeveloperApp(faulty, chosen, listening=False) as app, Trunk(faulty.sip["udp"], "udp") as trunk:
        invite = bend(write(PLAIN, trunk, app.seat.project), change)
        head, _, body = invite.partition("\r\n\r\n")
        length = next(line for line in head.split("\r\n") if line.startswith("Content-Length"))
        trunk.send(invite.replace(length, f"Content-Length: {len(body)}"))
        await trunk.expect("SIP/2.0 488")
        found = await verdict(app)
        assert (codes(found), found["blame"]) == ([code], "trunk")


async def test_a_project_that_is_full(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty, faulty.seats[FULL_SEAT]) as app:
        first = await caller.dial(app.seat.project)
        webhook = await app.incoming()
        second = await caller.dial(app.seat.project)
        assert (await second.refused()).status == 480
        assert codes(await verdict(app)) == ["project_full"]
        await app.client.realtime.calls.reject(webhook.call_id)
        await first.refused()


# Answered, and then.


async def test_no_sound_from_the_caller(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            call = await caller.dial(app.seat.project, media_port=nobody.getsockname()[1])
            webhook = await app.incoming()
            await app.accept(webhook.call_id)
            await call.answered()
            await call.ended()
        found = await verdict(app, webhook.call_id)
        assert codes(found) == ["no_audio_received"]
        assert "not one RTP packet" in found["sentence"]


@pytest.mark.parametrize(
    ("answer", "code", "blame"),
    [
        ((403, ()), "refer_refused", "trunk"),
        ((202, (100, 486)), "refer_target_failed", "nobody"),
        ((202, ()), "refer_no_notify", "trunk"),
    ],
)
async def test_a_transfer_that_fails(
    faulty: Node, caller: Phone, answer: tuple[int, tuple[int, ...]], code: str, blame: str
) -> None:
    async with DeveloperApp(faulty) as app:
        call, call_id = await talking(app, caller)
        call.on_refer = answer
        call.speak(300)
        await call.hears_sound()
        try:
            await app.client.realtime.calls.refer(call_id, target_uri=TARGET)
        except openai.APIStatusError:
            assert answer[0] >= 300
        async with asyncio.timeout(15):
            while (await app.node.describe(app.seat, call_id))["refers"][0]["status"] not in (
                "failed",
                "timeout",
            ):
                await asyncio.sleep(0.02)
        call.hang_up()
        found = await verdict(app, call_id)
        assert (codes(found), found["blame"]) == ([code], blame)
        assert TARGET in found["sentence"]


async def test_a_transfer_that_was_refused_and_then_taken(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        call, call_id = await talking(app, caller)
        call.on_refer = (403, ())
        with pytest.raises(openai.APIStatusError):
            await app.client.realtime.calls.refer(call_id, target_uri=TARGET)
        call.on_refer = (202, (100, 200))
        await app.client.realtime.calls.refer(call_id, target_uri=TARGET)
        await call.ended()
        found = await verdict(app, call_id)
        assert (codes(found), found["blame"]) == (["transferred"], "nobody")


async def test_a_transfer_with_a_target_that_is_none(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        call, call_id = await talking(app, caller)
        with pytest.raises(openai.BadRequestError):
            await app.client.realtime.calls.refer(call_id, target_uri="+14155550123")
        call.speak(300)
        await call.hears_sound()
        call.hang_up()
        found = await verdict(app, call_id)
        assert (codes(found), found["blame"]) == (["refer_bad_request"], "app")


async def test_nobody_speaks_since_no_sideband_came(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        call, call_id = await talking(app, caller)
        await asyncio.sleep(5.3)
        call.hang_up()
        found = await verdict(app, call_id)
        assert (codes(found), found["blame"]) == (["sideband_never_attached"], "app")


async def test_a_sideband_that_never_asked_for_a_word(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        call, call_id = await talking(app, caller)
        async with Sideband(app.client, call_id):
            await asyncio.sleep(5.3)
            call.hang_up()
            found = await verdict(app, call_id)
        assert (codes(found), found["blame"]) == (["no_response_asked"], "app")


async def test_a_caller_who_leaves_before_the_first_word(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        call, call_id = await talking(app, caller)
        call.hang_up()
        found = await verdict(app, call_id)
        assert (codes(found), found["blame"]) == (["hung_up_before_first_word"], "caller")


TOOLS = [{"type": "function", "name": "look_up_opening_hours", "parameters": {"type": "object"}}]


@pytest.mark.parametrize("answers", [False, True])
async def test_a_tool_that_is_answered_or_not(faulty: Node, caller: Phone, answers: bool) -> None:
    async with DeveloperApp(faulty) as app:
        call, call_id = await talking(app, caller, tools=TOOLS)
        async with Sideband(app.client, call_id) as sideband:
            call.speak(300)
            await sideband.wait_for("output_audio_buffer.stopped")
            before = len(sideband.events)
            call.speak(300)
            done = await sideband.wait_for("response.function_call_arguments.done", after=before)
            await sideband.wait_for("response.done", after=before)
            if answers:
                await sideband.connection.conversation.item.create(
                    item={"type": "function_call_output", "call_id": done["call_id"], "output": "nine"}
                )
                await sideband.connection.response.create()
                await sideband.wait_for("output_audio_buffer.started", after=len(sideband.events))
            await asyncio.sleep(5.3)
            call.hang_up()
            found = await verdict(app, call_id)
        assert codes(found) == ["caller_hung_up" if answers else "tool_never_answered"]


async def test_an_engine_that_dies(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT | {"dies_after_ms": 600}) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call, call_id = await talking(app, phone)
            await call.ended()
            found = await verdict(app, call_id)
            assert (codes(found), found["blame"]) == (["engine_failed"], "node")
            assert "the script ends the engine here" in found["sentence"]


async def test_a_node_that_goes_away(tmp_path: Path) -> None:
    """What is left of it is in its database: the next one judges."""
    with Node(tmp_path, script=SCRIPT, grace_s=0.1) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call, call_id = await talking(app, phone)
            call.speak(300)
            await call.hears_sound()
            stopping = asyncio.create_task(asyncio.to_thread(node.__exit__))
            await call.ended()
            await stopping
            node.__enter__()
            app.node.base_url = node.base_url
            found = await node.get(app.seat, f"/realtime/calls/{call_id}/verdict")
            assert (found["code"], found["blame"]) == ("node_shut_down", "node")
            titles = {entry["number"]: entry["title"] for entry in await node.timeline(app.seat, call_id)}
            assert "shut down" in titles[found["evidence"][0]]


# Two at once.


async def test_two_faults_are_both_named(faulty: Node, caller: Phone) -> None:
    """The transfer is refused, and the agent's tool is never answered."""
    async with DeveloperApp(faulty) as app:
        call, call_id = await talking(app, caller, tools=TOOLS)
        call.on_refer = (603, ())
        async with Sideband(app.client, call_id) as sideband:
            call.speak(300)
            await sideband.wait_for("output_audio_buffer.stopped")
            before = len(sideband.events)
            call.speak(300)
            await sideband.wait_for("response.function_call_arguments.done", after=before)
            with pytest.raises(openai.APIStatusError):
                await app.client.realtime.calls.refer(call_id, target_uri=TARGET)
            await asyncio.sleep(5.3)
            call.hang_up()
            found = await verdict(app, call_id)
        assert sorted(codes(found)) == ["refer_refused", "tool_never_answered"]


# While it lives, and with the command.


async def test_a_call_that_lives_has_a_verdict_too(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        call = await caller.dial(app.seat.project)
        webhook = await app.incoming()
        path = f"/realtime/calls/{webhook.call_id}/verdict"
        assert (await faulty.get(app.seat, path))["code"] == "ringing"
        await app.accept(webhook.call_id)
        await call.answered()
        async with asyncio.timeout(15):
            while (found := await faulty.get(app.seat, path))["code"] != "in_progress":
                await asyncio.sleep(0.02)
        assert found["blame"] == "nobody"
        call.hang_up()


async def test_the_command_finds_a_call_by_all_its_names_and_writes_what_wireshark_reads(
    faulty: Node, caller: Phone, tmp_path: Path
) -> None:
    async with DeveloperApp(faulty) as app:
        call = await caller.dial(app.seat.project, headers=[("X-Twilio-CallSid", f"CA{caller.number}")])
        webhook = await app.incoming()
        await app.accept(webhook.call_id)
        await call.answered()
        call.speak(300)
        await call.hears_sound()
        call.hang_up()
        described = await ended(app, webhook.call_id)
        url = faulty.base_url.removesuffix("/v1")
        asked = ["--url", url, "--key", app.seat.api_key]
        pcap = tmp_path / "call.pcap"
        names = (
            webhook.call_id,
            described["sip_call_id"],
            f"CA{caller.number}",
            f"{caller.number}@phone.example",
            "last",
        )
        for name in names:
            result = await asyncio.to_thread(
                CliRunner().invoke, command, ["explain", name, *asked, "--pcap", str(pcap)]
            )
            assert result.exit_code == 0, result.output
            assert result.stdout.startswith("verdict  a normal end: the caller hung up after ")
            assert webhook.call_id in result.stdout
            assert "RTP" in result.stderr
        if shutil.which("tshark") is None:
            pytest.skip("tshark is not here to read the capture: `.ci/run` installs it")
        read = await asyncio.to_thread(
            subprocess.run,
            [
                *("tshark", "-r", str(pcap), "-Y", "sip", "-T", "fields"),
                *("-e", "sip.Method", "-e", "sip.Status-Code", "-e", "udp.dstport", "-e", "_ws.expert"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        lines = [line.split("\t") for line in read.stdout.splitlines()]
        seen = [method or status for method, status, *_ in lines]
        assert seen[0] == "INVITE"
        assert [name for name in seen if name in ("INVITE", "180", "ACK", "BYE")] == [
            "INVITE",
            "180",
            "ACK",
            "BYE",
        ]
        assert not any("Malformed" in expert for *_, expert in lines)
        assert lines[0][2] == str(faulty.sip["udp"][1])


async def test_a_capture_says_what_it_cannot_hold(faulty: Node, caller: Phone) -> None:
    async with DeveloperApp(faulty) as app:
        call = await caller.dial(app.seat.project)
        webhook = await app.incoming()
        path = f"/realtime/calls/{webhook.call_id}/pcap"
        for choice in ("rtp", "keys"):
            with pytest.raises(openai.APIStatusError) as refused:
                await app.client.get(f"{path}?{choice}=true", cast_to=object)
            assert (refused.value.code, refused.value.param) == ("not_recorded", choice)
        response = await app.client.get(path, cast_to=openai.HttpxBinaryResponseContent)
        assert response.content[:4] == b"\xd4\xc3\xb2\xa1"
        assert "RTP" in response.response.headers["x-offhook-not-included"]
        call.hang_up()
