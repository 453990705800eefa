"""The next hop of requests in a dialog, and the reason given for it."""

import pytest

from offhook.sip.dialog import Dialog
from offhook.sip.flow import Flow
from offhook.sip.route import RouteError, hop_for_uri, plan_in_dialog, refusal
from offhook.sip.uri import SipUri

PUBLIC = ("198.51.100.7", 40001)
UDP = Flow("udp", ("203.0.113.1", 5060), PUBLIC)
TLS = Flow("tls", ("203.0.113.1", 5061), PUBLIC, 3)


def dialog(*routes, contact="sip:bob@172.25.75.240:5060;transport=udp"):
    return Dialog("c", "a", "b", "<sip:us>", "<sip:them>", contact, routes, 0, 1)


def only_hop(plan):
    (hop,) = plan.hops
    return hop.transport, hop.host, hop.port, hop.rule


class TestStreams:
    def test_live_connection_comes_before_routes_and_contact(self):
        plan = plan_in_dialog(dialog("<sip:54.172.60.0;lr>"), TLS, alive=True)
        assert plan.flow == TLS
        assert plan.hops == ()
        assert "the INVITE's connection" in plan.text

    def test_dead_connection_gives_way_to_the_first_route(self):
        plan = plan_in_dialog(
            dialog("<sip:54.172.60.0:5061;transport=tls;r2=on;lr>", "<sip:54.172.60.0;r2=on;lr>"),
            TLS,
            alive=False,
        )
        assert only_hop(plan) == ("tls", "54.172.60.0", 5061, "Record-Route")
        assert "connection is gone" in plan.text

    def test_then_to_the_contact(self):
        plan = plan_in_dialog(dialog(contact="sip:x@192.0.2.9:5071;transport=tcp"), TLS, alive=False)
        assert only_hop(plan) == ("tcp", "192.0.2.9", 5071, "Contact")

    def test_contact_without_transport_keeps_that_of_the_invite(self):
        """A call that came encrypted must not go on in clear text for want of a parameter."""
        plan = plan_in_dialog(dialog(contact="sip:x@192.0.2.9"), TLS, alive=False)
        assert only_hop(plan) == ("tls", "192.0.2.9", None, "Contact")

    def test_sips_means_tls(self):
        plan = plan_in_dialog(dialog(contact="sips:x@example.com"), TLS, alive=False)
        assert only_hop(plan) == ("tls", "example.com", None, "Contact")


