"""One stream, both ways: what the driver hands in and what it gets."""

import dataclasses
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.audio import g711
from offhook.audio.frames import SILENCE
from offhook.media.negotiate import MediaPlan
from offhook.media.rtcp import (
    Goodbye,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
    middle_of,
    parse_compound,
)
from offhook.media.rtp import RtpPacket
from offhook.media.stats import DigitReceived, Drained, MediaEvent
from offhook.media.stream import MediaStream

PEER = ("192.0.2.1", 4000)
REPORTS = ("192.0.2.1", 4001)
NAT = ("198.51.100.1", 31000)
PLAN = MediaPlan(
    codec="PCMU",
    payload_type=0,
    dtmf_payload_type=101,
    remote=PEER,
    remote_rtcp=REPORTS,
    dtmf_receive=frozenset({101, 103}),
)


def make(plan=PLAN, **changes):
    values = {
        "ssrc": 0x42,
        "sequence": 65534,
        "timestamp": 2**32 - 320,
        "cname": "x",
        "now": 0.0,
        "wall_offset": 1e9,
    }
    return MediaStream(plan, **{**values, **changes})


def packet(index, payload=None, *, ssrc=7, payload_type=0, **more):
    payload = bytes([index % 200 + 1]) * 160 if payload is None else payload
    return bytes(RtpPacket(payload_type, index & 0xFFFF, index * 160 & 0xFFFFFFFF, ssrc, payload, **more))


def feed(stream, indexes, *, source=PEER, start=0.0, **more):
    """Hand in packets 20 ms apart, and tick after each; return the frames."""
    frames = []
    for step, index in enumerate(indexes):
        now = start + 0.02 * step
        stream.receive_rtp(packet(index, **more), source, now + 0.005)
        frames.append(stream.next_frame(now + 0.02))
    return frames


def kinds(stream):
    return [event.kind for event in stream.take_events() if isinstance(event, MediaEvent)]


def digits(stream):
    return "".join(event.digit for event in stream.take_events() if isinstance(event, DigitReceived))


# Out.


def test_packets_go_out_with_running_numbers_and_a_marker_first():
    stream = make()
    sent = [RtpPacket.parse(stream.next_packet()) for _ in range(4)]
    assert [each.sequence for each in sent] == [65535, 0, 1, 2]
    assert [each.timestamp for each in sent] == [2**32 - 160, 0, 160, 320]
    assert [each.marker for each in sent] == [True, False, False, False]
    assert {each.ssrc for each in sent} == {0x42}
    assert {each.payload_type for each in sent} == {0}
    assert {each.payload for each in sent} == {SILENCE["PCMU"]}
    assert stream.destination == PEER


def test_queued_sound_is_sent_and_its_end_is_told():
    stream = make()
    stream.sender.playout.play(b"\x01" * 200)
    assert RtpPacket.parse(stream.next_packet()).payload == b"\x01" * 160
    assert stream.events == []
    assert RtpPacket.parse(stream.next_packet()).payload == b"\x01" * 40 + b"\xff" * 120
    assert stream.take_events() == [Drained()]
    assert stream.events == []
    assert stream.sender.playout.played == 200


def test_time_that_was_missed_shows_in_the_timestamp_alone():
    stream = make()
    first = RtpPacket.parse(stream.next_packet())
    stream.skip(5)
    second = RtpPacket.parse(stream.next_packet())
    assert second.sequence == (first.sequence + 1) & 0xFFFF
    assert second.timestamp == (first.timestamp + 6 * 160) & 0xFFFFFFFF
    assert second.marker
    assert stream.stats().skipped_ticks == 5


