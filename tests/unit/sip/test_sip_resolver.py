"""RFC 3263 against a zone in a dict."""

from types import SimpleNamespace

import pytest

from offhook.sip.resolver import Resolver, UnresolvableError
from offhook.sip.route import Hop


def a(address):
    return SimpleNamespace(address=address)


def srv(priority, port, target, weight=1):
    return SimpleNamespace(priority=priority, weight=weight, port=port, target=f"{target}.")


def naptr(order, service):
    return SimpleNamespace(order=order, preference=10, service=service.encode())


ZONE = {
    ("example.com", "NAPTR"): [naptr(20, "SIP+D2U"), naptr(10, "SIP+D2T"), naptr(5, "E2U+email")],
    ("_sip._tcp.example.com", "SRV"): [
        srv(20, 5070, "backup.example.com"),
        srv(10, 5080, "main.example.com"),
    ],
    ("_sip._udp.example.com", "SRV"): [srv(10, 5060, "udp.example.com")],
    ("_sips._tcp.example.com", "SRV"): [srv(10, 5061, "main.example.com")],
    ("main.example.com", "A"): [a("192.0.2.10")],
    ("main.example.com", "AAAA"): [a("2001:db8::10")],
    ("backup.example.com", "A"): [a("192.0.2.20")],
    ("udp.example.com", "A"): [a("192.0.2.30")],
    ("plain.example.net", "A"): [a(f"192.0.2.{n}") for n in range(40, 50)],
    ("two.example.org", "NAPTR"): [naptr(10, "SIP+D2T"), naptr(20, "SIP+D2U")],
    ("_sip._tcp.two.example.org", "SRV"): [srv(10, 5060, "t.example.org")],
    ("_sip._udp.two.example.org", "SRV"): [srv(10, 5060, "u.example.org")],
    ("t.example.org", "A"): [a("192.0.2.70")],
    ("u.example.org", "A"): [a("192.0.2.71")],
    ("broken.example.net", "A"): [a("192.0.2.60")],
    ("_sip._udp.broken.example.net", "SRV"): [srv(10, 5060, "gone.invalid")],
}
ASKED = []


async def query(name, record_type):
    ASKED.append((name, record_type))
    return ZONE.get((name, record_type), [])


async def resolve(host, *, transport=None, port=None, secure=False):
    ASKED.clear()
    targets = await Resolver(query).resolve(Hop(transport, host, port, "Contact", secure))
    return [(target.transport, target.host, target.port) for target in targets]


@pytest.mark.parametrize(
    ("transport", "host", "port", "expected"),
    [
        ("udp", "192.0.2.1", None, ("udp", "192.0.2.1", 5060)),
        ("tls", "192.0.2.1", None, ("tls", "192.0.2.1", 5061)),
        ("tcp", "2001:db8::1", 5070, ("tcp", "2001:db8::1", 5070)),
        (None, "192.0.2.1", None, ("udp", "192.0.2.1", 5060)),
    ],
)
async def test_literal_addresses_ask_nobody(transport, host, port, expected):
    assert await resolve(host, transport=transport, port=port) == [expected]
    assert ASKED == []


async def test_naptr_chooses_the_transport_and_srv_the_order():
    assert await resolve("example.com") == [
        ("tcp", "192.0.2.10", 5080),
        ("tcp", "2001:db8::10", 5080),
        ("tcp", "192.0.2.20", 5070),
    ]


async def test_targets_of_the_next_transport_follow_when_there_is_room():
    """RFC 3263 section 4.3: one request may fail over from one service to another."""
    assert await resolve("two.example.org") == [("tcp", "192.0.2.70", 5060), ("udp", "192.0.2.71", 5060)]


async def test_sips_takes_tls_only():
    assert await resolve("example.com", secure=True) == [
        ("tls", "192.0.2.10", 5061),
        ("tls", "2001:db8::10", 5061),
    ]


async def test_named_transport_needs_no_naptr():
    assert await resolve("example.com", transport="udp") == [("udp", "192.0.2.30", 5060)]
    assert ("example.com", "NAPTR") not in ASKED


async def test_port_needs_no_srv():
    assert await resolve("main.example.com", transport="tls", port=5099) == [
        ("tls", "192.0.2.10", 5099),
        ("tls", "2001:db8::10", 5099),
    ]
    assert {record_type for _, record_type in ASKED} == {"A", "AAAA"}


async def test_no_srv_means_the_names_own_addresses_at_most_three():
    assert await resolve("plain.example.net") == [("udp", f"192.0.2.{n}", 5060) for n in (40, 41, 42)]


async def test_srv_whose_target_is_gone_falls_back_to_the_name():
    assert await resolve("broken.example.net", transport="udp") == [("udp", "192.0.2.60", 5060)]


async def test_certificate_must_show_the_name_that_was_asked_for():
    """RFC 5922 section 4: not the SRV target, which anybody who forges DNS could name."""
    targets = await Resolver(query).resolve(Hop("tls", "example.com", None, "Route", True))
    assert {target.name for target in targets} == {"example.com"}


async def test_name_without_addresses():
    with pytest.raises(UnresolvableError, match=r"nowhere\.invalid has no address"):
        await resolve("nowhere.invalid", transport="udp")


async def test_hosts_file_is_read():
    assert ("udp", "127.0.0.1", 5060) in await resolve("localhost", transport="udp")
