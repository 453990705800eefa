"""Keys for SRTP in offers and answers (RFC 4568), with the descriptions that trunks and phones really send."""

from __future__ import annotations

import base64
import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.media import negotiate
from offhook.media.crypto import SUITES, Crypto, CryptoError, SrtpKeys, SrtpTerms
from offhook.media.negotiate import LocalMedia, NotAcceptable
from offhook.media.sdp import SdpError, SessionDescription

OURS = b"o" * 44
TERMS = SrtpTerms(lambda length: OURS[:length])
REQUIRED = dataclasses.replace(TERMS, required=True)
US = LocalMedia(host="203.0.113.5", port=20000, session_id=7, session_version=1, srtp=TERMS)
STRICT = dataclasses.replace(US, srtp=REQUIRED)
OFF = dataclasses.replace(US, srtp=None)

CM80, CM32 = "AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"
GCM128, GCM256 = "AEAD_AES_128_GCM", "AEAD_AES_256_GCM"
HEAD = "v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\nc=IN IP4 192.0.2.9\nt=0 0\n"
THEIRS = bytes(range(44))

# As its secure trunking sends it: one suite, no lifetime, no MKI.
TWILIO = """v=0
o=root 1784 1784 IN IP4 172.18.155.180
s=Twilio Media Gateway
c=IN IP4 168.86.1.44
t=0 0
m=audio 12692 RTP/SAVP 0 8 101
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:20
a=sendrecv
"""
# Optional SRTP by two lines on one port.
FREESWITCH = """v=0
o=FreeSWITCH 1 2 IN IP4 192.0.2.31
s=FreeSWITCH
c=IN IP4 192.0.2.31
t=0 0
m=audio 26150 RTP/SAVP 0 8 101
a=rtpmap:101 telephone-event/8000
a=crypto:1 AEAD_AES_256_GCM_8 inline:AAAA
a=crypto:2 AEAD_AES_256_GCM inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKis=
a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd
a=ptime:20
m=audio 26150 RTP/AVP 0 8 101
a=rtpmap:101 telephone-event/8000
a=ptime:20
"""


def line(suite: str = CM80, tag: int = 1, tail: str = "", key: bytes = THEIRS) -> str:
    material = base64.b64encode(key[: SUITES[suite].length]).decode()
    return f"a=crypto:{tag} {suite} inline:{material}{tail}\n"


def audio(profile: str, *lines: str, port: int = 4000) -> str:
    return f"m=audio {port} {profile} 0\n{''.join(lines)}"


def answer(text: str, local: LocalMedia = US) -> negotiate.Answer:
    return negotiate.answer(text.replace("\n", "\r\n").encode(), local)


def lines_of(sdp: bytes) -> list[str]:
    return re.findall(r"^(?:m=audio|a=crypto).*?(?=\r$)", sdp.decode(), re.MULTILINE)


def refusal(text: str, local: LocalMedia = US) -> str:
    with pytest.raises(NotAcceptable) as refused:
        answer(text, local)
    assert "inline" not in str(refused.value).lower().replace("key method is not inline", "")
    return str(refused.value)


# Offers to us.


def test_twilio():
    made = answer(TWILIO)
    assert lines_of(made.sdp) == [
        "m=audio 20000 RTP/SAVP 0 101",
        f"a=crypto:1 {CM80} inline:{base64.b64encode(OURS[:30]).decode()}",
    ]
    keys = made.plan.srtp
    assert keys is not None
    assert keys.suite.name == CM80
    assert keys.send == OURS[:30]
    assert keys.receive == base64.b64decode("PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR")


