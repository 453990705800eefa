"""SRTP packets by the RFCs' own examples, against a second implementation, and what a stream does with them."""

from __future__ import annotations

import os
import random
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from offhook.media.crypto import SUITES, SrtpKeys
from offhook.media.negotiate import MediaPlan
from offhook.media.srtp import MAX_SSRCS, Srtp
from offhook.media.stream import UNAUTHENTIC_SAID, MediaStream
from testbed.sdes import LENGTHS, Sdes, aes_cm, derive, gcm_nonce

PEER = ("192.0.2.9", 4000)
# RFC 3711 B.3.
MASTER = bytes.fromhex("E1F97A0D3E018BE0D64FA32C06DE4139")
SALT = bytes.fromhex("0EC675AD498AFEEBB6960B3AABE6")
# RFC 7714 section 16.
QUID = b"Quid pro quo"
GALLIA = bytes.fromhex("8040f17b8041f8d35501a0b2") + b"Gallia est omnis divisa in partes tres"
IN_THREE_PARTS = {
    16: "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
    32: "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
}


def rtp(sequence: int, ssrc: int = 0xABCD, payload: bytes = b"\x55" * 160) -> bytes:
    return struct.pack("!BBHII", 0x80, 0, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, ssrc) + payload


def report(ssrc: int = 0xABCD) -> bytes:
    return struct.pack("!BBHI", 0x80, 201, 1, ssrc) + struct.pack(
        "!BBHIB3sxxxx", 0x81, 202, 3, ssrc, 1, b"\x01x\0"
    )


def pair(suite: str) -> tuple[Srtp, Sdes, Sdes]:
    """Return ours, and the other side's two directions: what it sends by and what we send by."""
    length = SUITES[suite].length
    mine, theirs = os.urandom(length), os.urandom(length)
    return Srtp(SrtpKeys(SUITES[suite], send=mine, receive=theirs)), Sdes(suite, theirs), Sdes(suite, mine)


# The RFCs' examples.


def test_the_keystream_of_rfc_3711_b2():
    key = bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3C")
    salt = bytes.fromhex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD")
    assert aes_cm(key, int.from_bytes(salt) << 16, 48).hex().upper() == (
        "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB41E95B3BB0A2E8DD477901E4FCA894C0"
    )


def test_the_session_keys_of_rfc_3711_b3():
    assert derive(MASTER, SALT, 0, 16).hex().upper() == "C61E7A93744F39EE10734AFE3FF7A087"
    assert derive(MASTER, SALT, 2, 14).hex().upper() == "30CBBC08863D8C85D49DB34A9AE1"
    assert derive(MASTER, SALT, 1, 20).hex().upper() == "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"


@pytest.mark.parametrize("length", [16, 32])
def test_the_packets_of_rfc_7714_16(length):
    sequence, ssrc = struct.unpack("!2xH4xI", GALLIA[:12])
    nonce = gcm_nonce(QUID, ssrc, sequence)
    assert nonce.hex() == "51753c6580c2726f20718414"
    sealed = AESGCM(bytes(range(length))).encrypt(nonce, GALLIA[12:], GALLIA[:12])
    assert sealed.hex() == IN_THREE_PARTS[length]


def test_a_packet_under_the_master_key_of_rfc_3711_b3():
    """Byte for byte as the session keys of B.3 make it."""
    ours = Srtp(SrtpKeys(SUITES["AES_CM_128_HMAC_SHA1_80"], send=MASTER + SALT, receive=MASTER + SALT))
    packet = bytes.fromhex("800f1234decafbadcafebabe") + b"\xab" * 16
    sent = ours.protect(packet)
    assert sent == Sdes("AES_CM_128_HMAC_SHA1_80", MASTER + SALT).protect(packet)
    assert sent.hex() == "800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb"


# Against the second implementation.


@pytest.mark.parametrize("suite", LENGTHS)
def test_what_is_sent_is_what_the_rfcs_say(suite):
    ours, _, opener = pair(suite)
    for number in range(5):
        sent = ours.protect(rtp(number))
        assert sent[12:40] != rtp(number)[12:40]
        assert opener.unprotect(sent) == rtp(number)
        assert opener.unprotect_rtcp(ours.protect_rtcp(report())) == report()