class TestUdp:
    def test_routes_come_first(self):
        plan = plan_in_dialog(dialog("<sip:192.0.2.1;lr>", "<sip:192.0.2.2;lr>"), UDP, alive=True)
        assert only_hop(plan) == ("udp", "192.0.2.1", None, "Record-Route")

    def test_route_behind_a_nat_is_followed_by_the_source(self):
        """The proxy that wrote the first Route is the one that sent us the INVITE."""
        plan = plan_in_dialog(dialog("<sip:10.0.0.5;lr>"), UDP, alive=True)
        assert [(hop.host, hop.rule) for hop in plan.hops] == [
            ("10.0.0.5", "Record-Route"),
            (PUBLIC[0], "INVITE's source address"),
        ]

    @pytest.mark.parametrize(
        "host",
        ["172.25.75.240", "10.0.0.4", "192.168.1.9", "100.64.3.3", "127.0.0.1", "169.254.1.1", "0.0.0.0"],
    )
    def test_contact_behind_a_nat_gives_way_to_the_source(self, host):
        plan = plan_in_dialog(dialog(contact=f"sip:x@{host}:5060"), UDP, alive=True)
        assert only_hop(plan) == ("udp", *PUBLIC, "INVITE's source address")
        assert "NAT" in plan.text

    def test_ipv6_link_local_contact_too(self):
        flow = Flow("udp", ("2001:db8::1", 5060), ("2001:db8::9", 5060))
        plan = plan_in_dialog(dialog(contact="sip:x@[fe80::1]"), flow, alive=True)
        assert only_hop(plan)[1] == "2001:db8::9"

    def test_routable_contact_is_taken_at_its_word(self):
        plan = plan_in_dialog(dialog(contact="sip:x@192.0.2.50:5080"), UDP, alive=True)
        assert only_hop(plan) == ("udp", "192.0.2.50", 5080, "Contact")

    def test_contact_on_the_source_host_is_taken_with_its_port(self):
        """A peer that sends from an ephemeral port and listens on 5060."""
        private = Flow("udp", ("10.0.0.1", 5060), ("10.0.0.4", 33333))
        plan = plan_in_dialog(dialog(contact="sip:x@10.0.0.4:5060"), private, alive=True)
        assert only_hop(plan) == ("udp", "10.0.0.4", 5060, "Contact")

    def test_contact_by_name_is_tried_before_the_source(self):
        plan = plan_in_dialog(dialog(contact="sip:x@th1"), UDP, alive=True)
        assert [(hop.host, hop.rule) for hop in plan.hops] == [
            ("th1", "Contact"),
            (PUBLIC[0], "INVITE's source address"),
        ]

    @pytest.mark.parametrize("contact", ["tel:+15551234567", "sip:x@192.0.2.5;transport=sctp", "not a uri"])
    def test_unusable_contact_gives_way_to_the_source(self, contact):
        plan = plan_in_dialog(dialog(contact=contact), UDP, alive=True)
        assert only_hop(plan)[3] == "INVITE's source address"

    def test_contact_may_change_the_transport(self):
        plan = plan_in_dialog(dialog(contact="sip:x@192.0.2.50;transport=tcp"), UDP, alive=True)
        assert only_hop(plan) == ("tcp", "192.0.2.50", None, "Contact")


@pytest.mark.parametrize("route", ["<sip:", "<http://192.0.2.1>", "<tel:+1>"])
def test_route_that_names_no_place_is_an_error_with_its_text(route):
    with pytest.raises(RouteError, match="Route"):
        plan_in_dialog(dialog(route), UDP, alive=True)


@pytest.mark.parametrize(
    ("uri", "transport"),
    [
        ("sip:192.0.2.1", "udp"),
        ("sip:example.com:5080", "udp"),
        ("sip:example.com", None),
        ("sip:example.com;transport=TCP", "tcp"),
        ("sips:192.0.2.1", "tls"),
        ("sips:example.com;transport=tcp", "tls"),
        ("sip:[2001:db8::1]", "udp"),
    ],
)
def test_transport_of_a_uri(uri, transport):
    """RFC 3263 section 4.1: the parameter; else UDP for literal addresses and ports; else DNS decides."""
    assert hop_for_uri(SipUri.parse(uri), "Request-URI").transport == transport


@pytest.mark.parametrize(
    ("host", "port", "peer", "fault"),
    [
        ("127.0.0.1", 5060, "198.51.100.7", "loopback"),
        ("::1", 5060, "2001:db8::1", "loopback"),
        ("224.0.1.75", 5060, "198.51.100.7", "one host"),
        ("0.0.0.0", 5060, "198.51.100.7", "one host"),
        ("192.0.2.1", 22, "198.51.100.7", "below 1024"),
        ("127.0.0.1", 22, "127.0.0.1", "below 1024"),
        ("::ffff:127.0.0.1", 5060, "198.51.100.7", "loopback"),
    ],
)
def test_addresses_that_a_peer_must_not_name(host, port, peer, fault):
    assert fault in refusal("tcp", host, port, peer=peer)


@pytest.mark.parametrize(("host", "peer"), [("192.0.2.1", "198.51.100.7"), ("127.0.0.1", "127.0.0.1")])
def test_addresses_that_it_may(host, peer):
    assert refusal("tcp", host, 5060, peer=peer) is None
