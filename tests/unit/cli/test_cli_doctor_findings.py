"""Every finding of the doctor's: from which facts it comes, how bad it is, and what it says would help."""

from __future__ import annotations

from typing import Any

import pytest

from offhook.cli.doctor.facts import (
    AddressFacts,
    CertificateFacts,
    ClockFacts,
    DatabaseFacts,
    Facts,
    FirewallFacts,
    LimitFacts,
    ModelFacts,
    NameFacts,
    NodeFacts,
    PortFacts,
    RehearsalFacts,
    WebhookFacts,
)
from offhook.cli.doctor.judge import covers, judge, summarise
from offhook.cli.doctor.verdict import Finding

GB = 1024**3
MB = 1024**2
NODE = NodeFacts("http://127.0.0.1:8080", ready=True)


def findings(**facts: Any) -> list[Finding]:
    found = list(judge(Facts(**facts)))
    assert all(one.remedy for one in found if one.level != "ok"), (
        "each warning and fault says what would help"
    )
    assert all(one.text for one in found)
    return found


def the_one(level: str, check: str, **facts: Any) -> Finding:
    """Return the only finding of that level."""
    found = [one for one in findings(**facts) if one.level == level]
    assert [one.check for one in found] == [check], found
    return found[0]


def addresses(**changed: Any) -> AddressFacts:
    given: dict[str, Any] = {
        "listen": (("udp", "8.8.8.8"),),
        "public_host": "",
        "bind": "8.8.8.8",
        "sdp_host": "8.8.8.8",
        "interfaces": frozenset({"127.0.0.1", "8.8.8.8"}),
        "outside": ("twilio (proj_x)",),
    }
    return AddressFacts(**(given | changed))


def certificate(**changed: Any) -> CertificateFacts:
    given: dict[str, Any] = {
        "cert": "cert.pem",
        "key": "key.pem",
        "development": False,
        "days_left": 60.0,
        "names": ("sip.example.net", "*.example.org"),
        "chain": 2,
    }
    return CertificateFacts(**(given | changed))


def limits(**changed: Any) -> LimitFacts:
    given: dict[str, Any] = {
        "max_concurrent": 400,
        "files": 65_536,
        "hard_files": 65_536,
        "receive_buffer": 4 * MB,
        "rmem_max": 8 * MB,
        "port_pairs": 499,
    }
    return LimitFacts(**(given | changed))


def database(**changed: Any) -> DatabaseFacts:
    given: dict[str, Any] = {
        "url": "sqlite",
        "path": "data/offhook.db",
        "exists": True,
        "revision": "0001",
        "newest": "0001",
        "free_bytes": 50 * GB,
        "bytes": 3 * MB,
    }
    return DatabaseFacts(**(given | changed))


# Ports.


@pytest.mark.parametrize(
    ("state", "holder", "text", "remedy"),
    [
        ("held", "asterisk (process 7)", "taken by asterisk (process 7)", "another port for sip.listen"),
        ("held", "", "taken by a program of another user", "another port"),
        ("no_address", "", "does not have that address", "media.public_ip"),
        ("not_allowed", "", "may not take that port", "CAP_NET_BIND_SERVICE"),
        ("failed", "", "odd trouble", "sip.listen"),
    ],
)
def test_a_port_that_cannot_be_had(state: Any, holder: str, text: str, remedy: str) -> None:
    port = PortFacts("sip.listen", "udp:192.0.2.1:5060", state, holder, "odd trouble")
    found = the_one("fault", "ports", ports=(port,))
    assert text in found.text
    assert remedy in found.remedy


def test_ports_that_a_running_node_has_are_well_and_those_of_others_are_not() -> None:
    held = PortFacts("sip.listen", "udp:0.0.0.0:5060", "held", "offhook (process 9)")
    assert [one.level for one in findings(ports=(held,), node=NODE)] == ["ok", "ok"]
    foreign = PortFacts("sip.listen", "udp:0.0.0.0:5060", "held", "kamailio (process 9)")
    assert "kamailio" in the_one("fault", "ports", ports=(foreign,), node=NODE).text
    assert the_one("fault", "ports", ports=(held,))  # some offhook, but it does not answer here


def test_a_free_port_is_well() -> None:
    free = PortFacts("server.http", "tcp:127.0.0.1:8080", "free")
    assert [one.level for one in findings(ports=(free,))] == ["ok"]


# A node that runs.


