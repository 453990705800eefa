"""The pure user agent, message by message: what a peer sends, and what it gets (RFC 3261, 3515, 3581, 6026)."""

import itertools
import random

import pytest

from offhook.sip.events import (
    Acknowledged,
    Answered,
    Cancelled,
    Confirmed,
    Ended,
    Offered,
    Provisional,
    ReferUpdated,
    Refused,
    Replied,
    Requested,
)
from offhook.sip.flow import Flow
from offhook.sip.message import Request, create_response, parse_message
from offhook.sip.refer import ReferPending
from offhook.sip.route import Attempt, Way
from offhook.sip.stack import Incoming, Reach, Stack, StackConfig, Transmit, UsageEvent
from offhook.sip.transaction import LocalProtocolError
from offhook.trace import RoutingDecision

US = ("192.0.2.2", 5060)
PEER = ("198.51.100.7", 5060)
UDP = Flow("udp", US, PEER)
TCP = Flow("tcp", US, (PEER[0], 40001), 1)
TLS = Flow("tls", (US[0], 5061), (PEER[0], 40002), 2)
SDP = b"v=0\r\n"
CONTACT = f"<sip:peer@{PEER[0]}:5060>"


def message(
    method,
    *,
    uri="sip:bob@192.0.2.2",
    branch="1",
    cseq=1,
    to_tag=None,
    extra=(),
    body=b"",
    via=None,
    from_tag="a",
):
    via = via or f"SIP/2.0/UDP {PEER[0]}:5060;branch=z9hG4bK{branch}"
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: {via}",
        f"From: <sip:alice@example.com>;tag={from_tag}",
        "To: <sip:bob@example.com>" + (f";tag={to_tag}" if to_tag else ""),
        "Call-ID: c1",
        f"CSeq: {cseq} {method}",
        *extra,
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


