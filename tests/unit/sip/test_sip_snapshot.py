"""A dialog as data, from which another process hangs up: RFC 3261 sections 12.2.1.1, 15, 17.2.1 and 18.2.2."""

import itertools
import json

import pytest

from offhook.sip.flow import Flow
from offhook.sip.message import create_response, parse_message
from offhook.sip.outputs import Incoming, Released, Transmit
from offhook.sip.route import Attempt, Way
from offhook.sip.snapshot import SnapshotError, revive, take_snapshot
from offhook.sip.stack import Stack, StackConfig
from offhook.sip.ways import Reach

US, PEER = ("203.0.113.1", 5060), ("198.51.100.7", 5060)
UDP = Flow("udp", US, PEER)
TLS = Flow("tls", ("203.0.113.1", 5061), (PEER[0], 40001), 7)
ROUTES = ("<sip:198.51.100.7;lr;Hint=%41b>", "<sip:10.0.0.1;lr>;x=y")


class Process:
    """A user agent's stack and what it asked of its driver."""

    def __init__(self, *, port=5060, has_udp=True):
        tokens = itertools.count(1)
        self.stack = Stack(StackConfig(), new_token=lambda: f"{next(tokens):08x}")
        if has_udp:
            self.stack.listen("udp", US[0], port)
        self.stack.listen("tls", US[0], 5061)
        self.usage, self.reaches, self.sent, self.released = None, [], [], 0

    def take(self):
        for output in self.stack.outputs():
            match output:
                case Transmit(flow, data):
                    self.sent.append((flow, parse_message(data)))
                case Reach():
                    self.reaches.append(output)
                case Incoming(usage):
                    self.usage = usage
                case Released():
                    self.released += 1
        return self

    def receive(self, method, cseq, flow, *extra, branch=None):
        to = f";tag={self.usage.dialog.local_tag}" if self.usage else ""
        lines = [
            f"{method} sip:proj@203.0.113.1 SIP/2.0",
            f"Via: SIP/2.0/{flow.transport.upper()} 198.51.100.7:5062;branch={branch or f'z9hG4bK{method}{cseq}'}",
            "Via: SIP/2.0/UDP 10.9.9.9;branch=z9hG4bKabove",
            "f: Alice <sip:alice@example.com>;tag=a",
            f"To: <sip:proj@203.0.113.1>{to}",
            "Call-ID: c1",
            f"CSeq: {cseq} {method}",
            *extra,
            "Authorization: Digest response=secret",
            "Content-Length: 0\r\n\r\n",
        ]
        if flow.connection is not None:
            self.stack.connection_opened(flow)
        self.stack.receive("\r\n".join(lines).encode(), flow, now=0.0)
        return self.take()


def before_crash(flow=UDP, *, routes=ROUTES, contact="sip:alice@198.51.100.9:5080;ob=1"):
    process = Process()
    extra = [f"Record-Route: {route}" for route in routes]
    process.receive("INVITE", 41, flow, *extra, f"m: <{contact}>")
    process.usage.ring(now=0.0)
    return process.take()


def answered(**options):
    process = before_crash(**options)
    process.usage.answer(b"v=0\r\n", now=0.0)
    flow = options.get("flow", UDP)
    process.take().receive("ACK", 41, flow)
    return process


def after_crash(process, **options):
    """What another process makes of the snapshot, which has gone through JSON."""
    snapshot = json.loads(json.dumps(take_snapshot(process.usage)))
    assert "secret" not in json.dumps(snapshot)
    new = Process(**options)
    new.usage = revive(new.stack, snapshot, now=100.0)
    return new


def test_the_bye_is_one_that_the_old_process_could_have_sent():
    old = answered()
    old.usage.request("INFO", now=0.0)
    old.take()
    new = after_crash(old)
    new.usage.hangup(now=100.0, reason_header="Q.850;cause=41")
    new.take()
    old.usage.hangup(now=1.0, reason_header="Q.850;cause=41")
    old.take()
    (flow, bye), (_, expected) = new.sent[-1], old.sent[-1]
    assert (bye.method, bye.uri) == ("BYE", "sip:alice@198.51.100.9:5080;ob=1")
    for name in ("From", "To", "Call-ID", "Reason"):
        assert bye.headers.get(name) == expected.headers.get(name)
    assert bye.headers.get_all("Route") == list(ROUTES)
    assert bye.cseq.number > expected.cseq.number
    assert flow == Flow("udp", US, PEER)

    new.stack.receive(bytes(create_response(bye, 481)), flow, now=100.1)
    assert new.take().released == 1
    assert new.stack.is_settled


def test_the_peers_last_contact_and_source_count():
    """A re-INVITE's Contact is the new target; a NAT's new port is where requests without a route go."""
    old = answered(routes=(), contact="sip:alice@10.1.1.1")
    moved = Flow("udp", US, (PEER[0], 6060))
    old.receive("UPDATE", 42, moved, "Contact: <sip:alice@10.1.1.2>")
    old.usage.respond(old.usage._open[0].request, 200, now=0.0)
    new = after_crash(old)
    new.usage.hangup(now=100.0)
    flow, bye = new.take().sent[-1]
    assert bye.uri == "sip:alice@10.1.1.2"
    assert flow.remote == moved.remote
    # What the peer sends in the dialog is still judged by its CSeq.
    new.receive("BYE", 43, moved)
    assert new.sent[-1][1].status == 200