def test_digits_go_out_as_events_and_queued_sound_waits():
    stream = make()
    stream.sender.playout.play(b"\x01" * 160)
    stream.next_packet()
    stream.sender.playout.play(b"\x02" * 160)
    stream.sender.send_digits("5", 60, 60)
    sent = [RtpPacket.parse(stream.next_packet()) for _ in range(7)]
    assert [each.payload_type for each in sent] == [101] * 5 + [0, 0]
    assert [struct.unpack("!BBH", each.payload)[2] for each in sent[:5]] == [160, 320, 480, 480, 480]
    assert len({each.timestamp for each in sent[:5]}) == 1
    assert [each.sequence - sent[0].sequence for each in sent] == list(range(7))
    # The audio clock ran on meanwhile.
    assert sent[6].payload == b"\x02" * 160
    assert sent[6].timestamp - sent[0].timestamp == 6 * 160


def test_digits_become_tones_when_the_peer_takes_no_events():
    stream = make(dataclasses.replace(PLAN, dtmf_payload_type=None))
    stream.sender.send_digits("1", 100, 60)
    sent = [RtpPacket.parse(stream.next_packet()) for _ in range(9)]
    assert {each.payload_type for each in sent} == {0}
    loud = [max(abs(g711.decode(each.payload, "PCMU").astype(int))) > 3000 for each in sent]
    assert loud == [True] * 5 + [False] * 4
    assert stream.sender.playout.played == 0


@pytest.mark.parametrize("plan", [
    dataclasses.replace(PLAN, direction="recvonly"),
    dataclasses.replace(PLAN, direction="inactive"),
    dataclasses.replace(PLAN, remote=("0.0.0.0", 4000)),
])  # fmt: skip
def test_on_hold_nothing_is_sent_and_sound_waits(plan):
    stream = make()
    stream.sender.playout.play(b"\x01" * 320)
    first = RtpPacket.parse(stream.next_packet())
    stream.renegotiate(plan)
    assert [stream.next_packet() for _ in range(10)] == [None] * 10
    assert stream.sender.playout.queued == 160
    stream.renegotiate(PLAN)
    second = RtpPacket.parse(stream.next_packet())
    assert (second.payload, second.marker) == (b"\x01" * 160, True)
    assert second.sequence == (first.sequence + 1) & 0xFFFF
    assert second.timestamp == (first.timestamp + 11 * 160) & 0xFFFFFFFF


# In.


def test_no_frames_before_the_first_packet_and_one_each_tick_after():
    stream = make()
    assert [stream.next_frame(0.02 * n) for n in range(5)] == [None] * 5
    frames = feed(stream, range(10), start=0.1)
    assert frames[0] == SILENCE["PCMU"]
    assert frames[1:] == [bytes([n + 1]) * 160 for n in range(9)]
    assert kinds(stream) == ["receiving"]


def test_a_lost_frame_is_concealed():
    stream = make()
    feed(stream, range(20))
    frames = feed(stream, [20, 22, 23], start=0.4)
    stream.next_frame(0.46)
    assert stream.stats().lost == 1
    assert all(len(frame) == 160 for frame in frames)


def take_early(stream):
    return list(iter(stream.early_frame, None))


def test_a_prompt_stream_gives_sound_as_it_comes_and_each_tick_only_what_is_missing():
    stream = make(prompt=True)
    for index in range(20):
        stream.receive_rtp(packet(index), PEER, 0.02 * index + 0.005)
        assert take_early(stream) == [bytes([index + 1]) * 160]
        assert stream.next_frame(0.02 * index + 0.02) is None
    # Number 20 is lost: what follows waits.
    filled = []
    for index in range(21, 26):
        stream.receive_rtp(packet(index), PEER, 0.02 * index + 0.005)
        filled += take_early(stream)
        if (frame := stream.next_frame(0.02 * index + 0.02)) is not None:
            filled.append(frame)
        filled += take_early(stream)
    made_up, first, *rest = filled
    assert made_up not in (SILENCE["PCMU"], bytes([20]) * 160)
    assert first[32:] == bytes([22]) * 128, "after what was made up, 4 ms are mixed"
    assert rest == [bytes([index + 1]) * 160 for index in range(22, 26)]
    assert (stream.stats().lost, stream.stats().concealed, stream.stats().late) == (1, 1, 0)