def test_two_lines_on_one_port():
    """The protected one is answered, the other refused, in whatever order they stand."""
    made = answer(FREESWITCH)
    assert lines_of(made.sdp) == [
        "m=audio 20000 RTP/SAVP 0 101",
        f"a=crypto:2 {GCM256} inline:{base64.b64encode(OURS).decode()}",
        "m=audio 0 RTP/AVP 0 8 101",
    ]
    turned = answer(HEAD + audio("RTP/AVP") + audio("RTP/SAVP", line()))
    assert [each.split()[1] for each in lines_of(turned.sdp) if each[0] == "m"] == ["0", "20000"]
    off = answer(FREESWITCH, OFF)
    assert lines_of(off.sdp) == ["m=audio 0 RTP/SAVP 0 8 101", "m=audio 20000 RTP/AVP 0 101"]
    assert off.plan.srtp is None


def test_two_lines_of_which_the_protected_one_cannot_be():
    offer = HEAD + audio("RTP/SAVP", line(tail="|2^20|1:4")) + audio("RTP/AVP")
    made = answer(offer)
    assert lines_of(made.sdp) == ["m=audio 0 RTP/SAVP 0", "m=audio 20000 RTP/AVP 0"]
    assert made.plan.srtp is None
    assert "master key identifier" in refusal(offer, STRICT)


@pytest.mark.parametrize("profile", ["RTP/SAVP", "RTP/SAVPF", "RTP/AVP", "RTP/AVPF", "rtp/savp"])
def test_the_profile_and_the_tag_are_repeated(profile):
    made = answer(HEAD + audio(profile, line(tag=17)))
    assert lines_of(made.sdp)[0] == f"m=audio 20000 {profile} 0"
    assert lines_of(made.sdp)[1].startswith(f"a=crypto:17 {CM80} inline:")
    assert made.plan.srtp is not None


@pytest.mark.parametrize("suite", SUITES)
def test_each_suite(suite):
    made = answer(HEAD + audio("RTP/SAVP", line(suite)))
    keys = made.plan.srtp
    assert keys == SrtpKeys(SUITES[suite], OURS[: SUITES[suite].length], THEIRS[: SUITES[suite].length])
    (crypto,) = SessionDescription.parse(made.sdp).media[0].attributes("crypto")
    assert Crypto.parse(crypto) == Crypto(1, SUITES[suite], OURS[: SUITES[suite].length])


def test_the_offers_order_decides():
    def chosen(*suites: str) -> str:
        lines = [line(suite, tag) for tag, suite in enumerate(suites, 1)]
        keys = answer(HEAD + audio("RTP/SAVP", *lines)).plan.srtp
        assert keys is not None
        return keys.suite.name

    assert chosen(GCM128, CM80) == GCM128
    assert chosen(CM32, GCM256, CM80) == CM32


def test_unknown_suites_come_first():
    offer = HEAD + audio(
        "RTP/SAVP", "a=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:AAAA\n", "a=crypto:2 F8_128_HMAC_SHA1_80 inline:B\n",
        line(CM32, 3),
    )  # fmt: skip
    assert lines_of(answer(offer).sdp)[1].startswith(f"a=crypto:3 {CM32}")


REFUSED = {
    "|2^20|1:4": "master key identifier",
    "|1:4": "master key identifier",
    "|2^19": "good for 524288 packets only",
    "|1000": "good for 1000 packets only",
    "|2^49": "lifetime cannot be read",
    "|0": "lifetime cannot be read",
    "|3^20": "lifetime cannot be read",
    "|": "lifetime cannot be read",
    " UNENCRYPTED_SRTP": "'UNENCRYPTED_SRTP' is not supported",
    " UNENCRYPTED_SRTCP": "'UNENCRYPTED_SRTCP' is not supported",
    " UNAUTHENTICATED_SRTP": "'UNAUTHENTICATED_SRTP' is not supported",
    " KDR=1": "'KDR' is not supported",
    " FEC_ORDER=FEC_SRTP": "'FEC_ORDER' is not supported",
    " WSH=64 NEW_THING=1": "'NEW_THING' is not supported",
    ";inline:AAAA": "more than one key",
    "AAAA": "the key has 33 octets",
    "?": "no base64",
}


