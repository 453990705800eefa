"""Offers and answers (RFC 3264), with the descriptions that trunks really send."""

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from offhook.media import negotiate
from offhook.media.negotiate import LocalMedia, NotAcceptable
from offhook.media.sdp import SessionDescription

US = LocalMedia(host="203.0.113.5", port=20000, session_id=7, session_version=1)

TWILIO = """v=0
o=root 1784 1784 IN IP4 172.18.155.180
s=Twilio Media Gateway
c=IN IP4 168.86.1.44
t=0 0
m=audio 12692 RTP/AVP 0 8 101
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:20
a=sendrecv
"""
TELNYX = """v=0
o=FreeSWITCH 1 2 IN IP4 192.76.120.31
s=FreeSWITCH
c=IN IP4 192.76.120.31
t=0 0
m=audio 26150 RTP/AVP 0 8 9 18 102 101 103
a=rtpmap:102 opus/48000/2
a=rtpmap:101 telephone-event/8000
a=rtpmap:103 telephone-event/48000
a=fmtp:101 0-15
a=fmtp:103 0-15
a=silenceSupp:off - - - -
a=mid:audio
"""
PLAIN = "v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\nc=IN IP4 192.0.2.9\nt=0 0\n"


def answer(text, local=US):
    return negotiate.answer(text.replace("\n", "\r\n").encode(), local)


def answered(text, local=US):
    return SessionDescription.parse(answer(text, local).sdp)


def refusal(text, local=US):
    with pytest.raises(NotAcceptable) as refused:
        answer(text, local)
    return str(refused.value)


def test_twilio():
    made = answer(TWILIO)
    assert made.sdp == (
        b"v=0\r\no=- 7 1 IN IP4 203.0.113.5\r\ns=-\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\n"
        b"m=audio 20000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
        b"a=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
    )
    plan = made.plan
    assert (plan.codec, plan.payload_type, plan.dtmf_payload_type, plan.ptime_ms) == ("PCMU", 0, 101, 20)
    assert plan.remote == ("168.86.1.44", 12692)
    assert plan.remote_rtcp == ("168.86.1.44", 12693)
    assert plan.direction == "sendrecv"


def test_telephone_event_has_the_clock_of_the_codec():
    plan = answer(TELNYX).plan
    assert plan.dtmf_payload_type == 101
    assert plan.dtmf_receive == {101, 103}
    (audio,) = answered(TELNYX).media
    assert audio.formats == ("0", "101")


def test_the_offer_decides_the_order():
    offered = PLAIN + "m=audio 4000 RTP/AVP 18 8 0\n"
    assert answer(offered).plan.codec == "PCMA"
    assert answer(offered, dataclasses.replace(US, codecs=("PCMU",))).plan.codec == "PCMU"


def test_a_codec_under_a_number_of_its_own():
    made = answer(PLAIN + "m=audio 4000 RTP/AVP 96 97\na=rtpmap:96 opus/48000/2\na=rtpmap:97 pcma/8000\n")
    assert (made.plan.codec, made.plan.payload_type) == ("PCMA", 97)
    assert b"m=audio 20000 RTP/AVP 97\r\na=rtpmap:97 PCMA/8000\r\n" in made.sdp


def test_without_events_there_are_none():
    made = answer(PLAIN + "m=audio 4000 RTP/AVP 0\n")
    assert made.plan.dtmf_payload_type is None
    assert b"telephone-event" not in made.sdp


def test_every_line_gets_its_answer_in_order():
    media = answered(
        PLAIN + "m=video 5000 RTP/AVP 31 34\nm=audio 4000 RTP/AVP 0\nm=text 6000 RTP/AVP 98\n"
        "m=image 7000 udptl t38\nm=audio 4002 RTP/AVP 0\n"
    ).media
    assert [(m.kind, m.port, m.protocol, m.formats) for m in media] == [
        ("video", 0, "RTP/AVP", ("31", "34")),
        ("audio", 20000, "RTP/AVP", ("0",)),
        ("text", 0, "RTP/AVP", ("98",)),
        ("image", 0, "udptl", ("t38",)),
        ("audio", 0, "RTP/AVP", ("0",)),
    ]