def test_a_process_that_is_held_up_again_and_again_hears_all_the_same():
    stream = make(prompt=True)
    heard, unread = [], []
    for index in range(600):
        now = 0.02 * index
        unread.append(packet(index, struct.pack("!H", index) * 80))
        # For 0.6 s of each 0.8 nothing is read, and no tick comes.
        if index % 40 < 30:
            continue
        if len(unread) > 1:
            stream.skip(len(unread) - 1)
        for data in unread:
            stream.receive_rtp(data, PEER, now + 0.005)
            heard += take_early(stream)
        unread.clear()
        assert stream.next_frame(now + 0.02) is None
        heard += take_early(stream)
    numbers = [struct.unpack_from("!H", frame, 100)[0] for frame in heard]
    assert numbers == list(range(600))


def test_an_even_stream_gives_nothing_early():
    stream = make()
    stream.receive_rtp(packet(0), PEER, 0.005)
    assert stream.early_frame() is None


def test_a_prompt_stream_goes_on_in_another_codec():
    stream = make(prompt=True)
    feed(stream, range(3))
    take_early(stream)
    stream.renegotiate(dataclasses.replace(PLAN, codec="PCMA", payload_type=8))
    stream.receive_rtp(packet(3, b"\x10" * 160, payload_type=8), PEER, 0.1)
    assert take_early(stream)[-1][32:] == b"\x10" * 128


@pytest.mark.parametrize(
    "shape",
    [
        {"csrc": (1, 2, 3)},
        {"extension": (0xBEDE, b"\x10\xff\0\0")},
        {"marker": True},
        {"csrc": (9,), "extension": (1, b""), "marker": True},
    ],
)
def test_packets_of_any_shape(shape):
    stream = make()
    frames = feed(stream, range(5), **shape)
    assert frames[1:] == [bytes([n + 1]) * 160 for n in range(4)]


def test_padding_is_taken_off():
    stream = make()
    for index in range(3):
        data = bytearray(packet(index)) + b"\0\0\x03"
        data[0] |= 0x20
        stream.receive_rtp(bytes(data), PEER, 0.02 * index)
    stream.next_frame(0.06)
    assert stream.next_frame(0.08) == b"\x01" * 160


def test_the_other_law_is_put_into_ours():
    stream = make()
    payload = bytes(range(160))
    stream.receive_rtp(packet(0, payload, payload_type=8), PEER, 0.0)
    stream.next_frame(0.02)
    assert stream.next_frame(0.04) == g711.transcode(payload, "PCMA", "PCMU")


@pytest.mark.parametrize("payload_type", [101, 103])
def test_digits_come_under_either_number(payload_type):
    stream = make()
    feed(stream, range(3))
    for step in range(1, 4):
        event = struct.pack("!BBH", 11, 10, 160 * step)
        data = RtpPacket(payload_type, 2 + step, 480, 7, event, marker=step == 1)
        stream.receive_rtp(bytes(data), PEER, 0.06 + 0.02 * step)
    assert digits(stream) == "#"


def test_while_a_digit_is_pressed_nothing_is_made_up():
    stream = make()
    feed(stream, range(10))
    frames = []
    for step in range(1, 9):
        data = RtpPacket(101, 9 + step, 1600, 7, struct.pack("!BBH", 1, 10, 160 * step))
        stream.receive_rtp(bytes(data), PEER, 0.2 + 0.02 * step)
        frames.append(stream.next_frame(0.21 + 0.02 * step))
    frames += feed(stream, range(18, 24), start=0.38)
    assert stream.stats().lost == 0
    assert stream.stats().concealed == 0
    assert frames[2:8] == [SILENCE["PCMU"]] * 6
    assert frames[-1] == bytes([23]) * 160


def test_comfort_noise_is_silence_and_no_loss():
    stream = make()
    feed(stream, range(5))
    stream.receive_rtp(packet(5, b"\x40", payload_type=13), PEER, 0.11)
    frames = [stream.next_frame(0.12 + 0.02 * n) for n in range(4)]
    assert frames[1:] == [SILENCE["PCMU"]] * 3
    assert (stream.stats().lost, stream.stats().malformed) == (0, 0)


