"""Whose turn it is to offer, message by message in virtual time (RFC 3261 section 14, RFC 3311 section 5)."""

import itertools

import pytest

from offhook.sip.events import Acknowledged, Ended, Offered, Replied
from offhook.sip.flow import Flow
from offhook.sip.message import Request, create_response, parse_message
from offhook.sip.offers import Offers, has_sdp
from offhook.sip.stack import Incoming, Stack, StackConfig, Transmit, UsageEvent

US, PEER = ("192.0.2.2", 5060), ("198.51.100.7", 5060)
UDP = Flow("udp", US, PEER)
SDP = b"v=0\r\n"
MULTIPART = (
    b"--b\r\nContent-Type: application/isup\r\n\r\nx\r\n"
    b"--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\n"
)
OFFER = {"body": SDP, "content_type": "application/sdp"}


def request(method, cseq, *, body=SDP, to_tag=None, content_type="application/sdp", branch=None, extra=()):
    lines = [
        f"{method} sip:bob@192.0.2.2 SIP/2.0",
        f"Via: SIP/2.0/UDP {PEER[0]}:5060;branch=z9hG4bK{branch or f'{method}{cseq}'}",
        "From: <sip:alice@example.com>;tag=a",
        "To: <sip:bob@example.com>" + (f";tag={to_tag}" if to_tag else ""),
        "Call-ID: c1",
        f"CSeq: {cseq} {method}",
        "Max-Forwards: 70",
        f"Contact: <sip:peer@{PEER[0]}:5060>",
        *extra,
        *([f"Content-Type: {content_type}"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Side:
    """The called side of one call. `numbers` is what randomness gives."""

    def __init__(self, numbers=()):
        tokens = itertools.chain((f"{n:08x}" for n in ()), (f"{n:08x}" for n in itertools.count(1)))
        self.stack = Stack(StackConfig(), new_token=lambda: next(tokens))
        self.stack.listen("udp", *US)
        self.numbers = list(numbers)
        self.stack.new_number = lambda below: self.numbers.pop(0) if self.numbers else 0
        self.now, self.events, self.sent, self.usage = 0.0, [], [], None

    def take(self):
        out = []
        for output in self.stack.outputs():
            match output:
                case Transmit(_, data):
                    out.append(parse_message(data))
                case Incoming(usage):
                    self.usage = usage
                case UsageEvent(_, event):
                    self.events.append(event)
        self.sent += out
        return out

    def receive(self, data):
        self.stack.receive(data if isinstance(data, bytes) else bytes(data), UDP, now=self.now)
        return brief(self.take())

    def peer(self, method, cseq, **options):
        return self.receive(request(method, cseq, to_tag=self.usage.dialog.local_tag, **options))

    def run(self, until):
        """Let time pass; return (time, message) of what was sent."""
        seen = []
        while (due := self.stack.next_timer()) is not None and due <= until:
            self.now = due
            self.stack.handle_timer(now=due)
            seen += [(round(due, 3), message) for message in self.take()]
        self.now = until
        return seen

    def told(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def ask(self, method, **options):
        key = self.usage.request(method, now=self.now, **(options or OFFER))
        return key, self.take()

    def reply(self, to, status, headers=()):
        contact = [("Contact", f"<sip:peer@{PEER[0]}:5060>")] if status < 300 else []
        return self.receive(create_response(to, status, headers=[*contact, *headers]))


def brief(messages):
    return [m.method if isinstance(m, Request) else m.status for m in messages]


def called(numbers=(), *, offer=True, answered=True, ack=True):
    side = Side(numbers)
    side.receive(request("INVITE", 1, body=SDP if offer else b""))
    if answered:
        side.usage.answer(SDP, now=0.0)
        side.take()
        if ack:
            side.peer("ACK", 1, body=b"" if offer else SDP)
    else:
        side.usage.ring(now=0.0)
        side.take()
    return side


# What is an offer.


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/sdp", b"", False),
        ("application/sdp", SDP, True),
        ("application/sdp;charset=utf-8", SDP, True),
        ("application/isup", b"x", False),
        ("multipart/mixed;boundary=b", MULTIPART, True),
        ("multipart/mixed;boundary=b", MULTIPART[:50] + b"\r\n--b--\r\n", False),
        ("multipart/mixed", MULTIPART, True),
    ],
)
def test_what_counts_as_an_offer(content_type, body, expected):
    assert has_sdp(parse_message(request("INVITE", 1, body=body, content_type=content_type))) is expected


def test_a_retry_after_is_drawn_from_eleven_numbers():
    asked = []
    offers = Offers(new_number=lambda below: asked.append(below) or 7)
    first, second = (parse_message(request("INVITE", number)) for number in (2, 3))
    assert offers.refuse(first, unanswered=False, ours=False) is None
    offers.begin(first)
    refused = offers.refuse(second, unanswered=False, ours=True)
    assert (refused.status, refused.headers, asked) == (500, (("Retry-After", "7"),), [11])


# Theirs, against theirs.


@pytest.mark.parametrize("second", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("first", ["INVITE", "UPDATE"])
def test_a_second_offer_while_the_first_is_answered(first, second):
    side = called()
    side.peer(first, 2)
    assert side.peer(second, 3) == [500]
    (offered,) = side.told(Offered)
    assert side.usage.respond(offered.request, 200, now=0.0, **OFFER)
    side.take()
    assert side.peer(second, 4)[:1] in ([100], [])
    assert len(side.told(Offered)) == 2


def test_an_update_without_sdp_is_good_at_any_time():
    side = called(answered=False)
    assert side.peer("UPDATE", 2, body=b"") == []
    assert side.usage.respond(side.told(Offered)[0].request, 200, now=0.0)
    assert brief(side.take()) == [200]
    side.usage.answer(SDP, now=0.0)
    side.take()
    side.peer("ACK", 1, body=b"")
    side.peer("INVITE", 3)
    assert side.peer("UPDATE", 4, body=b"") == []
    # Two at once are too many all the same.
    assert side.peer("UPDATE", 5, body=b"") == [500]
    side.usage.respond(side.told(Offered)[2].request, 200, now=0.0)
    assert brief(side.take()) == [200]
    assert side.peer("UPDATE", 6, body=b"") == []


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_an_offer_before_the_invite_is_answered(method):
    side = called(answered=False)
    assert side.peer(method, 2) == [500]
    assert 0 <= int(side.sent[-1].headers.get("Retry-After")) <= 10
    assert side.told(Offered) == []


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_an_offer_while_ours_in_a_200_waits_for_the_ack(method):
    side = called(offer=False, ack=False)
    assert side.peer(method, 2) == [491]
    side.peer("ACK", 1)
    assert side.peer(method, 3)[:1] in ([100], [])
    side.usage.respond(side.told(Offered)[0].request, 200, now=0.0, **OFFER)
    side.take()
    if method == "INVITE":
        side.peer("ACK", 3, body=b"")
    # The same for a re-INVITE that asks for our offer.
    side.peer("INVITE", 4, body=b"")
    side.usage.respond(side.told(Offered)[1].request, 200, now=0.0, **OFFER)
    side.take()
    assert side.peer(method, 5) == [491]
    side.peer("ACK", 4)
    assert len(side.told(Acknowledged)) == (2 if method == "INVITE" else 1)
    side.peer(method, 6)
    assert len(side.told(Offered)) == 3


def test_an_offer_before_the_ack_to_an_answer_is_no_glare():
    """Our 200 answered the INVITE's offer: nothing is open, whatever became of the ACK."""
    side = called(ack=False)
    assert side.peer("UPDATE", 2) == []
    side.usage.respond(side.told(Offered)[0].request, 200, now=0.0, **OFFER)
    assert brief(side.take()) == [200]


def test_a_cancelled_reinvite_leaves_the_way_free():
    side = called()
    assert side.peer("INVITE", 2, branch="x") == [100]
    assert side.peer("CANCEL", 2, branch="x", body=b"") == [200, 487]
    assert side.peer("INVITE", 3) == [100]
    assert len(side.told(Offered)) == 2


def test_a_repeated_reinvite_is_one_offer():
    side = called()
    assert side.peer("INVITE", 2) == [100]
    assert side.peer("INVITE", 2) == [100]
    side.usage.respond(side.told(Offered)[0].request, 200, now=0.0, **OFFER)
    side.take()
    # Now the 200 belongs to the dialog, which repeats it by its own clock.
    assert side.peer("INVITE", 2) == []
    assert [time for time, message in side.run(1.6) if message.status == 200] == [0.5, 1.5]
    side.peer("ACK", 2, body=b"")
    assert side.run(10) == []


# Ours, against theirs.


@pytest.mark.parametrize("theirs", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("ours", ["INVITE", "UPDATE"])
def test_glare_at_our_end(ours, theirs):
    side = called()
    _, (sent,) = side.ask(ours)
    assert side.peer(theirs, 2) == [491]
    side.reply(sent, 200)
    side.peer(theirs, 3)
    assert len(side.told(Offered)) == 1


def test_an_update_of_ours_without_sdp_is_no_glare():
    side = called()
    side.ask("UPDATE", body=b"")
    side.peer("INVITE", 2)
    assert len(side.told(Offered)) == 1


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize(("number", "wait"), [(0, 0.0), (57, 0.57), (200, 2.0)])
def test_glare_at_theirs_is_tried_again_with_a_higher_cseq(method, number, wait):
    """RFC 3261 section 14.1: the side that did not make the Call-ID waits 0 to 2 s, in steps of 10 ms."""
    side = called([number])
    key, (first,) = side.ask(method)
    side.reply(first, 491)
    assert side.told(Replied) == []
    seen = [(at, m) for at, m in side.run(2.4) if isinstance(m, Request) and m.method == method]
    at, second = seen[0]
    assert {m.cseq.number for _, m in seen} == {second.cseq.number}
    assert at == pytest.approx(wait, abs=0.002)
    assert second.cseq.number == first.cseq.number + 1
    assert second.body == first.body
    assert second.top_via.branch != first.top_via.branch
    side.reply(second, 200)
    assert [(event.key, event.response.status) for event in side.told(Replied)] == [(key, 200)]


def test_who_made_the_call_id_waits_longer():
    tokens = (f"{n:08x}" for n in itertools.count(1))
    stack = Stack(StackConfig(), new_token=lambda: next(tokens))
    stack.listen("udp", *US)
    usage = stack.invite(f"sip:bob@{PEER[0]}", from_uri="sip:a@example.com", sdp=SDP, now=0.0)
    contact = [("Contact", f"<sip:bob@{PEER[0]}>")]

    def sent():
        return [parse_message(o.data) for o in stack.outputs() if isinstance(o, Transmit)]

    (invite,) = sent()
    stack.receive(bytes(create_response(invite, 200, to_tag="b", headers=contact)), UDP, now=0.0)
    sent()
    draws = []
    stack.new_number = lambda below: draws.append(below) or 190
    usage.request("UPDATE", now=0.0, **OFFER)
    (update,) = sent()
    stack.receive(bytes(create_response(update, 491)), UDP, now=1.0)
    stack.handle_timer(now=4.99)
    assert sent() == []
    stack.handle_timer(now=5.0)
    assert brief(sent()) == ["UPDATE"]
    assert draws == [191]  # 2.10 to 4.00 s


def test_their_offer_goes_first_and_ours_follows_it():
    side = called([100])
    _, (first,) = side.ask("INVITE")
    side.reply(first, 491)
    side.run(0.5)
    side.peer("INVITE", 2)
    # The second is over, but theirs is being answered, then not acknowledged.
    assert side.run(1.2) == []
    side.usage.respond(side.told(Offered)[0].request, 200, now=side.now, **OFFER)
    assert brief(side.take()) == [200]
    assert side.peer("ACK", 2, body=b"") == ["INVITE"]


def test_a_new_offer_of_ours_waits_for_the_one_before_and_nothing_else_does():
    side = called()
    _, (first,) = side.ask("INVITE")
    _, sent = side.ask("UPDATE")
    assert sent == []
    assert brief(side.ask("INFO", body=b"")[1]) == ["INFO"]
    assert brief(side.ask("UPDATE", body=b"")[1]) == ["UPDATE"]
    assert side.reply(first, 200) == ["ACK", "UPDATE"]
    numbers = [message.cseq.number for message in side.sent if isinstance(message, Request)]
    assert numbers == [1, 2, 3, 1, 4]  # INVITE, INFO, UPDATE, the ACK to the first, UPDATE


def test_a_peer_that_says_491_for_ever_is_left_in_peace():
    side = called()
    key, sent = side.ask("INVITE")
    tries = 0
    while sent:
        tries += 1
        side.reply(sent[-1], 491)
        sent = [m for _, m in side.run(side.now + 5) if isinstance(m, Request) and m.method == "INVITE"]
    assert tries == 5
    assert [(event.key, event.response.status) for event in side.told(Replied)] == [(key, 491)]
    assert side.usage.state == "confirmed"


@pytest.mark.parametrize(
    ("said", "again"), [("4", True), ("4;duration=9", True), ("11", False), ("x", False)]
)
def test_a_500_with_a_time_is_tried_again_then(said, again):
    side = called()
    _, (first,) = side.ask("UPDATE")
    side.reply(first, 500, [("Retry-After", said)])
    assert [at for at, m in side.run(20) if isinstance(m, Request)][:1] == ([4.0] if again else [])
    assert bool(side.told(Replied)) is not again


def test_nobody_waits_any_more_for_what_would_be_tried_again():
    side = called([100])
    key, (first,) = side.ask("INVITE")
    side.reply(first, 491)
    side.usage.stop_waiting(key, now=0.5)
    assert [m for _, m in side.run(60) if isinstance(m, Request)] == []


@pytest.mark.parametrize("who", ["we", "they"])
@pytest.mark.parametrize("answer", [200, 491, 487, None])
def test_an_end_while_our_reinvite_is_on_its_way(who, answer):
    """One reply, one end, nothing left behind: a 2xx that comes after the BYE is acknowledged all the same."""
    side = called()
    key, (invite,) = side.ask("INVITE")
    if who == "we":
        side.usage.hangup(now=0.0)
        (bye,) = side.take()
        side.reply(bye, 200)
    else:
        assert side.peer("BYE", 2, body=b"") == [200]
    if answer is not None:
        assert side.reply(invite, answer) == ["ACK"]
    side.run(200)
    assert [event.key for event in side.told(Replied)] == [key]
    assert len(side.told(Ended)) == 1
    assert (side.stack.call_count, side.stack.transaction_count) == (0, 0)


@pytest.mark.parametrize("who", ["we", "they"])
def test_an_end_while_their_reinvite_is_being_answered(who):
    side = called()
    side.peer("INVITE", 2)
    offered = side.told(Offered)[0].request
    if who == "we":
        side.usage.hangup(now=0.0)
        (bye, refused) = side.take()
        side.reply(bye, 200)
        assert (bye.method, refused.status) == ("BYE", 487)
    else:
        assert side.peer("BYE", 3, body=b"") == [200, 487]
    assert not side.usage.respond(offered, 200, now=0.0, **OFFER)
    side.run(200)
    assert (side.stack.call_count, side.stack.transaction_count) == (0, 0)


def test_a_reinvite_whose_200_is_never_acknowledged_ends_the_call():
    side = called()
    side.peer("INVITE", 2)
    side.usage.respond(side.told(Offered)[0].request, 200, now=0.0, **OFFER)
    side.take()
    byes = [(at, m) for at, m in side.run(33) if isinstance(m, Request)]
    assert byes[0][0] == 32.0
    assert byes[0][1].headers.get("Reason") == 'SIP;cause=408;text="no ACK"'
    (ended,) = side.told(Ended)
    assert ended.ended.cause == "no_ack"
    assert "no ACK to our 200 within 32 s" in ended.ended.text
