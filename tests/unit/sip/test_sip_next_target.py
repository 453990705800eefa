"""A request in a dialog and its targets, in virtual time: silence, loss and size (RFC 3261 18.1.1, RFC 3263 4.3)."""

import itertools

import pytest

from offhook.sip.events import Confirmed, Replied
from offhook.sip.flow import Flow
from offhook.sip.message import create_response, parse_message
from offhook.sip.route import Attempt, Target, Way
from offhook.sip.stack import Incoming, Reach, Stack, StackConfig, Transmit, UsageEvent
from offhook.trace import RoutingDecision

US, PEER = ("203.0.113.1", 5060), ("198.51.100.7", 5060)
UDP = Flow("udp", US, PEER)
TCP = Flow("tcp", US, (PEER[0], 40001), 1)
FIRST, SECOND = Flow("udp", US, ("192.0.2.10", 5060)), Flow("udp", US, ("192.0.2.20", 5060))
TARGETS = [Target("udp", flow.remote[0], 5060, "edge.example.com") for flow in (FIRST, SECOND)]


class Agent:
    """A stack with one answered call, whose next requests are the test's."""

    def __init__(self, *extra, flow=UDP, contact="sip:peer@198.51.100.7"):
        tokens = itertools.count(1)
        self.stack = Stack(StackConfig(), new_token=lambda: f"{next(tokens):08x}")
        for transport in ("udp", "tcp"):
            self.stack.listen(transport, *US)
        self.stack.connection_opened(TCP)
        self.sent, self.reaches, self.events, self.notes = [], [], [], []
        self.receive("INVITE", 1, *extra, f"Contact: <{contact}>", flow=flow)
        self.usage.tracer = self.notes.append
        self.usage.answer(b"v=0\r\n", now=0.0)
        self.take()
        self.receive("ACK", 1, flow=flow)
        assert any(isinstance(event, Confirmed) for event in self.events)
        self.sent.clear()

    def take(self):
        for output in self.stack.outputs():
            match output:
                case Transmit(flow, data) if data.strip():
                    self.sent.append((flow, parse_message(data)))
                case Reach():
                    self.reaches.append(output)
                case Incoming(usage):
                    self.usage = usage
                case UsageEvent(_, event):
                    self.events.append(event)

    def receive(self, method, cseq, *extra, flow=UDP):
        tag = f";tag={self.usage.dialog.local_tag}" if method != "INVITE" else ""
        lines = [
            f"{method} sip:us@203.0.113.1 SIP/2.0",
            f"Via: SIP/2.0/{flow.transport.upper()} {PEER[0]}:5060;branch=z9hG4bK{method}{cseq}",
            "From: <sip:alice@example.com>;tag=a",
            f"To: <sip:us@example.com>{tag}",
            "Call-ID: c1",
            f"CSeq: {cseq} {method}",
            *extra,
            "Content-Length: 0\r\n\r\n",
        ]
        self.stack.receive("\r\n".join(lines).encode(), flow, now=0.0)
        self.take()

    def run(self, until):
        """Let time pass; return when what was sent where."""
        seen, now = [], 0.0
        while (due := self.stack.next_timer()) is not None and due <= until:
            now, before = due, len(self.sent)
            self.stack.handle_timer(now=now)
            self.take()
            seen += [(round(now, 3), flow.remote[0], m.method) for flow, m in self.sent[before:]]
        return seen

    def reached(self, way, now):
        self.stack.reached(self.reaches[-1].key, way, now=now)
        self.take()

    def answer(self, number, status, now=5.0):
        flow, request = self.sent[number]
        self.stack.receive(bytes(create_response(request, status, to_tag="a")), flow, now=now)
        self.take()

    @property
    def replied(self):
        return [event for event in self.events if isinstance(event, Replied)]

    @property
    def decisions(self):
        return [note.text for note in self.notes if isinstance(note, RoutingDecision)]


BY_NAME = "Record-Route: <sip:edge.example.com;lr>"


def referring():
    """A REFER that went to the first of two SRV targets."""
    agent = Agent(BY_NAME)
    agent.usage.refer("tel:+1", now=0.0)
    agent.take()
    agent.reached(Way(FIRST, (), "Record-Route", frozenset(TARGETS[:1]), others=True), 0.0)
    return agent


