"""Two ends of a call: first over a network made of seeded numbers, then over loopback sockets."""

import asyncio
import dataclasses
import errno
import random
import socket

import numpy as np
import pytest

from offhook.audio import g711, tones
from offhook.media import negotiate
from offhook.media.negotiate import LocalMedia
from offhook.media.pacer import Pacer
from offhook.media.port import NoFreePort, PortPool
from offhook.media.rtcp import parse_compound
from offhook.media.rtp import RtpPacket
from offhook.media.stats import DigitReceived, Drained, MediaEvent
from offhook.media.stream import MediaStream
from testbed.waiting import until

TICK = 0.020


class Network:
    """Carries datagrams with loss, delay, jitter and duplicates, all from one seed."""

    def __init__(self, seed, *, loss=0.0, delay=0.04, jitter=0.0, duplicates=0.0):
        self.rng = random.Random(seed)
        self.loss, self.delay, self.jitter, self.duplicates = loss, delay, jitter, duplicates
        self.under_way = []
        self.carried = 0

    def send(self, now, target, data, source):
        copies = 1 + (self.rng.random() < self.duplicates)
        for _ in range(copies):
            if self.rng.random() >= self.loss:
                at = now + self.delay + self.rng.random() * self.jitter
                self.carried += 1
                self.under_way.append((at, self.carried, target, data, source))

    def deliver(self, until):
        due = sorted(each for each in self.under_way if each[0] <= until)
        self.under_way = [each for each in self.under_way if each[0] > until]
        return due


class End:
    """A stream with an address, its clock off by some parts per million and some phase."""

    def __init__(self, address, plan, seed, *, phase=0.0, ppm=0.0):
        rng = random.Random(seed)
        self.address = address
        self.reports = (address[0], address[1] + 1)
        self.stream = MediaStream(
            plan,
            ssrc=rng.getrandbits(32),
            sequence=rng.getrandbits(16),
            timestamp=rng.getrandbits(32),
            cname="x",
            now=0.0,
            wall_offset=1e9,
        )
        self.next_tick = phase
        self.interval = TICK * (1 - ppm / 1e6)
        self.heard = []
        self.events = []

    def tick(self, network):
        now = self.next_tick
        stream = self.stream
        if (packet := stream.next_packet()) is not None:
            network.send(now, stream.destination, packet, self.address)
        if (frame := stream.next_frame(now)) is not None:
            self.heard.append(frame)
        if now >= stream.report_due and (target := stream.rtcp_destination):
            network.send(now, target, stream.create_report(now), self.reports)
        self.events += stream.take_events()
        self.next_tick += self.interval

    def receive(self, at, target, data, source):
        receive = self.stream.receive_rtp if target == self.address else self.stream.receive_rtcp
        receive(data, source, at)
        self.events += self.stream.take_events()

    @property
    def digits(self):
        return "".join(event.digit for event in self.events if isinstance(event, DigitReceived))


def call(seconds, network, *, ppm=0.0, before=lambda caller, callee: None):
    """Let two ends agree by SDP and exchange sound for some time."""
    caller_media = LocalMedia("192.0.2.1", 4000, 1, 1)
    callee_media = LocalMedia("203.0.113.1", 20000, 2, 1)
    offered = negotiate.offer(caller_media)
    made = negotiate.answer(offered, callee_media)
    plan = negotiate.complete(offered, made.sdp)
    caller = End(("192.0.2.1", 4000), plan, 1, phase=0.0031, ppm=ppm)
    callee = End(("203.0.113.1", 20000), made.plan, 2, phase=0.0)
    ends = {end.address: end for end in (caller, callee)} | {end.reports: end for end in (caller, callee)}
    before(caller, callee)
    while (now := min(caller.next_tick, callee.next_tick)) < seconds:
        for at, _, target, data, source in network.deliver(now):
            ends[target].receive(at, target, data, source)
        (caller if caller.next_tick <= callee.next_tick else callee).tick(network)
    return caller, callee