def test_what_a_running_node_says() -> None:
    node = NodeFacts(
        "http://127.0.0.1:8080",
        ready=False,
        reasons=("the engine is not warm",),
        warnings=("the database cannot be written",),
        registrations=(("carrier", "failed", "403 Forbidden"), ("other", "registered", "")),
    )
    found = findings(node=node)
    assert [one.level for one in found] == ["fault", "warning", "warning", "ok"]
    assert "the engine is not warm" in found[0].text
    assert "403 Forbidden" in found[2].text
    assert "register" in found[2].remedy


# Addresses and NAT.


@pytest.mark.parametrize(
    ("changed", "text", "remedy"),
    [
        ({"listen": (("udp", "127.0.0.1"),)}, "come from outside", "0.0.0.0"),
        ({"sdp_host": "127.0.0.1", "bind": "127.0.0.1"}, "nobody would hear", "media.public_ip"),
        ({"sdp_host": "10.0.0.5", "bind": "10.0.0.5"}, "not a public address", "media.public_ip"),
        ({"bind": "127.0.0.1"}, "no packet from outside", "media.bind"),
        ({"listen": (("udp", "10.0.0.5"),)}, "Contact names 10.0.0.5", "sip.public_host"),
        (
            {"listen": (("udp", "0.0.0.0"),), "interfaces": frozenset({"127.0.0.1", "10.0.0.5"})},
            "no public address",
            "sip.public_host",
        ),
        ({"public_host": "127.0.0.1"}, "to themselves", "reach this machine"),
        ({"sdp_host": "0.0.0.0"}, "is no address", "media.public_ip"),
    ],
)
def test_an_address_that_peers_cannot_use(changed: dict[str, Any], text: str, remedy: str) -> None:
    found = the_one("fault", "addresses", addresses=addresses(**changed))
    assert text in found.text
    assert remedy in found.remedy


def test_a_name_and_an_address_of_two_machines_are_warned_of() -> None:
    facts = addresses(
        public_host="sip.example.net", public_host_addresses=frozenset({"8.8.8.9", "2001:db8::9"})
    )
    found = the_one("warning", "addresses", addresses=facts)
    assert "8.8.8.9" in found.text
    assert "DNS" in found.remedy


def test_a_node_behind_nat_is_well_and_told_what_to_forward() -> None:
    facts = addresses(
        listen=(("udp", "10.0.0.5"),),
        public_host="8.8.4.4",
        sdp_host="8.8.4.4",
        bind="10.0.0.5",
        interfaces=frozenset({"127.0.0.1", "10.0.0.5"}),
    )
    found = findings(addresses=facts)
    assert {one.level for one in found} == {"ok"}
    assert "NAT" in found[0].text
    assert "forward media.ports" in found[0].remedy


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"outside": (), "listen": (("udp", "127.0.0.1"),), "sdp_host": "127.0.0.1", "bind": "127.0.0.1"},
        {"outside": (), "listen": (("udp", "10.0.0.5"),), "sdp_host": "10.0.0.5", "bind": "10.0.0.5"},
        {"listen": (("udp", "0.0.0.0"),), "interfaces": frozenset({"8.8.4.4"}), "sdp_host": "8.8.4.4"},
    ],
)
def test_addresses_that_are_well(changed: dict[str, Any]) -> None:
    assert {one.level for one in findings(addresses=addresses(**changed))} == {"ok"}


# The packet filter.

WANTED = (("udp", 5060, 5060), ("tcp", 5061, 5061), ("udp", 20000, 20998))


def test_a_filter_that_drops_the_ports_is_warned_of() -> None:
    rules = "-P INPUT DROP\n-A INPUT -p udp -m udp --dport 5060 -j ACCEPT\n"
    found = the_one("warning", "firewall", firewall=FirewallFacts(True, True, rules, WANTED))
    assert "udp 20000-20998" in found.text
    assert "tcp 5061" in found.text
    assert "udp 5060," not in found.text
    assert "udp 5060" in found.remedy


@pytest.mark.parametrize(
    "rules",
    [
        "-P INPUT DROP\n-A INPUT -p udp -m udp --dport 5060 -j ACCEPT\n-A INPUT -p udp --dport 20000:20998 -j ACCEPT\n"
        "-A INPUT -p tcp -m tcp --dport 5061 -j ACCEPT\n",
        "type filter hook input priority 0; policy drop;\nudp dport 5060 accept\nudp dport { 20000-21000 } accept\n"
        "tcp dport 5061 accept\n",
    ],
)
def test_a_filter_with_rules_for_the_ports_is_well(rules: str) -> None:
    assert findings(firewall=FirewallFacts(True, True, rules, WANTED))[0].level == "ok"