@pytest.mark.parametrize("suite", LENGTHS)
def test_what_comes_is_opened_as_the_rfcs_say(suite):
    ours, peer, _ = pair(suite)
    for number in range(5):
        assert ours.unprotect(peer.protect(rtp(number))) == rtp(number)
        assert ours.unprotect_rtcp(peer.protect_rtcp(report(), number + 1)) == report()
    assert (ours.failed, ours.replayed) == (0, 0)


@pytest.mark.parametrize("suite", LENGTHS)
def test_70000_packets_over_the_wrap_with_loss_and_reordering(suite):
    """The rollover counter goes on at 65536 in both directions, also where the packets round it are lost or turned."""
    ours, peer, opener = pair(suite)
    fate = random.Random(suite)
    first = 60_000
    order = [
        (number + fate.choice((0, 0, 0, 0, 3, 12)), number)
        for number in range(first, first + 70_000)
        if fate.random() >= 0.05
    ]
    order.sort()
    got = sum(ours.unprotect(peer.protect(rtp(number), number >> 16)) == rtp(number) for _, number in order)
    assert got == len(order) > 66_000
    assert (ours.failed, ours.replayed) == (0, 0)
    # Outbound, the packets round the wrap and at the end are enough: nothing but the counter changes in between.
    for number in range(first, first + 70_000):
        sent = ours.protect(rtp(number))
        if number % 65536 < 50 or number % 997 == 0:
            assert opener.unprotect(sent, number >> 16) == rtp(number)


def test_a_wrap_in_the_middle_of_a_gap():
    ours, peer, _ = pair("AES_CM_128_HMAC_SHA1_80")
    assert ours.unprotect(peer.protect(rtp(65_000)))
    assert ours.unprotect(peer.protect(rtp(66_000), 1)) == rtp(66_000)


@pytest.mark.parametrize("suite", LENGTHS)
def test_replays_are_dropped_and_counted(suite):
    ours, peer, _ = pair(suite)
    packets = [peer.protect(rtp(number)) for number in range(3000)]
    for packet in packets:
        assert ours.unprotect(packet) is not None
    for packet in (packets[-1], packets[-500], packets[0]):
        assert ours.unprotect(packet) is None
    once = peer.protect_rtcp(report(), 1)
    assert ours.unprotect_rtcp(once) == report()
    assert ours.unprotect_rtcp(once) is None
    assert (ours.failed, ours.replayed) == (0, 4)


def test_the_replay_window_is_each_ssrcs_own():
    """A stream that begins anew in mid call may use numbers that another had."""
    ours, peer, _ = pair("AES_CM_128_HMAC_SHA1_80")
    for ssrc in (1, 2, 1):
        base = 0 if ssrc == 2 else 100
        for number in range(base, base + 50):
            ours.unprotect(peer.protect(rtp(number, ssrc)))
    assert ours.replayed == 50
    assert ours.unprotect(peer.protect(rtp(200, 1))) is not None
    assert ours.unprotect(peer.protect(rtp(60, 2))) is not None


@pytest.mark.parametrize("suite", LENGTHS)
def test_a_changed_bit_anywhere_is_noticed(suite):
    ours, peer, _ = pair(suite)
    packet = peer.protect(rtp(7))
    control = peer.protect_rtcp(report(), 1)
    for at in range(1, len(packet)):
        assert ours.unprotect(packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :]) is None
    for at in range(1, len(control)):
        assert ours.unprotect_rtcp(control[:at] + bytes([control[at] ^ 1]) + control[at + 1 :]) is None
    assert ours.failed == len(packet) + len(control) - 2
    assert ours.unprotect(packet) == rtp(7)
    assert ours.unprotect_rtcp(control) == report()


@pytest.mark.parametrize(
    "data", [b"", b"\x80", bytes(12), b"\x80\0" + bytes(10), b"\x9f\0" + bytes(20), bytes(2000)]
)
def test_what_is_no_srtp_is_dropped(data):
    ours, _, _ = pair("AES_CM_128_HMAC_SHA1_80")
    assert ours.unprotect(data) is None
    assert ours.unprotect_rtcp(data) is None
    assert ours.failed == 2