def test_a_silent_udp_target_gives_way_to_the_next_after_three_sends():
    agent = referring()
    assert agent.run(until=3.0) == [(0.5, "192.0.2.10", "REFER"), (1.5, "192.0.2.10", "REFER")]
    assert agent.decisions == [
        "sent REFER to udp 192.0.2.10:5060 from Record-Route",
        "udp 192.0.2.10:5060 from Record-Route: no answer within 2.5 s",
    ]
    again = agent.reaches[-1]
    assert again.tried == frozenset(TARGETS[:1])
    assert again.timeout == pytest.approx(5.5)
    agent.reached(Way(SECOND, (), "Record-Route", frozenset(TARGETS)), 3.0)
    (_, first), (flow, second) = agent.sent[0], agent.sent[-1]
    assert flow == SECOND
    assert second.cseq == first.cseq
    assert second.top_via.branch != first.top_via.branch
    agent.answer(-1, 202)
    assert [event.response.status for event in agent.replied] == [202]


def test_the_late_answer_of_a_silent_target_counts_and_stops_the_copy():
    agent = referring()
    agent.run(until=3.0)
    agent.reached(Way(SECOND, (), "Record-Route", frozenset(TARGETS)), 3.0)
    count = len(agent.sent)
    agent.answer(0, 202)
    assert [event.response.status for event in agent.replied] == [202]
    agent.run(until=50.0)
    assert len(agent.sent) == count
    agent.answer(-1, 500, now=51.0)
    assert len(agent.replied) == 1


def test_with_no_other_target_that_can_be_reached_the_first_is_asked_for_all_of_timer_f():
    agent = referring()
    agent.run(until=3.0)
    failed = Attempt("192.0.2.20:5060 from Record-Route", "udp", "Network is unreachable", 101)
    agent.reached(Way(None, (failed,), tried=frozenset(TARGETS)), 3.0)
    assert {remote for _, remote, _ in agent.run(until=31.9)} == {"192.0.2.10"}
    assert agent.replied == []
    agent.run(until=32.0)
    (replied,) = agent.replied
    assert replied.reason == "no answer"
    assert [str(attempt) for attempt in replied.attempts] == [
        "udp 192.0.2.10:5060 from Record-Route: no answer within 2.5 s",
        "udp 192.0.2.20:5060 from Record-Route: Network is unreachable",
    ]


def test_a_target_that_answers_is_not_left():
    agent = referring()
    agent.answer(0, 100, now=1.0)
    agent.run(until=10.0)
    assert len(agent.reaches) == 1


def test_503_of_one_target_is_followed_by_the_next():
    """RFC 3263 section 4.3."""
    agent = referring()
    agent.answer(0, 503, now=0.2)
    assert agent.replied == []
    agent.reached(Way(SECOND, (), "Record-Route", frozenset(TARGETS)), 0.3)
    assert agent.sent[-1][0] == SECOND
    agent.answer(0, 503, now=0.4)
    agent.answer(-1, 202, now=0.5)
    assert [event.response.status for event in agent.replied] == [202]
    assert "udp 192.0.2.10:5060 from Record-Route: 503 Service Unavailable" in agent.decisions


def test_503_stands_when_there_is_no_next_target_that_can_be_reached():
    agent = referring()
    agent.answer(0, 503, now=0.2)
    failed = Attempt("192.0.2.20:5060 from Record-Route", "udp", "Network is unreachable", 101)
    agent.reached(Way(None, (failed,), tried=frozenset(TARGETS)), 0.3)
    assert [event.response.status for event in agent.replied] == [503]
    agent.run(until=60.0)
    assert len(agent.replied) == 1


def test_the_only_target_is_not_left():
    agent = Agent()
    agent.usage.refer("tel:+1", now=0.0)
    agent.take()
    agent.run(until=10.0)
    assert agent.reaches == []
    assert agent.decisions == ["sent REFER to udp 198.51.100.7:5060 from Contact"]