def test_two_audio_lines_on_one_port_plain_one_taken():
    crypto = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\n"
    media = answered(PLAIN + f"m=audio 4000 RTP/SAVP 0\n{crypto}m=audio 4000 RTP/AVP 0\n").media
    assert [(m.port, m.protocol) for m in media] == [(0, "RTP/SAVP"), (20000, "RTP/AVP")]


def test_srtp_is_refused_by_name():
    assert refusal(TWILIO.replace("RTP/AVP", "RTP/SAVP")) == "RTP/SAVP: SRTP is off here, offer RTP/AVP"
    assert "SRTP by DTLS is not available" in refusal(TWILIO.replace("RTP/AVP", "UDP/TLS/RTP/SAVPF"))


def test_stray_crypto_on_a_plain_line_is_answered_as_plain():
    made = answer(PLAIN + "m=audio 4000 RTP/AVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\n")
    assert b"crypto" not in made.sdp
    assert b"m=audio 20000 RTP/AVP 0\r\n" in made.sdp


def test_the_profile_stays_that_of_the_offer():
    assert answered(PLAIN + "m=audio 4000 RTP/AVPF 0\n").media[0].protocol == "RTP/AVPF"


def test_connection_after_the_media_line():
    plan = answer(
        "v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\nt=0 0\nm=audio 4000 RTP/AVP 0\nc=IN IP4 192.0.2.10\n"
    ).plan
    assert plan.remote == ("192.0.2.10", 4000)


def test_time_line_is_the_offers():
    assert answered(PLAIN.replace("t=0 0", "t=5 6") + "m=audio 4000 RTP/AVP 0\n").value("t") == "5 6"


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("a=rtcp:53020\n", ("192.0.2.9", 53020)),
        ("a=rtcp:53020 IN IP4 192.0.2.77\n", ("192.0.2.77", 53020)),
        ("a=rtcp:x\n", ("192.0.2.9", 4001)),
        ("a=rtcp:0\n", ("192.0.2.9", 4001)),
        ("a=rtcp:53020 IN IP4 224.0.0.1\n", ("192.0.2.9", 4001)),
        ("", ("192.0.2.9", 4001)),
    ],
)
def test_where_reports_go(line, where):
    assert answer(PLAIN + "m=audio 4000 RTP/AVP 0\n" + line).plan.remote_rtcp == where


# RFC 3264 section 6.1: sendonly is answered recvonly, and so on.
@pytest.mark.parametrize(
    ("offered", "direction", "held"),
    [
        ("sendrecv", "sendrecv", False),
        ("sendonly", "recvonly", True),
        ("recvonly", "sendonly", False),
        ("inactive", "inactive", True),
    ],
)
@pytest.mark.parametrize("level", ["session", "media"])
def test_directions(offered, direction, held, level):
    head, tail = (f"a={offered}\n", "") if level == "session" else ("", f"a={offered}\n")
    made = answer(PLAIN + head + "m=audio 4000 RTP/AVP 0\n" + tail)
    assert (made.plan.direction, made.plan.held) == (direction, held)
    assert f"a={direction}\r\n".encode() in made.sdp


def test_media_direction_goes_before_the_sessions():
    assert answer(PLAIN + "a=inactive\nm=audio 4000 RTP/AVP 0\na=sendrecv\n").plan.direction == "sendrecv"


@pytest.mark.parametrize(
    ("ours", "direction"), [("sendonly", "sendonly"), ("recvonly", "recvonly"), ("inactive", "inactive")]
)
def test_we_may_want_less_than_is_offered(ours, direction):
    local = dataclasses.replace(US, direction=ours)
    assert answer(PLAIN + "m=audio 4000 RTP/AVP 0\n", local).plan.direction == direction


def test_hold_by_the_address_that_is_none():
    plan = answer(PLAIN.replace("192.0.2.9", "0.0.0.0") + "m=audio 4000 RTP/AVP 0\n").plan
    assert (plan.direction, plan.held, plan.sends) == ("recvonly", True, False)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("224.1.1.1/127", "only unicast"),
        ("255.255.255.255", "only unicast"),
        ("127.0.0.1", "loopback is not sent to from 203.0.113.5"),
        ("media.example.com", "give a literal address"),
        ("", "want `IN IP4 <address>`"),
    ],
)
def test_addresses_that_are_not_sent_to(host, reason):
    assert reason in refusal(
        PLAIN.replace("c=IN IP4 192.0.2.9", f"c=IN IP4 {host}") + "m=audio 4000 RTP/AVP 0\n"
    )