@pytest.mark.parametrize("tail", REFUSED)
def test_a_line_that_asks_for_more_is_passed_over(tail):
    bad = line(tail=tail)
    assert REFUSED[tail] in refusal(HEAD + audio("RTP/SAVP", bad))
    made = answer(HEAD + audio("RTP/SAVP", bad, line(GCM128, 2)))
    assert made.plan.srtp is not None
    assert made.plan.srtp.suite.name == GCM128
    plain = answer(HEAD + audio("RTP/AVP", bad))
    assert plain.plan.srtp is None
    assert b"crypto" not in plain.sdp


@pytest.mark.parametrize(
    "tail", ["|2^20", "|2^48", "|2^31", "|1048576", " WSH=128", "|2^32 -X=1 WSH=64", "  "]
)
def test_a_line_with_what_changes_nothing_is_taken(tail):
    made = answer(HEAD + audio("RTP/SAVP", line(tail=tail)))
    assert made.plan.srtp is not None
    assert made.plan.srtp.receive == THEIRS[:30]


@pytest.mark.parametrize("where", ["1 {} inline:x", f"1 {CM80} inline:{{}} {{}}", f"1 {CM80} inline:x {{}}=1",
                                   f"1 {CM80} {{}}", f"1 {CM80} {{}}:x", "1 X{} inline:x"])  # fmt: skip
def test_a_misplaced_key_is_not_shown(where):
    """Not even the half that remains when it is told in capitals."""
    key = base64.b64encode(THEIRS[:30]).decode()
    with pytest.raises(CryptoError) as broken:
        Crypto.parse(where.format(key, key))
    assert key[:12].lower() not in str(broken.value).lower()


@pytest.mark.parametrize("value", ["", "1", "x", "1 inline:SECRET", "1 inline:SECRET x", f"1 {CM80}", f"1 {CM80} uri:x",
                                   f"\u0661 {CM80} inline:A", f"-1 {CM80} inline:A", f"1 {CM80} inline:A inline:SECRET",
                                   f"{10**10} {CM80} inline:A", "1 x inline:SECRET", f"1 {CM80} inline:"])  # fmt: skip
def test_a_broken_line_is_an_error_that_shows_no_key(value):
    with pytest.raises(CryptoError) as broken:
        Crypto.parse(value)
    assert "secret" not in str(broken.value).lower()


def test_a_line_that_is_no_sdp_shows_no_key():
    with pytest.raises(SdpError) as broken:
        SessionDescription.parse(f"v=0\r\na:crypto 1 {CM80} Inline:SECRET\r\n")
    assert "SECRET" not in str(broken.value)


def test_padding_may_be_left_out():
    offer = HEAD + audio("RTP/SAVP", line(GCM128).replace("=\n", "\n").replace("=\n", "\n"))
    assert "=\n" not in offer
    keys = answer(offer).plan.srtp
    assert keys is not None
    assert keys.receive == THEIRS[:28]


def test_required_and_off_say_so():
    assert refusal(HEAD + audio("RTP/AVP"), STRICT) == (
        "RTP/AVP: SRTP is required, offer RTP/SAVP with a=crypto (no a=crypto line)"
    )
    assert answer(HEAD + audio("RTP/AVP", line()), STRICT).plan.srtp is not None
    assert refusal(TWILIO, OFF) == "RTP/SAVP: SRTP is off here, offer RTP/AVP"
    assert answer(HEAD + audio("RTP/AVP", line()), OFF).plan.srtp is None
    assert "no a=crypto line can be used: no a=crypto line" in refusal(HEAD + audio("RTP/SAVP"))
    assert "SRTP by DTLS is not available" in refusal(HEAD + audio("UDP/TLS/RTP/SAVPF"))


# Again, in mid call.


def again(text: str, keys: SrtpKeys) -> negotiate.Answer:
    fresh = SrtpTerms(lambda length: b"n" * length, standing=keys)
    return answer(text, dataclasses.replace(US, srtp=fresh))