def test_a_new_ssrc_is_taken_up_with_its_second_packet_and_loses_nothing():
    stream = make()
    feed(stream, range(10))
    frames = feed(stream, range(30000, 30012), ssrc=8, start=0.2)
    stats = stream.stats()
    assert (stats.ssrc_changes, stats.remote_ssrc, stats.lost) == (1, 8, 0)
    assert kinds(stream) == ["receiving", "ssrc_changed"]
    heard = [frame for frame in frames if frame[0] == frame[159] and frame != SILENCE["PCMU"]]
    assert heard[-8:] == [bytes([n % 200 + 1]) * 160 for n in range(30002, 30010)]


def test_a_straggler_of_another_ssrc_changes_nothing():
    stream = make()
    feed(stream, range(10))
    for step in range(10, 20):
        stream.receive_rtp(packet(500 + step, ssrc=99), PEER, 0.02 * step)
        feed(stream, [step], start=0.02 * step)
    assert stream.stats().ssrc_changes == 0
    assert stream.stats().packets_in == 20


def test_an_injector_is_neither_heard_nor_sent_to():
    """RTP injection: a third socket sends at twice the rate in mid call."""
    stream = make()
    feed(stream, range(10))
    frames = []
    for step in range(10, 60):
        for extra in (0, 1):
            stream.receive_rtp(
                packet(2 * step + extra, b"\x77" * 160, ssrc=7), ("203.0.113.66", 1), 0.02 * step
            )
        frames += feed(stream, [step], start=0.02 * step)
    assert frames == [bytes([n]) * 160 for n in range(10, 60)]
    assert stream.destination == PEER
    assert stream.stats().foreign == 100
    assert kinds(stream) == ["receiving", "source_refused"]


def test_behind_a_nat_sound_is_sent_back_to_where_it_comes_from():
    stream = make()
    assert feed(stream, range(24), source=NAT) == [None] * 24
    assert stream.destination == PEER
    frames = feed(stream, range(24, 36), source=NAT, start=0.48)
    assert stream.destination == NAT
    assert kinds(stream) == ["receiving", "latched"]
    assert stream.stats().remote == "198.51.100.1:31000"
    # What came on probation was kept.
    assert bytes([24]) * 160 in frames


def test_reports_go_to_no_address_that_sent_none():
    stream = make()
    assert stream.rtcp_destination == REPORTS
    feed(stream, range(30), source=NAT)
    assert stream.rtcp_destination is None
    stream.receive_rtcp(bytes(ReceiverReport(7)), ("203.0.113.66", 9), 1.0)
    assert stream.rtcp_destination is None
    stream.receive_rtcp(bytes(ReceiverReport(7)), ("198.51.100.1", 31007), 1.0)
    assert stream.rtcp_destination == ("198.51.100.1", 31007)


def test_a_re_invite_to_another_address():
    stream = make()
    feed(stream, range(10))
    moved = ("192.0.2.50", 7000)
    stream.renegotiate(dataclasses.replace(PLAN, remote=moved, remote_rtcp=("192.0.2.50", 7001)))
    assert (stream.destination, stream.rtcp_destination) == (moved, ("192.0.2.50", 7001))
    assert feed(stream, range(10, 20), source=moved, start=0.2)[5] == bytes([15]) * 160


def test_a_re_invite_to_another_codec():
    stream = make()
    feed(stream, range(5))
    stream.renegotiate(dataclasses.replace(PLAN, codec="PCMA", payload_type=8))
    assert RtpPacket.parse(stream.next_packet()).payload == SILENCE["PCMA"]
    frames = feed(stream, range(5, 10), payload_type=8, start=0.1)
    assert frames[-1] == bytes([9]) * 160


HOLDS = {
    "inactive": dataclasses.replace(PLAN, direction="inactive", held=True),
    "sendonly": dataclasses.replace(PLAN, direction="recvonly", held=True),
    "0.0.0.0": dataclasses.replace(
        PLAN, direction="recvonly", held=True, remote=("0.0.0.0", 4000), remote_rtcp=("0.0.0.0", 4001)
    ),
}
THIRD_PARTY = ("203.0.113.66", 6666)