def test_ipv6():
    six = dataclasses.replace(US, host="2001:db8::5")
    offered = PLAIN.replace("c=IN IP4 192.0.2.9", "c=IN IP6 2001:0db8:0:0::9") + "m=audio 4000 RTP/AVP 0\n"
    made = answer(offered, six)
    assert made.plan.remote == ("2001:db8::9", 4000)
    assert b"c=IN IP6 2001:db8::5\r\n" in made.sdp
    assert "media here is IPv4" in refusal(offered)


def test_loopback_when_we_are_there_or_allow_it():
    offered = PLAIN.replace("192.0.2.9", "127.0.0.1") + "m=audio 4000 RTP/AVP 0\n"
    assert answer(offered, dataclasses.replace(US, host="127.0.0.1")).plan.remote == ("127.0.0.1", 4000)
    assert answer(offered, dataclasses.replace(US, allow_loopback=True)).plan.remote == ("127.0.0.1", 4000)


@pytest.mark.parametrize("port", [20000, 20001, 20500])
def test_our_own_ports_are_not_sent_to(port):
    local = dataclasses.replace(US, own_ports=(20000, 20998))
    offered = PLAIN.replace("192.0.2.9", US.host) + f"m=audio {port} RTP/AVP 0\n"
    assert "a media port of ours" in refusal(offered, local)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PLAIN, "no m=audio line"),
        (PLAIN + "m=video 4000 RTP/AVP 31\n", "no m=audio line"),
        (PLAIN + "m=audio 0 RTP/AVP 0\n", "port 0"),
        (PLAIN + "m=audio 4000 RTP/AVP 18 9\n", "G729, G722 offered, PCMU and PCMA taken"),
        (PLAIN + "m=audio 4000 RTP/AVP 97\n", "nothing known offered"),
        (PLAIN + "m=audio 4000 udptl t38\n", "offer RTP/AVP"),
        (PLAIN.replace("c=IN IP4 192.0.2.9\n", "") + "m=audio 4000 RTP/AVP 0\n", "has no c= line"),
        ("", "the offer cannot be understood: no v= line"),
    ],
)
def test_reasons(text, reason):
    assert reason in refusal(text)


def test_every_audio_line_has_its_reason():
    both = PLAIN + "m=audio 4000 RTP/AVP 18\nm=audio 0 RTP/AVP 0\n"
    assert refusal(both) == "no common codec: G729 offered, PCMU and PCMA taken; the m=audio line has port 0"


def test_our_offer_and_its_answer():
    offered = negotiate.offer(US)
    assert b"m=audio 20000 RTP/AVP 0 8 101\r\n" in offered
    them = LocalMedia(host="192.0.2.9", port=4000, session_id=1, session_version=1, codecs=("PCMA",))
    made = negotiate.answer(offered, them)
    plan = negotiate.complete(offered, made.sdp)
    assert (plan.codec, plan.payload_type, plan.dtmf_payload_type) == ("PCMA", 8, 101)
    assert plan.remote == ("192.0.2.9", 4000)
    assert made.plan.remote == ("203.0.113.5", 20000)


def test_an_answer_with_an_event_number_of_its_own():
    text = PLAIN + "m=audio 4000 RTP/AVP 0 120\na=rtpmap:120 telephone-event/8000\n"
    plan = negotiate.complete(negotiate.offer(US), text.encode())
    assert plan.dtmf_payload_type == 120
    assert plan.dtmf_receive == {101, 120}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PLAIN + "m=audio 0 RTP/AVP 0\n", "port 0"),
        (PLAIN, "no m=audio line where the offer has one"),
        (PLAIN + "m=audio 4000 RTP/AVP 18\n", "no common codec"),
        (PLAIN.replace("192.0.2.9", "x y") + "m=audio 4000 RTP/AVP 0\n", "give a literal address"),
        ("junk", "the answer cannot be understood"),
    ],
)
def test_answers_that_do_not_fit(text, reason):
    with pytest.raises(NotAcceptable, match=reason):
        negotiate.complete(negotiate.offer(US), text.encode())