def test_the_same_key_is_answered_with_the_same():
    first = answer(TWILIO).plan.srtp
    assert first is not None
    assert again(TWILIO.replace("crypto:1", "crypto:2"), first).plan.srtp == first


def test_a_new_key_is_answered_with_a_new_one():
    first = answer(TWILIO).plan.srtp
    assert first is not None
    second = again(TWILIO.replace("PS1u", "QS1u"), first).plan.srtp
    assert second is not None
    assert second.send == b"n" * 30
    other = again(HEAD + audio("RTP/SAVP", line(GCM128)), first).plan.srtp
    assert other is not None
    assert other.send == b"n" * 28


def test_a_call_does_not_fall_back_to_plain():
    first = answer(TWILIO).plan.srtp
    assert first is not None
    with pytest.raises(NotAcceptable, match="runs by SRTP and stays with it"):
        again(HEAD + audio("RTP/AVP"), first)


# Our own offers.


def offered_lines(terms: SrtpTerms | None) -> list[str]:
    return lines_of(negotiate.offer(dataclasses.replace(US, srtp=terms)))


def test_what_we_offer():
    counted = iter(range(1, 9))
    lines = offered_lines(SrtpTerms(lambda length: bytes([next(counted)]) * length))
    assert lines[0] == "m=audio 20000 RTP/AVP 0 8 101"
    given_keys = [Crypto.parse(each.removeprefix("a=crypto:")) for each in lines[1:]]
    assert [each.suite.name for each in given_keys] == [CM80, GCM256, GCM128, CM32]
    assert [each.tag for each in given_keys] == [1, 2, 3, 4]
    # RFC 4568 section 6.1: each line has a key of its own.
    assert len({each.key[0] for each in given_keys}) == 4
    assert offered_lines(REQUIRED)[0] == "m=audio 20000 RTP/SAVP 0 8 101"
    assert offered_lines(None) == ["m=audio 20000 RTP/AVP 0 8 101"]


def test_a_later_offer_repeats_the_key_that_stands():
    keys = answer(TWILIO).plan.srtp
    assert offered_lines(dataclasses.replace(TERMS, standing=keys)) == [
        "m=audio 20000 RTP/SAVP 0 8 101",
        f"a=crypto:1 {CM80} inline:{base64.b64encode(OURS[:30]).decode()}",
    ]


@pytest.mark.parametrize("profile", ["RTP/AVP", "RTP/SAVP", "RTP/SAVPF"])
def test_a_later_offer_keeps_the_profile(profile):
    made = answer(HEAD + audio(profile, line()))
    local = dataclasses.replace(US, srtp=dataclasses.replace(TERMS, standing=made.plan.srtp))
    lines = lines_of(negotiate.offer(local, made.sdp))
    assert lines[0].startswith(f"m=audio 20000 {profile} 0 ")
    assert lines[1:] == [f"a=crypto:1 {CM80} inline:{base64.b64encode(OURS[:30]).decode()}"]


def completed(terms: SrtpTerms | None, answered: str) -> SrtpKeys | None:
    mine = negotiate.offer(dataclasses.replace(US, srtp=terms))
    return negotiate.complete(mine, (HEAD + answered).replace("\n", "\r\n").encode()).srtp


def test_an_answer_to_our_offer():
    assert completed(TERMS, audio("RTP/AVP", line(GCM128, 3))) == SrtpKeys(
        SUITES[GCM128], OURS[:28], THEIRS[:28]
    )
    assert completed(REQUIRED, audio("RTP/SAVP", line(CM80, 1))) == SrtpKeys(
        SUITES[CM80], OURS[:30], THEIRS[:30]
    )
    assert completed(TERMS, audio("RTP/AVP")) is None
    assert completed(None, audio("RTP/AVP", line())) is None


