"""Recording of real calls: both sides on the call's clock, what REST and webhooks say, and who may hear it."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband
from testbed.invites import PLAIN, sdp_of, write
from testbed.node import EVENTS
from testbed.recordings import Sound, ask_recording, fetch_recording, parse_wav
from testbed.rtp import Rtp
from testbed.trunk import Trunk, establish, post
from testbed.waiting import until

SAVED = "realtime.call.recording.saved"
GREETING = "Hello, this is the office. Who is it, please?"
SCRIPT = {"greeting": GREETING, "turns": [{"hears": "It is Anna.", "replies": [{"says": "I see."}]}]}
ALWAYS = range(8)
"The seats of projects whose calls are all recorded."


@pytest.fixture(scope="module")
def recording_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(
        tmp_path_factory.mktemp("recording-node"),
        script=SCRIPT,
        seats=20,
        events=(*EVENTS, SAVED),
        seat_lines=dict.fromkeys(ALWAYS, "record = true"),
    ) as node:
        yield node


@pytest.fixture
async def phone(recording_node: Node) -> AsyncIterator[Phone]:
    async with Phone(recording_node) as ready:
        yield ready


@pytest.fixture
async def recorded(recording_node: Node) -> AsyncIterator[DeveloperApp]:
    """An app whose project records every call."""
    seat = next(recording_node.seats[number] for number in ALWAYS if not recording_node.seats[number].taken)
    seat.taken = True
    async with DeveloperApp(recording_node, seat) as app:
        yield app


@pytest.fixture
async def asking(recording_node: Node) -> AsyncIterator[DeveloperApp]:
    """An app whose project records what it is asked to."""
    seat = next(seat for seat in recording_node.seats[len(ALWAYS) :] if not seat.taken)
    seat.taken = True
    async with DeveloperApp(recording_node, seat) as app:
        yield app


async def call_in(phone: Phone, app: DeveloperApp) -> tuple[PhoneCall, str]:
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id)
    await call.answered()
    return call, call_id


async def do(app: DeveloperApp, call_id: str, action: str) -> dict[str, Any]:
    response = await ask_recording(app.node, app.seat, call_id, "POST", {"action": action})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def saved(app: DeveloperApp) -> tuple[Any, Sound]:
    """Return what the webhook says, and the sound that is where it says."""
    data = (await app.next(SAVED)).event.data
    response = await fetch_recording(data.url, app.seat)
    assert (response.status_code, response.headers["content-type"]) == (200, "audio/wav")
    assert len(response.content) == data.bytes
    sound = parse_wav(response.content)
    assert sound.ms == data.duration_ms
    return data, sound


async def spoken(call: PhoneCall, ms: int) -> None:
    await asyncio.sleep(max(0.0, call.speak(ms) - time.monotonic()))


@pytest.mark.alone
async def test_both_sides_are_heard_when_they_spoke(phone: Phone, recorded: DeveloperApp) -> None:
    call, call_id = await call_in(phone, recorded)
    async with Sideband(recorded.client, call_id) as sideband:
        await call.hears_silence(400)
        await sideband.connection.response.create()
        await sideband.wait_for("output_audio_buffer.stopped")
        greeted = await call.hears_silence(300)
        await spoken(call, 800)
        second = await call.hears_sound(100, since=greeted + 0.5)
        await call.hears_silence(300)
    call.hang_up()
    data, sound = await saved(recorded)
    assert data.call_id == call_id
    assert data.state == "saved"
    assert sound.law == "PCMU"
    # The agent's side is what the phone heard, at the same distance in time.
    assert abs(sound.loud_ms(sound.agent) - call.loud_ms()) <= 60
    heard_apart = (second - next(at for at, level in call.heard if level >= -45)) * 1000
    began = sound.first_ms(sound.caller)
    assert abs(heard_apart - (sound.first_ms(sound.agent, began) - sound.first_ms(sound.agent))) <= 100
    # The caller's is what was said, between the two sentences.
    assert 740 <= sound.loud_ms(sound.caller) <= 860
    assert sound.loud_ms(sound.agent, 0, began) >= 0.8 * 60 * len(GREETING.replace(" ", ""))
    assert sound.loud_ms(sound.agent, began, began + 800) == 0
    titles = [entry["title"] for entry in await recorded.node.timeline(recorded.seat, call_id)]
    assert [title for title in titles if title.startswith("recording ")] == [
        "recording started",
        "recording ends: the call is over",
        f"recording saved: {data.duration_ms / 1000:.1f} s, {data.bytes} bytes",
    ]


@pytest.mark.alone
async def test_what_the_caller_cut_short_is_cut_short_in_the_recording(
    phone: Phone, recorded: DeveloperApp
) -> None:
    call, call_id = await call_in(phone, recorded)
    async with Sideband(recorded.client, call_id) as sideband:
        await call.hears_silence(200)
        await sideband.connection.response.create()
        await call.hears_sound(400)
        await spoken(call, 900)
        await sideband.wait_for("output_audio_buffer.cleared")
        await call.hears_silence(400)
    call.hang_up()
    _, sound = await saved(recorded)
    began = sound.first_ms(sound.caller)
    before, after = sound.loud_ms(sound.agent, 0, began), sound.loud_ms(sound.agent, began, began + 900)
    assert before >= 300
    assert before + after < 60 * len(GREETING) * 0.7
    assert abs(sound.loud_ms(sound.agent) - call.loud_ms()) <= 60


async def test_both_sides_are_silent_while_the_call_is_on_hold(
    recording_node: Node, recorded: DeveloperApp
) -> None:
    async with Trunk(recording_node.sip["udp"], "udp") as udp, Rtp() as rtp:
        call, call_id = await establish(udp, recorded, write(PLAIN, udp, recorded.seat.project, rtp=rtp.port))
        contact = f"Contact: <sip:caller@{udp.local[0]}:{udp.local[1]}>"
        await rtp.speak(call.media, 600, loud=True)
        body = sdp_of(call.invite)
        held = await call.ask("INVITE", contact, body=body.replace("o=- 1 1", "o=- 1 2") + "a=sendonly\r\n")
        call.send("ACK", cseq=held.cseq)
        async with Sideband(recorded.client, call_id) as sideband:
            await sideband.connection.response.create()
            # Music on hold is not the caller.
            await rtp.speak(call.media, 800, loud=True)
            await rtp.speak(call.media, 200, loud=False)
            back = await call.ask("INVITE", contact, body=body.replace("o=- 1 1", "o=- 1 3"))
            call.send("ACK", cseq=back.cseq)
            await rtp.hears(time.monotonic() - 0.1)
            await rtp.speak(call.media, 400, loud=False)
        assert await post(recorded, call_id, "hangup") == 200
        _, sound = await saved(recorded)
    ends = sound.first_ms(sound.caller) + 600
    assert 500 <= sound.loud_ms(sound.caller, 0, ends + 60) <= 640
    assert sound.loud_ms(sound.caller, ends + 60) == 0
    assert sound.loud_ms(sound.agent, 0, ends + 900) == 0
    assert sound.loud_ms(sound.agent, ends + 900) > 200


async def test_a_change_of_codec_is_not_heard_in_the_recording(
    recording_node: Node, recorded: DeveloperApp
) -> None:
    """A-law's silence would be noise in a file of mu-law, and the other way round."""
    async with Trunk(recording_node.sip["udp"], "udp") as udp, Rtp() as rtp:
        invite = write(PLAIN, udp, recorded.seat.project, rtp=rtp.port)
        call, call_id = await establish(udp, recorded, invite)
        await rtp.speak(call.media, 600, loud=True)
        await rtp.speak(call.media, 200, loud=False)
        body = re.sub(r"(m=audio \d+ RTP/AVP).*", r"\1 8", sdp_of(call.invite)).replace("o=- 1 1", "o=- 1 2")
        contact = f"Contact: <sip:caller@{udp.local[0]}:{udp.local[1]}>"
        changed = await call.ask("INVITE", contact, body=body)
        assert "RTP/AVP 8" in changed.body
        call.send("ACK", cseq=changed.cseq)
        async with Sideband(recorded.client, call_id) as sideband:
            await sideband.connection.response.create()
            await speak_in_a_law(rtp, call.media, 400, b"\xd5\x55")
            await speak_in_a_law(rtp, call.media, 800, b"\x10\x90")
            await speak_in_a_law(rtp, call.media, 600, b"\xd5\x55")
        assert await post(recorded, call_id, "hangup") == 200
        data, sound = await saved(recorded)
    assert sound.law == "PCMU"
    first = sound.first_ms(sound.caller)
    assert 480 <= sound.loud_ms(sound.caller, first, first + 700) <= 720
    assert 640 <= sound.loud_ms(sound.caller, first + 700) <= 960
    greeted = sound.first_ms(sound.agent)
    assert greeted >= first + 700
    assert 0 < sound.loud_ms(sound.agent) < data.duration_ms - greeted