class Agent:
    """A stack, the time, and what came out of it."""

    def __init__(
        self, *, accept_calls=True, listen=(("udp", *US), ("tcp", *US), ("tls", US[0], 5061)), **config
    ):
        tokens = itertools.count(1)
        self.stack = Stack(
            StackConfig(**config), new_token=lambda: f"{next(tokens):08x}", accept_calls=accept_calls
        )
        for address in listen:
            self.stack.listen(*address)
        for flow in (TCP, TLS):
            self.stack.connection_opened(flow)
        self.now = 0.0
        self.sent = []
        self.flows = []
        self.events = []
        self.calls = []
        self.reaches = []
        self.pings = []

    def take(self):
        """Sort the outputs, and return the messages sent."""
        sent = []
        for output in self.stack.outputs():
            match output:
                case Transmit(flow, b"\r\n\r\n"):
                    self.pings.append((self.now, flow))
                case Transmit(flow, data):
                    sent.append(parse_message(data))
                    self.flows.append(flow)
                case Incoming(usage):
                    self.calls.append(usage)
                case Reach():
                    self.reaches.append(output)
                case UsageEvent(_, event):
                    self.events.append(event)
        self.sent += sent
        return sent

    def receive(self, data, flow=UDP):
        """Return the start of what goes out: statuses, and methods of requests."""
        self.stack.receive(data if isinstance(data, bytes) else bytes(data), flow, now=self.now)
        return brief(self.take())

    def run(self, until):
        """Let time pass, and return `(time, brief)` of what was sent."""
        seen = []
        while (due := self.stack.next_timer()) is not None and due <= until:
            self.now = due
            self.stack.handle_timer(now=due)
            seen += [(round(due, 3), what) for what in brief(self.take())]
        self.now = until
        return seen

    def told(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    # Shortcuts to a state.

    def incoming(self, flow=UDP, **options):
        options.setdefault("extra", [f"Contact: {CONTACT}"])
        self.receive(message("INVITE", body=SDP, **options), flow)
        return self.calls[-1]

    def confirmed(self, flow=UDP, **options):
        usage = self.incoming(flow, **options)
        usage.answer(SDP, now=self.now)
        self.take()
        self.receive(message("ACK", branch="ack", to_tag=usage.dialog.local_tag), flow)
        assert usage.state == "confirmed"
        self.sent.clear()
        self.flows.clear()
        return usage


def brief(messages):
    return [m.method if isinstance(m, Request) else m.status for m in messages]


@pytest.fixture
def agent():
    return Agent()


class TestAnsweringCalls:
    def test_100_leaves_before_the_call_is_handed_up(self, agent):
        agent.stack.receive(message("INVITE", body=SDP), UDP, now=0.0)
        first, second = agent.stack.outputs()
        assert parse_message(first.data).status == 100
        assert isinstance(second, Incoming)

    def test_100_has_no_to_tag_and_all_others_the_same(self, agent):
        usage = agent.incoming()
        usage.ring(now=0.0)
        usage.answer(SDP, now=0.1)
        agent.take()
        tags = [response.to.tag for response in agent.sent]
        assert tags[0] is None
        assert tags[1] == tags[2] == usage.dialog.local_tag

    def test_repeated_invite_is_no_second_call(self, agent):
        data = message("INVITE", body=SDP)
        assert agent.receive(data) == [100]
        assert agent.receive(data) == [100]
        agent.calls[0].ring(now=0.0)
        agent.take()
        assert agent.receive(data) == [180]
        agent.calls[0].answer(SDP, now=0.0)
        agent.take()
        assert agent.receive(data) == []
        assert len(agent.calls) == 1

    def test_rfc_2543_invite_without_branch_is_one_call_too(self, agent):
        data = message("INVITE", body=SDP, via=f"SIP/2.0/UDP {PEER[0]}")
        assert agent.receive(data) == [100]
        assert agent.receive(data) == [100]
        assert len(agent.calls) == 1

    @pytest.mark.parametrize("flow", [UDP, TCP])
    def test_a_call_that_rings_says_so_every_minute(self, agent, flow):
        """RFC 3261 section 13.3.1.1: proxies cancel what they hear nothing of for three minutes."""
        usage = agent.incoming(flow)
        usage.ring(183, now=0.0, sdp=SDP)
        first = agent.take()[0]
        assert agent.run(until=30.0) == []
        usage.ring(now=30.0, headers=[("Alert-Info", "<http://example.com>")])
        latest = agent.take()[0]
        assert agent.run(until=200.0) == [(90.0, 180), (150.0, 180)]
        assert bytes(agent.sent[-1]) == bytes(latest) != bytes(first)

    @pytest.mark.parametrize("end", ["answer", "refuse", "cancel"])
    def test_a_call_that_rings_no_more_does_not_say_so(self, agent, end):
        usage = agent.incoming(TCP)
        usage.ring(now=0.0)
        if end == "answer":
            usage.answer(SDP, now=1.0)
        elif end == "refuse":
            usage.refuse(486, now=1.0)
        else:
            agent.receive(message("CANCEL"), TCP)
        agent.take()
        assert 180 not in [what for _, what in agent.run(until=200.0)]

    @pytest.mark.parametrize("flow", [UDP, TCP])
    def test_200_is_repeated_until_the_ack_on_any_transport(self, agent, flow):
        usage = agent.incoming(flow)
        usage.answer(SDP, now=0.0)
        assert brief(agent.take()) == [200]
        assert agent.run(until=8.0) == [(0.5, 200), (1.5, 200), (3.5, 200), (7.5, 200)]
        agent.receive(message("ACK", branch="ack", to_tag=usage.dialog.local_tag), flow)
        assert [event.ack.method for event in agent.told(Confirmed)] == ["ACK"]
        assert agent.run(until=31.0) == []
        agent.receive(message("ACK", branch="ack", to_tag=usage.dialog.local_tag), flow)
        assert len(agent.told(Confirmed)) == 1

    def test_ack_with_the_branch_of_the_invite_counts(self, agent):
        usage = agent.incoming()
        usage.answer(SDP, now=0.0)
        agent.take()
        agent.receive(message("ACK", to_tag=usage.dialog.local_tag))
        assert usage.state == "confirmed"

    def test_no_ack_ends_in_bye(self, agent):
        agent.incoming().answer(SDP, now=0.0)
        agent.take()
        seen = agent.run(until=32.0)
        assert seen[-1] == (32.0, "BYE")
        assert [event.ended.cause for event in agent.told(Ended)] == ["no_ack"]

    def test_late_offer_is_a_call_and_its_ack_is_kept(self, agent):
        agent.receive(message("INVITE", extra=[f"Contact: {CONTACT}"]))
        (usage,) = agent.calls
        assert usage.invite.body == b""
        usage.answer(SDP, now=0.0)
        agent.take()
        agent.receive(message("ACK", branch="x", to_tag=usage.dialog.local_tag, body=b"v=0\r\nanswer"))
        assert usage.ack.body == b"v=0\r\nanswer"

    def test_refusal_is_acknowledged_inside_its_transaction(self, agent):
        usage = agent.incoming()
        usage.refuse(486, now=0.0, headers=[("Retry-After", "5")])
        (busy,) = agent.take()
        assert (busy.status, busy.headers.get("Retry-After")) == (486, "5")
        assert agent.run(until=1.0) == [(0.5, 486)]
        agent.receive(message("ACK", to_tag=busy.to.tag))
        assert agent.run(until=40.0) == []
        assert agent.told(Confirmed) == agent.told(Ended) == []
        assert agent.stack.transaction_count == agent.stack.call_count == 0

    def test_200_mirrors_record_routes_byte_for_byte(self, agent):
        routes = [
            "<sip:54.172.60.0:5061;transport=tls;r2=on;lr>",
            "<sip:54.172.60.0;r2=on;lr>, <sip:a;lr=on>",
        ]
        usage = agent.incoming(extra=[*(f"Record-Route: {route}" for route in routes), f"Contact: {CONTACT}"])
        usage.answer(SDP, now=0.0)
        (ok,) = agent.take()
        assert ok.headers.get_all("Record-Route") == routes

    def test_second_answer_is_our_error_and_an_answer_after_the_end_is_nothing(self, agent):
        usage = agent.incoming()
        usage.answer(SDP, now=0.0)
        with pytest.raises(LocalProtocolError):
            usage.answer(SDP, now=0.0)
        other = Agent()
        usage = other.incoming()
        other.receive(message("CANCEL"))
        usage.answer(SDP, now=0.0)
        usage.ring(now=0.0)
        usage.hangup(now=0.0)
        assert other.take() == []

    def test_a_phone_that_takes_no_calls_says_480(self):
        assert Agent(accept_calls=False).receive(message("INVITE")) == [480]


class TestOurContact:
    def contact(self, agent, flow, **options):
        usage = agent.incoming(flow, **options)
        usage.answer(SDP, now=0.0)
        return agent.take()[0].headers.get("Contact")

    @pytest.mark.parametrize(
        ("flow", "expected"),
        [
            (UDP, "<sip:192.0.2.2:5060>"),
            (TCP, "<sip:192.0.2.2:5060;transport=tcp>"),
            (TLS, "<sip:192.0.2.2:5061;transport=tls>"),
        ],
    )
    def test_is_the_listener_of_the_same_transport(self, agent, flow, expected):
        assert self.contact(agent, flow) == expected

    def test_names_the_public_host(self):
        agent = Agent(public_host="sip.example.com")
        assert self.contact(agent, UDP) == "<sip:sip.example.com:5060>"

    def test_is_the_flows_local_address_when_bound_to_all(self):
        agent = Agent(listen=[("udp", "0.0.0.0", 5060)])
        assert self.contact(agent, UDP) == "<sip:192.0.2.2:5060>"

    def test_is_sips_when_the_request_was(self, agent):
        assert self.contact(agent, TLS, uri="sips:bob@192.0.2.2") == "<sips:192.0.2.2:5061;transport=tls>"


class TestResponseRouting:
    def sent_to(self, agent, via, flow=UDP):
        agent.receive(message("OPTIONS", via=via), flow)
        return agent.flows[-1], str(agent.sent[-1].top_via)

    def test_without_rport_the_sent_by_port(self, agent):
        source = Flow("udp", US, (PEER[0], 33333))
        flow, via = self.sent_to(agent, "SIP/2.0/UDP 10.0.0.9:5080;branch=z9hG4bK1", source)
        assert flow.remote == (PEER[0], 5080)
        assert via.endswith(f"received={PEER[0]}")

    def test_without_port_5060(self, agent):
        flow, _ = self.sent_to(
            agent, "SIP/2.0/UDP example.com;branch=z9hG4bK1", Flow("udp", US, (PEER[0], 3333))
        )
        assert flow.remote == (PEER[0], 5060)

    def test_with_rport_the_source_port(self, agent):
        source = Flow("udp", US, (PEER[0], 33333))
        flow, via = self.sent_to(agent, "SIP/2.0/UDP 10.0.0.9:5080;rport;branch=z9hG4bK1", source)
        assert flow.remote == (PEER[0], 33333)
        assert "rport=33333" in via
        assert f"received={PEER[0]}" in via

    def test_only_the_first_via_is_touched(self, agent):
        data = message(
            "OPTIONS", via="SIP/2.0/UDP a.example;rport;branch=z9hG4bK1, SIP/2.0/TCP b;branch=z9hG4bK0"
        )
        agent.receive(data)
        vias = agent.sent[-1].headers.values("Via")
        assert vias[1] == "SIP/2.0/TCP b;branch=z9hG4bK0"
        assert "received" in vias[0]

    def test_stream_the_same_connection(self, agent):
        flow, _ = self.sent_to(agent, "SIP/2.0/TCP 10.0.0.9:5080;branch=z9hG4bK1", TCP)
        assert flow == TCP

    def test_closed_stream_is_dialled_back(self, agent):
        usage = agent.incoming(TCP, via="SIP/2.0/TCP 10.0.0.9:5080;branch=z9hG4bK1")
        agent.stack.connection_lost(TCP, now=0.0)
        usage.refuse(486, now=0.0)
        assert agent.take() == []
        (reach,) = agent.reaches
        assert (reach.hops[0].transport, reach.hops[0].host, reach.hops[0].port) == ("tcp", PEER[0], 5080)
        new = Flow("tcp", US, (PEER[0], 5080), 9)
        agent.stack.connection_opened(new)
        agent.stack.reached(reach.key, Way(new), now=0.0)
        assert brief(agent.take()) == [486]
        assert agent.flows[-1] == new


class TestRefusingRequests:
    def test_options_outside_a_dialog(self, agent):
        assert agent.receive(message("OPTIONS", extra=["Max-Forwards: 0"])) == [200]
        headers = agent.sent[0].headers
        assert "INVITE" in headers.values("Allow")
        assert "application/sdp" in headers.values("Accept")
        assert "Supported" in headers
        assert agent.sent[0].to.tag

    @pytest.mark.parametrize(
        ("method", "status"),
        [
            ("REGISTER", 405),
            ("SUBSCRIBE", 405),
            ("PUBLISH", 405),
            ("MESSAGE", 405),
            ("REFER", 405),
            ("FOO", 501),
        ],
    )
    def test_methods_that_we_do_not_serve(self, agent, method, status):
        assert agent.receive(message(method)) == [status]
        assert "INVITE" in agent.sent[0].headers.values("Allow")

    @pytest.mark.parametrize("method", ["BYE", "INFO", "UPDATE", "INVITE", "OPTIONS", "REFER"])
    def test_unknown_dialog(self, agent, method):
        assert agent.receive(message(method, to_tag="unknown")) == [481]
        assert agent.calls == []

    @pytest.mark.parametrize(("event", "status"), [("refer", 481), ("keep-alive", 489)])
    def test_notify_of_no_dialog(self, agent, event, status):
        assert agent.receive(message("NOTIFY", extra=[f"Event: {event}"])) == [status]

    def test_cancel_of_nothing(self, agent):
        assert agent.receive(message("CANCEL")) == [481]

    def test_required_extension(self, agent):
        assert agent.receive(message("INVITE", extra=["Require: 100rel, precondition"])) == [420]
        assert agent.sent[0].headers.values("Unsupported") == ["100rel", "precondition"]

    def test_supported_extension_may_be_required(self):
        assert Agent(supported=("timer",)).receive(message("INVITE", extra=["Require: timer"])) == [100]

    def test_unknown_scheme(self, agent):
        assert agent.receive(message("INVITE", uri="mailto:bob@example.com")) == [416]

    def test_tel_uri_is_a_call(self, agent):
        assert agent.receive(message("INVITE", uri="tel:+15551234567")) == [100]

    def test_merged_request(self, agent):
        """RFC 3261 section 8.2.2.2: the same request by two paths."""
        assert agent.receive(message("INVITE", branch="one")) == [100]
        assert agent.receive(message("INVITE", branch="two")) == [482]
        assert len(agent.calls) == 1

    def test_second_try_after_a_refusal_is_judged_anew(self, agent):
        """A carrier that fails over may come to the same node again."""
        agent.receive(message("INVITE", branch="one"))
        agent.calls[0].refuse(503, now=0.0)
        agent.take()
        assert agent.receive(message("INVITE", branch="two")) == [100]
        assert len(agent.calls) == 2

    @pytest.mark.parametrize(
        ("extra", "status"),
        [
            (["Content-Type: application/foo"], 415),
            (["Content-Type: application/sdp", "Content-Encoding: gzip"], 415),
            (["Content-Type: application/foo", "Content-Disposition: x;handling=optional"], 100),
            (["Content-Type: multipart/mixed;boundary=x"], 100),
            (["Content-Type: application/sdp;charset=utf-8"], 100),
        ],
    )
    def test_bodies(self, agent, extra, status):
        assert agent.receive(message("INVITE", extra=extra, body=SDP)) == [status]

    def test_overload_drops_what_is_new(self):
        agent = Agent(max_transactions=1)
        assert agent.receive(message("INVITE")) == [100]
        assert agent.receive(message("OPTIONS", branch="2", cseq=2)) == []
        assert agent.receive(message("INVITE")) == [100]
        assert agent.stack.counters["overload"] == 1

    def test_garbage_is_answered_or_dropped_and_never_raises(self, agent):
        assert agent.receive(b"\x00" * 40) == []
        assert agent.receive(message("INVITE").replace(b"CSeq: 1 INVITE", b"CSeq: x")) == [400]
        assert agent.receive(message("ACK").replace(b"CSeq: 1 ACK", b"CSeq: x")) == []
        assert agent.stack.counters == {"dropped": 2, "malformed": 1}

    def test_stray_ack_and_responses_are_counted(self, agent):
        assert agent.receive(message("ACK", to_tag="x")) == []
        stray = create_response(parse_message(message("INVITE")), 200, to_tag="x")
        assert agent.receive(stray) == []
        assert agent.stack.counters == {"stray_ack": 1, "stray_response": 1}

    @pytest.mark.parametrize("seed", range(20))
    def test_broken_bytes_never_raise(self, seed):
        agent, dice = Agent(), random.Random(seed)
        usage = agent.confirmed()
        seeds = [
            message("INVITE", branch="n", extra=[f"Contact: {CONTACT}"], body=SDP),
            message("BYE", branch="b", cseq=9, to_tag=usage.dialog.local_tag),
            message("NOTIFY", branch="c", cseq=8, to_tag=usage.dialog.local_tag, extra=["Event: refer"]),
            message("CANCEL"),
            bytes(create_response(usage.invite, 200, to_tag="x")),
        ]
        for _ in range(200):
            data = bytearray(dice.choice(seeds))
            for _ in range(dice.randrange(1, 6)):
                at = dice.randrange(len(data))
                data[at : at + dice.randrange(3)] = bytes([dice.choice(b'\r\n\0;:<>"=, \xff%@z')])
            agent.receive(bytes(data))
            agent.run(until=agent.now + 1)


class TestCancel:
    def test_200_to_the_cancel_and_487_to_the_invite(self, agent):
        usage = agent.incoming()
        usage.ring(now=0.0)
        agent.take()
        reason = 'SIP;cause=200;text="Call completed elsewhere"'
        assert agent.receive(message("CANCEL", extra=[f"Reason: {reason}"])) == [200, 487]
        ok, gone = agent.sent[-2:]
        assert (str(ok.cseq), str(gone.cseq)) == ("1 CANCEL", "1 INVITE")
        assert ok.to.tag == gone.to.tag == usage.dialog.local_tag
        assert agent.told(Cancelled) == [Cancelled(reason)]
        agent.receive(message("ACK", to_tag=gone.to.tag))
        agent.run(until=100)
        assert agent.stack.transaction_count == agent.stack.call_count == 0

    def test_repeated_cancel_gets_the_same_200(self, agent):
        agent.incoming()
        agent.receive(message("CANCEL"))
        assert agent.receive(message("CANCEL")) == [200]
        assert len(agent.told(Cancelled)) == 1

    def test_cancel_that_crosses_the_200_changes_nothing(self, agent):
        usage = agent.incoming()
        usage.answer(SDP, now=0.0)
        agent.take()
        assert agent.receive(message("CANCEL")) == [200]
        assert usage.state == "answered"
        assert agent.told(Cancelled) == []

    def test_bye_before_the_answer_ends_the_invite(self, agent):
        """RFC 3261 section 15.1.2."""
        usage = agent.incoming()
        usage.ring(now=0.0)
        agent.take()
        assert agent.receive(message("BYE", branch="b", cseq=2, to_tag=usage.dialog.local_tag)) == [200, 487]
        assert len(agent.told(Cancelled)) == 1


class TestHangup:
    def test_ringing_is_480(self, agent):
        usage = agent.incoming()
        usage.ring(now=0.0)
        usage.hangup(now=0.0)
        assert brief(agent.take())[-1] == 480

    def test_bye_waits_for_the_ack(self, agent):
        usage = agent.incoming()
        usage.answer(SDP, now=0.0)
        usage.hangup(now=0.1, reason_header="Q.850;cause=16")
        assert brief(agent.take()) == [200]
        assert agent.receive(message("ACK", branch="x", to_tag=usage.dialog.local_tag)) == ["BYE"]
        assert agent.sent[-1].headers.get("Reason") == "Q.850;cause=16"
        (event,) = agent.told(Ended)
        assert (event.ended.cause, event.ended.reason_header) == ("local_bye", "Q.850;cause=16")

    def test_bye_of_the_peer(self, agent):
        usage = agent.confirmed()
        extra = ["Reason: Q.850;cause=16"]
        assert agent.receive(
            message("BYE", branch="b", cseq=2, to_tag=usage.dialog.local_tag, extra=extra)
        ) == [200]
        (event,) = agent.told(Ended)
        assert (event.ended.cause, event.ended.reason_header) == ("remote_bye", "Q.850;cause=16")
        assert agent.receive(message("INFO", branch="i", cseq=3, to_tag=usage.dialog.local_tag)) == [481]
        assert agent.stack.call_count == 0

    def test_bye_stops_the_200(self, agent):
        usage = agent.incoming()
        usage.answer(SDP, now=0.0)
        agent.take()
        agent.receive(message("BYE", branch="b", cseq=2, to_tag=usage.dialog.local_tag))
        assert agent.run(until=60) == []
        assert len(agent.told(Ended)) == 1

    def test_two_byes_that_cross(self, agent):
        usage = agent.confirmed()
        usage.hangup(now=0.0)
        (bye,) = agent.take()
        assert agent.receive(message("BYE", branch="b", cseq=2, to_tag=usage.dialog.local_tag)) == [200]
        agent.receive(create_response(bye, 200))
        assert len(agent.told(Ended)) == 1
        assert agent.stack.call_count == 0


class TestInDialog:
    def request(self, agent, usage, method, *, cseq=2, flow=UDP, **options):
        return agent.receive(
            message(method, branch=f"{method}{cseq}", cseq=cseq, to_tag=usage.dialog.local_tag, **options),
            flow,
        )

    def test_options(self, agent):
        assert self.request(agent, agent.confirmed(), "OPTIONS") == [200]
        assert "Allow" in agent.sent[-1].headers

    def test_cseq_that_does_not_rise(self, agent):
        usage = agent.confirmed()
        assert self.request(agent, usage, "OPTIONS", cseq=5) == [200]
        assert self.request(agent, usage, "OPTIONS", cseq=4) == [500]

    @pytest.mark.parametrize("method", ["INFO", "REFER", "MESSAGE"])
    def test_405_says_what_is_allowed(self, agent, method):
        """RFC 3261 section 8.2.1: a 405 has Allow, and Allow does not name what is refused by it."""
        usage = agent.confirmed()
        self.request(agent, usage, method)
        usage.respond(agent.told(Requested)[0].request, 405, now=0.0)
        (refused,) = agent.take()
        allowed = refused.headers.values("Allow")
        assert "INVITE" in allowed
        assert method not in allowed

    @pytest.mark.parametrize("method", ["INFO", "REFER", "MESSAGE"])
    def test_others_are_the_listeners(self, agent, method):
        usage = agent.confirmed()
        assert self.request(agent, usage, method) == []
        (event,) = agent.told(Requested)
        assert usage.respond(event.request, 200, now=0.0)
        assert brief(agent.take()) == [200]
        assert not usage.respond(event.request, 200, now=0.0)

    def test_unanswered_requests_are_answered_when_the_leg_ends(self, agent):
        usage = agent.confirmed()
        self.request(agent, usage, "INFO")
        assert self.request(agent, usage, "BYE", cseq=3) == [200, 487]

    def test_reinvite(self, agent):
        usage = agent.confirmed()
        moved = "Contact: <sip:moved@198.51.100.8>"
        assert self.request(agent, usage, "INVITE", extra=[moved], body=SDP) == [100]
        (event,) = agent.told(Offered)
        usage.respond(event.request, 200, now=0.0, body=SDP, content_type="application/sdp")
        (ok,) = agent.take()
        assert ok.headers.get("Contact") == "<sip:192.0.2.2:5060>"
        assert agent.run(until=2.0) == [(0.5, 200), (1.5, 200)]
        agent.receive(message("ACK", branch="a2", cseq=2, to_tag=usage.dialog.local_tag))
        assert len(agent.told(Acknowledged)) == 1
        assert len(agent.told(Confirmed)) == 1
        assert agent.run(until=30.0) == []
        usage.hangup(now=30.0)
        assert agent.take()[-1].uri == "sip:moved@198.51.100.8"

    def test_reinvite_refused(self, agent):
        usage = agent.confirmed()
        self.request(agent, usage, "INVITE")
        usage.respond(agent.told(Offered)[0].request, 488, now=0.0)
        assert brief(agent.take()) == [488]
        assert usage.state == "confirmed"

    def test_reinvite_cancelled(self, agent):
        usage = agent.confirmed()
        self.request(agent, usage, "INVITE")
        assert agent.receive(message("CANCEL", branch="INVITE2", cseq=2, to_tag=usage.dialog.local_tag)) == [
            200,
            487,
        ]
        assert usage.state == "confirmed"
        assert not usage.respond(agent.told(Offered)[0].request, 200, now=0.0)

    def test_two_reinvites_at_once(self, agent):
        """RFC 3261 section 14.2: the second is 500 with a Retry-After of at most 10 s."""
        usage = agent.confirmed()
        self.request(agent, usage, "INVITE", cseq=2)
        assert self.request(agent, usage, "INVITE", cseq=3) == [500]
        assert 0 <= int(agent.sent[-1].headers.get("Retry-After")) <= 10

    def test_reinvite_glare(self, agent):
        usage = agent.confirmed()
        usage.request("INVITE", now=0.0, body=SDP, content_type="application/sdp")
        (ours,) = agent.take()
        assert self.request(agent, usage, "INVITE") == [491]
        ok = create_response(ours, 200, headers=[("Contact", CONTACT)])
        assert agent.receive(ok) == ["ACK"]
        assert agent.receive(ok) == ["ACK"]
        assert [event.response.status for event in agent.told(Replied)] == [200]
        assert self.request(agent, usage, "INVITE", cseq=3) == [100]

    def test_481_to_a_notify_ends_only_the_subscription(self, agent):
        usage = agent.confirmed()
        usage.request("NOTIFY", now=0.0, headers=[("Event", "refer")])
        (notify,) = agent.take()
        assert agent.receive(create_response(notify, 481)) == []
        assert usage.state == "confirmed"

    def test_request_that_the_peer_does_not_know_ends_the_leg(self, agent):
        usage = agent.confirmed()
        usage.request("INFO", now=0.0)
        (info,) = agent.take()
        assert agent.receive(create_response(info, 481)) == ["BYE"]
        assert [event.ended.cause for event in agent.told(Ended)] == ["timeout"]


class TestRefer:
    TARGET = "tel:+15551234567"

    def refer(self, agent, usage):
        key = usage.refer(self.TARGET, now=agent.now, referred_by="sip:bob@example.com")
        (request,) = agent.take()
        return key, request

    def notify(self, agent, usage, cseq, event, line="SIP/2.0 200 OK"):
        extra = [f"Event: {event}", "Subscription-State: terminated", "Content-Type: message/sipfrag"]
        return agent.receive(
            message(
                "NOTIFY",
                branch=f"n{cseq}",
                cseq=cseq,
                to_tag=usage.dialog.local_tag,
                extra=extra,
                body=line.encode(),
            )
        )

    def test_request(self, agent):
        _, refer = self.refer(agent, agent.confirmed())
        assert refer.method == "REFER"
        assert refer.headers.get("Refer-To") == f"<{self.TARGET}>"
        assert refer.headers.get("Referred-By") == "<sip:bob@example.com>"
        assert refer.headers.get("Contact") == "<sip:192.0.2.2:5060>"
        assert refer.uri == CONTACT.strip("<>")

    def test_outcome(self, agent):
        usage = agent.confirmed()
        key, refer = self.refer(agent, usage)
        agent.receive(create_response(refer, 202))
        assert [(event.key, event.response.status) for event in agent.told(Replied)] == [(key, 202)]
        assert self.notify(agent, usage, 2, f"refer;id={refer.cseq.number}") == [200]
        assert [event.update.kind for event in agent.told(ReferUpdated)] == ["accepted", "completed"]

    def test_notify_before_the_202(self, agent):
        usage = agent.confirmed()
        _, refer = self.refer(agent, usage)
        assert self.notify(agent, usage, 2, "refer") == [200]
        agent.receive(create_response(refer, 202))
        assert [event.update.kind for event in agent.told(ReferUpdated)] == ["completed"]
        assert len(agent.told(Replied)) == 1

    @pytest.mark.parametrize(("event", "status"), [("refer;id=999", 481), ("presence", 489), ("Refer", 200)])
    def test_notify_of_another_subscription(self, agent, event, status):
        usage = agent.confirmed()
        self.refer(agent, usage)
        assert self.notify(agent, usage, 2, event) == [status]

    def test_notify_without_a_refer(self, agent):
        assert self.notify(agent, agent.confirmed(), 2, "refer") == [481]

    def test_second_refer_while_the_first_is_pending(self, agent):
        usage = agent.confirmed()
        key, refer = self.refer(agent, usage)
        with pytest.raises(ReferPending):
            usage.refer(self.TARGET, now=0.0)
        usage.stop_waiting(key, now=8.0)
        with pytest.raises(ReferPending):
            usage.refer(self.TARGET, now=8.0)
        agent.receive(create_response(refer, 403))
        key, refer = self.refer(agent, usage)
        assert usage.refer_count == 2
        assert self.notify(agent, usage, 2, f"refer;id={refer.cseq.number}", "SIP/2.0 486 Busy") == [200]
        update = agent.told(ReferUpdated)[-1].update
        assert (update.refer, update.kind, update.sip_status) == (2, "failed", 486)

    def test_waits_for_the_ack(self, agent):
        usage = agent.incoming()
        usage.answer(SDP, now=0.0)
        agent.take()
        usage.refer(self.TARGET, now=0.0)
        assert agent.take() == []
        assert agent.receive(message("ACK", branch="x", to_tag=usage.dialog.local_tag)) == ["REFER"]

    def test_given_up_before_the_ack_is_never_sent(self, agent):
        usage = agent.incoming()
        usage.answer(SDP, now=0.0)
        agent.take()
        usage.stop_waiting(usage.refer(self.TARGET, now=0.0), now=8.0)
        assert agent.receive(message("ACK", branch="x", to_tag=usage.dialog.local_tag)) == []
        assert self.refer(agent, usage)

    def test_needs_a_dialog(self, agent):
        with pytest.raises(LocalProtocolError):
            agent.incoming().refer(self.TARGET, now=0.0)

    def test_line_break_in_the_target_is_refused_and_leaves_nothing_pending(self, agent):
        usage = agent.confirmed()
        with pytest.raises(ValueError, match="line break"):
            usage.refer("tel:+1\r\nRoute: <sip:evil>", now=0.0)
        assert self.refer(agent, usage)

    def test_no_answer(self, agent):
        usage = agent.confirmed()
        key, _ = self.refer(agent, usage)
        agent.run(until=40.0)
        assert [(event.key, event.response, event.reason) for event in agent.told(Replied)] == [
            (key, None, "no answer")
        ]
        assert usage.state == "confirmed"

    def test_bye_after_the_202_and_a_notify_after_the_bye(self, agent):
        usage = agent.confirmed()
        _, refer = self.refer(agent, usage)
        agent.receive(create_response(refer, 202))
        agent.receive(message("BYE", branch="b", cseq=2, to_tag=usage.dialog.local_tag))
        assert [event.update.kind for event in agent.told(ReferUpdated)] == [
            "accepted",
            "completed_unconfirmed",
        ]
        assert self.notify(agent, usage, 3, "refer") == [200]
        assert [event.update.kind for event in agent.told(ReferUpdated)] == [
            "accepted",
            "completed_unconfirmed",
            "completed",
        ]
        agent.run(until=100)
        assert agent.stack.call_count == 0


class TestStreams:
    ROUTE = "Record-Route: <sip:203.0.113.9:5061;transport=tls;lr>"

    def test_live_connection_carries_the_request_with_its_routes(self, agent):
        usage = agent.confirmed(TLS, extra=[self.ROUTE, f"Contact: {CONTACT}"])
        usage.hangup(now=0.0)
        (bye,) = agent.take()
        assert agent.flows == [TLS]
        assert bye.headers.get_all("Route") == [self.ROUTE.partition(": ")[2]]
        assert bye.top_via.transport == "TLS"
        assert agent.reaches == []

    def test_closed_connection_is_replaced_by_the_route(self, agent):
        usage = agent.confirmed(TLS, extra=[self.ROUTE, f"Contact: {CONTACT}"])
        agent.stack.connection_lost(TLS, now=0.0)
        usage.hangup(now=0.0)
        assert agent.take() == []
        (reach,) = agent.reaches
        assert (reach.hops[0].transport, reach.hops[0].host, reach.hops[0].port) == (
            "tls",
            "203.0.113.9",
            5061,
        )
        assert reach.peer == PEER[0]
        new = Flow("tls", (US[0], 51111), ("203.0.113.9", 5061), 7)
        agent.stack.connection_opened(new)
        agent.stack.reached(reach.key, Way(new), now=0.1)
        (bye,) = agent.take()
        assert agent.flows == [new]
        # Nobody can reach us at the ephemeral port of a connection that we dialled.
        assert bye.top_via.port == 5061

    def test_connection_that_the_peer_opened_anew_serves_when_the_first_is_gone(self, agent):
        usage = agent.confirmed(TLS, extra=[self.ROUTE, f"Contact: {CONTACT}"])
        agent.receive(message("OPTIONS", branch="o", cseq=2, to_tag=usage.dialog.local_tag), TCP)
        usage.request("INFO", now=0.0)
        agent.take()
        assert agent.flows[-1] == TLS
        agent.stack.connection_lost(TLS, now=1.0)
        agent.take()
        usage.hangup(now=1.0)
        agent.take()
        assert agent.flows[-1] == TCP
        assert agent.reaches == []

    def test_a_peer_whose_nat_moved_it_is_reached_where_its_last_request_came_from(self, agent):
        usage = agent.confirmed(UDP, extra=["Contact: <sip:peer@10.0.0.4:5060>"])
        tag = usage.dialog.local_tag
        moved, forged = (Flow("udp", US, (PEER[0], port)) for port in (61234, 6666))
        agent.receive(message("OPTIONS", branch="o", cseq=5, to_tag=tag), moved)
        # What is not new says nothing of where the peer is.
        assert agent.receive(message("OPTIONS", branch="p", cseq=5, to_tag=tag), forged) == [500]
        notes = []
        usage.tracer = notes.append
        usage.hangup(now=1.0)
        agent.take()
        assert agent.flows[-1] == moved
        (text,) = [note.text for note in notes if isinstance(note, RoutingDecision)]
        assert text == (
            f"sent BYE to udp {PEER[0]}:61234 from the source of the peer's last request; "
            "Contact host 10.0.0.4 is behind a NAT"
        )

    def test_a_contact_that_can_be_reached_is_taken_at_its_word_wherever_requests_come_from(self, agent):
        usage = agent.confirmed(UDP)
        elsewhere = Flow("udp", US, (PEER[0], 61234))
        agent.receive(message("OPTIONS", branch="o", cseq=5, to_tag=usage.dialog.local_tag), elsewhere)
        usage.hangup(now=1.0)
        agent.take()
        assert agent.flows[-1] == UDP

    def test_request_on_a_connection_that_turns_out_dead_goes_the_next_way(self, agent):
        usage = agent.confirmed(TLS, extra=[self.ROUTE, f"Contact: {CONTACT}"])
        usage.refer("tel:+1", now=0.0)
        (first,) = agent.take()
        agent.stack.connection_lost(TLS, now=0.1)
        agent.take()
        (reach,) = agent.reaches
        new = Flow("tls", (US[0], 51111), ("203.0.113.9", 5061), 7)
        agent.stack.connection_opened(new)
        agent.stack.reached(reach.key, Way(new), now=0.2)
        (second,) = agent.take()
        assert second.cseq == first.cseq
        assert second.top_via.branch != first.top_via.branch
        agent.receive(create_response(second, 202), new)
        assert [event.response.status for event in agent.told(Replied)] == [202]

    def test_unreachable_says_what_was_tried(self, agent):
        usage = agent.confirmed(TLS, extra=[self.ROUTE, f"Contact: {CONTACT}"])
        notes = []
        usage.tracer = notes.append
        agent.stack.connection_lost(TLS, now=0.0)
        key = usage.refer("tel:+1", now=0.0)
        agent.take()
        attempt = Attempt("203.0.113.9:5061 from Record-Route", "tls", "Connection refused", 111)
        agent.stack.reached(agent.reaches[0].key, Way(None, (attempt,)), now=3.0)
        agent.take()
        assert agent.told(Replied) == [Replied(key, None, "unreachable", (attempt,))]
        assert "tls 203.0.113.9:5061 from Record-Route: Connection refused" in [
            getattr(note, "text", "") for note in notes
        ]
        assert usage.state == "confirmed"
        assert usage.refer("tel:+1", now=4.0)

    def test_record_route_to_loopback_is_left_to_the_driver_to_refuse(self, agent):
        """A literal UDP hop goes out without the driver, so the stack itself must not take this one."""
        usage = agent.confirmed(extra=["Record-Route: <sip:127.0.0.1:22;lr>", f"Contact: {CONTACT}"])
        usage.hangup(now=0.0)
        assert agent.take() == []
        assert len(agent.reaches) == 1

    def test_connection_with_a_dialog_is_kept_alive(self, agent):
        usage = agent.confirmed(TCP)
        agent.run(until=100.0)
        assert agent.pings == [(30.0, TCP), (60.0, TCP), (90.0, TCP)]
        agent.receive(message("BYE", branch="b", cseq=2, to_tag=usage.dialog.local_tag), TCP)
        agent.run(until=300.0)
        assert len(agent.pings) == 3
        assert agent.stack.next_timer() is None


class TestCalling:
    def place(self, agent, **options):
        usage = agent.stack.invite(
            f"sip:bob@{PEER[0]}", from_uri="sip:alice@example.com", sdp=SDP, now=agent.now, **options
        )
        (invite,) = agent.take()
        return usage, invite

    def respond(self, agent, invite, status, tag="theirs", flow=UDP):
        headers = [("Contact", CONTACT)] if status > 100 else []
        return agent.receive(
            create_response(invite, status, to_tag=tag if status > 100 else None, headers=headers), flow
        )

    def test_invite(self, agent):
        _, invite = self.place(agent, headers=[("X-Test", "1")])
        assert agent.flows == [UDP]
        assert (invite.uri, invite.body) == (f"sip:bob@{PEER[0]}", SDP)
        assert invite.from_.tag
        assert invite.contact.uri.host == US[0]
        assert invite.top_via.has_param("rport")
        assert invite.headers.get("X-Test") == "1"
        assert invite.max_forwards == 70

    def test_answered_and_acknowledged_again_for_each_repeat(self, agent):
        usage, invite = self.place(agent)
        assert self.respond(agent, invite, 100) == []
        assert self.respond(agent, invite, 180) == []
        assert usage.state == "early"
        assert self.respond(agent, invite, 200) == ["ACK"]
        ack = agent.sent[-1]
        assert (ack.uri, str(ack.cseq)) == (CONTACT.strip("<>"), "1 ACK")
        assert ack.top_via.branch != invite.top_via.branch
        assert self.respond(agent, invite, 200) == ["ACK"]
        assert [len(agent.told(kind)) for kind in (Provisional, Answered)] == [1, 1]

    def test_repeat_after_the_transaction_is_gone(self, agent):
        _, invite = self.place(agent)
        self.respond(agent, invite, 200)
        agent.run(until=40.0)
        assert self.respond(agent, invite, 200) == ["ACK"]

    def test_second_fork_is_acknowledged_and_hung_up(self, agent):
        usage, invite = self.place(agent)
        self.respond(agent, invite, 200, "one")
        assert self.respond(agent, invite, 200, "two") == ["ACK", "BYE"]
        assert {request.to.tag for request in agent.sent[-2:]} == {"two"}
        assert usage.state == "confirmed"
        assert len(agent.told(Answered)) == 1

    def test_refused(self, agent):
        _, invite = self.place(agent)
        assert self.respond(agent, invite, 486) == ["ACK"]
        (event,) = agent.told(Refused)
        assert event.response.status == 486
        agent.run(until=100)
        assert agent.stack.call_count == agent.stack.transaction_count == 0

    def test_nobody_answers(self, agent):
        self.place(agent)
        agent.run(until=33.0)
        assert [(event.response, event.reason) for event in agent.told(Refused)] == [(None, "no answer")]

    def test_unreachable(self, agent):
        agent.stack.invite("sip:bob@nowhere.example", from_uri="sip:a@b", sdp=SDP, now=0.0)
        agent.take()
        attempt = Attempt("nowhere.example from Request-URI", "udp", "no address")
        agent.stack.reached(agent.reaches[0].key, Way(None, (attempt,)), now=2.0)
        agent.take()
        assert agent.told(Refused) == [Refused(None, "unreachable", (attempt,))]

    def test_cancel_waits_for_a_provisional_response(self, agent):
        usage, invite = self.place(agent)
        usage.hangup(now=0.1)
        assert agent.take() == []
        assert self.respond(agent, invite, 100) == ["CANCEL"]
        cancel = agent.sent[-1]
        assert cancel.top_via.branch == invite.top_via.branch
        assert str(cancel.cseq) == "1 CANCEL"
        assert cancel.to.tag is None
        agent.receive(create_response(cancel, 200, to_tag="theirs"))
        assert self.respond(agent, invite, 487) == ["ACK"]
        assert [event.response.status for event in agent.told(Refused)] == [487]

    def test_200_that_crosses_the_cancel_is_hung_up(self, agent):
        usage, invite = self.place(agent)
        self.respond(agent, invite, 180)
        usage.hangup(now=0.1)
        assert brief(agent.take()) == ["CANCEL"]
        assert self.respond(agent, invite, 200) == ["ACK", "BYE"]
        assert agent.told(Answered) == []
        assert len(agent.told(Ended)) == 1

    def test_cancelled_call_without_a_final_response_ends(self, agent):
        usage, invite = self.place(agent)
        self.respond(agent, invite, 180)
        usage.hangup(now=0.0)
        agent.run(until=40.0)
        assert len(agent.told(Refused)) == 1
        assert usage.state == "ended"

    def test_cancelled_before_it_was_sent_is_never_sent(self, agent):
        usage = agent.stack.invite("sip:bob@nowhere.example", from_uri="sip:a@b", sdp=SDP, now=0.0)
        agent.take()
        usage.hangup(now=0.1)
        agent.stack.reached(agent.reaches[0].key, Way(UDP), now=2.0)
        assert agent.take() == []
        assert len(agent.told(Refused)) == 1

    def test_bye_of_the_peer(self, agent):
        usage, invite = self.place(agent)
        self.respond(agent, invite, 200)
        bye = message("BYE", branch="b", cseq=1, to_tag=invite.from_.tag, from_tag="theirs")
        assert agent.receive(bye.replace(b"Call-ID: c1", f"Call-ID: {invite.call_id}".encode())) == [200]
        assert [event.ended.cause for event in agent.told(Ended)] == ["remote_bye"]
        assert usage.state == "ended"

    def test_lost_connection_fails_the_call(self, agent):
        agent.stack.invite("sip:bob@192.0.2.77;transport=tcp", from_uri="sip:a@b", sdp=SDP, now=0.0)
        agent.take()
        agent.stack.reached(agent.reaches[0].key, Way(TCP), now=0.1)
        assert brief(agent.take()) == ["INVITE"]
        agent.stack.connection_lost(TCP, now=0.2)
        agent.take()
        assert len(agent.told(Refused)) == 1