def speech(seconds, seed=0):
    """Syllables with pauses, as PCMU."""
    rng = random.Random(seed)
    parts = []
    while sum(map(len, parts)) < seconds * 8000:
        pitch = rng.uniform(90, 190)
        parts += [
            tones.tone((pitch, 2 * pitch, 4 * pitch), rng.uniform(120, 400), level=0.2),
            tones.silence(120),
        ]
    return g711.encode(np.concatenate(parts)[: int(seconds * 8000)], "PCMU")


def test_over_a_clean_network_every_byte_arrives():
    said = speech(8)
    caller, callee = call(
        10, Network(1), before=lambda caller, callee: caller.stream.sender.playout.play(said)
    )
    assert said in b"".join(callee.heard)
    assert Drained() in caller.events
    stats = callee.stream.stats()
    assert (stats.lost, stats.late, stats.concealed, stats.skipped, stats.resyncs) == (0, 0, 0, 0, 0)
    assert stats.jitter_ms < 1
    assert stats.rtt_ms == pytest.approx(80, abs=1)


@pytest.mark.parametrize("seed", range(5))
def test_over_a_bad_network_most_is_heard_and_the_rest_is_made_up(seed):
    said = speech(30, seed)
    network = Network(seed, loss=0.03, jitter=0.05, duplicates=0.02)
    _, callee = call(32, network, before=lambda caller, callee: caller.stream.sender.playout.play(said))
    stats = callee.stream.stats()
    assert 15 <= stats.lost <= 80
    assert stats.reordered > 50
    assert stats.duplicates > 5
    sent = {said[at : at + 160] for at in range(0, len(said), 160)}
    # One frame in thirty is lost; the frame after a gap is touched as well, and some come too late at first.
    intact = sum(frame in sent for frame in callee.heard)
    assert intact / len(callee.heard) > 0.90
    assert all(len(frame) == 160 for frame in callee.heard)
    assert len(callee.heard) > 32 * 50 - 20
    assert stats.buffer_ms <= 220


@pytest.mark.parametrize("seed", range(8))
def test_digits_get_through_a_quarter_of_packets_lost(seed):
    dialled = "0123456789*#ABCD"

    def dial(caller, callee):
        caller.stream.sender.send_digits(dialled, 100, 60)

    _, callee = call(5, Network(seed, loss=0.25, jitter=0.03), before=dial)
    # A press is 7 packets; all of one lost is 1 in 16,000. None may be heard twice.
    assert callee.digits == dialled


@pytest.mark.parametrize("ppm", [-300, 300])
def test_a_minute_with_clocks_that_do_not_agree(ppm):
    said = speech(60)
    caller, callee = call(61, Network(3), ppm=ppm, before=lambda a, b: a.stream.sender.playout.play(said))
    for end in (caller, callee):
        stats = end.stream.stats()
        assert stats.buffer_ms <= 80
        assert stats.late <= 3
        assert stats.stretched + stats.skipped <= 4


def test_a_third_party_changes_nothing():
    said = speech(5)
    network = Network(4)
    junk = random.Random(4)

    def attack(caller, callee):
        caller.stream.sender.playout.play(said)
        for index in range(1000):
            at = 0.5 + index / 200
            data = b"\x80\x00" + index.to_bytes(2, "big") + junk.randbytes(8) + b"\x01" * 160
            network.under_way.append((at, -index, callee.address, data, ("198.51.100.9", 999)))

    _, callee = call(6, network, before=attack)
    assert said in b"".join(callee.heard)
    assert callee.stream.destination == ("192.0.2.1", 4000)
    assert callee.stream.stats().foreign > 800


def test_reports_tell_each_end_of_the_others_losses():
    caller, callee = call(60, Network(5, loss=0.05))
    assert caller.stream.stats().remote_lost == pytest.approx(callee.stream.stats().lost, rel=0.4)
    assert parse_compound(callee.stream.create_goodbye())