async def speak_in_a_law(rtp: Rtp, to: tuple[str, int], ms: int, codes: bytes) -> None:
    """Send that much of a square wave between two codes, in real time."""
    started = time.monotonic()
    for number in range(ms // 20):
        await asyncio.sleep(max(0.0, started + number * 0.02 - time.monotonic()))
        wave = bytes(codes[at // 8 % 2] for at in range(160))
        rtp.send_raw(rtp.packet(wave, payload_type=8), to)


async def test_a_pause_is_silent_and_time_goes_on(phone: Phone, asking: DeveloperApp) -> None:
    call, call_id = await call_in(phone, asking)
    await call.hears_silence(100)
    started = await do(asking, call_id, "start")
    assert (started["state"], started["duration_ms"]) == ("recording", 0)
    began = time.monotonic()
    await spoken(call, 600)
    await asyncio.sleep(0.3)
    assert (await do(asking, call_id, "pause"))["state"] == "paused"
    paused = time.monotonic()
    await spoken(call, 700)
    await asyncio.sleep(0.3)
    assert (await do(asking, call_id, "resume"))["state"] == "recording"
    resumed = time.monotonic()
    await spoken(call, 500)
    await asyncio.sleep(0.3)
    await do(asking, call_id, "stop")
    stopped = time.monotonic()
    data, sound = await saved(asking)
    assert call.alive
    assert abs(data.duration_ms - (stopped - began) * 1000) <= 250
    first, second = (paused - began) * 1000, (resumed - began) * 1000
    assert 540 <= sound.loud_ms(sound.caller, 0, first) <= 660
    assert sound.loud_ms(sound.caller, first + 60, second - 60) == 0
    assert 440 <= sound.loud_ms(sound.caller, second - 60) <= 560
    titles = [entry["title"] for entry in await asking.node.timeline(asking.seat, call_id)]
    assert [title for title in titles if title.startswith("recording ")][:4] == [
        "recording started",
        "recording paused",
        "recording goes on",
        "recording ends: stopped",
    ]
    assert "POST recording: 200" in titles
    call.hang_up()


async def test_nothing_is_recorded_unless_somebody_asks(phone: Phone, asking: DeveloperApp) -> None:
    call, call_id = await call_in(phone, asking)
    await call.hears_silence(100)
    call.hang_up()
    await asking.next("realtime.call.ended")
    for path in ("recording", "recording.wav"):
        response = await ask_recording(asking.node, asking.seat, call_id, path=path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "recording_not_found")
    assert SAVED not in [webhook.type for webhook in asking.webhooks]


async def test_what_does_not_fit_is_refused_and_what_is_so_already_is_done(
    phone: Phone, asking: DeveloperApp
) -> None:
    call = await phone.dial(asking.seat.project)
    call_id = (await asking.incoming()).call_id

    async def refused(action: Any, method: str = "POST", path: str = "recording") -> tuple[int, Any]:
        body = {"action": action} if method == "POST" else None
        response = await ask_recording(asking.node, asking.seat, call_id, method, body, path=path)
        return response.status_code, response.json()["error"]["code"]

    assert await refused("start") == (409, "call_not_accepted")
    await asking.accept(call_id)
    await call.answered()
    assert await refused("rewind") == (400, "invalid_value")
    assert await refused(1) == (400, "invalid_type")
    for action in ("pause", "resume", "stop"):
        assert await refused(action) == (409, "recording_not_started")
    recording = await do(asking, call_id, "start")
    assert (await do(asking, call_id, "start"))["id"] == recording["id"]
    assert await refused("", "GET", "recording.wav") == (409, "recording_not_over")
    assert await refused("", "DELETE") == (409, "recording_not_over")
    await do(asking, call_id, "pause")
    assert (await do(asking, call_id, "pause"))["state"] == "paused"
    assert await refused("start") == (409, "recording_paused")
    await do(asking, call_id, "stop")
    await asking.next(SAVED)
    assert (await do(asking, call_id, "stop"))["state"] == "saved"
    assert await refused("start") == (409, "recording_over")
    assert await refused("resume") == (409, "recording_over")
    call.hang_up()


async def test_another_projects_key_finds_nothing(
    phone: Phone, recorded: DeveloperApp, asking: DeveloperApp
) -> None:
    call, call_id = await call_in(phone, recorded)
    await call.hears_silence(100)
    other = asking.seat
    for method, body in (("GET", None), ("POST", {"action": "stop"}), ("DELETE", None)):
        response = await ask_recording(recorded.node, other, call_id, method, body)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "call_id_not_found")
    call.hang_up()
    data, _ = await saved(recorded)
    assert (await fetch_recording(data.url, other)).status_code == 404
    response = await ask_recording(recorded.node, other, call_id)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "call_id_not_found")


async def test_a_part_can_be_had_and_the_whole_deleted(phone: Phone, recorded: DeveloperApp) -> None:
    call, call_id = await call_in(phone, recorded)
    await spoken(call, 400)
    call.hang_up()
    data, _ = await saved(recorded)
    whole = (await fetch_recording(data.url, recorded.seat)).content
    part = await fetch_recording(data.url, recorded.seat, Range="bytes=100-299")
    assert (part.status_code, part.content) == (206, whole[100:300])
    assert part.headers["content-range"] == f"bytes 100-299/{len(whole)}"
    files = list((recorded.node.data_dir / "recordings").glob(f"{data.recording_id}.wav"))
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600]
    response = await ask_recording(recorded.node, recorded.seat, call_id, "DELETE")
    assert (response.status_code, response.json()["deleted"]) == (200, True)
    assert not files[0].exists()
    assert (await fetch_recording(data.url, recorded.seat)).status_code == 404
    assert (await ask_recording(recorded.node, recorded.seat, call_id, "DELETE")).status_code == 404