def test_a_filter_that_cannot_be_seen_is_said() -> None:
    found = findings(firewall=FirewallFacts(False, wanted=WANTED))[0]
    assert found.level == "ok"
    assert "cannot see" in found.text
    assert "udp 20000-20998" in found.remedy
    assert findings(firewall=FirewallFacts(True, wanted=WANTED))[0].level == "ok"


# Names.


def test_a_name_without_an_address() -> None:
    name = NameFacts("sip.example.net", "the registrar of trunk x", error="Name or service not known")
    found = the_one("fault", "dns", names=(name,))
    assert "the registrar of trunk x" in found.text
    assert "resolv.conf" in found.remedy
    well = NameFacts("x.net", "the registrar of trunk x", ("192.0.2.1",), ("tls port 5061",))
    assert "192.0.2.1, by tls port 5061" in findings(names=(well,))[0].text


# The certificate.


@pytest.mark.parametrize(
    ("level", "changed", "text", "remedy"),
    [
        ("fault", {"error": "key.pem: No such file"}, "cannot be used: key.pem", "full chain and its key"),
        ("fault", {"key_matches": False}, "not the key of", "made together"),
        ("fault", {"days_left": -2.0}, "ended 2.0 days ago", "Renew"),
        ("fault", {"days_left": 0.5}, "in 12 hours", "Renew"),
        ("warning", {"days_left": 6.0}, "this week", "Renew"),
        ("warning", {"days_left": 20.0}, "ends in 20 days", "Renew"),
        ("fault", {"begins_in_days": 1.5}, "not valid yet", "clock"),
        (
            "fault",
            {"issuers_days_left": -3.0},
            "that signed it, in cert.pem, ended 3.0 days ago",
            "full chain",
        ),
        (
            "warning",
            {"issuers_days_left": 5.0},
            "that signed it, in cert.pem, ends in 5.0 days",
            "full chain",
        ),
        ("warning", {"self_signed": True}, "signed by itself", "public CA"),
        ("warning", {"chain": 1}, "alone", "fullchain.pem"),
        ("warning", {"in_order": False}, "do not follow", "server's first"),
        ("warning", {"public_host": "pbx.example.com"}, "not for pbx.example.com", "sip.public_host"),
        ("fault", {"public_host": "pbx.example.com", "tls_outside": True}, "not for", "sip.public_host"),
        (
            "warning",
            {"development": True, "tls_outside": True, "ca": "ca.pem"},
            "development CA",
            "public CA",
        ),
    ],
)
def test_a_certificate_that_is_not_well(level: str, changed: dict[str, Any], text: str, remedy: str) -> None:
    found = the_one(level, "certificate", certificate=certificate(**changed))
    assert text in found.text
    assert remedy in found.remedy


@pytest.mark.parametrize(
    "changed",
    [
        {"public_host": "sip.example.net"},
        {"public_host": "a.example.org", "days_left": 22.0},
        {"development": True, "ca": "ca.pem"},
        {"development": True, "ca": "ca.pem", "absent": True, "days_left": 0.0},
    ],
)
def test_a_certificate_that_is_well(changed: dict[str, Any]) -> None:
    assert {one.level for one in findings(certificate=certificate(**changed))} == {"ok"}


@pytest.mark.parametrize(
    ("pattern", "host", "whether"),
    [
        ("sip.example.net", "SIP.example.net.", True),
        ("*.example.net", "sip.example.net", True),
        ("*.example.net", "a.b.example.net", False),
        ("*.example.net", "example.net", False),
        ("*.net", "example.net", False),
        ("2001:db8::1", "[2001:db8::1]", True),
    ],
)
def test_which_names_a_certificate_is_for(pattern: str, host: str, whether: bool) -> None:
    assert covers(pattern, host) is whether


# The clock.


@pytest.mark.parametrize(
    ("level", "skew_s", "text"),
    [("fault", 400.0, "400 s ahead"), ("fault", -400.0, "400 s behind"), ("warning", 30.0, "30 s ahead")],
)
def test_a_clock_that_is_off(level: str, skew_s: float, text: str) -> None:
    found = the_one(level, "clock", clock=ClockFacts(skew_s, "api.example.net"))
    assert text in found.text
    assert "timedatectl" in found.remedy