def test_an_offer_in_mid_call_keeps_the_lines_and_the_numbers():
    """RFC 3264 section 8: as many m= lines as before, in order; 8.3.2: a number never gets another meaning."""
    before = answer(
        PLAIN + "m=video 5000 RTP/AVP 31\nm=audio 4000 RTP/AVP 101 96 18\na=rtpmap:101 pcma/8000\n"
        "a=rtpmap:96 telephone-event/8000\na=rtcp-mux\nm=audio 4000 RTP/SAVP 0\n"
    )
    offered = negotiate.offer(dataclasses.replace(US, codecs=("PCMA", "PCMU"), session_version=2), before.sdp)
    assert offered == (
        b"v=0\r\no=- 7 2 IN IP4 203.0.113.5\r\ns=-\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\n"
        b"m=video 0 RTP/AVP 31\r\n"
        b"m=audio 20000 RTP/AVP 101 0 96\r\na=rtpmap:101 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"
        b"a=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-15\r\na=ptime:20\r\na=sendrecv\r\na=rtcp-mux\r\n"
        b"m=audio 0 RTP/SAVP 0\r\n"
    )
    theirs = PLAIN + "m=video 0 RTP/AVP 31\nm=audio 4000 RTP/AVP 0\na=rtcp-mux\nm=audio 0 RTP/SAVP 0\n"
    plan = negotiate.complete(offered, theirs.encode())
    assert (plan.codec, plan.remote_rtcp) == ("PCMU", ("192.0.2.9", 4000))


def test_an_offer_in_mid_call_finds_a_free_number_for_events():
    before = answer(PLAIN + "m=audio 4000 RTP/AVP 101\na=rtpmap:101 pcma/8000\n")
    assert b" RTP/AVP 0 101 102\r\n" in negotiate.offer(US, before.sdp)


def test_descriptions_that_differ_in_their_version_only():
    first = answer(TWILIO).sdp
    assert negotiate.is_same(first, answer(TWILIO, dataclasses.replace(US, session_version=2)).sdp)
    assert not negotiate.is_same(first, answer(TWILIO, dataclasses.replace(US, port=20002)).sdp)
    assert not negotiate.is_same(first, answer(TWILIO.replace("sendrecv", "sendonly")).sdp)


def test_answer_that_holds_us():
    text = PLAIN + "m=audio 4000 RTP/AVP 0\na=sendonly\n"
    plan = negotiate.complete(negotiate.offer(US), text.encode())
    assert (plan.direction, plan.sends, plan.receives) == ("recvonly", False, True)


pieces = st.lists(
    st.sampled_from(
        [
            "c=IN IP4 192.0.2.1",
            "c=IN IP6 ::1",
            "c=IN IP4 999.1.1.1",
            "c=",
            "m=audio 4000 RTP/AVP 0 8 101",
            "m=audio 4000 RTP/SAVP 0",
            "m=audio 65535 RTP/AVP 0",
            "m=audio 0 RTP/AVP",
            "m=video 1 RTP/AVP 31",
            "a=rtpmap:101 telephone-event/8000",
            "a=rtpmap:0 x/0",
            "a=rtpmap:0 telephone-event/8000",
            "a=rtpmap:101 PCMA/8000",
            "a=rtpmap:8 PCMU/8000",
            "m=audio 4000 RTP/AVP 101 8 0",
            "a=sendonly",
            "a=inactive",
            "a=rtcp:99999999999999999999 IN IP4",
            "a=rtcp:1 IN IP6 ::",
            "t=\x00",
            "a=fmtp:101 0-16",
        ]
    ),
    max_size=12,
)


ODD_NUMBERS = "v=0\nc=IN IP4 192.0.2.1\nm=audio 4000 RTP/AVP 101 8 0\na=rtpmap:{} telephone-event/8000\n"


