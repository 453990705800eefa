"""Challenges to what a leg sends in its dialog (RFC 3261 sections 22.2 and 22.3): who has credentials answers, once."""

import itertools

import pytest

from offhook.sip.credentials import Credentials
from offhook.sip.digest import digest_response, parse_digest
from offhook.sip.events import Ended, ReferUpdated, Replied
from offhook.sip.flow import Flow
from offhook.sip.message import Request, create_response, parse_message
from offhook.sip.stack import Incoming, Stack, StackConfig, Transmit, UsageEvent

US, PEER = ("192.0.2.2", 5060), ("198.51.100.7", 5060)
UDP = Flow("udp", US, PEER)
ALICE = Credentials("alice", "wonder:land")
ASKS = {401: "WWW-Authenticate", 407: "Proxy-Authenticate"}
ANSWERS = {401: "Authorization", 407: "Proxy-Authorization"}


class Carrier:
    """A peer whose INVITE is answered and acknowledged; it keeps every request that comes in the dialog."""

    def __init__(self, credentials):
        tokens = itertools.count(1)
        self.stack = Stack(StackConfig(), new_token=lambda: f"{next(tokens):08x}")
        self.stack.listen("udp", *US)
        self.now, self.requests, self.events = 0.0, [], []
        self.says(_request("INVITE"))
        self.usage.credentials = credentials
        self.usage.answer(b"v=0\r\n", now=0.0)
        self.says(_request("ACK", tag=self.usage.dialog.local_tag))
        self.take()

    def says(self, message):
        self.stack.receive(bytes(message), UDP, now=self.now)
        self.take()

    def take(self):
        for output in self.stack.outputs():
            match output:
                case Transmit(_, data) if data.strip():
                    message = parse_message(data)
                    if isinstance(message, Request):
                        self.requests.append(message)
                case Incoming(usage):
                    self.usage = usage
                case UsageEvent(_, event):
                    self.events.append(event)

    def answers(self, status, *headers):
        request = parse_message(bytes(self.requests[-1]))
        self.says(create_response(request, status, to_tag="x", headers=headers))

    def challenges(self, status, *, nonce="n1", algorithm="SHA-256", stale=False):
        value = f'Digest realm="r", nonce="{nonce}", algorithm={algorithm}, qop="auth"'
        self.answers(status, (ASKS[status], value + (", stale=true" if stale else "")))

    def told(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def _request(method, tag=""):
    lines = [
        f"{method} sip:us@192.0.2.2 SIP/2.0",
        f"Via: SIP/2.0/UDP {PEER[0]}:5060;branch=z9hG4bK{method}",
        "From: <sip:alice@example.com>;tag=a",
        "To: <sip:us@example.com>" + (f";tag={tag}" if tag else ""),
        "Call-ID: c1",
        f"CSeq: 1 {method}",
        f"Contact: <sip:alice@{PEER[0]}>",
        "Content-Length: 0\r\n\r\n",
    ]
    return "\r\n".join(lines).encode()


def is_right(request, status, nonce="n1"):
    fields = parse_digest(request.headers.get(ANSWERS[status]))
    said = (fields["username"], fields["realm"], fields["nonce"], fields["uri"])
    return said == ("alice", "r", nonce, request.uri) and fields["response"] == digest_response(
        fields["algorithm"],
        user="alice",
        realm="r",
        password="wonder:land",
        method=request.method,
        uri=request.uri,
        nonce=nonce,
        nc=fields["nc"],
        cnonce=fields["cnonce"],
    )


@pytest.mark.parametrize("status", [401, 407])
@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_a_refer_is_sent_again_with_the_answer(status, algorithm):
    carrier = Carrier(ALICE)
    carrier.usage.refer("tel:+15550123", now=0.0)
    carrier.take()
    carrier.challenges(status, algorithm=algorithm)
    first, second = carrier.requests
    assert second.cseq.number == first.cseq.number + 1
    assert second.top_via.branch != first.top_via.branch
    assert second.headers.get("Refer-To") == "<tel:+15550123>"
    assert ANSWERS[status] not in first.headers
    assert is_right(second, status)
    assert not carrier.told(Replied)
    carrier.answers(202)
    [replied] = carrier.told(Replied)
    assert replied.response.status == 202
    assert not [update for update in carrier.told(ReferUpdated) if update.update.kind == "failed"]


@pytest.mark.parametrize("status", [401, 407])
def test_a_bye_is_sent_again_with_the_answer(status):
    carrier = Carrier(ALICE)
    carrier.usage.hangup(now=0.0)
    carrier.take()
    assert carrier.told(Ended)
    carrier.challenges(status)
    first, second = carrier.requests
    assert [first.method, second.method] == ["BYE", "BYE"]
    assert second.cseq.number == first.cseq.number + 1
    assert is_right(second, status)
    carrier.answers(200)
    assert len(carrier.told(Ended)) == 1
    assert len(carrier.requests) == 2


def test_without_credentials_the_challenge_is_the_answer():
    carrier = Carrier(None)
    carrier.usage.request("INFO", now=0.0)
    carrier.take()
    carrier.challenges(407)
    [replied] = carrier.told(Replied)
    assert replied.response.status == 407
    carrier.usage.hangup(now=0.0)
    carrier.take()
    carrier.challenges(401)
    assert [request.method for request in carrier.requests] == ["INFO", "BYE"]


def test_credentials_that_are_refused_are_not_sent_again_but_a_stale_nonce_is_no_refusal():
    carrier = Carrier(ALICE)
    carrier.usage.request("INFO", now=0.0)
    carrier.take()
    carrier.challenges(401)
    carrier.challenges(401, nonce="n2", stale=True)
    assert is_right(carrier.requests[-1], 401, nonce="n2")
    assert not carrier.told(Replied)
    carrier.challenges(401, nonce="n3", stale=True)
    assert [reply.response.status for reply in carrier.told(Replied)] == [401]
    carrier.usage.request("INFO", now=0.0)
    carrier.take()
    carrier.challenges(401, nonce="n4")
    carrier.challenges(401, nonce="n5")
    assert [reply.response.status for reply in carrier.told(Replied)] == [401, 401]
    assert len(carrier.requests) == 5


def test_a_peer_that_challenges_every_bye_is_left_to_its_own_timers():
    carrier = Carrier(ALICE)
    carrier.usage.hangup(now=0.0)
    carrier.take()
    carrier.challenges(401)
    carrier.challenges(401)
    assert len(carrier.requests) == 2
    assert carrier.stack._dialogs == {}


@pytest.mark.parametrize(
    "value", ['Basic realm="r"', 'Digest realm="r", nonce="n", algorithm=SHA-512', "Digest ,,,"]
)
def test_a_challenge_that_cannot_be_answered_is_the_answer(value):
    carrier = Carrier(ALICE)
    carrier.usage.request("INFO", now=0.0)
    carrier.take()
    carrier.answers(401, ("WWW-Authenticate", value))
    assert [reply.response.status for reply in carrier.told(Replied)] == [401]
    assert len(carrier.requests) == 1


def test_credentials_do_not_show_their_password():
    assert "wonder" not in repr(ALICE)
