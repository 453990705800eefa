"""INVITEs that this side sends: their ACKs, forks, second targets and the peer that only says 100 (RFC 3261 13, 14)."""

import itertools

import pytest

from offhook.sip.events import Answered, Ended, Offered, Refused, Replied
from offhook.sip.flow import Flow
from offhook.sip.message import Request, create_response, parse_message
from offhook.sip.route import Attempt, Target, Way
from offhook.sip.stack import Incoming, Reach, Stack, StackConfig, Transmit, UsageEvent

US, PEER = ("192.0.2.2", 5060), ("198.51.100.7", 5060)
UDP = Flow("udp", US, PEER)
TCP = Flow("tcp", US, (PEER[0], 40001), 1)
FIRST, SECOND = Flow("udp", US, ("192.0.2.10", 5060)), Flow("udp", US, ("192.0.2.20", 5060))
TARGETS = [Target("udp", flow.remote[0], 5060, "edge.example.com") for flow in (FIRST, SECOND)]
SDP = b"v=0\r\n"
ATTEMPT = Attempt("peer.example.com from Contact", "udp", "no address")


class Agent:
    def __init__(self):
        tokens = itertools.count(1)
        self.stack = Stack(StackConfig(), new_token=lambda: f"{next(tokens):08x}")
        for transport in ("udp", "tcp"):
            self.stack.listen(transport, *US)
        self.stack.connection_opened(TCP)
        self.now, self.sent, self.reaches, self.events = 0.0, [], [], []

    def take(self):
        out = []
        for output in self.stack.outputs():
            match output:
                case Transmit(flow, data) if data.strip():
                    out.append((flow, parse_message(data)))
                case Reach():
                    self.reaches.append(output)
                case Incoming(usage):
                    self.usage = usage
                case UsageEvent(_, event):
                    self.events.append(event)
        self.sent += out
        return [(flow, m.method if isinstance(m, Request) else m.status) for flow, m in out]

    def feed(self, message, flow=UDP):
        self.stack.receive(bytes(message), flow, now=self.now)
        return [what for _, what in self.take()]

    def run(self, until):
        seen = []
        while (due := self.stack.next_timer()) is not None and due <= until:
            self.now = due
            self.stack.handle_timer(now=due)
            seen += [(round(due, 3), what) for _, what in self.take()]
        self.now = until
        return seen

    def reached(self, way, at=-1):
        self.stack.reached(self.reaches[at].key, way, now=self.now)
        return self.take()

    def told(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def last(self, method):
        return next(m for _, m in reversed(self.sent) if isinstance(m, Request) and m.method == method)

    # A call that comes in, and one that goes out.

    def called(self, flow=UDP):
        self.feed(request("INVITE", 1, flow=flow), flow)
        self.usage.answer(SDP, now=0.0)
        self.take()
        self.feed(self.from_peer("ACK", 1, flow=flow), flow)
        return self.usage

    def from_peer(self, method, cseq, flow=UDP):
        return request(method, cseq, tag=self.usage.dialog.local_tag, flow=flow)

    def calls(self, uri=f"sip:bob@{PEER[0]}"):
        self.usage = self.stack.invite(uri, from_uri="sip:alice@example.com", sdp=SDP, now=self.now)
        self.take()
        return self.usage

    def by_two_targets(self):
        """Place a call whose first target is silent, so that the second is asked; return both INVITEs."""
        usage = self.calls("sip:bob@edge.example.com")
        self.reached(Way(FIRST, (), "Request-URI", frozenset(TARGETS[:1]), others=True))
        first = self.last("INVITE")
        first = parse_message(bytes(first))
        self.run(3.0)
        self.reached(Way(SECOND, (), "Request-URI", frozenset(TARGETS)))
        second = self.last("INVITE")
        assert first.top_via.branch != second.top_via.branch
        return usage, first, second


def request(method, cseq, *, tag="", flow=UDP):
    lines = [
        f"{method} sip:us@192.0.2.2 SIP/2.0",
        f"Via: SIP/2.0/{flow.transport.upper()} {PEER[0]}:5060;branch=z9hG4bK{method}{cseq}",
        "From: <sip:alice@example.com>;tag=a",
        "To: <sip:us@example.com>" + (f";tag={tag}" if tag else ""),
        "Call-ID: c1",
        f"CSeq: {cseq} {method}",
        f"Contact: <sip:alice@{PEER[0]}>",
        "Content-Length: 0\r\n\r\n",
    ]
    return "\r\n".join(lines).encode()


def reply(to, status, *, tag="a", contact=f"sip:alice@{PEER[0]}"):
    headers = [("Contact", f"<{contact}>")] if 100 < status < 300 else []
    return create_response(to, status, to_tag=tag if status > 100 else None, headers=headers)


@pytest.fixture
def agent():
    return Agent()


class TestAck:
    def test_of_a_reinvite_goes_to_the_contact_of_its_200(self, agent):
        """Section 12.2.1.2: the 2xx replaces the target, and the ACK is a request in the dialog as it is then."""
        agent.called().request("INVITE", now=0.0, body=SDP, content_type="application/sdp")
        agent.take()
        moved = f"sip:alice@{PEER[0]}:5080"
        assert agent.feed(reply(agent.last("INVITE"), 200, contact=moved)) == ["ACK"]
        flow, ack = agent.sent[-1]
        assert (ack.uri, flow.remote) == (moved, (PEER[0], 5080))

    def test_that_is_looked_for_while_the_200_comes_again_is_one_and_the_call_goes_on(self, agent):
        usage = agent.calls()
        invite = agent.last("INVITE")
        ok = reply(invite, 200, contact="sip:bob@peer.example.com")
        assert agent.feed(ok) == agent.feed(ok) == []
        assert len(agent.reaches) == 1
        assert agent.reached(Way(UDP)) == [(UDP, "ACK")]
        assert agent.feed(ok) == ["ACK"]
        assert (usage.state, len(agent.told(Answered))) == ("confirmed", 1)

    def test_of_a_reinvite_that_is_looked_for_too(self, agent):
        agent.called().request("INVITE", now=0.0, body=SDP, content_type="application/sdp")
        agent.take()
        ok = reply(agent.last("INVITE"), 200, contact="sip:alice@peer.example.com")
        assert agent.feed(ok) == agent.feed(ok) == []
        assert agent.reached(Way(UDP)) == [(UDP, "ACK")]
        assert len(agent.told(Replied)) == 1

    def test_that_found_no_way_is_tried_again_when_the_200_comes_again(self, agent):
        agent.calls()
        ok = reply(agent.last("INVITE"), 200, contact="sip:bob@peer.example.com")
        agent.feed(ok)
        assert agent.reached(Way(None, (ATTEMPT,))) == []
        agent.feed(ok)
        assert agent.reached(Way(UDP)) == [(UDP, "ACK")]

    def test_goes_another_way_when_the_connection_of_the_first_is_gone(self, agent):
        agent.called(TCP).request("INVITE", now=0.0, body=SDP, content_type="application/sdp")
        agent.take()
        ok = reply(agent.last("INVITE"), 200)
        assert agent.feed(ok, TCP) == ["ACK"]
        agent.stack.connection_lost(TCP, now=0.1)
        agent.feed(ok)
        again = Flow("tcp", US, (PEER[0], 5060), 9)
        agent.stack.connection_opened(again)
        assert agent.reached(Way(again)) == [(again, "ACK")]

    def test_old_ones_are_forgotten_in_a_call_that_lasts(self, agent):
        usage = agent.called()
        answers = []
        for _ in range(40):
            usage.request("INVITE", now=agent.now, body=SDP, content_type="application/sdp")
            agent.take()
            answers.append(reply(agent.last("INVITE"), 200))
            assert agent.feed(answers[-1]) == ["ACK"]
            agent.run(agent.now + 900.0)
        assert agent.feed(answers[-1]) == ["ACK"]
        assert agent.feed(answers[0]) == []


class TestOnly100:
    """An INVITE of ours that gets a 1xx and no more would keep both sides from ever offering again."""

    def reinvite(self, agent):
        usage = agent.called()
        usage.request("INVITE", now=0.0, body=SDP, content_type="application/sdp")
        agent.take()
        assert agent.feed(reply(agent.last("INVITE"), 100)) == []
        return usage, agent.last("INVITE")

    def test_is_cancelled_after_64_t1_and_the_call_goes_on(self, agent):
        usage, invite = self.reinvite(agent)
        assert agent.feed(agent.from_peer("INVITE", 2)) == [491]
        agent.feed(agent.from_peer("ACK", 2).replace(b"z9hG4bKACK2", b"z9hG4bKINVITE2"))
        assert agent.run(31.9) == []
        assert agent.run(32.0) == [(32.0, "CANCEL")]
        cancel = agent.last("CANCEL")
        assert (cancel.top_via.branch, cancel.cseq.number) == (invite.top_via.branch, invite.cseq.number)
        assert cancel.to.tag == invite.to.tag
        agent.feed(reply(cancel, 200))
        assert agent.feed(reply(invite, 487)) == ["ACK"]
        assert [event.response.status for event in agent.told(Replied)] == [487]
        assert agent.feed(agent.from_peer("INVITE", 3)) == [100]
        assert len(agent.told(Offered)) == 1
        assert usage.state == "confirmed"

    def test_is_given_up_when_the_cancel_changes_nothing(self, agent):
        self.reinvite(agent)
        agent.run(65.0)
        assert [(event.response, event.reason) for event in agent.told(Replied)] == [(None, "no answer")]

    def test_a_200_that_crosses_the_cancel_counts(self, agent):
        _, invite = self.reinvite(agent)
        agent.run(32.0)
        assert agent.feed(reply(invite, 200)) == ["ACK"]
        assert [event.response.status for event in agent.told(Replied)] == [200]

    def test_an_answer_in_time_is_not_cancelled(self, agent):
        _, invite = self.reinvite(agent)
        agent.run(10.0)
        agent.feed(reply(invite, 180))
        assert agent.feed(reply(invite, 200)) == ["ACK"]
        assert "CANCEL" not in [what for _, what in agent.run(100.0)]


class TestForks:
    def test_one_that_answers_after_the_call_is_ended_too_and_leaves_nothing(self, agent):
        usage = agent.calls()
        invite = agent.last("INVITE")
        agent.feed(reply(invite, 200, tag="one"))
        usage.hangup(now=0.0)
        agent.take()
        agent.feed(reply(agent.last("BYE"), 200))
        assert agent.feed(reply(invite, 200, tag="two")) == ["ACK", "BYE"]
        agent.feed(reply(agent.last("BYE"), 200))
        agent.run(100.0)
        assert (agent.stack.call_count, agent.stack.transaction_count) == (0, 0)


class TestTwoTargets:
    def test_the_call_keeps_to_the_one_that_answered(self, agent):
        """Its private Contact is reached by the address that we called; the silent one would never hear the BYE."""
        usage, _, second = agent.by_two_targets()
        agent.feed(reply(second, 200, contact="sip:bob@10.0.0.4"), SECOND)
        usage.hangup(now=agent.now)
        assert [flow for flow, what in agent.take() if what == "BYE"] == [SECOND]

    def test_a_late_answer_is_taken_and_the_other_one_ended_when_it_answers(self, agent):
        usage, first, second = agent.by_two_targets()
        assert agent.feed(reply(first, 200, tag="one"), FIRST) == ["ACK"]
        assert agent.feed(reply(second, 200, tag="two"), SECOND) == ["ACK", "BYE"]
        assert agent.last("BYE").to.tag == "two"
        assert (usage.state, usage.dialog.remote_tag) == ("confirmed", "one")
        assert len(agent.told(Answered)) == 1

    @pytest.mark.parametrize("rings", ["before", "after"])
    def test_a_late_answer_stops_the_other_ones_ringing(self, agent, rings):
        usage, first, second = agent.by_two_targets()
        if rings == "before":
            agent.feed(reply(second, 180, tag="two"), SECOND)
            assert agent.feed(reply(first, 200, tag="one"), FIRST) == ["ACK", "CANCEL"]
        else:
            assert agent.feed(reply(first, 200, tag="one"), FIRST) == ["ACK"]
            assert agent.feed(reply(second, 180, tag="two"), SECOND) == ["CANCEL"]
        assert agent.last("CANCEL").top_via.branch == second.top_via.branch
        assert agent.feed(reply(second, 487, tag="two"), SECOND) == ["ACK"]
        agent.run(100.0)
        assert (usage.state, agent.told(Refused), agent.told(Ended)) == ("confirmed", [], [])

    def test_a_late_refusal_does_not_end_what_rings_at_the_other(self, agent):
        _, first, second = agent.by_two_targets()
        agent.feed(reply(second, 180, tag="two"), SECOND)
        agent.feed(reply(first, 408, tag="one"), FIRST)
        assert agent.told(Refused) == []
        assert agent.feed(reply(second, 200, tag="two"), SECOND) == ["ACK"]
        assert len(agent.told(Answered)) == 1

    def test_a_late_refusal_counts_when_the_other_never_answers(self, agent):
        _, first, _ = agent.by_two_targets()
        agent.feed(reply(first, 486, tag="one"), FIRST)
        agent.run(100.0)
        assert [event.response.status for event in agent.told(Refused)] == [486]

    @pytest.mark.parametrize("status", [200, 488])
    def test_in_a_call_both_are_ways_to_one_peer_and_a_late_answer_is_its_answer(self, agent, status):
        agent.called()
        agent.usage.dialog.route_set = ("<sip:edge.example.com;lr>",)
        agent.usage.request("INVITE", now=0.0, body=SDP, content_type="application/sdp")
        agent.take()
        agent.reached(Way(FIRST, (), "Record-Route", frozenset(TARGETS[:1]), others=True))
        first = parse_message(bytes(agent.last("INVITE")))
        agent.run(3.0)
        agent.reached(Way(SECOND, (), "Record-Route", frozenset(TARGETS)))
        agent.feed(reply(first, status), FIRST)
        agent.feed(reply(agent.last("INVITE"), status), SECOND)
        agent.run(100.0)
        assert [event.response.status for event in agent.told(Replied)] == [status]
        assert agent.usage.state == "confirmed"

    @pytest.mark.parametrize("order", ["late first", "late second"])
    def test_of_two_answers_to_one_refer_only_the_first_counts(self, agent, order):
        agent.called()
        agent.usage.dialog.route_set = ("<sip:edge.example.com;lr>",)
        agent.usage.refer("tel:+1", now=0.0)
        agent.take()
        agent.reached(Way(FIRST, (), "Record-Route", frozenset(TARGETS[:1]), others=True))
        first = parse_message(bytes(agent.last("REFER")))
        agent.run(3.0)
        agent.reached(Way(SECOND, (), "Record-Route", frozenset(TARGETS)))
        answers = [(first, 202, FIRST), (agent.last("REFER"), 500, SECOND)]
        for message, status, flow in answers if order == "late first" else reversed(answers):
            agent.feed(reply(message, status), flow)
        expected = 202 if order == "late first" else 500
        assert [event.response.status for event in agent.told(Replied)] == [expected]


def test_a_connection_that_is_lost_is_one_failure():
    agent = Agent()
    agent.called(TCP).request("INFO", now=0.0)
    agent.take()
    agent.feed(reply(agent.last("INFO"), 100), TCP)
    agent.stack.connection_lost(TCP, now=0.1)
    agent.take()
    agent.run(100.0)
    assert len(agent.told(Replied)) == 1