async def test_after_kill_9_it_can_be_played_and_the_next_start_tells_of_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "script": SCRIPT,
        "events": (*EVENTS, SAVED),
        "seat_lines": {0: "record = true"},
    }
    with Node(tmp_path, **options) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call, call_id = await call_in(phone, app)
            await spoken(call, 1500)
            started = (await ask_recording(node, app.seat, call_id)).json()
            file = node.data_dir / "recordings" / f"{started['id']}.wav"
            await until(lambda: parse_wav(file.read_bytes()).ms >= 2000)
            node.kill()
    cut_off = parse_wav(file.read_bytes())
    assert cut_off.ms >= 2000
    assert cut_off.loud_ms(cut_off.caller) >= 1300
    with Node(tmp_path, **options) as node:
        async with DeveloperApp(node) as app:
            data, sound = await saved(app)
            assert (data.call_id, data.state) == (call_id, "interrupted")
            assert sound.ms >= cut_off.ms
            async with httpx2.AsyncClient() as client:
                shown = (await client.get(node.base_url.removesuffix("/v1") + "/metrics")).text
            for state, count in (("interrupted", 1), ("saved", 0), ("failed", 0)):
                assert f'offhook_recordings_ended_total{{state="{state}"}} {count}.0' in shown


async def test_a_second_node_leaves_what_the_first_records_alone(tmp_path: Path) -> None:
    """They share the database and the folder of recordings."""
    first, second, folder = tmp_path / "first", tmp_path / "second", tmp_path / "recordings"
    options: dict[str, Any] = {"script": SCRIPT, "calls": f'[recording]\ndir = "{folder}"'}
    first.mkdir()
    second.mkdir()
    with Node(first, events=(*EVENTS, SAVED), seat_lines={0: "record = true"}, **options) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call, call_id = await call_in(phone, app)
            await spoken(call, 1500)
            started = (await ask_recording(node, app.seat, call_id)).json()
            file = folder / f"{started['id']}.wav"
            await until(lambda: parse_wav(file.read_bytes()).ms >= 1000)
            (second / "data").symlink_to(node.data_dir)
            with Node(second, server='node = "u1"', **options) as other:
                assert (await ask_recording(other, app.seat, call_id)).json()["state"] == "recording"
                await spoken(call, 500)
                call.hang_up()
                data, sound = await saved(app)
            assert data.state == "saved"
            assert sound.loud_ms(sound.caller) >= 1800
            assert [webhook.type for webhook in app.webhooks].count(SAVED) == 1


