"""Files of packets: their order, their bounds, a disk that stands still or is full, what a crash leaves."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from offhook.calls.capture import merged_capture
from offhook.calls.packet_capture import Kept
from offhook.calls.packets import HEADER, datagram, merge, parse
from offhook.store import captures
from offhook.store.captures import BATCH, MAX_BYTES, CaptureStore

CALL = "rtc_u0_" + "a" * 32
PEER = ("192.0.2.7", 4000)
RTP = b"\x80\x00" + bytes(170)


class Wall:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        self.now += 0.01
        return self.now


class Keeping:
    """A store in a folder, and what its one call was told."""

    def __init__(self, folder: Path, *, min_free: int = 0) -> None:
        self.clock = Wall()
        self.store = CaptureStore(folder, self.clock, keep_days=1, min_free=min_free)
        self.folder = folder
        self.full: list[int] = []
        self.over: asyncio.Queue[Kept] = asyncio.Queue()

    def begin(self, host: str = "198.51.100.1", *, keys: bool = False) -> captures._Sink:
        return self.store.begin(CALL, host, keys=keys, on_full=self.full.append, on_over=self.over.put_nowait)

    async def ended(self) -> Kept:
        return await asyncio.wait_for(self.over.get(), 20)

    def read(self) -> list[tuple[str, int, str, int, bytes]]:
        return [packet(data) for _, data in parse(self.store.find(CALL).pieces())]


def packet(record: bytes) -> tuple[str, int, str, int, bytes]:
    data = record[16:]
    at, size = (12, 4) if data[0] >> 4 == 4 else (8, 16)
    hosts = [str(ipaddress.ip_address(data[at + n * size : at + n * size + size])) for n in (0, 1)]
    inner = data[at + 2 * size :]
    source, target, length = struct.unpack_from("!HHH", inner)
    assert length == len(inner)
    return hosts[0], source, hosts[1], target, inner[8:]


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[Keeping]:
    made = Keeping(tmp_path / "captures")
    yield made
    await made.store.close()


@pytest.mark.parametrize(
    ("own", "peer"), [("198.51.100.1", ("192.0.2.7", 4000)), ("2001:db8::1", ("2001:db8::2", 4000, 0, 0))]
)
async def test_packets_stand_in_their_order_with_both_addresses(
    keeping: Keeping, own: str, peer: tuple[str, int]
) -> None:
    sink = keeping.begin(own)
    sent = [bytes([number]) * 20 for number in range(2 * BATCH + 7)]
    for number, data in enumerate(sent):
        sink.packet(number % 2 == 0, 20_000, data, peer)
    sink.end()
    sink.packet(True, 20_000, b"too late", peer)
    assert await keeping.ended() == Kept(len(sent), 0, 0)
    ways = ((own, 20_000, peer[0], 4000), (peer[0], 4000, own, 20_000))
    assert keeping.read() == [(*ways[number % 2], data) for number, data in enumerate(sent)]
    (file,) = keeping.folder.iterdir()
    assert (file.stat().st_mode & 0o777, keeping.folder.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_a_peer_of_ipv4_at_a_socket_of_both_families_is_shown_as_such(keeping: Keeping) -> None:
    sink = keeping.begin()
    sink.packet(False, 20_000, RTP, ("::ffff:192.0.2.7", 4000, 0, 0))
    sink.end()
    await keeping.ended()
    assert keeping.read() == [("192.0.2.7", 4000, "198.51.100.1", 20_000, RTP)]


async def test_a_call_has_100_mb_and_hears_of_it_once(keeping: Keeping) -> None:
    sink = keeping.begin()
    fitting = MAX_BYTES // 60_064
    for _ in range(fitting):
        sink.packet(True, 20_000, bytes(60_000), PEER)
        async with asyncio.timeout(20):
            while sink._of_call.waiting > 1_000_000:
                await asyncio.sleep(0.001)
    assert not keeping.full
    for _ in range(9):
        sink.packet(True, 20_000, bytes(60_000), PEER)
    sink.end()
    kept = await keeping.ended()
    assert keeping.full == [MAX_BYTES]
    assert (kept.packets, kept.lost, kept.left_out) == (fitting, 0, 9)
    (file,) = keeping.folder.iterdir()
    assert file.stat().st_size <= MAX_BYTES


async def test_a_disk_that_stands_still_costs_packets_and_holds_up_nobody(keeping: Keeping) -> None:
    sink = keeping.begin()
    stuck = threading.Event()
    assert keeping.store._thread is not None
    keeping.store._thread.do(lambda: stuck.wait(20) and None)
    count = 4 * captures.MAX_WAITING // len(RTP)
    for _ in range(count):
        sink.packet(True, 20_000, RTP, PEER)
    assert sink._of_call.waiting <= captures.MAX_WAITING
    stuck.set()
    while sink._of_call.waiting > 100_000:
        await asyncio.sleep(0.001)
    sink.packet(True, 20_000, b"again", PEER)
    sink.end()
    kept = await keeping.ended()
    assert (kept.packets + kept.lost, kept.trouble) == (count + 1, "the disk is too slow")
    assert kept.lost > count // 2
    assert keeping.read()[-1][-1] == b"again"


async def test_a_full_disk_is_counted_and_said(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "captures", min_free=1 << 60)
    sink = keeping.begin(keys=True)
    sink.message("INVITE")
    for _ in range(BATCH + 1):
        sink.packet(True, 20_000, RTP, PEER)
    sink.end()
    assert await keeping.ended() == Kept(0, BATCH + 1, 0, "No space left on device")
    assert not list(keeping.folder.iterdir())
    assert keeping.store.find(CALL).packets is None
    await keeping.store.close()


@pytest.mark.parametrize("cut", [1, 15, 16, 40, 200])
async def test_the_last_record_may_be_cut_off(keeping: Keeping, cut: int) -> None:
    sink = keeping.begin(keys=True)
    sink.message("one\r\n")
    sink.message("two\r\n")
    for _ in range(3):
        sink.packet(False, 20_000, RTP, PEER)
    sink.end()
    await keeping.ended()
    packets, messages = (keeping.folder / f"{CALL}.pcap", keeping.folder / f"{CALL}.messages")
    os.truncate(packets, packets.stat().st_size - cut)
    os.truncate(messages, messages.stat().st_size - 3)
    assert len(keeping.read()) == 2
    assert keeping.store.find(CALL).messages == ["one\r\n"]


def test_a_file_is_read_in_pieces_of_any_size_up_to_what_is_no_record() -> None:
    records = [datagram(at, PEER, ("192.0.2.8", 5), bytes([at]) * at) for at in range(1, 9)]
    file = HEADER + b"".join(records)
    for size in (1, 7, 24, 1000):
        pieces = [file[at : at + size] for at in range(0, len(file), size)]
        assert list(parse(pieces)) == [(at * 1_000_000, records[at - 1]) for at in range(1, 9)]
    assert [data for _, data in parse([file + b"\xff" * 40])] == records
    assert list(parse([b"no capture at all, but long enough"])) == []
    assert list(parse([])) == []


def test_signalling_and_sound_are_merged_by_time() -> None:
    ends = {"transport": "udp", "local": "192.0.2.1:5060", "remote": "192.0.2.7:5060", "kind": "sip"}
    data = [
        {**ends, "at": f"1970-01-01T00:00:{second:02}Z", "message": f"M{second}", "direction": "in"}
        for second in (2, 4, 6)
    ]
    kept = b"".join(merge([(at * 1_000_000, datagram(at, PEER, ("::1", 5), b"rtp")) for at in (3, 5, 7)]))
    merged = b"".join(merged_capture({"data": data}, [kept], None))
    records = list(parse([merged]))
    assert [at // 1_000_000 for at, _ in records] == [2, 2, 3, 4, 5, 6, 7]
    assert [packet(data)[-1] for _, data in records][1:] == [b"M2", b"rtp", b"M4", b"rtp", b"M6", b"rtp"]
    assert ipaddress.IPv6Address(packet(records[2][1])[0]).ipv4_mapped == ipaddress.ip_address(PEER[0])
    # Without the packets, and with keys: the message as it was stands where it was redacted.
    secret = "INVITE\r\n\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0\r\n"
    data[0]["message"] = secret.replace("c2VjcmV0", "(redacted)")
    shown = b"".join(merged_capture({"data": data}, None, [secret]))
    assert b"inline:c2VjcmV0" in shown
    assert b"keys of TLS (not kept)" in shown


async def test_files_go_when_calls_do_but_not_while_they_grow(keeping: Keeping) -> None:
    keeping.folder.mkdir()
    old = keeping.folder / "rtc_u0_old.pcap"
    foreign = keeping.folder / "notes.pcap"
    for path in (old, old.with_suffix(".messages"), keeping.folder / "rtc_u0_new.pcap", foreign):
        path.write_bytes(b"x")
    sink = keeping.begin()
    sink.end()
    await keeping.ended()
    growing = keeping.store.begin(
        "rtc_u0_open", "::1", keys=False, on_full=keeping.full.append, on_over=keeping.over.put_nowait
    )
    for _ in range(BATCH):
        growing.packet(True, 1, b"x", ("::2", 2))
    while not (keeping.folder / "rtc_u0_open.pcap").exists() or growing._of_call.waiting:
        await asyncio.sleep(0.001)
    young = keeping.clock.now - 3600
    for path in keeping.folder.iterdir():
        os.utime(path, (young, young))
    before = keeping.clock.now - 2 * 86_400
    for path in (old, old.with_suffix(".messages"), foreign, keeping.folder / "rtc_u0_open.pcap"):
        os.utime(path, (before, before))
    assert await keeping.store.expire() == 2
    names = {path.name for path in keeping.folder.iterdir()}
    assert names == {f"{CALL}.pcap", "rtc_u0_new.pcap", "notes.pcap", "rtc_u0_open.pcap"}
    growing.end()
    await keeping.ended()


@pytest.mark.parametrize("name", ["../x", "a/b", "", "x\0", "%2e%2e", "é"])
async def test_a_call_s_id_is_no_path(keeping: Keeping, name: str) -> None:
    (keeping.folder.parent / "x.pcap").write_bytes(HEADER)
    assert keeping.store.find(name).packets is None
