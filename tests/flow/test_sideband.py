"""
The sideband: several on one call, attached again, early and late, and at the end (API rows S02, S11 to S21).

First on a clock that the test turns by hand, then beside real phones on a real node.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from offhook.realtime.engines.scripted import Call, Reply, Script, Turn
from testbed import DeveloperApp, Node, Phone, Sideband, Socket
from testbed.attended import attended
from testbed.by_hand import SPOKEN, TRANSCRIBED, Caller, assert_complete, send
from testbed.script import GREETING, SCRIPT, SHORT
from testbed.waiting import PATIENCE_S, eventually

LONG = "First we look at this. Then we look at that. Finally we are done with it."
BRIEF = {"type": "realtime", "instructions": "Now be brief."}
LIMIT_S = 3


@pytest.fixture(scope="module")
def short_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose sessions end soon, and whose phones ring for long."""
    with Node(
        tmp_path_factory.mktemp("short_lived"),
        script=SCRIPT,
        seats=4,
        ring_timeout_s=30,
        calls=f"session_limit_s = {LIMIT_S}",
    ) as running:
        yield running


def plain(app: DeveloperApp, call_id: str, **options: Any) -> connect:
    """A WebSocket of no SDK, on a call."""
    return connect(
        f"{app.node.base_url.replace('http', 'ws', 1)}/realtime?call_id={call_id}",
        additional_headers={"Authorization": f"Bearer {app.seat.api_key}"},
        **{"compression": None, "max_size": None} | options,
    )


# By hand.


async def test_two_sidebands() -> None:
    """Rows S13, S14: both get all, an error goes to its sender."""
    phone = await Caller(Script(greeting="Welcome.")).start()
    first, one = phone.attach()
    second, two = phone.attach()
    send(two, "response.create")
    send(one, "response.cancel", event_id="mine")
    assert first.types == ["session.created", *SPOKEN, "error"]
    assert first.events[-1]["error"]["event_id"] == "mine"
    assert first.events[-1]["error"]["code"] == "response_cancel_not_active"
    assert second.types == ["session.created", *SPOKEN]
    assert [e["event_id"] for e in first.events[1:-1]] == [e["event_id"] for e in second.events[1:]]


async def test_reattach_shows_what_is_in_force() -> None:
    """Rows S13, S15."""
    phone = await Caller(Script(greeting="Welcome.")).start()
    client, attachment = phone.attach()
    send(attachment, "session.update", session={"type": "realtime", "instructions": "Be brief."})
    assert client.types == ["session.created", "session.updated"]
    attachment.detach()
    attachment.detach()
    phone.say()
    phone.wait(1000)
    assert len(client.events) == 2
    again, _ = phone.attach()
    assert again.events[0]["session"]["instructions"] == "Be brief."
    assert again.events[0]["session"]["id"] == "sess_1"


async def test_sound_goes_only_to_who_asked() -> None:
    """Decision 6 of the design, rows E04 and O18."""
    phone = await Caller(Script(greeting="Welcome to the show. It is long.")).start()
    plain, attachment = phone.attach()
    keen, _ = phone.attach("audio")
    send(attachment, "response.create")
    assert "response.output_audio.delta" not in plain.types
    deltas = keen.of("response.output_audio.delta")
    sound = b"".join(base64.b64decode(delta["delta"]) for delta in deltas)
    characters = len("Welcome to the show.") + len("It is long.")
    assert len(sound) / 48 == pytest.approx(characters * 60, abs=1)
    assert np.abs(np.frombuffer(sound, "<i2")).max() > 5000
    assert [k for k in keen.types if k != "response.output_audio.delta"] == plain.types


async def test_extension_events_go_only_to_who_asked() -> None:
    """Row V02."""
    phone = await Caller(Script()).start()
    plain, _ = phone.attach()
    keen, _ = phone.attach("call")
    phone.runner.publish_extension({"type": "call.ended", "reason": "hangup"})
    assert plain.types == ["session.created"]
    assert keen.events[-1]["reason"] == "hangup"


async def test_close_in_mid_response() -> None:
    """Rows S16, S17, O12."""
    script = Script(turns=(Turn("Tell me.", (Reply(LONG, sentence_ms=1500),)),))
    phone = await Caller(script, accept=TRANSCRIBED).start()
    client, attachment = phone.attach()
    phone.say()
    phone.wait(1200)
    await phone.runner.close("remote_hangup")
    assert client.closed == (1000, "remote_hangup")
    assert client.of("response.done")[0]["response"]["status"] == "cancelled"
    assert client.of("conversation.item.truncated")[0]["audio_end_ms"] == phone.speaker.played_samples // 8
    assert_complete(client.events)
    # Afterwards nothing happens, and nothing breaks.
    send(attachment, "response.create")
    phone.wait(200)
    await phone.runner.close("remote_hangup")
    late, _ = phone.attach()
    assert late.closed is not None
    assert late.events == []


