"""A call's messages as packets: read back by the rules of IP, UDP, TCP and pcap, not by the writer's own code."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.calls.capture import NOT_INCLUDED, capture

BODY = "v=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:(redacted)\r\n"
MESSAGE = f"INVITE sip:a@b SIP/2.0\r\nCall-ID: c\r\nContent-Length: 999\r\n\r\n{BODY}"
BYE = "BYE sip:a@b SIP/2.0\r\nl: 0\r\n\r\n"


def entry(message=MESSAGE, *, transport="udp", direction="in", at="2026-11-21T12:00:01.250Z", **more):
    ends = {"local": "198.51.100.4:5060", "remote": "203.0.113.7:5061"}
    return {
        "kind": "sip",
        "message": message,
        "transport": transport,
        "direction": direction,
        "at": at,
        **ends,
        **more,
    }


def words(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def read(data):
    """Return (time, source, target, protocol, transport header, payload) of each packet, checksums judged."""
    magic, major, minor, _, _, snaplen, link = struct.unpack_from("<IHHiIII", data)
    assert (magic, major, minor, link) == (0xA1B2C3D4, 2, 4, 101)
    packets, at = [], 24
    while at < len(data):
        seconds, micros, kept, length = struct.unpack_from("<IIII", data, at)
        assert kept == length <= snaplen
        packet, at = data[at + 16 : at + 16 + kept], at + 16 + kept
        if packet[0] >> 4 == 4:
            assert words(packet[:20]) == 0xFFFF
            assert struct.unpack_from("!H", packet, 2)[0] == len(packet)
            protocol, hosts, inner = packet[9], packet[12:20], packet[20:]
        else:
            assert struct.unpack_from("!H", packet, 4)[0] == len(packet) - 40
            protocol, hosts, inner = packet[6], packet[8:40], packet[40:]
        assert words(hosts + struct.pack("!II", len(inner), protocol) + inner) == 0xFFFF
        half = len(hosts) // 2
        ports = struct.unpack_from("!HH", inner)
        ends = [
            (str(ipaddress.ip_address(host)), port)
            for host, port in zip((hosts[:half], hosts[half:]), ports, strict=True)
        ]
        size = 8 if protocol == 17 else 20
        packets.append((seconds + micros / 1e6, *ends, protocol, inner[:size], inner[size:]))
    return packets


def messages(*entries):
    return read(capture({"call_id": "rtc_x", "started_at": "2026-11-21T12:00:00Z", "data": list(entries)}))[
        1:
    ]


def test_the_first_packet_says_what_is_not_there():
    note = read(capture({"call_id": "rtc_x", "data": []}))
    assert len(note) == 1
    assert NOT_INCLUDED.encode() in note[0][5]
    assert b"rtc_x" in note[0][5]
    assert b"TLS is shown" not in note[0][5]
    over_tls = read(capture({"data": [entry(transport="tls")]}))
    assert b"TLS is shown as TCP" in over_tls[0][5]


def test_udp_has_its_addresses_time_and_bytes():
    ((at, source, target, protocol, _, payload),) = messages(entry(BYE))
    assert at == pytest.approx(1_795_262_401.25)
    assert (source, target) == (("203.0.113.7", 5061), ("198.51.100.4", 5060))
    assert (protocol, payload) == (17, BYE.encode())
    ((_, source, target, *_),) = messages(entry(BYE, direction="out"))
    assert (source, target) == (("198.51.100.4", 5060), ("203.0.113.7", 5061))


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_stream_is_one_stream_whose_messages_can_be_parted(transport):
    packets = messages(
        entry(transport=transport),
        entry("SIP/2.0 100 Trying\r\n\r\n", transport=transport, direction="out"),
        entry(BYE, transport=transport),
    )
    first, answer, second = packets
    assert {packet[3] for packet in packets} == {6}
    sequence, acknowledged = zip(
        *(struct.unpack_from("!II", packet[4], 4) for packet in packets), strict=True
    )
    assert sequence == (1, 1, 1 + len(first[5]))
    assert acknowledged == (1, 1 + len(first[5]), 1 + len(answer[5]))
    head, _, body = first[5].partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"inline" not in body
    assert second[5] == BYE.encode()


def test_ipv6_and_what_cannot_be_one_family():
    six = {"local": "[2001:db8::4]:5060", "remote": "[2001:db8::7]:5061"}
    ((_, source, target, *_),) = messages(entry(**six))
    assert (source, target) == (("2001:db8::7", 5061), ("2001:db8::4", 5060))
    ((_, source, *_),) = messages(entry(**six | {"remote": "192.0.2.1:5061"}))
    assert source == ("::ffff:c000:201", 5061) or source == ("::ffff:192.0.2.1", 5061)


def test_large_messages_fit():
    large = "MESSAGE sip:a@b SIP/2.0\r\nContent-Length: 200000\r\n\r\n" + "x" * 200_000
    assert sum(len(packet[5]) for packet in messages(entry(large, transport="tcp"))) == len(large)
    ((*_, payload),) = messages(entry(large))
    assert len(payload) <= 65_507


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["call_id", "started_at"]), JSON),
    st.lists(
        st.dictionaries(st.sampled_from(["local", "remote", "at", "transport", "direction"]), JSON).flatmap(
            lambda odd: st.text(max_size=60).map(lambda message: entry(message, **odd))
        )
        | JSON,
        max_size=4,
    )
    | JSON,
)
def test_any_timeline_makes_a_file_that_can_be_read(timeline, data):
    read(capture({**timeline, "data": data}))
