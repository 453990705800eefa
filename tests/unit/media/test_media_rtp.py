import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.media.rtp import RtpError, RtpPacket, is_rtcp, payload_of

# Put together by hand from RFC 3550 section 5.1: version 2, marker, type 0, sequence 0x1234, and so on.
PLAIN = bytes.fromhex("80 80 1234 00000320 cafebabe") + b"sound"
TWO_SOURCES = bytes.fromhex("82 00 1234 00000320 cafebabe 00000001 00000002") + b"sound"
EXTENDED = bytes.fromhex("90 00 1234 00000320 cafebabe bede 0001 10ff0000") + b"sound"
PADDED = bytes.fromhex("a0 00 1234 00000320 cafebabe") + b"sound" + bytes.fromhex("000003")
ALL = bytes.fromhex("b1 00 1234 00000320 cafebabe 00000001 bede 0000") + b"sound" + b"\x01"


def test_header_fields():
    packet = RtpPacket.parse(PLAIN)
    assert packet == RtpPacket(0, 0x1234, 800, 0xCAFEBABE, b"sound", marker=True)
    assert bytes(packet) == PLAIN


def test_contributing_sources_and_extension():
    packet = RtpPacket.parse(TWO_SOURCES)
    assert (packet.csrc, packet.payload) == ((1, 2), b"sound")
    assert bytes(packet) == TWO_SOURCES
    packet = RtpPacket.parse(EXTENDED)
    assert (packet.extension, packet.payload) == ((0xBEDE, b"\x10\xff\0\0"), b"sound")
    assert bytes(packet) == EXTENDED


@pytest.mark.parametrize("data", [PLAIN, TWO_SOURCES, EXTENDED, PADDED, ALL])
def test_the_payload_is_found_behind_whatever_is_before_it(data):
    assert payload_of(data) == b"sound"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "0 bytes are no RTP header"),
        (PLAIN[:11], "11 bytes"),
        (b"\x40" + PLAIN[1:], "version 1"),
        (TWO_SOURCES[:19], "cut short in the header"),
        (EXTENDED[:15], "cut short in the header extension"),
        (EXTENDED[:18], "cut short in the header"),
        (PADDED[:-1] + b"\x09", "padding of 9 in a payload of 8"),
        (PADDED[:-1] + b"\x00", "padding of 0"),
        (PADDED[:12], "padding of 190 in a payload of 0"),
    ],
)
def test_faults(data, fault):
    with pytest.raises(RtpError, match=fault):
        payload_of(data)
    with pytest.raises(RtpError, match=fault):
        RtpPacket.parse(data)


def test_rtcp_is_told_from_rtp():
    assert is_rtcp(bytes.fromhex("80c80006") + bytes(24))
    assert not is_rtcp(PLAIN)
    # Types 0 and 8 with the marker bit are 128 and 136 as an octet.
    assert not is_rtcp(b"\x80\x88" + PLAIN[2:])


@given(st.binary(max_size=60))
def test_any_bytes_are_a_packet_or_an_error(data):
    try:
        packet = RtpPacket.parse(data)
    except RtpError:
        return
    assert RtpPacket.parse(bytes(packet)) == packet
    assert payload_of(data) == packet.payload
