"""SDP text: RFC 4566's own example, and what trunks send instead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.media.sdp import Connection, MediaDescription, RtpMap, SdpError, SessionDescription

# RFC 4566 section 5.
EXAMPLE = b"""v=0
o=jdoe 2890844526 2890842807 IN IP4 10.47.16.5
s=SDP Seminar
i=A Seminar on the session description protocol
u=http://www.example.com/seminars/sdp.pdf
e=j.doe@example.com (Jane Doe)
c=IN IP4 224.2.17.12/127
t=2873397496 2873404696
a=recvonly
m=audio 49170 RTP/AVP 0
m=video 51372 RTP/AVP 99
a=rtpmap:99 h263-1998/90000
""".replace(b"\n", b"\r\n")


def session(*lines):
    return SessionDescription.parse("\r\n".join(("v=0", *lines)).encode())


def test_the_example_of_the_rfc():
    parsed = SessionDescription.parse(EXAMPLE)
    assert parsed.value("s") == "SDP Seminar"
    assert parsed.connection == Connection("IP4", "224.2.17.12")
    assert parsed.direction == "recvonly"
    audio, video = parsed.media
    assert (audio.kind, audio.port, audio.protocol, audio.formats) == ("audio", 49170, "RTP/AVP", ("0",))
    assert audio.direction is None
    assert video.rtpmap() == {99: RtpMap(99, "h263-1998", 90000)}


def test_text_comes_back_as_it_was():
    assert bytes(SessionDescription.parse(EXAMPLE)) == EXAMPLE


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n", b"\r\n\r\n"])
def test_any_line_ending(ending):
    assert bytes(SessionDescription.parse(EXAMPLE.replace(b"\r\n", ending))) == EXAMPLE


@pytest.mark.parametrize("noise", [b"\xef\xbb\xbf", b" ", b"\r\n", b"\t"])
def test_noise_before_the_first_line(noise):
    assert bytes(SessionDescription.parse(noise + EXAMPLE)) == EXAMPLE


def test_closing_nuls_and_missing_last_line_ending():
    assert bytes(SessionDescription.parse(EXAMPLE[:-2] + b"\0\0")) == EXAMPLE


def test_bytes_that_are_no_utf8_are_kept():
    text = b"v=0\r\ns=Caf\xe9\r\n"
    assert bytes(SessionDescription.parse(text)) == text


def test_session_and_times_may_be_missing():
    assert session("m=audio 4000 RTP/AVP 8").media[0].port == 4000


def test_connection_after_its_media_line_belongs_to_it():
    parsed = session("c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 0", "a=ptime:20", "c=IN IP4 192.0.2.2")
    assert parsed.connection == Connection("IP4", "192.0.2.1")
    assert parsed.media[0].connection == Connection("IP4", "192.0.2.2")


def test_static_types_need_no_map():
    (audio,) = session("m=audio 4000 RTP/AVP 0 8 9 18 13 97").media
    assert [(n, e.encoding) for n, e in audio.rtpmap().items()] == [
        (0, "PCMU"),
        (8, "PCMA"),
        (9, "G722"),
        (18, "G729"),
        (13, "CN"),
    ]


def test_map_lines_with_blanks_and_channels():
    (audio,) = session(
        "m=audio  4000  RTP/AVP  0 101 102",
        "a=rtpmap:0 PCMU/8000/1",
        "a=rtpmap: 101  telephone-event/8000",
        "a=rtpmap:102 telephone-event/48000 ",
    ).media
    assert audio.rtpmap() == {
        0: RtpMap(0, "PCMU", 8000),
        101: RtpMap(101, "telephone-event", 8000),
        102: RtpMap(102, "telephone-event", 48000),
    }


@pytest.mark.parametrize(
    "line", ["rtpmap:", "rtpmap:x PCMU/8000", "rtpmap:96 PCMU", "rtpmap:96 PCMU/", "rtpmap:200 X/1"]
)
def test_a_map_line_that_cannot_be_read_is_passed_over(line):
    (audio,) = session("m=audio 4000 RTP/AVP 0 96", f"a={line}").media
    assert list(audio.rtpmap()) == [0]


def test_format_parameters():
    (audio,) = session("m=audio 4000 RTP/AVP 0 101", "a=fmtp:101 0-16", "a=fmtp:10 x").media
    assert audio.fmtp(101) == "0-16"
    assert audio.fmtp(1) is None


def test_port_count_and_ports():
    (video,) = session("m=video 49170/2 RTP/AVP 31").media
    assert (video.port, video.port_count, str(video)) == (49170, 2, "m=video 49170/2 RTP/AVP 31\r\n")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "no v= line"),
        (b"hello", "want `<letter>=<value>`"),
        (b"v=0\n\xc2\x85\0=x", "want `<letter>=<value>`"),
        (b"v=0\r\nm=audio", "want `<media> <port>"),
        (b"v=0\r\nm=audio x RTP/AVP 0", "'x' is no port"),
        (b"v=0\r\nm=audio 65536 RTP/AVP 0", "'65536' is no port"),
        (b"v=0\r\nm=audio -1 RTP/AVP 0", "'-1' is no port"),
        (b"v=0\r\n" + b"m=audio 0 RTP/AVP 0\r\n" * 17, "more than 16 m= lines"),
        (b"v=0\r\n" + b"a=x\r\n" * 2001, "more than 2000 lines"),
        (b"v=0\r\n" + b"a" * 65536, "more than 65536"),
    ],
)
def test_faults_are_named(text, fault):
    with pytest.raises(SdpError, match=fault):
        SessionDescription.parse(text)


def test_digits_of_other_scripts_are_no_port():
    with pytest.raises(SdpError, match="is no port"):
        MediaDescription.parse("audio ٤٠٠٠ RTP/AVP 0")


@pytest.mark.parametrize("value", ["", "IN IP4", "ATM NSAP 47", "IN"])
def test_connections_that_cannot_be_read(value):
    with pytest.raises(SdpError, match="want `IN IP4"):
        Connection.parse(value)


lines = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.builds("{}={}".format, st.sampled_from("vosctmabk"), st.text(max_size=60)),
        st.builds(
            "m={} {} {} {}".format,
            st.sampled_from(["audio", "video", "text"]),
            st.integers(-1, 70000),
            st.sampled_from(["RTP/AVP", "RTP/SAVP", "udptl"]),
            st.text("0189 x", max_size=12),
        ),
        st.builds("a=rtpmap:{} {}".format, st.integers(-1, 300), st.text("PCMUA/80x ", max_size=12)),
        st.builds(
            "c=IN {} {}".format, st.sampled_from(["IP4", "IP6", "X"]), st.text("0129.:a/", max_size=20)
        ),
    ),
    max_size=20,
)


@given(
    st.one_of(
        st.binary(max_size=300),
        lines.map(lambda some: "\r\n".join(["v=0", *some]).encode("utf-8", "replace")),
    )
)
def test_whatever_comes_is_read_or_refused(data):
    try:
        parsed = SessionDescription.parse(data)
    except SdpError:
        return
    for media in parsed.media:
        media.rtpmap()
        media.fmtp(0)
    assert bytes(SessionDescription.parse(bytes(parsed))) == bytes(parsed)


def test_nuls_are_nowhere_and_blanks_are_those_of_sdp():
    """Found by fuzzing: words that other blanks parted were written with a space, and read as something else."""
    parsed = SessionDescription.parse("v=0\r\nm=audio 9 R\u2028TP/AVP 0 1\x0001\0\t \r\n".encode())
    assert parsed.media[0].protocol == "R\u2028TP/AVP"
    assert parsed.media[0].formats == ("0", "101")
    assert bytes(SessionDescription.parse(bytes(parsed))) == bytes(parsed)


def test_bytes_to_both_sides_of_a_nul_are_one_character():
    parsed = SessionDescription.parse(b"v=0\r\nm=\xd2\0\x96 9 RTP/AVP 0\r\n")
    assert bytes(SessionDescription.parse(bytes(parsed))) == bytes(parsed)