# Real sockets.


async def closed(pool, free=None):
    """Wait until the loop has closed the sockets."""
    for _ in range(100):
        if pool.free == (pool.total if free is None else free):
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{pool.free} of {pool.total} free")


@pytest.fixture
async def pacer():
    pacer = Pacer()
    pacer.start()
    yield pacer
    pacer.close()


def connect(left, right, pacer):
    """Negotiate between two ports and start them; return what each heard and was told."""
    offered = negotiate.offer(LocalMedia(left.host, left.port, 1, 1))
    made = negotiate.answer(offered, LocalMedia(right.host, right.port, 2, 1))
    records = []
    for port, plan in ((left, negotiate.complete(offered, made.sdp)), (right, made.plan)):
        record = {"frames": [], "digits": [], "events": [], "drained": asyncio.Event()}
        port.start(
            plan,
            pacer=pacer,
            on_frame=record["frames"].append,
            on_digit=record["digits"].append,
            on_drained=record["drained"].set,
            on_event=record["events"].append,
        )
        records.append(record)
    return records


async def test_two_ports_over_loopback(pacer):
    pool = PortPool("127.0.0.1", 32_200, 32_298)
    left, right = pool.open(), pool.open()
    assert left.port % 2 == right.port % 2 == 0
    assert pool.free == pool.total - 2
    heard_left, heard_right = connect(left, right, pacer)
    said = speech(0.6)
    left.play(said[:1000])
    left.play(said[1000:])
    right.send_digits("42#", 60, 40)
    await asyncio.wait_for(heard_left["drained"].wait(), 15)
    assert (left.played_samples, left.queued_samples) == (len(said), 0)
    await until(lambda: said in b"".join(heard_right["frames"]))
    await until(lambda: "".join(heard_left["digits"]) == "42#")
    assert [event.kind for event in heard_left["events"] if isinstance(event, MediaEvent)] == ["receiving"]
    right.play(bytes(16000))
    assert right.clear() == 16000
    stats = right.stats()
    assert (stats.lost, stats.foreign, stats.remote) == (0, 0, f"127.0.0.1:{left.port}")
    left.close()
    left.close()
    await until(lambda: len(heard_right["events"]) > 1)
    assert [event.kind for event in heard_right["events"]] == ["receiving", "goodbye"]
    right.close()
    await closed(pool)
    assert len(pacer) == 0


async def test_a_prompt_port_hears_without_a_pacer_that_ticks_and_survives_its_listener(monkeypatch, caplog):
    pacer = Pacer()
    pacer.start()
    # Nothing is ever due, so whatever is heard was given as it came.
    monkeypatch.setattr(pacer, "_arm", lambda now: None)
    pool = PortPool("127.0.0.1", 32_200, 32_298)
    port = pool.open()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        made = negotiate.answer(
            negotiate.offer(LocalMedia("127.0.0.1", peer.getsockname()[1], 1, 1)),
            LocalMedia(port.host, port.port, 2, 1),
        )
        heard = asyncio.Queue()

        def hear(frame):
            heard.put_nowait(frame)
            if frame[0] == 1:
                raise RuntimeError("a listener that fails")

        port.start(
            made.plan, pacer=pacer, on_frame=hear, on_digit=print, on_drained=lambda: None, prompt=True
        )
        for index in (0, 1, 3, 2):
            data = RtpPacket(0, index, index * 160, 7, bytes([index]) * 160)
            peer.sendto(bytes(data), (port.host, port.port))
        given = [await asyncio.wait_for(heard.get(), 15) for _ in range(4)]
    assert [frame[0] for frame in given] == [0, 1, 2, 3]
    assert pacer.stats.failures == 1
    assert "handling a frame failed" in caplog.text
    port.close()
    pacer.close()
    await closed(pool)