def test_tones_go_on_in_another_codec():
    def dialled(codec_change):
        stream = make(dataclasses.replace(PLAN, dtmf_payload_type=None))
        stream.sender.send_digits("5", 100)
        sound = [RtpPacket.parse(stream.next_packet()).payload for _ in range(2)]
        if codec_change:
            plan = dataclasses.replace(PLAN, codec="PCMA", payload_type=8, dtmf_payload_type=None)
            stream.renegotiate(plan)
        rest = [RtpPacket.parse(stream.next_packet()).payload for _ in range(4)]
        law = "PCMA" if codec_change else "PCMU"
        return g711.decode(b"".join(sound), "PCMU"), g711.decode(b"".join(rest), law)

    for one, other in zip(dialled(False), dialled(True), strict=True):
        assert np.abs(one.astype(int) - other).max() < 400


@pytest.mark.parametrize("peer", [PEER, NAT])
@pytest.mark.parametrize("hold", HOLDS)
def test_nobody_moves_in_while_the_call_is_held(hold, peer):
    """The peer is silent, as it may be on hold; a third party sends sound and digits all the while."""
    stream = make()
    feed(stream, range(50), source=peer)
    assert stream.destination == peer
    stream.renegotiate(HOLDS[hold])
    feed(stream, range(100), source=THIRD_PARTY, start=1.0, ssrc=66)
    press = packet(100, b"\x05\x0a\x00\xa0", payload_type=101, ssrc=66)
    stream.receive_rtp(press, THIRD_PARTY, 3.0)
    assert digits(stream) == ""
    stream.renegotiate(PLAN)
    assert stream.destination == peer
    feed(stream, range(101, 120), source=THIRD_PARTY, start=3.0, ssrc=66)
    assert stream.destination == peer
    assert feed(stream, range(50, 60), source=peer, start=3.4)[-1] == bytes([59]) * 160
    assert digits(stream) == ""


def test_on_hold_by_an_address_nothing_at_all_is_sent():
    """RFC 3264 section 8.4: neither RTP nor RTCP, also to a peer whose address had to be learned."""
    stream = make()
    feed(stream, range(50), source=NAT)
    stream.receive_rtcp(bytes(ReceiverReport(7)), (NAT[0], 31001), 1.0)
    assert stream.rtcp_destination == (NAT[0], 31001)
    stream.renegotiate(HOLDS["0.0.0.0"])
    stream.receive_rtcp(bytes(ReceiverReport(7)), (NAT[0], 31001), 1.1)
    assert (stream.next_packet(), stream.rtcp_destination) == (None, None)


def test_a_refresh_does_not_open_the_lock():
    """A re-INVITE that says the same address says nothing new; the peer may be silent by its own choice (DTX)."""
    stream = make()
    feed(stream, range(10))
    stream.renegotiate(PLAN)
    feed(stream, range(100), source=THIRD_PARTY, start=0.2, ssrc=66)
    assert stream.destination == PEER
    assert stream.stats().packets_in == 10


def test_held_peers_are_not_heard():
    stream = make(dataclasses.replace(PLAN, direction="inactive"))
    assert feed(stream, range(5)) == [SILENCE["PCMU"]] * 5


def test_reports():
    stream = make()
    for _ in range(250):
        stream.next_packet()
    feed(stream, range(10))
    assert 1 <= stream.report_due <= 5
    sent, named = parse_compound(stream.create_report(5.0))
    assert isinstance(sent, SenderReport)
    assert (sent.packets, sent.octets) == (250, 40000)
    assert sent.rtp_timestamp == (2**32 - 320 + 250 * 160) & 0xFFFFFFFF
    assert sent.ntp >> 32 == 2208988800 + 1_000_000_005
    assert [(block.ssrc, block.cumulative_lost) for block in sent.blocks] == [(7, 0)]
    assert isinstance(named, SourceDescription)
    assert isinstance(parse_compound(stream.create_report(10.0))[0], ReceiverReport)
    assert isinstance(parse_compound(stream.create_goodbye())[-1], Goodbye)