def test_another_port_of_ours_will_do():
    new = after_crash(answered(), port=5090)
    new.usage.hangup(now=100.0)
    flow, bye = new.take().sent[-1]
    assert flow.local == (US[0], 5090)
    assert bye.top_via.port == 5090


def test_without_a_udp_socket_the_driver_is_asked_and_says_so():
    """It was configured away: nothing may be said to be sent that never left."""
    new = after_crash(answered(), has_udp=False)
    new.usage.hangup(now=100.0)
    (reach,) = new.take().reaches
    assert not new.sent
    new.stack.reached(reach.key, Way(None, (Attempt("udp", "", "no UDP listener for IPv4"),)), now=100.1)
    assert new.take().released == 1


def test_over_tls_a_new_connection_is_made_by_the_routing_rules():
    old = answered(flow=TLS, routes=(), contact="sip:alice@198.51.100.7:5071;transport=tls")
    old.usage.tls_hostname = "edge.example.net"
    new = after_crash(old)
    new.usage.hangup(now=100.0)
    (reach,) = new.take().reaches
    (hop,) = reach.hops
    assert (hop.transport, hop.host, hop.port, reach.tls_hostname) == (
        "tls",
        "198.51.100.7",
        5071,
        "edge.example.net",
    )
    dialled = Flow("tls", (US[0], 50000), ("198.51.100.7", 5071), 1)
    new.stack.connection_opened(dialled)
    new.stack.reached(reach.key, Way(dialled, (), "Contact"), now=100.1)
    flow, bye = new.take().sent[-1]
    assert (flow, bye.method) == (dialled, "BYE")


def test_a_call_that_rang_is_refused_until_the_ack_comes():
    new = after_crash(before_crash())
    assert new.usage.state == "early"
    new.usage.refuse(503, now=100.0)
    flow, refusal = new.take().sent[-1]
    assert (refusal.status, refusal.to.tag) == (503, new.usage.dialog.local_tag)
    assert [via.branch for via in refusal.vias] == ["z9hG4bKINVITE41", "z9hG4bKabove"]
    assert flow.remote == (PEER[0], 5062)
    new.stack.handle_timer(now=100.6)
    assert len(new.take().sent) == 2
    new.receive("ACK", 41, UDP, branch="z9hG4bKINVITE41")
    new.stack.handle_timer(now=103.0)
    assert len(new.take().sent) == 2
    assert new.released == 1


def test_one_that_was_answered_after_the_last_snapshot_is_hung_up():
    """A peer with a 2xx takes no other response up and sends it no ACK (RFC 6026 section 7.2)."""
    old = before_crash()
    new = after_crash(old)
    new.usage.refuse(503, now=100.0)
    new.take().stack.handle_timer(now=100.9)
    assert new.take().sent[-1][1].status == 503
    assert not new.released
    new.stack.handle_timer(now=101.0)
    flow, bye = new.take().sent[-1]
    assert (flow.remote, bye.method, bye.uri) == (PEER, "BYE", "sip:alice@198.51.100.9:5080;ob=1")
    assert bye.headers.get("From") == f"<sip:proj@203.0.113.1>;tag={old.usage.dialog.local_tag}"
    assert "no ACK to the refusal" in bye.headers.get("Reason")
    new.stack.receive(bytes(create_response(bye, 200)), flow, now=101.1)
    assert new.take().released == 1


def test_a_cancel_or_bye_that_crosses_the_refusal_harms_nobody():
    for method, statuses in (("CANCEL", {200}), ("BYE", {200})):
        new = after_crash(before_crash())
        new.usage.refuse(503, now=100.0)
        cseq, branch = (41, "z9hG4bKINVITE41") if method == "CANCEL" else (42, None)
        new.take().receive(method, cseq, UDP, branch=branch)
        assert {m.status for _, m in new.sent if m.cseq.method == method} == statuses
        assert [m.status for _, m in new.sent if m.cseq.method == "INVITE"] == [503]


def test_over_tls_the_refusal_goes_to_the_via_and_a_bye_by_the_routing_rules():
    new = after_crash(before_crash(flow=TLS, routes=(), contact="sip:a@198.51.100.7:5071;transport=tls"))
    new.usage.refuse(503, now=100.0)
    new.take().stack.handle_timer(now=101.0)
    refusal, bye = new.take().reaches
    assert [(hop.transport, hop.host, hop.port) for hop in refusal.hops] == [("tls", PEER[0], 5062)]
    assert [(hop.transport, hop.host, hop.port) for hop in bye.hops] == [("tls", PEER[0], 5071)]


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"headers": [["From", "x"]]}, {"remote": "nowhere"}, {"local_seq": None}]
)
def test_what_is_no_snapshot_is_an_error(change):
    snapshot = take_snapshot(answered().usage) | change
    with pytest.raises(SnapshotError):
        revive(Process().stack, snapshot, now=0.0)