async def test_a_re_invite_moves_the_sound(pacer):
    pool = PortPool("127.0.0.1", 32_200, 32_298)
    left, right, third = [pool.open() for _ in range(3)]
    connect(left, right, pacer)
    heard = []
    local = LocalMedia(third.host, third.port, 3, 1)
    made = negotiate.answer(negotiate.offer(LocalMedia(left.host, left.port, 1, 1)), local)
    third.start(made.plan, pacer=pacer, on_frame=heard.append, on_digit=print, on_drained=list)
    left.update(
        dataclasses.replace(
            made.plan, remote=(third.host, third.port), remote_rtcp=(third.host, third.port + 1)
        )
    )
    left.play(b"\x01" * 800)
    for _ in range(60):
        if b"\x01" * 800 in b"".join(heard):
            break
        await asyncio.sleep(0.01)
    assert b"\x01" * 800 in b"".join(heard)
    for port in (left, right, third):
        port.close()
    await closed(pool)


async def test_ports_run_out_and_come_back():
    pool = PortPool("127.0.0.1", 32_100, 32_103)
    assert pool.total == 2
    ports = [pool.open(), pool.open()]
    with pytest.raises(NoFreePort, match="none of the 2 media port pairs"):
        pool.open()
    ports[0].close()
    await closed(pool, 1)
    again = pool.open()
    assert again.port == ports[0].port
    for port in (*ports, again):
        port.close()
    await closed(pool)


async def test_a_port_rests_before_another_call_gets_it():
    """The peer of the last call may not know yet that it is over, and still send there."""
    pool = PortPool("127.0.0.1", 32_140, 32_159)
    for _ in range(20):
        last = pool.open()
        last.close()
        await closed(pool)
        following = [pool.open() for _ in range(5)]
        assert last.port not in [port.port for port in following]
        for port in following:
            port.close()
        await closed(pool)


async def test_a_process_without_sockets_says_so_and_loses_no_port(monkeypatch):
    pool = PortPool("127.0.0.1", 32_120, 32_129)
    made = []

    class Scarce(socket.socket):
        """The second of every two cannot be had."""

        def __init__(self, *args):
            if len(made) % 2:
                made.append(None)
                raise OSError(errno.EMFILE, "Too many open files")
            super().__init__(*args)
            made.append(self)

    with monkeypatch.context() as patched:
        patched.setattr("offhook.media.port.socket.socket", Scarce)
        for _ in range(20):
            with pytest.raises(NoFreePort, match="no socket for a media port: Too many open files"):
                pool.open()
    assert pool.free == pool.total == 5
    assert [each.fileno() for each in made[::2]] == [-1] * 20
    pool.open().close()
    await closed(pool)


async def test_an_address_that_is_not_ours_is_not_taken_for_a_full_range():
    pool = PortPool("192.0.2.1", 32_120, 32_129)
    with pytest.raises(NoFreePort, match="assign requested address"):
        pool.open()
    assert pool.free == pool.total


async def test_a_pair_that_others_hold_is_passed_over():
    first = PortPool("127.0.0.1", 32_110, 32_113)
    second = PortPool("127.0.0.1", 32_110, 32_113)
    mine, theirs = first.open(), second.open()
    assert mine.port != theirs.port
    with pytest.raises(NoFreePort):
        second.open()
    assert second.free == 1
    mine.close()
    theirs.close()
    await closed(first)
    await closed(second)


@pytest.mark.parametrize(("first", "last"), [(0, 100), (5000, 5000), (70000, 70010), (6001, 6002)])
def test_ranges_that_hold_no_pair_are_refused(first, last):
    with pytest.raises(ValueError, match="give a range"):
        PortPool("127.0.0.1", first, last)


async def test_before_the_start_nothing_can_be_played():
    pool = PortPool("127.0.0.1", 32_200, 32_298)
    port = pool.open()
    with pytest.raises(RuntimeError, match="not started"):
        port.play(b"x")
    assert (port.played_samples, port.queued_samples) == (0, 0)
    port.close()
    await closed(pool)
