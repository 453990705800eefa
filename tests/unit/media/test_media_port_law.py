"""A port between two laws: what the session speaks stays, whatever the network's codec becomes."""

import asyncio
import socket
import struct

import pytest

from offhook.audio import g711
from offhook.audio.frames import SILENCE
from offhook.media import negotiate
from offhook.media.negotiate import LocalMedia
from offhook.media.pacer import Pacer
from offhook.media.port import PortPool
from offhook.media.tap import Tap

OTHER = {"PCMU": "PCMA", "PCMA": "PCMU"}
NUMBER = {"PCMU": 0, "PCMA": 8}
FRAME = bytes(range(40, 200))


class Hand:
    """A clock that is moved by hand."""

    now = 1.0

    def monotonic(self):
        return self.now

    wall = monotonic


class Peer:
    """A socket that speaks RTP by hand, and the plan that a port got from its offer."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))
        self.sequence = 0

    def plan(self, law, port, line="a=sendrecv"):
        offer = (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {self.socket.getsockname()[1]} RTP/AVP {NUMBER[law]}\r\n{line}\r\n"
        )
        return negotiate.answer(offer.encode(), LocalMedia("127.0.0.1", port.port, 1, 1)).plan

    def send(self, port, law, payload):
        self.sequence += 1
        header = struct.pack("!BBHII", 0x80, NUMBER[law], self.sequence, self.sequence * 160, 7)
        self.socket.sendto(header + payload, ("127.0.0.1", port.port))

    def take(self):
        came = []
        while True:
            try:
                came.append(self.socket.recv(2048))
            except BlockingIOError:
                return came


@pytest.fixture
async def joined(request):
    """A started port, its peer, and what was heard."""
    pacer = Pacer()
    pacer.start()
    port, peer, heard = PortPool("127.0.0.1", 32_160, 32_178).open(), Peer(), []
    port.start(
        peer.plan(request.param, port),
        pacer=pacer,
        on_frame=heard.append,
        on_digit=heard.append,
        on_drained=lambda: None,
    )
    yield port, peer, heard, request.param
    port.close()
    pacer.close()
    peer.socket.close()


async def say(port, peer, law, count=8):
    for _ in range(count):
        peer.send(port, law, FRAME)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("joined", ["PCMU", "PCMA"], indirect=True)
async def test_frames_are_converted_both_ways_after_a_change(joined):
    port, peer, heard, law = joined
    await say(port, peer, law)
    assert FRAME in heard

    port.update(peer.plan(OTHER[law], port))
    heard.clear()
    peer.take()
    await say(port, peer, OTHER[law])
    assert g711.transcode(FRAME, OTHER[law], law) in heard
    assert FRAME not in heard
    port.play(FRAME)
    await asyncio.sleep(0.1)
    payloads = {(data[1] & 0x7F, data[12:]) for data in peer.take()}
    assert (NUMBER[OTHER[law]], g711.transcode(FRAME, law, OTHER[law])) in payloads
    assert {number for number, _ in payloads} == {NUMBER[OTHER[law]]}

    port.update(peer.plan(law, port))
    heard.clear()
    await say(port, peer, law)
    assert FRAME in heard


@pytest.mark.parametrize("joined", ["PCMU", "PCMA"], indirect=True)
async def test_what_waits_to_be_played_is_converted_too(joined):
    port, peer, _, law = joined
    port.update(peer.plan(law, port, "a=inactive"))
    peer.take()
    port.play(FRAME)
    await asyncio.sleep(0.1)
    assert peer.take() == []
    assert (port.played_samples, port.queued_samples) == (0, 160)
    port.update(peer.plan(OTHER[law], port))
    await asyncio.sleep(0.1)
    assert g711.transcode(FRAME, law, OTHER[law]) in [data[12:] for data in peer.take()]
    assert (port.played_samples, port.queued_samples) == (160, 0)


@pytest.mark.parametrize("joined", ["PCMU", "PCMA"], indirect=True)
async def test_a_peer_that_holds_is_heard_as_silence_in_the_sessions_law(joined):
    port, peer, heard, law = joined
    await say(port, peer, law, 3)
    port.update(peer.plan(OTHER[law], port, "a=sendonly"))
    heard.clear()
    await say(port, peer, OTHER[law])
    assert len(heard) >= 5
    assert set(heard) == {SILENCE[law]}


@pytest.mark.parametrize("lost", [(), (10, 11, 30)])
async def test_a_recording_of_a_prompt_port_lays_each_frame_where_its_turn_is(lost):
    """What a loss held back comes in one go; on the tap it has the places that it would have had without the loss."""
    clock, peer = Hand(), Peer()
    pacer = Pacer(clock)
    pacer.start()
    port = PortPool("127.0.0.1", 37100, 37198).open()
    port.start(
        peer.plan("PCMU", port),
        pacer=pacer,
        on_frame=lambda frame: None,
        on_digit=lambda digit: None,
        on_drained=lambda: None,
        prompt=True,
    )
    pacer.close()  # the ticks come by hand
    heard = []
    port.record(tap := Tap("PCMU", lambda caller, agent: heard.append(caller)))
    for number in range(60):
        clock.now += 0.02
        if number not in lost:
            header = struct.pack("!BBHII", 0x80, 0, number, number * 160, 7)
            port._receive_rtp(header + bytes([number]) * 160, peer.socket.getsockname())
        port.send(clock.now)
        port.hear(clock.now)
    tap.finish()
    port.close()
    peer.socket.close()
    side = b"".join(heard)
    # What is made up repeats the frame before, and is faded into the one after.
    whole = [number for number in range(56) if number not in lost and number - 1 not in lost]
    late = {side.index(bytes([number]) * 160) / 160 - number for number in whole}
    assert len(late) == 1