async def test_hangup_in_mid_sentence_still_transcribes_what_was_said() -> None:
    phone = await Caller(Script(turns=(Turn("I want to", ()),)), accept=TRANSCRIBED).start()
    client, _ = phone.attach()
    phone.say(500)
    await phone.runner.close("remote_hangup")
    completed = client.of("conversation.item.input_audio_transcription.completed")
    assert [event["transcript"] for event in completed] == ["I want to"]
    assert "response.created" not in client.types
    assert client.closed == (1000, "remote_hangup")


async def test_a_tool_call_that_is_under_way_survives_the_hangup() -> None:
    """Row S17: the agent decided to book; the booking is not lost."""
    reply = Reply(calls=(Call("book", '{"seat":1}'),), delay_ms=300)
    phone = await Caller(Script(turns=(Turn("Book it.", (reply,)),)), drain_s=1.0).start()
    client, _ = phone.attach()
    phone.say()
    phone.wait(600)
    phone.runner._do(phone.session.close, "remote_hangup", phone.clock.now)
    assert client.closed is None
    phone.wait(400)
    assert client.of("response.done")[0]["response"]["status"] == "completed"
    assert client.closed == (1000, "remote_hangup")


async def test_what_takes_too_long_is_cancelled_at_close() -> None:
    reply = Reply("Too late.", delay_ms=5000)
    phone = await Caller(Script(turns=(Turn("Go.", (reply,)),)), drain_s=1.0).start()
    client, _ = phone.attach()
    phone.say()
    phone.wait(600)
    phone.runner._do(phone.session.close, "remote_hangup", phone.clock.now)
    phone.wait(1040)
    assert client.of("response.done")[0]["response"]["status"] == "cancelled"
    assert client.closed == (1000, "remote_hangup")


async def test_the_session_expires() -> None:
    """Row S20."""
    phone = await Caller(Script(), max_duration_s=60.0).start()
    client, _ = phone.attach()
    phone.wait(60_040)
    assert client.events[-1]["error"]["code"] == "session_expired"
    assert phone.expired == 1
    assert client.closed is None


# Several at once, late ones, and again.


async def test_each_client_first_gets_the_session_as_it_was_accepted(app: DeveloperApp, phone: Phone) -> None:
    """Rows S02, S13: also one that names a model beside the call; the call wins, its model stays."""
    async with (
        attended(app, phone, instructions="Be brief.") as on,
        Sideband(app.client, on.call_id) as second,
        app.client.realtime.connect(call_id=on.call_id, model="another-model") as third,
    ):
        created = on.sideband.events[0]["session"]
        assert (created["instructions"], created["model"]) == ("Be brief.", "gpt-realtime")
        assert (await second.wait_for("session.created"))["session"] == created
        first = json.loads(await third.recv_bytes())
        assert (first["type"], first["session"]) == ("session.created", created)


async def test_one_that_comes_later_gets_what_is_in_effect_now(app: DeveloperApp, phone: Phone) -> None:
    """Rows S13, S15: after an update and with an answer under way, whose end it gets too."""
    async with attended(app, phone) as on:
        async with Sideband(app.client, on.call_id) as first:
            await first.connection.session.update(session=BRIEF)
            updated = await first.wait_for("session.updated")
            await first.connection.response.create()
            await first.wait_for("output_audio_buffer.started")
        async with Sideband(app.client, on.call_id) as again:
            created = await again.wait_for("session.created")
            assert created["session"] == updated["session"]
            await again.wait_for("output_audio_buffer.stopped")
            assert on.call.alive
            await again.connection.response.create()
            said = await again.wait_for("response.output_audio_transcript.done")
            assert said["transcript"] == GREETING


async def test_as_many_as_may_be_get_the_same_and_one_more_is_refused(
    app: DeveloperApp, phone: Phone
) -> None:
    """Row S14: events go to all, and any of them may ask; a place that is left is free again."""
    async with attended(app, phone) as on, contextlib.AsyncExitStack() as stack:
        others = [Socket(await stack.enter_async_context(plain(app, on.call_id))) for _ in range(31)]
        for other in others:
            await other.until("session.created")
        with pytest.raises(InvalidStatus) as refused:
            await plain(app, on.call_id)
        assert refused.value.response.status_code == 429
        assert json.loads(refused.value.response.body)["error"]["code"] == "rate_limit_exceeded"
        await others[7].send(type="response.create")
        await on.sideband.wait_for("response.done")
        for other in others:
            await other.until("response.done")
        told = [event["event_id"] for event in on.sideband.events[1:]]
        assert all(
            [event["event_id"] for event in other.events[1 : len(told) + 1]] == told for other in others
        )
        await others[0].connection.close()

        async def attach() -> int:
            with contextlib.suppress(InvalidStatus):
                async with plain(app, on.call_id) as one:
                    return int(json.loads(await one.recv())["type"] == "session.created")
            return 0

        assert await eventually(attach, 1) == 1