def test_a_clock_that_nothing_keeps_is_warned_of_unless_it_is_seen_to_be_right() -> None:
    found = the_one("warning", "clock", clock=ClockFacts(synchronised=False))
    assert "timedatectl" in found.remedy
    assert findings(clock=ClockFacts(0.2, "api.example.net", synchronised=False))[0].level == "ok"


@pytest.mark.parametrize(
    ("clock", "text"),
    [
        (ClockFacts(0.4, "api.example.net"), "agrees"),
        (ClockFacts(), "cannot be told"),
        (ClockFacts(synchronised=True), "synchronised"),
    ],
)
def test_a_clock_that_is_well_or_unknown(clock: ClockFacts, text: str) -> None:
    found = findings(clock=clock)
    assert [one.level for one in found] == ["ok"]
    assert text in found[0].text


# Limits.


@pytest.mark.parametrize(
    ("level", "changed", "text", "remedy"),
    [
        ("fault", {"files": 256}, "not even enough", "LimitNOFILE=2600"),
        ("warning", {"files": 1024}, "may want 2600", "LimitNOFILE=2600"),
        ("warning", {"port_pairs": 10}, "10 pairs for 400 calls", "media.ports"),
        ("warning", {"rmem_max": 212_992}, "208 kB of the 4096 kB", "net.core.rmem_max=4194304"),
        ("warning", {"config_mode": 0o100644, "config_path": "o.toml"}, "mode 644", "chmod 600 o.toml"),
    ],
)
def test_a_limit_that_is_too_low(level: str, changed: dict[str, Any], text: str, remedy: str) -> None:
    # 1024 descriptors are few for 400 calls, and none too few for their sound.
    found = the_one(level, "limits", limits=limits(**changed))
    assert text in found.text
    assert remedy in found.remedy


@pytest.mark.parametrize(
    "changed", [{}, {"rmem_max": None}, {"config_mode": 0o100600, "config_path": "o.toml"}]
)
def test_limits_that_are_well(changed: dict[str, Any]) -> None:
    assert {one.level for one in findings(limits=limits(**changed))} == {"ok"}


# The database.


@pytest.mark.parametrize(
    ("level", "changed", "text", "remedy"),
    [
        ("warning", {"url": "none"}, "forgets every call", "sqlite"),
        ("fault", {"error": "file is not a database"}, "not a database", "moved away"),
        ("fault", {"writable": False}, "cannot be written", "chown"),
        ("fault", {"locked": True}, "is locked", "End what holds it"),
        ("fault", {"known": False, "revision": "9999"}, "newer version", "Run that version"),
        ("fault", {"free_bytes": 50 * MB}, "50 MB", "Free some space"),
        ("warning", {"free_bytes": 500 * MB}, "500 MB", "Free some space"),
        ("warning", {"wal_bytes": 900 * MB}, "wal has grown", "End it"),
    ],
)
def test_a_database_that_is_not_well(level: str, changed: dict[str, Any], text: str, remedy: str) -> None:
    found = the_one(level, "database", database=database(**changed))
    assert text in found.text
    assert remedy in found.remedy


@pytest.mark.parametrize("changed", [{}, {"exists": False, "revision": None}, {"revision": None}])
def test_a_database_that_is_well(changed: dict[str, Any]) -> None:
    assert {one.level for one in findings(database=database(**changed))} == {"ok"}


# Models.

WORKS: dict[str, Any] = {
    "load_s": 4.0,
    "speak_ms": 100.0,
    "hear_ms": 900.0,
    "seconds": 2.5,
    "heard": "Hello, this is a test.",
}


@pytest.mark.parametrize(
    ("level", "changed", "text", "remedy"),
    [
        ("fault", {"error": "no module named ctranslate2"}, "cannot start: no module", "offhook[local]"),
        ("fault", {"brain_error": "401"}, "does not answer: 401", "engine.brain"),
        ("fault", {**WORKS, "heard": " "}, "understands nothing", "data_dir/models"),
        ("warning", {**WORKS, "hear_ms": 4000.0}, "slower than speech", "upstream"),
    ],
)
def test_models_that_are_not_well(level: str, changed: dict[str, Any], text: str, remedy: str) -> None:
    found = the_one(level, "models", models=(ModelFacts("local", **changed),))
    assert text in found.text
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("kind", "text", "remedy"),
    [
        ("scripted", "the scripted engine cannot start: engine.script = 'x'", "engine.script empty"),
        ("sentence", "engine.script = 'x'", "built-in sentence"),
    ],
)
def test_a_file_that_stops_the_start(kind: str, text: str, remedy: str) -> None:
    found = the_one("fault", "models", models=(ModelFacts(kind, error="engine.script = 'x'"),))
    assert found.text == text
    assert remedy in found.remedy