async def test_a_full_disk_ends_the_recording_and_not_the_call(tmp_path: Path) -> None:
    options: dict[str, Any] = {"script": SCRIPT, "seat_lines": {0: "record = true"}}
    with Node(tmp_path, calls="[recording]\nmin_free_mb = 1000000000", **options) as node:
        try:
            async with DeveloperApp(node) as app, Phone(node) as phone:
                call, call_id = await call_in(phone, app)
                line = await node.logged("recording.failed")
                assert "No space left on device" in line["text"]
                await spoken(call, 300)
                assert call.alive
                titles = [entry["title"] for entry in await node.timeline(app.seat, call_id)]
                assert any(title.startswith("recording failed: 0.0 s") for title in titles)
                assert (await ask_recording(node, app.seat, call_id)).json()["state"] == "failed"
                call.hang_up()
                await app.next("realtime.call.ended")
        finally:
            node.kill()  # its log has the fault that was asked for


async def test_sigterm_saves_what_is_recorded(tmp_path: Path) -> None:
    options: dict[str, Any] = {"script": SCRIPT, "events": (*EVENTS, SAVED), "grace_s": 0}
    with Node(tmp_path, seat_lines={0: "record = true"}, **options) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call, call_id = await call_in(phone, app)
            await spoken(call, 500)
            node.signal(signal.SIGTERM)
            webhook = await app.next(SAVED)
            assert (webhook.call_id, webhook.event.data.state) == (call_id, "saved")
            assert await node.ended(30) == 0
            ended = [webhook for webhook in app.webhooks if webhook.type == "realtime.call.ended"]
            assert [(webhook.call_id, webhook.event.data.reason) for webhook in ended] == [
                (call_id, "shutdown")
            ]
            (file,) = (node.data_dir / "recordings").glob("rec_*.wav")
            sound = parse_wav(file.read_bytes())
            assert sound.loud_ms(sound.caller) >= 400