# Before the accept.


async def test_an_attach_that_was_faster_than_the_accept(app: DeveloperApp, phone: Phone) -> None:
    """Row S11: the handshake waits for the accept, then has the session as it was accepted."""
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    async with contextlib.AsyncExitStack() as stack:
        attaching = asyncio.create_task(stack.enter_async_context(Sideband(app.client, call_id)))
        for _ in range(5):  # other requests are answered meanwhile
            assert (await app.node.describe(app.seat, call_id))["state"] == "ringing"
        assert not attaching.done()
        await app.accept(call_id, instructions="Be brief.")
        sideband = await attaching
        created = await sideband.wait_for("session.created")
        assert created["session"]["instructions"] == "Be brief."
        await call.answered()
        entries = await app.node.timeline(app.seat, call_id)
        assert any(entry["kind"] == "sideband" for entry in entries)


async def test_an_attach_to_a_call_that_nobody_accepts(short_lived: Node) -> None:
    """Row S11: after five seconds it is the 404 of an unknown call, and the phone rings on."""
    async with DeveloperApp(short_lived) as app, Phone(short_lived) as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        asked_at = asyncio.get_running_loop().time()
        with pytest.raises(InvalidStatus) as refused:
            await plain(app, call_id)
        assert refused.value.response.status_code == 404
        assert json.loads(refused.value.response.body)["error"]["code"] == "call_id_not_found"
        assert asyncio.get_running_loop().time() - asked_at > 4.9
        await app.accept(call_id)
        await call.answered()


# Frames.


async def test_frames_that_are_no_events_are_errors_to_their_sender_alone(
    app: DeveloperApp, phone: Phone
) -> None:
    """Rows S14, S21: the session goes on, also for whoever sent them."""
    frames: list[str | bytes] = [
        "{",
        "[]",
        '{"event_id":"no_type"}',
        '{"type":"no.such","event_id":"unknown"}',
        b"\x01\x02",
        '{"type":"response.cancel","event_id":"more","now":1}',
    ]
    async with attended(app, phone) as on, plain(app, on.call_id) as socket_:
        other = Socket(socket_)
        await other.until("session.created")
        errors = []
        for frame in frames:
            await other.connection.send(frame)
            errors.append((await other.until("error"))["error"])
        assert {error["type"] for error in errors} == {"invalid_request_error"}
        ids = [error.get("event_id") for error in errors]
        assert ids == [None, None, "no_type", "unknown", None, "more"]
        await other.send(type="session.update", session=BRIEF)
        assert (await other.until("session.updated"))["session"]["instructions"] == "Now be brief."
        await on.sideband.wait_for("session.updated")
        assert not on.sideband.of_type("error")


async def test_frames_of_all_sizes(app: DeveloperApp, phone: Phone) -> None:
    """Row S19: what holds 15 MiB of sound is read, whole or in fragments; what is larger costs its sender alone."""
    audio = "A" * (20 * 1024 * 1024)
    frame = json.dumps({"type": "input_audio_buffer.append", "audio": audio, "event_id": "large"})
    async with attended(app, phone) as on, plain(app, on.call_id) as socket_:
        other = Socket(socket_)
        pieces = [frame[at : at + 100_001] for at in range(0, len(frame), 100_001)]
        short = frame.replace(audio, audio[:200_000])
        crumbs = [crumb for at in range(0, len(short), 50) for crumb in (short[at : at + 50], "")]
        for sent in (frame, pieces, crumbs):
            await other.connection.send(sent)
            error = (await other.until("error"))["error"]
            assert (error["param"], error["event_id"]) == ("type", "large")
        with contextlib.suppress(ConnectionClosed):
            await other.connection.send(frame + " " * 2 * 1024 * 1024)
        with pytest.raises(ConnectionClosed) as closed:
            await other.until("never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        await on.sideband.connection.response.create()
        await on.sideband.wait_for("response.done")
        assert on.call.alive


async def test_pings_are_answered_while_much_is_said(app: DeveloperApp, phone: Phone) -> None:
    """Row S18: each within the 20 s that clients wait, though much else is on its way."""
    async with attended(app, phone) as on, plain(app, on.call_id, max_queue=None) as socket_:
        item = await make_item(on.sideband, 5)
        waits = []
        for number in range(5):
            for _ in range(3):
                await socket_.send(json.dumps({"type": "conversation.item.retrieve", "item_id": item}))
            waits.append(await (await socket_.ping(str(number))))
        assert max(waits) < 20
        assert len(waits) == 5


# Readers who do not read.


async def make_item(sideband: Sideband, seconds: int) -> str:
    """Put some sound into the conversation; return the item's id."""
    part = {
        "type": "input_audio",
        "audio": base64.b64encode(bytes(48_000 * seconds)).decode(),
        "transcript": "Hum.",
    }
    await sideband.connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [part]}
    )
    return str((await sideband.wait_for("conversation.item.done"))["item"]["id"])