def test_round_trip_time_and_the_peers_losses():
    stream = make()
    feed(stream, range(3))
    stream.next_packet()
    report = parse_compound(stream.create_report(5.0))[0]
    block = ReportBlock(0x42, 0, 12, 0, 80, middle_of(report.ntp), 0x10000)
    stream.receive_rtcp(bytes(ReceiverReport(7, (block,))), REPORTS, 6.25)
    stats = stream.stats()
    assert stats.rtt_ms == pytest.approx(250, abs=1)
    assert (stats.remote_lost, stats.remote_jitter_ms) == (12, 10.0)


def test_rtcp_on_the_rtp_port_and_goodbye():
    stream = make()
    feed(stream, range(3))
    stream.take_events()
    stream.receive_rtp(bytes(ReceiverReport(7)) + bytes(Goodbye((7,))), PEER, 1.0)
    stream.receive_rtp(bytes(Goodbye((7,))), PEER, 1.0)
    assert kinds(stream) == ["goodbye"]
    assert stream.stats().malformed == 0


def test_what_is_no_good_is_counted():
    stream = make()
    feed(stream, range(3))
    for junk in (b"", b"\x80", bytes(12), b"\x80" + bytes(10)):
        stream.receive_rtp(junk, PEER, 1.0)
    stream.receive_rtp(packet(3, payload_type=96), PEER, 1.0)
    stream.receive_rtp(b"\x9f" + packet(4)[1:20], PEER, 1.0)
    stream.receive_rtcp(b"\x80\xc8\x00\x09" + bytes(8), REPORTS, 1.0)
    assert stream.stats().malformed == 7


plans = st.sampled_from(
    [
        PLAN,
        dataclasses.replace(PLAN, direction="recvonly"),
        dataclasses.replace(PLAN, codec="PCMA", payload_type=8),
    ]
)
headers = st.builds(
    lambda first, second, sequence, timestamp, ssrc, rest: (
        struct.pack("!BBHII", first, second, sequence, timestamp, ssrc) + rest
    ),
    st.sampled_from([0x80, 0x80, 0x80, 0x90, 0xA0, 0x81, 0xBF, 0x40]),
    st.sampled_from([0, 8, 13, 101, 103, 128, 229, 96, 200, 201, 203]),
    st.integers(0, 0xFFFF) | st.integers(0, 20),
    st.integers(0, 2**32 - 1) | st.integers(0, 20).map(lambda n: n * 160),
    st.integers(0, 2),
    st.binary(max_size=40) | st.just(bytes(160)),
)
steps = st.one_of(
    st.tuples(st.just("rtp"), headers | st.binary(max_size=40)),
    st.tuples(st.just("rtcp"), headers | st.binary(max_size=40)),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("plan"), plans),
)


@given(st.lists(steps, max_size=60), st.sampled_from([PEER, NAT]), st.booleans())
def test_nothing_crashes_a_stream(actions, source, prompt):
    stream = make(prompt=prompt)
    for number, (what, value) in enumerate(actions):
        now = 0.005 * number
        if what == "rtp":
            stream.receive_rtp(value, source, now)
        elif what == "rtcp":
            stream.receive_rtcp(value, source, now)
        elif what == "plan":
            stream.renegotiate(value)
        else:
            stream.next_packet()
            frame = stream.next_frame(now)
            assert frame is None or len(frame) == 160
            stream.create_report(now)
        early = take_early(stream)
        assert all(len(frame) == 160 for frame in early)
        assert prompt or not early
        stream.take_events()
        assert stream.destination in (PEER, NAT)
    stream.stats()


# Packets of more than a frame.