@pytest.mark.parametrize(
    ("terms", "answered", "why"),
    [
        (TERMS, audio("RTP/AVP", line(GCM128, 1)), "crypto:1 AEAD_AES_128_GCM was not offered"),
        (TERMS, audio("RTP/AVP", line(CM80, 9)), "crypto:9 AES_CM_128_HMAC_SHA1_80 was not offered"),
        (REQUIRED, audio("RTP/AVP"), "without a key for SRTP"),
        (REQUIRED, audio("RTP/SAVP"), "without a key for SRTP"),
        (REQUIRED, audio("RTP/SAVP", line(tail=" UNENCRYPTED_SRTP")), "cannot be used: session parameter"),
        (None, audio("RTP/SAVP", line()), "without a key for SRTP"),
        (TERMS, audio("UDP/TLS/RTP/SAVPF", line()), "SRTP by DTLS"),
    ],
)
def test_an_answer_that_does_not_fit(terms, answered, why):
    with pytest.raises(NotAcceptable, match=why):
        completed(terms, answered)


def test_both_ends_come_to_the_same_keys():
    mine = negotiate.offer(dataclasses.replace(US, srtp=SrtpTerms(lambda length: b"a" * length)))
    theirs = LocalMedia(host="203.0.113.9", port=30000, session_id=1, session_version=1, srtp=TERMS)
    answered = negotiate.answer(mine, theirs)
    ours = negotiate.complete(mine, answered.sdp).srtp
    assert ours is not None
    assert answered.plan.srtp == SrtpKeys(ours.suite, send=ours.receive, receive=ours.send)


@pytest.mark.parametrize("before", ["", audio("RTP/AVP")])
def test_what_we_answered_may_be_offered_again(before):
    """As a session timer's re-INVITE does (RFC 4028): refused lines and the peer's tag are in it."""
    ours = answer(HEAD + before + audio("RTP/SAVP", line(CM80, 17)))
    theirs = HEAD + before.replace("4000", "0") + audio("RTP/SAVP", line(CM80, 17))
    assert negotiate.complete(ours.sdp, theirs.replace("\n", "\r\n").encode()).srtp == ours.plan.srtp


# Properties.


@given(
    tag=st.integers(0, 10**9 - 1),
    suite=st.sampled_from(sorted(SUITES)),
    material=st.binary(min_size=44, max_size=44),
    lifetime=st.none() | st.integers(2**20, 2**48),
)
def test_a_line_survives_being_written_and_read(tag, suite, material, lifetime):
    crypto = Crypto(tag, SUITES[suite], material[: SUITES[suite].length], lifetime)
    assert Crypto.parse(str(crypto)) == crypto


@given(
    st.text(alphabet=st.sampled_from("1 AES_CM_128_HMAC_SHA1_80inline:|^2;=+/-KDR\t\u0661"), max_size=120)
    | st.text()
)
def test_any_text_is_a_line_or_an_error(text):
    try:
        crypto = Crypto.parse(text)
    except CryptoError:
        return
    assert Crypto.parse(str(crypto)) == crypto


@given(st.lists(st.sampled_from([
    *[line(suite, tag) for suite in SUITES for tag in (1, 2)], line(tail="|2^20|1:4"), line(tail=" KDR=1"),
    "a=crypto:\n", "a=crypto:1 X inline:Y\n",
]), max_size=6), st.sampled_from(["RTP/AVP", "RTP/SAVP", "RTP/SAVPF"]), st.sampled_from([US, STRICT, OFF]))  # fmt: skip
def test_an_answer_is_one_of_what_was_offered(lines, profile, local):
    """One key at most, of a line that was offered; protected where required, in the clear where off."""
    try:
        made = answer(HEAD + audio(profile, *lines), local)
    except NotAcceptable:
        return
    given_keys = [each for each in lines_of(made.sdp) if each.startswith("a=crypto")]
    assert len(given_keys) == (made.plan.srtp is not None)
    if given_keys:
        assert any(each.startswith(given_keys[0].partition(" inline")[0]) for each in lines)
    assert (made.plan.srtp is not None) or ("SAVP" not in profile and local is not STRICT)
    assert local is not OFF or made.plan.srtp is None