@pytest.mark.parametrize("changed", [WORKS, {"load_s": 1.0}, {"skipped": "has no models"}])
def test_models_that_are_well(changed: dict[str, Any]) -> None:
    assert {one.level for one in findings(models=(ModelFacts("local", **changed),))} == {"ok"}


# Webhooks.


@pytest.mark.parametrize(
    ("level", "changed", "text", "remedy"),
    [
        ("fault", {"error": "no address", "kind": "dns"}, "no address", "host of the URL"),
        ("fault", {"error": "refused", "kind": "connect"}, "refused", "Start the app"),
        ("fault", {"error": "expired", "kind": "tls"}, "expired", "certificate"),
        ("fault", {"error": "late", "kind": "timeout"}, "late", "log"),
        ("fault", {"error": "odd", "kind": "protocol"}, "odd", "log"),
        ("fault", {"error": "private", "kind": "refused"}, "private", "webhooks.allow_private"),
        ("fault", {"sent": True, "status": 401}, "answered 401", "OPENAI_WEBHOOK_SECRET"),
        ("fault", {"sent": True, "status": 302}, "redirects", "final URL"),
        ("fault", {"sent": True, "status": 404}, "answered 404", "path of the URL"),
        ("fault", {"sent": True, "status": 500}, "answered 500", "log"),
        ("warning", {"sent": True, "status": 200, "duration_ms": 8000.0}, "only after 8000 ms", "at once"),
    ],
)
def test_an_endpoint_that_is_not_well(level: str, changed: dict[str, Any], text: str, remedy: str) -> None:
    given = {"sent": False, **changed}
    found = the_one(level, "webhooks", webhooks=(WebhookFacts("proj_x", "https://a.net/", **given),))
    assert text in found.text
    assert remedy in found.remedy


@pytest.mark.parametrize("changed", [{"sent": False}, {"sent": True, "status": 204, "duration_ms": 9.0}])
def test_an_endpoint_that_is_well(changed: dict[str, Any]) -> None:
    found = findings(webhooks=(WebhookFacts("proj_x", "https://a.net/", **changed),))
    assert [one.level for one in found] == ["ok"]


# The call.

ANSWERED: dict[str, Any] = {
    "answered": True,
    "orderly": True,
    "heard_s": 1.0,
    "packets_in": 90,
    "replied": True,
    "setup_ms": 40.0,
}


@pytest.mark.parametrize(
    ("level", "changed", "text", "remedy"),
    [
        ("fault", {"error": "tls.cert cannot be used"}, "could not be tried", "names what to change"),
        ("fault", {"cause": "not answered: 503"}, "was not answered", "iptables"),
        ("fault", {**ANSWERED, "packets_in": 0, "heard_s": 0.0}, "the node heard nothing", "packet filter"),
        ("fault", {**ANSWERED, "heard_s": 0.0}, "the caller heard nothing", "packet filter"),
        ("warning", {**ANSWERED, "orderly": False, "cause": "no BYE"}, "did not end well: no BYE", "report"),
        ("warning", {**ANSWERED, "replied": False}, "did not answer what was said", "too busy"),
    ],
)
def test_a_call_that_fails(level: str, changed: dict[str, Any], text: str, remedy: str) -> None:
    found = the_one(level, "call", rehearsals=(RehearsalFacts("udp", **changed),))
    assert text in found.text
    assert remedy in found.remedy


def test_a_call_that_goes_well() -> None:
    found = findings(rehearsals=(RehearsalFacts("udp", **ANSWERED),))
    assert [one.level for one in found] == ["ok"]
    assert "sound both ways" in found[0].text


def test_faults_and_warnings_are_counted() -> None:
    found = findings(limits=limits(files=256, port_pairs=1), database=database(url="none"))
    summary = summarise(found)
    assert (summary.faults, summary.warnings) == (1, 2)