def test_a_target_that_takes_the_connection_and_closes_it_gives_way_to_the_next():
    agent = Agent("Record-Route: <sip:edge.example.com;transport=tcp;lr>", flow=TCP)
    agent.stack.connection_lost(TCP, now=0.0)
    agent.usage.hangup(now=0.0)
    agent.take()
    dialled = Flow("tcp", US, ("192.0.2.10", 5060), 7)
    agent.stack.connection_opened(dialled)
    target = Target("tcp", "192.0.2.10", 5060, "edge.example.com")
    agent.reached(Way(dialled, (), "Record-Route", frozenset((target,)), others=True), 0.1)
    agent.stack.connection_lost(dialled, now=0.2)
    agent.take()
    assert len(agent.reaches) == 2
    assert agent.reaches[-1].tried == frozenset((target,))
    assert "tcp 192.0.2.10:5060 from Record-Route: the connection closed before any answer" in agent.decisions
    assert not agent.stack.is_settled


def test_each_failed_target_is_on_the_timeline_when_a_later_one_works():
    agent = Agent("Record-Route: <sip:192.0.2.1;transport=tcp;lr>", flow=TCP)
    agent.stack.connection_lost(TCP, now=0.0)
    agent.usage.refer("tel:+1", now=0.0)
    agent.take()
    attempt = Attempt("192.0.2.1:5060 from Record-Route", "tcp", "connect timed out after 3 s", 110)
    flow = Flow("tcp", US, ("192.0.2.2", 5060), 8)
    agent.stack.connection_opened(flow)
    agent.reached(Way(flow, (attempt,), "Record-Route"), 3.0)
    assert agent.decisions == [
        "tcp 192.0.2.1:5060 from Record-Route: connect timed out after 3 s",
        "sent REFER to tcp 192.0.2.2:5060 from Record-Route; the INVITE's connection is gone",
    ]
    noted = next(note for note in agent.notes if isinstance(note, RoutingDecision))
    assert noted.details == {"hop": "192.0.2.1:5060 from Record-Route", "transport": "tcp", "errno": 110}


class TestSize:
    LARGE = "tel:+1;isub=" + "1" * 1300

    def test_a_large_request_tries_tcp_first_and_udp_after_it(self):
        agent = Agent()
        agent.usage.refer(self.LARGE, now=0.0)
        agent.take()
        (reach,) = agent.reaches
        assert [(hop.transport, hop.host) for hop in reach.hops] == [("tcp", PEER[0]), ("udp", PEER[0])]
        refused = Attempt("198.51.100.7:5060 from Contact", "tcp", "Connection refused", 111)
        agent.reached(Way(UDP, (refused,), "Contact"), 0.1)
        ((flow, refer),) = agent.sent
        assert flow == UDP
        assert refer.top_via.transport == "UDP"
        assert "too large" in agent.decisions[-1]

    def test_its_via_names_the_transport_that_it_goes_by(self):
        agent = Agent()
        agent.usage.refer(self.LARGE, now=0.0)
        agent.take()
        flow = Flow("tcp", US, PEER, 9)
        agent.stack.connection_opened(flow)
        agent.reached(Way(flow, (), "Contact"), 0.1)
        ((_, refer),) = agent.sent
        assert refer.top_via.transport == "TCP"
        assert "too large" in agent.decisions[-1]

    @pytest.mark.parametrize(
        "contact", ["sip:peer@198.51.100.7;transport=udp", "sip:peer@10.0.0.4", "sip:peer@10.0.0.4:5080"]
    )
    def test_a_hop_that_says_udp_or_is_known_for_udp_only_gets_udp(self, contact):
        agent = Agent(contact=contact)
        agent.usage.refer(self.LARGE, now=0.0)
        agent.take()
        assert agent.reaches == []
        assert agent.sent[0][0] == UDP

    def test_a_small_request_goes_by_udp(self):
        agent = Agent()
        agent.usage.refer("tel:+1", now=0.0)
        agent.take()
        assert agent.sent[0][0] == UDP


class TestSettled:
    def test_a_bye_without_its_answer_is_waited_for(self):
        agent = Agent()
        assert agent.stack.is_settled
        agent.usage.hangup(now=0.0)
        agent.take()
        assert not agent.stack.is_settled
        agent.answer(0, 200, now=0.1)
        assert agent.stack.is_settled

    def test_a_bye_that_waits_for_a_way_too(self):
        agent = Agent(BY_NAME)
        agent.usage.hangup(now=0.0)
        agent.take()
        assert agent.sent == []
        assert not agent.stack.is_settled