def test_a_peer_with_ever_new_ssrcs_does_not_fill_the_memory():
    ours, peer, _ = pair("AEAD_AES_128_GCM")
    for ssrc in range(1, 5 * MAX_SSRCS):
        assert ours.unprotect(peer.protect(rtp(1, ssrc))) is not None
        assert ours.unprotect_rtcp(peer.protect_rtcp(report(ssrc), 1)) is not None
    newest = 5 * MAX_SSRCS - 1
    assert ours.unprotect(peer.protect(rtp(1, newest))) is None
    assert len(ours._ssrcs) == MAX_SSRCS
    # The context of the first was let go, so its number is news again.
    assert ours.unprotect(peer.protect(rtp(1, 1))) is not None


def test_a_key_that_stays_keeps_its_counters_and_a_new_one_begins_anew():
    suite = SUITES["AES_CM_128_HMAC_SHA1_80"]
    ours, peer, opener = pair(suite.name)
    for number in range(65_530, 65_545):
        ours.protect(rtp(number))
        ours.unprotect(peer.protect(rtp(number), number >> 16))
    ours.renegotiate(SrtpKeys(suite, send=opener.key, receive=peer.key))
    assert opener.unprotect(ours.protect(rtp(65_545)), 1) == rtp(65_545)
    assert ours.unprotect(peer.protect(rtp(65_540), 1)) is None
    other = Sdes(suite.name, os.urandom(suite.length))
    ours.renegotiate(SrtpKeys(suite, send=opener.key, receive=other.key))
    assert opener.unprotect(ours.protect(rtp(65_546)), 1) == rtp(65_546)
    assert ours.unprotect(other.protect(rtp(10))) == rtp(10)
    assert ours.unprotect(peer.protect(rtp(65_547), 1)) is None
    assert (ours.failed, ours.replayed) == (1, 1)


@pytest.mark.parametrize("suite", SUITES)
def test_what_is_on_its_way_under_the_old_key_is_taken_until_the_new_one_is_used(suite):
    """The peer may use its new key as soon as it has our answer, and not before: nothing is lost between."""
    ours, peer, opener = pair(suite)
    for number in range(10):
        ours.unprotect(peer.protect(rtp(number)))
    other = Sdes(suite, os.urandom(SUITES[suite].length))
    ours.renegotiate(SrtpKeys(SUITES[suite], send=opener.key, receive=other.key))
    assert ours.unprotect(peer.protect(rtp(10))) == rtp(10)
    assert ours.unprotect(peer.protect(rtp(10))) is None
    assert ours.unprotect_rtcp(peer.protect_rtcp(report(), 1)) == report()
    liar = Sdes(suite, os.urandom(SUITES[suite].length))
    assert ours.unprotect(liar.protect(rtp(11))) is None
    assert ours.unprotect(peer.protect(rtp(11))) == rtp(11)
    assert (ours.failed, ours.replayed) == (1, 1)
    assert ours.unprotect(other.protect(rtp(12))) == rtp(12)
    assert ours.unprotect(peer.protect(rtp(13))) is None
    assert ours.unprotect_rtcp(peer.protect_rtcp(report(), 2)) is None
    assert (ours.failed, ours.replayed) == (3, 1)


def test_keys_are_not_shown():
    keys = SrtpKeys(SUITES["AEAD_AES_128_GCM"], send=b"s" * 28, receive=b"r" * 28)
    assert "ssss" not in repr(keys)
    assert "rrrr" not in repr(keys)


# In a stream.


def stream(suite: str = "AES_CM_128_HMAC_SHA1_80") -> tuple[MediaStream, Sdes, Sdes, MediaPlan]:
    _, peer, opener = pair(suite)
    plan = MediaPlan(
        codec="PCMU",
        payload_type=0,
        dtmf_payload_type=None,
        remote=PEER,
        remote_rtcp=(PEER[0], PEER[1] + 1),
        srtp=SrtpKeys(SUITES[suite], send=opener.key, receive=peer.key),
    )
    made = MediaStream(plan, ssrc=0x5150, sequence=1, timestamp=0, cname="x", now=0.0, wall_offset=0.0)
    return made, peer, opener, plan


def test_a_stream_sends_srtp_and_srtcp():
    media, _, opener, _ = stream()
    media.sender.playout.play(b"\x11" * 160)
    assert opener.unprotect(media.next_packet())[12:] == b"\x11" * 160
    assert opener.unprotect_rtcp(media.create_report(5.0))[1] == 200
    assert opener.unprotect_rtcp(media.create_goodbye())


