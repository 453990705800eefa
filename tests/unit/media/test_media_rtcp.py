import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.media.reception import Reception
from offhook.media.reports import INTERVAL_S, Reports
from offhook.media.rtcp import (
    Goodbye,
    ReceiverReport,
    ReportBlock,
    RtcpError,
    SenderReport,
    SourceDescription,
    Unknown,
    goodbye,
    middle_of,
    ntp_time,
    parse_compound,
)

BLOCK = ReportBlock(0x1234, 25, -2, 0x0001FFFE, 160, 0xB710_8000, 0x0005_4000)
# RFC 3550 figures of sections 6.4.1, 6.5 and 6.6, filled in by hand.
SENDER = bytes.fromhex("81c8000c 00000042 0123456789abcdef 00000320 00000007 00000460") + bytes.fromhex(
    "00001234 19fffffe 0001fffe 000000a0 b7108000 00054000"
)
NAMED = bytes.fromhex("81ca0003 00000042 0103") + b"a@b" + bytes(3)
BYE = bytes.fromhex("81cb0003 00000042 04") + b"gone" + bytes(3)


def test_a_compound_as_the_figures_show():
    packets = parse_compound(SENDER + NAMED + BYE)
    assert packets == [
        SenderReport(0x42, 0x0123456789ABCDEF, 800, 7, 1120, (BLOCK,)),
        SourceDescription(0x42, ((1, b"a@b"),)),
        Goodbye((0x42,), "gone"),
    ]
    assert b"".join(map(bytes, packets)) == SENDER + NAMED + BYE


def test_a_last_compound_is_an_empty_report_a_description_and_a_bye():
    data = goodbye(0x42, NAMED)
    assert parse_compound(data) == [
        ReceiverReport(0x42),
        SourceDescription(0x42, ((1, b"a@b"),)),
        Goodbye((0x42,)),
    ]
    assert data == bytes(ReceiverReport(0x42)) + NAMED + bytes(Goodbye((0x42,)))


def test_receiver_report():
    report = ReceiverReport(9, (BLOCK, BLOCK))
    data = bytes(report)
    assert data[:4] == bytes.fromhex("82c9000d")
    assert len(data) == 4 * (0x0D + 1)
    assert parse_compound(data) == [report]


@pytest.mark.parametrize("name", [b"", b"a", b"ab", b"abc", b"abcd"])
def test_descriptions_end_with_a_null_and_whole_words(name):
    data = bytes(SourceDescription(1, ((1, name),)))
    assert len(data) % 4 == 0
    assert data[-1] == 0
    assert parse_compound(data) == [SourceDescription(1, ((1, name),))]


def test_unknown_types_are_kept_and_padding_is_dropped():
    padded = bytes.fromhex("a0cc0002 00000001 00000004")
    assert parse_compound(padded) == [Unknown(204, bytes.fromhex("00000001"))]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\x80\xc8", "cut short in a header"),
        (b"\x40\xc8\0\0", "version 1"),
        (bytes.fromhex("80c80006"), "length runs over the end"),
        (bytes.fromhex("81c90001 00000001"), "1 report blocks announced"),
        (bytes.fromhex("80c80000"), "0 report blocks announced"),
        (bytes.fromhex("82cb0001 00000001"), "BYE: cut short"),
        (bytes.fromhex("81ca0002 00000001 01ff6161"), "runs over the end"),
        (bytes.fromhex("a0c90001 00000009"), "bad padding"),
    ],
)
def test_faults(data, fault):
    with pytest.raises(RtcpError, match=fault):
        parse_compound(data)


@given(
    st.lists(
        st.builds(
            lambda first, kind, words, body: struct.pack("!BBH", first, kind, words) + body,
            st.integers(0, 255),
            st.integers(199, 206),
            st.integers(0, 9),
            st.binary(max_size=40),
        ),
        max_size=4,
    ).map(b"".join)
)
def test_any_bytes_are_packets_or_an_error(data):
    try:
        packets = parse_compound(data)
    except RtcpError:
        return
    assert len(packets) <= len(data) // 4