@contextlib.asynccontextmanager
async def deaf(app: DeveloperApp, call_id: str) -> AsyncIterator[socket.socket]:
    """A sideband that never reads what it is told."""
    host, _, port = app.node.base_url.removeprefix("http://").removesuffix("/v1").rpartition(":")
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, (host, int(port)))
        head = (
            f"GET /v1/realtime?call_id={call_id} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            f"Authorization: Bearer {app.seat.api_key}",
        )
        await loop.sock_sendall(raw, ("\r\n".join(head) + "\r\n\r\n").encode())
        yield raw


async def test_a_reader_who_falls_behind_is_dropped_and_nobody_else_notices(
    app: DeveloperApp, phone: Phone
) -> None:
    """More than 16 MiB wait for it: its connection is cut, the timeline says so, the others and the call go on."""

    async def sidebands() -> list[str]:
        entries = await app.node.timeline(app.seat, on.call_id)
        return [entry["title"] for entry in entries if entry["kind"] == "sideband"]

    async with attended(app, phone) as on, deaf(app, on.call_id) as raw:
        item = await make_item(on.sideband, 60)
        titles = await sidebands()
        async with asyncio.timeout(PATIENCE_S):
            while not any(title.startswith("dropped: the reader is") for title in titles):
                before = len(on.sideband.events)
                await on.sideband.connection.conversation.item.retrieve(item_id=item)
                await on.sideband.wait_for("conversation.item.retrieved", after=before)
                titles = await sidebands()
        raw.setblocking(True)
        raw.settimeout(PATIENCE_S)
        with contextlib.suppress(ConnectionResetError):
            while raw.recv(1_000_000):
                pass  # ends, because the connection was cut
        await on.sideband.connection.conversation.item.delete(item_id=item)
        on.call.speak(500)
        said = await on.sideband.wait_for("response.output_audio_transcript.done")
        assert said["transcript"] == SHORT
        await on.call.hears_sound(100)


# The end.


async def test_the_end_tells_all_that_is_left_and_openai_python_ends_its_loop(
    app: DeveloperApp, phone: Phone
) -> None:
    """Rows S16, S17: each response is done, then 1000, which no client takes for a reason to come back."""
    reconnecting: list[Any] = []
    attached = asyncio.Event()

    def note(event: Any) -> None:
        reconnecting.append(event)

    async def follow() -> list[str]:
        async with app.client.realtime.connect(call_id=on.call_id, on_reconnecting=note) as connection:
            first = (await connection.recv()).type
            attached.set()
            return [first, *[event.type async for event in connection]]

    async with attended(app, phone) as on:
        following = asyncio.create_task(follow())
        await attached.wait()
        await on.sideband.connection.response.create()
        await on.sideband.wait_for("response.created")
        on.call.hang_up()
        assert (await on.sideband.wait_closed())[0] == 1000
        # All that was begun was ended: leaving the context checks it.
        assert "response.done" in on.sideband.types
        async with asyncio.timeout(PATIENCE_S):
            types = await following
        assert types[0] == "session.created"
        assert "response.done" in types
        assert reconnecting == []
        with pytest.raises(InvalidStatus) as refused:
            await plain(app, on.call_id)
        assert refused.value.response.status_code == 404


async def test_a_session_that_lasts_too_long_is_told_and_the_call_ends(short_lived: Node) -> None:
    """Row S20: the error to each, BYE to the phone, 1000."""
    async with (
        DeveloperApp(short_lived) as app,
        Phone(short_lived) as phone,
        attended(app, phone, events="call") as on,
        Sideband(app.client, on.call_id) as other,
    ):
        for sideband in (on.sideband, other):
            error = (await sideband.wait_for("error"))["error"]
            assert error["code"] == "session_expired"
            assert error["message"].startswith("Your session hit the maximum duration of")
            assert (await sideband.wait_closed())[0] == 1000
        assert (await on.call.ended()).cause == "remote_bye"
        assert on.sideband.of_type("call.ended")[0]["reason"] == "session_expired"