def test_a_stream_hears_srtp_and_srtcp():
    media, peer, _, plan = stream()
    for number in range(10):
        media.receive_rtp(peer.protect(rtp(number)), PEER, number * 0.02)
    media.receive_rtcp(peer.protect_rtcp(report(), 1), plan.remote_rtcp, 0.2)
    stats = media.stats()
    assert (stats.packets_in, stats.unauthentic, stats.foreign, stats.srtp) == (
        10,
        0,
        0,
        "AES_CM_128_HMAC_SHA1_80",
    )
    assert any(media.next_frame(0.2 + at * 0.02) == b"\x55" * 160 for at in range(10))


def test_nothing_changes_for_packets_that_are_not_authentic():
    """Neither the lock nor the clock nor any count but the one that they have."""
    media, _, _, plan = stream()
    before = media.stats()
    liar = Sdes("AES_CM_128_HMAC_SHA1_80", bytes(30))
    for number in range(100):
        media.receive_rtp(liar.protect(rtp(number)), PEER, number * 0.02)
        media.receive_rtp(liar.protect(rtp(number)), ("198.51.100.66", 666), number * 0.02)
        media.receive_rtp(rtp(number), PEER, number * 0.02)
    media.receive_rtcp(report(), plan.remote_rtcp, 2.0)
    after = media.stats()
    assert media.latch.source is None
    assert media.destination == PEER
    assert after.unauthentic == 301
    assert {name for name in before.__slots__ if getattr(before, name) != getattr(after, name)} == {
        "unauthentic"
    }
    said = [event for event in media.take_events() if event.kind == "unauthentic"]
    assert [event.text for event in said] == [
        f"{UNAUTHENTIC_SAID} packets failed authentication: wrong key, or no SRTP?"
    ]


def test_a_copy_from_elsewhere_does_not_use_up_the_original():
    media, peer, _, _ = stream()
    media.receive_rtp(peer.protect(rtp(0)), PEER, 0.0)
    for number in range(1, 20):
        packet = peer.protect(rtp(number))
        media.receive_rtp(packet, ("198.51.100.66", 666), number * 0.02)
        media.receive_rtp(packet, PEER, number * 0.02)
    stats = media.stats()
    assert (stats.packets_in, stats.foreign, stats.replayed) == (20, 19, 0)
    assert media.destination == PEER


def test_a_source_behind_a_nat_is_learned_from_authentic_packets():
    media, peer, _, _ = stream()
    behind = ("198.51.100.7", 31000)
    for number in range(6):
        media.receive_rtp(peer.protect(rtp(number)), behind, number * 0.02)
    assert media.destination == behind
    assert media.stats().packets_in == 6


def test_a_new_key_counts_at_once():
    media, peer, _, plan = stream()
    media.receive_rtp(peer.protect(rtp(0)), PEER, 0.0)
    other = Sdes(peer.suite, os.urandom(30))
    assert plan.srtp is not None
    keys = SrtpKeys(plan.srtp.suite, send=plan.srtp.send, receive=other.key)
    media.renegotiate(MediaPlan("PCMU", 0, None, PEER, (PEER[0], PEER[1] + 1), srtp=keys))
    media.receive_rtp(other.protect(rtp(1)), PEER, 0.02)
    media.receive_rtp(peer.protect(rtp(2)), PEER, 0.04)
    stats = media.stats()
    assert (stats.packets_in, stats.unauthentic) == (2, 1)


def test_srtp_may_begin_in_mid_call():
    _, peer, opener, plan = stream()
    plain = MediaPlan("PCMU", 0, None, PEER, (PEER[0], PEER[1] + 1))
    begun = MediaStream(plain, ssrc=1, sequence=1, timestamp=0, cname="x", now=0.0, wall_offset=0.0)
    begun.receive_rtp(rtp(0), PEER, 0.0)
    assert begun.next_packet()[:1] == b"\x80"
    begun.renegotiate(plan)
    begun.receive_rtp(peer.protect(rtp(1)), PEER, 0.02)
    assert opener.unprotect(begun.next_packet())
    assert begun.stats().packets_in == 2