@pytest.mark.parametrize("frames", [2, 3])
def test_longer_packets_for_a_peer_that_wants_them(frames):
    stream = make(dataclasses.replace(PLAN, ptime_ms=20 * frames))
    stream.sender.playout.play(b"".join(bytes([n]) * 160 for n in range(1, 13)))
    ticks = [stream.next_packet() for _ in range(12)]
    assert [tick is not None for tick in ticks] == ([False] * (frames - 1) + [True]) * (12 // frames)
    packets = [RtpPacket.parse(tick) for tick in ticks if tick is not None]
    assert b"".join(each.payload for each in packets) == b"".join(bytes([n]) * 160 for n in range(1, 13))
    steps = [packets[n + 1].timestamp - packets[n].timestamp & 0xFFFFFFFF for n in range(len(packets) - 1)]
    assert set(steps) == {160 * frames}
    assert {packets[n + 1].sequence - packets[n].sequence & 0xFFFF for n in range(len(packets) - 1)} == {1}
    assert stream.take_events() == [Drained()]
    report = parse_compound(stream.create_report(1.0))[0]
    assert (report.packets, report.octets) == (12 // frames, 12 * 160)


def test_digits_do_not_wait_for_a_long_packet():
    """Events go out every 20 ms whatever the packets' length, and the clock keeps time with the ticks."""
    stream = make(dataclasses.replace(PLAN, ptime_ms=60), timestamp=0)
    assert stream.next_packet() is None
    stream.sender.send_digits("5", 100, 60)
    packets = [RtpPacket.parse(stream.next_packet()) for _ in range(8)]
    assert [each.payload_type for each in packets] == [101] * 7 + [0]
    later = [stream.next_packet() for _ in range(6)]
    sound = [RtpPacket.parse(each) for each in later if each is not None]
    assert [len(each.payload) for each in sound] == [480, 480]
    # The 15th tick from the start is the 15th frame, or one that waited since.
    assert sound[-1].timestamp + 480 <= 16 * 160


def test_another_packet_length_by_re_invite_keeps_the_clock():
    stream = make(dataclasses.replace(PLAN, ptime_ms=60), timestamp=0)
    for _ in range(5):
        stream.next_packet()
    stream.renegotiate(PLAN)
    assert RtpPacket.parse(stream.next_packet()).timestamp == 6 * 160


# Comfort noise, and the second clock of events.


@pytest.mark.parametrize("prompt", [False, True])
def test_comfort_noise_may_come_first_and_nothing_is_made_up_for_it(prompt):
    stream = make(dataclasses.replace(PLAN, comfort_noise=frozenset({98})), prompt=prompt)
    stream.receive_rtp(packet(0, b"\x40", payload_type=98), PEER, 0.005)
    assert kinds(stream) == ["receiving"]
    assert stream.next_frame(0.02) == SILENCE["PCMU"]
    for at in range(1, 6):
        stream.receive_rtp(packet(at), PEER, 0.02 * at + 0.005)
        stream.next_frame(0.02 * at + 0.02)
        while prompt and stream.early_frame() is not None:
            pass
    stream.receive_rtp(packet(6, b"\x40", payload_type=13), PEER, 0.125)
    frames = [stream.next_frame(0.14 + 0.02 * n) for n in range(20)]
    assert frames[6:] == [SILENCE["PCMU"]] * 14
    stats = stream.stats()
    assert (stats.lost, stats.concealed, stats.malformed, stats.foreign) == (0, 0, 0, 0)


def test_events_with_the_clock_of_another_codec():
    """At 48 kHz a press of 2 s goes over the field's end, and goes on in a second segment (section 2.5.1.3)."""
    stream = make()
    feed(stream, [0])

    def event(sequence, duration, timestamp, *, end=False):
        payload = struct.pack("!BBH", 8, 0x8A if end else 0x0A, duration)
        return bytes(RtpPacket(103, sequence, timestamp, 7, payload))

    sequence = 1
    for duration in range(960, 0xFFFF, 960):
        stream.receive_rtp(event(sequence, duration, 1000), PEER, 0.02 * sequence)
        sequence += 1
    for duration in range(960, 30_000, 960):
        stream.receive_rtp(event(sequence, duration, 1000 + 0xFFFF), PEER, 0.02 * sequence)
        sequence += 1
    stream.receive_rtp(event(sequence, 30_000, 1000 + 0xFFFF, end=True), PEER, 0.02 * sequence)
    assert digits(stream) == "8"