@example(f"{ODD_NUMBERS.format(0)}a=rtpmap:101 PCMA/8000".encode())
@example(f"{ODD_NUMBERS.format(8)}a=rtpmap:101 PCMU/8000".encode())
@example(f"{ODD_NUMBERS.format(101)}a=rtpmap:8 PCMU/8000".encode())
@given(st.one_of(st.binary(max_size=200), pieces.map(lambda some: "\n".join(["v=0", *some]).encode())))
def test_every_offer_is_answered_or_refused(offered):
    try:
        made = negotiate.answer(offered, US)
    except NotAcceptable:
        return
    theirs, ours = SessionDescription.parse(offered), SessionDescription.parse(made.sdp)
    assert [m.kind for m in ours.media] == [m.kind for m in theirs.media]
    assert sum(m.port != 0 for m in ours.media) == 1
    again = SessionDescription.parse(negotiate.offer(US, made.sdp))
    assert [(m.kind, m.port, m.protocol) for m in again.media] == [
        (m.kind, m.port, m.protocol) for m in ours.media
    ]
    (said,), (agreed,) = ([m for m in each.media if m.port] for each in (again, ours))
    assert len(said.formats) == len(set(said.formats)) == len(said.rtpmap())
    for number, entry in agreed.rtpmap().items():
        assert said.rtpmap()[number] == entry


# Packet lengths, comfort noise, reports on one port.

AUDIO = PLAIN + "m=audio 4000 RTP/AVP 0 13\na=rtpmap:13 CN/8000\n"


@pytest.mark.parametrize(
    ("lines", "sent_ms"),
    [
        ("", 20),
        ("a=ptime:20\na=maxptime:20\n", 20),
        ("a=ptime:10\n", 20),
        ("a=ptime:30\n", 20),
        ("a=ptime:40\n", 40),
        ("a=ptime:60\n", 60),
        ("a=ptime:200\n", 60),
        ("a=ptime:60\na=maxptime:40\n", 40),
        ("a=maxptime:150\n", 20),
        ("a=ptime:60.0\n", 60),
        ("a=ptime:0\n", 20),
        ("a=ptime:-40\n", 20),
        ("a=ptime:\u0664\n", 20),
        ("a=ptime:4e1\n", 20),
        ("a=ptime:99999999999\n", 20),
    ],
)
def test_how_long_our_packets_are(lines, sent_ms):
    assert answer(AUDIO + lines).plan.ptime_ms == sent_ms
    assert "ptime:20" in [value for name, value in answered(AUDIO + lines).media[0].lines if name == "a"]


def test_comfort_noise_is_known_and_not_agreed_on():
    made = answer(AUDIO)
    assert made.plan.comfort_noise == {13}
    assert answered(AUDIO).media[0].formats == ("0",)


def test_reports_on_the_port_of_the_sound_when_offered():
    made = answer(AUDIO + "a=rtcp-mux\na=rtcp:4005\n")
    assert (made.plan.rtcp_mux, made.plan.remote_rtcp) == (True, ("192.0.2.9", 4000))
    assert b"a=rtcp-mux\r\n" in made.sdp
    plain = answer(AUDIO)
    assert (plain.plan.rtcp_mux, plain.plan.remote_rtcp) == (False, ("192.0.2.9", 4001))
    assert b"rtcp-mux" not in plain.sdp


def test_an_answer_has_no_reports_on_one_port_that_we_did_not_offer():
    theirs = (AUDIO + "a=rtcp-mux\n").replace("\n", "\r\n").encode()
    assert negotiate.complete(negotiate.offer(US), theirs).rtcp_mux is False


def test_the_host_of_the_signalling_goes_with_the_plan():
    assert answer(AUDIO, dataclasses.replace(US, signalling_host="198.51.100.7")).plan.signalling_host == (
        "198.51.100.7"
    )


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("::1", "::1"), ("64:ff9b::c633:6414", "2001:db8::1"), ("fd00::7", "2001:db8::1")],
)
def test_unicast_addresses_of_ipv6_are_taken(theirs: str, ours: str) -> None:
    local = LocalMedia(host=ours, port=20000, session_id=1, session_version=1)
    offered = negotiate.offer(LocalMedia(host=theirs, port=4000, session_id=1, session_version=1))
    assert negotiate.answer(offered, local).plan.remote == (theirs, 4000)


@pytest.mark.parametrize("theirs", ["ff02::1", "4000::1", "::2"])
def test_other_addresses_of_ipv6_are_not(theirs: str) -> None:
    local = LocalMedia(host="2001:db8::1", port=20000, session_id=1, session_version=1)
    offered = negotiate.offer(LocalMedia(host=theirs, port=4000, session_id=1, session_version=1))
    with pytest.raises(NotAcceptable):
        negotiate.answer(offered, local)