def test_ntp_time_counts_from_1900():
    # 1970-01-01 is 2208988800 s after 1900-01-01; half a second is half of 2**32.
    assert ntp_time(0.5) == 2208988800 << 32 | 1 << 31
    assert middle_of(0x0123456789ABCDEF) == 0x456789AB


def test_the_round_trip_of_the_rfcs_example():
    """RFC 3550 section 6.4.1, figure 2: 10 Nov 1995, the answer says 6.125 s."""
    arrived = 0xB710_8000
    # A monotonic clock that shows 100 s when the middle of NTP time is that of the example.
    wall = (0xB44D << 16 | arrived >> 16) + (arrived & 0xFFFF) / 0x10000 - 2_208_988_800
    reports = Reports(0x1234, "x", now=0.0, wall_offset=wall - 100.0)
    block = ReportBlock(0x1234, 0, 0, 0, 0, 0xB705_2000, 0x0005_4000)
    reports.receive([ReceiverReport(1, (block,))], now=100.0)
    assert reports.rtt_s == pytest.approx(6.125, abs=0.001)


def test_reports_about_others_are_not_ours():
    reports = Reports(1, "x", now=0.0, wall_offset=0.0)
    reports.receive([ReceiverReport(2, (BLOCK,))], now=1.0)
    assert reports.rtt_s is None
    assert reports.remote_lost is None


def report(reports, now, reception=None, sending=True):
    return reports.create(now, timestamp=800, packets=7, octets=1120, sending=sending, reception=reception)


def test_a_sender_report_says_wall_time_and_rtp_time_of_one_instant():
    reports = Reports(0x42, "name", now=0.0, wall_offset=1_000_000.0)
    sent, named = parse_compound(report(reports, 5.25))
    assert sent == SenderReport(0x42, (2208988800 + 1_000_005) << 32 | 1 << 30, 800, 7, 1120)
    assert named == SourceDescription(0x42, ((1, b"name"),))


def test_who_sent_nothing_sends_a_receiver_report():
    reports = Reports(0x42, "name", now=0.0, wall_offset=0.0)
    assert isinstance(parse_compound(report(reports, 5.0, sending=False))[0], ReceiverReport)


def test_the_block_tells_the_last_report_and_its_age():
    reports = Reports(0x42, "name", now=0.0, wall_offset=0.0)
    reception = Reception(0x99, 65534)
    for sequence in (65534, 65535, 0, 3):
        reception.receive(sequence)
    reports.receive([SenderReport(0x99, 0x0123456789ABCDEF, 0, 0, 0)], now=2.0)
    block = parse_compound(report(reports, 4.5, reception))[0].blocks[0]
    assert (block.ssrc, block.cumulative_lost, block.fraction_lost) == (0x99, 2, 256 * 2 // 6)
    assert block.highest_sequence == 0x10003
    assert (block.last_sr, block.delay_since_last_sr) == (0x456789AB, int(2.5 * 0x10000))


def test_reports_come_about_every_five_seconds_and_not_in_step():
    dates = []
    for ssrc in (1, 2**31 + 7):
        reports = Reports(ssrc, "x", now=0.0, wall_offset=0.0)
        mine = []
        while reports.due < 500:
            mine.append(reports.due)
            report(reports, reports.due)
        gaps = [b - a for a, b in itertools.pairwise(mine)]
        assert 0.5 * INTERVAL_S <= min(gaps) < max(gaps) <= 1.5 * INTERVAL_S
        assert 85 < len(mine) < 115
        dates.append(mine)
    assert dates[0] != dates[1]


def test_goodbye_is_a_compound_with_report_and_name():
    packets = parse_compound(Reports(0x42, "x", now=0.0, wall_offset=0.0).create_goodbye())
    assert [type(packet) for packet in packets] == [ReceiverReport, SourceDescription, Goodbye]
