"""Dialogs of RFC 3261 section 12: what the next request says, and what the peer's may."""

import pytest

from offhook.sip.dialog import Dialog
from offhook.sip.headers import Headers
from offhook.sip.message import Request, Response

# As a carrier sends it: two Record-Routes by way of a proxy with two sockets, a private Contact.
RECORD_ROUTES = ["<sip:54.172.60.0:5061;transport=tls;r2=on;lr>", "<sip:54.172.60.0;r2=on;lr>"]
CONTACT = "<sip:+10987654321@172.25.75.240:5060;transport=udp>"


def create_invite(record_routes=RECORD_ROUTES, contact=CONTACT, cseq=29044):
    return Request(
        "INVITE",
        "sip:proj_x@host;transport=tls",
        headers=Headers(
            [
                *(("Record-Route", value) for value in record_routes),
                ("Via", "SIP/2.0/TLS 54.172.60.0:5061;branch=z9hG4bK1"),
                ("From", "<sip:+10987654321@grable.pstn.example.com:5060>;tag=08601002_c3356d0b"),
                ("To", "<sip:+11234567890@host;transport=tls>"),
                ("Call-ID", "fb3e@0.0.0.0"),
                ("CSeq", f"{cseq} INVITE"),
                *([("Contact", contact)] if contact else []),
            ]
        ),
    )


def test_uas_sends_the_routes_in_the_order_received_byte_for_byte():
    bye = Dialog.from_invite(create_invite(), "ours").create_request("BYE")
    assert bye.headers.get_all("Route") == RECORD_ROUTES
    assert bye.uri == "sip:+10987654321@172.25.75.240:5060;transport=udp"


def test_uas_swaps_from_and_to():
    bye = Dialog.from_invite(create_invite(), "ours").create_request("BYE")
    assert bye.headers.get("From") == "<sip:+11234567890@host;transport=tls>;tag=ours"
    assert bye.headers.get("To") == "<sip:+10987654321@grable.pstn.example.com:5060>;tag=08601002_c3356d0b"
    assert bye.headers.get("Call-ID") == "fb3e@0.0.0.0"


@pytest.mark.parametrize("end", [";", " ; "])
def test_a_semicolon_at_the_end_of_to_is_not_doubled(end):
    invite = create_invite()
    invite.headers.set("To", f"<sip:bob@host>{end}")
    assert Dialog.from_invite(invite, "ours").local == "<sip:bob@host>;tag=ours"


def test_record_routes_on_one_line_become_one_route_each():
    dialog = Dialog.from_invite(create_invite([", ".join(RECORD_ROUTES)]), "ours")
    assert dialog.create_request("BYE").headers.get_all("Route") == RECORD_ROUTES


@pytest.mark.parametrize(
    "route",
    ["<sip:+159.65.244.171:5061;transport=tls;lr>", "<sip:10.0.0.1;lr=on;ftag=a-b;did=c.d1;vsf=AAA->"],
)
def test_opaque_routes_come_back_unchanged(route):
    assert Dialog.from_invite(create_invite([route]), "ours").create_request("BYE").headers.get_all(
        "Route"
    ) == [route]


def test_cseq_rises_over_every_request():
    dialog = Dialog.from_invite(create_invite(), "ours")
    numbers = [dialog.create_request(method).cseq.number for method in ("REFER", "INVITE", "BYE")]
    assert numbers == sorted(set(numbers))


def test_uac_reverses_the_routes():
    invite = create_invite(record_routes=[])
    answer = Response(
        200,
        "OK",
        headers=Headers(
            [
                *(("Record-Route", value) for value in RECORD_ROUTES),
                ("From", invite.headers.get("From")),
                ("To", "<sip:+11234567890@host>;tag=theirs"),
                ("Call-ID", "fb3e@0.0.0.0"),
                ("CSeq", "29044 INVITE"),
                ("Contact", "<sip:bob@198.51.100.7>"),
            ]
        ),
    )
    dialog = Dialog.from_response(invite, answer)
    ack = dialog.create_ack(29044)
    assert ack.headers.get_all("Route") == RECORD_ROUTES[::-1]
    assert ack.uri == "sip:bob@198.51.100.7"
    assert str(ack.cseq) == "29044 ACK"
    assert dialog.create_request("BYE").cseq.number == 29045
    assert dialog.id == ("fb3e@0.0.0.0", "08601002_c3356d0b", "theirs")


def test_strict_router_goes_into_the_request_uri():
    """RFC 3261 section 12.2.1.1: a first Route without lr."""
    dialog = Dialog.from_invite(create_invite(["<sip:192.0.2.1>", "<sip:192.0.2.9;lr>"]), "ours")
    bye = dialog.create_request("BYE")
    assert bye.uri == "sip:192.0.2.1"
    assert bye.headers.get_all("Route") == ["<sip:192.0.2.9;lr>", CONTACT]


def test_peers_cseq_must_rise():
    dialog = Dialog.from_invite(create_invite(cseq=10), "ours")

    def request(number):
        return Request("INFO", "sip:x@y", headers=Headers([("CSeq", f"{number} INFO")]))

    assert not dialog.accepts(request(10))
    assert dialog.accepts(request(15))
    assert not dialog.accepts(request(12))
    assert dialog.accepts(request(16))


def test_target_refresh_moves_the_contact_and_never_the_routes():
    dialog = Dialog.from_invite(create_invite(), "ours")
    dialog.refresh_target(create_invite(["<sip:203.0.113.1;lr;twnat=1>"], "<sip:moved@192.0.2.77>"))
    bye = dialog.create_request("BYE")
    assert bye.uri == "sip:moved@192.0.2.77"
    assert bye.headers.get_all("Route") == RECORD_ROUTES


def test_refresh_without_contact_keeps_the_target():
    dialog = Dialog.from_invite(create_invite(), "ours")
    dialog.refresh_target(create_invite(contact=None))
    assert dialog.remote_target == CONTACT.strip("<>")


def test_invite_without_contact_is_reached_by_its_from():
    dialog = Dialog.from_invite(create_invite(contact=None), "ours")
    assert dialog.remote_target == "sip:+10987654321@grable.pstn.example.com:5060"


def test_header_that_would_break_the_line_is_refused():
    dialog = Dialog.from_invite(create_invite(), "ours")
    with pytest.raises(ValueError, match="line break"):
        dialog.create_request("REFER", headers=[("Refer-To", "<tel:+1>\r\nRoute: <sip:evil>")])


@pytest.mark.parametrize("flavour", ["", ";method=REFER"])
def test_strict_router_loses_what_a_request_uri_cannot_have(flavour):
    """RFC 3261 section 12.2.1.1, and the table in section 19.1.1."""
    route = f"<sip:192.0.2.1;ftag=x{flavour}?Subject=a>"
    dialog = Dialog.from_invite(create_invite([route, "<sip:192.0.2.9:5070>"]), "ours")
    bye = dialog.create_request("BYE")
    assert bye.uri == "sip:192.0.2.1;ftag=x"
    assert bye.headers.get_all("Route") == ["<sip:192.0.2.9:5070>", CONTACT]


def test_loose_first_hop_keeps_a_strict_one_behind_it_as_it_is():
    """Section 16.12: the proxy, not we, makes room for the strict router that follows it."""
    routes = ["<sip:192.0.2.9;lr>", "<sip:192.0.2.1>"]
    bye = Dialog.from_invite(create_invite(routes), "ours").create_request("BYE")
    assert f"<{bye.uri}>" == CONTACT
    assert bye.headers.get_all("Route") == routes
