"""Decisions 2 and 11 of the design: who gets in, and what the others are told."""

from ipaddress import ip_network

import pytest

from offhook.calls.admission import Admission, Capacity, Refusal, Unanswered
from offhook.calls.gate import TokenBuckets, TrunkGate
from offhook.calls.refused import RefusedSources
from offhook.sip.flow import Flow
from offhook.tenants import ConfiguredProjects, DigestAccount, Project, Register, Trunk


def project(name, source, **more):
    return Project(name, trunks=(Trunk("trunk", (ip_network(source),)),), **more)


ONE = project("proj_one", "192.0.2.0/24", numbers=("+15550001",), api_keys=("sk-one",))
TWO = project("proj_two", "198.51.100.7/32", hosts=("two.example.net",), max_calls=2, api_keys=("sk-two",))
PROJECTS = ConfiguredProjects([ONE, TWO])
ADMISSION = Admission(PROJECTS)


@pytest.mark.parametrize(
    ("user", "host", "source", "expected"),
    [
        ("proj_one", "sip.example.net", "192.0.2.5", ONE),
        ("+15550001", "sip.example.net", "192.0.2.5", ONE),
        ("15550001", "sip.example.net", "192.0.2.5", ONE),  # some carriers leave the + out
        ("anyone", "TWO.example.net", "198.51.100.7", TWO),
        (None, "two.example.net", "198.51.100.7", TWO),
        ("proj_one", "h", "::ffff:192.0.2.5", ONE),  # an IPv4 peer seen by a dual-stack socket
    ],
)
def test_the_project_is_found_by_the_request_uri(user, host, source, expected):
    assert ADMISSION.find_project(user, host, source) is expected


def test_an_unknown_project_and_one_of_another_source_get_the_same_answer():
    unknown = ADMISSION.find_project("proj_none", "h", "192.0.2.5")
    foreign = ADMISSION.find_project("proj_two", "h", "192.0.2.5")
    assert isinstance(unknown, Refusal)
    assert isinstance(foreign, Refusal)
    assert unknown.status == foreign.status == 404
    assert unknown.reason.replace("proj_none", "X") == foreign.reason.replace("proj_two", "X")


def test_only_listed_sources_are_heard_at_all():
    assert PROJECTS.lists_source("192.0.2.200")
    assert not PROJECTS.lists_source("203.0.113.1")
    assert not PROJECTS.lists_source("not an address")


ROOM = Capacity(calls=1, max_calls=10, project_calls=1, free_ports=5, draining=False, engine_ready=True)


def refused(project=ONE, **change):
    fields = {name: getattr(ROOM, name) for name in ROOM.__slots__} | change
    return ADMISSION.check_capacity(project, Capacity(**fields))


@pytest.mark.parametrize(
    "change",
    [
        {"calls": 10},
        {"free_ports": 0},
        {"draining": True},
        {"engine_ready": False},
        {"unanswered": 10},
        {"unanswered": 3, "max_unanswered": 3},
        {"source_unanswered": 2, "max_source_unanswered": 2},
    ],
)
def test_the_nodes_own_trouble_is_503_with_retry_after(change):
    refusal = refused(**change)
    assert refusal is not None
    assert refusal.status == 503
    assert 1 <= refusal.retry_after <= 5


def test_a_full_project_is_480_without_retry_after():
    refusal = refused(TWO, project_calls=2)
    assert refusal is not None
    assert (refusal.status, refusal.retry_after) == (480, None)


def test_there_is_room():
    assert refused() is None


def test_a_key_opens_its_own_project_only():
    assert PROJECTS.by_api_key("sk-one") is ONE
    assert PROJECTS.by_api_key("sk-on") is None
    assert PROJECTS.by_api_key("") is None


def test_a_refused_source_is_one_entry_and_few_log_lines():
    sources = RefusedSources()
    logged = [count for count in range(1, 1001) if sources.add("203.0.113.9", float(count))]
    assert logged == [1, 10, 100, 1000]
    (entry,) = sources.all()
    assert (entry.count, entry.first_at, entry.last_at) == (1000, 1.0, 1000.0)
    assert '"203.0.113.9/32"' in entry.remedy


def test_a_scan_from_many_addresses_stays_bounded():
    sources = RefusedSources(limit=10)
    for number in range(100):
        sources.add(f"203.0.113.{number}", 0.0)
    assert [entry.address for entry in sources.all()] == [f"203.0.113.{number}" for number in range(90, 100)]


def test_the_remedy_for_an_ipv6_source_is_a_128():
    sources = RefusedSources()
    assert '"2001:db8::1/128"' in sources.add("2001:db8::1", 0.0).remedy


def test_a_source_that_calls_no_project_gets_another_remedy():
    sources = RefusedSources()
    entry = sources.add("192.0.2.1", 0.0, "unknown_project", called='+1555"\x1b[31m\n')
    assert 'numbers = ["+1555[31m"]' in entry.remedy
    sources.add("192.0.2.1", 1.0, "wrong_credentials", user="edge")
    assert entry.describe()["reasons"] == {"unknown_project": 1, "wrong_credentials": 1}
    assert 'digest_user = "edge"' in entry.remedy


def test_what_was_called_by_a_host_alone_leads_by_hosts():
    entry = RefusedSources().add("192.0.2.1", 0.0, "unknown_project", called="sip.example.net", by_host=True)
    assert 'hosts = ["sip.example.net"]' in entry.remedy


def test_a_peer_that_proved_itself_by_a_password_needs_no_address():
    sources = RefusedSources()
    entry = sources.add("192.0.2.1", 0.0, "unknown_project", called="+1555", user="edge")
    assert 'numbers = ["+1555"]' in entry.remedy
    assert 'digest_user = "edge"' in entry.remedy
    assert "sources" not in entry.remedy
    # The next one from there is another peer, known by its address.
    sources.add("192.0.2.1", 1.0, "unknown_project", called="+1555")
    assert 'sources = ["192.0.2.1/32"]' in entry.remedy


def test_what_was_made_up_for_is_taken_back():
    sources = RefusedSources()
    sources.add("192.0.2.1", 0.0, "no_credentials")
    sources.withdraw("192.0.2.1", "no_credentials")
    assert sources.all() == []
    sources.add("192.0.2.1", 0.0, "wrong_credentials")
    sources.withdraw("192.0.2.1", "no_credentials")
    assert [entry.count for entry in sources.all()] == [1]


EDGE = Trunk("edge", (), digest=DigestAccount("edge", "x"))
BOTH = Trunk("both", (ip_network("192.0.2.9/32"),), digest=DigestAccount("both", "x"))
GUARDED = ConfiguredProjects(
    [ONE, Project("proj_edge", trunks=(EDGE,)), Project("proj_both", trunks=(BOTH,))]
)


def test_a_password_admits_to_its_own_project_only():
    edge, both = GUARDED.by_id("proj_edge"), GUARDED.by_id("proj_both")
    assert GUARDED.may_call(edge, "203.0.113.1", EDGE)
    assert not GUARDED.may_call(edge, "203.0.113.1")
    assert not GUARDED.may_call(both, "203.0.113.1", EDGE)
    assert not GUARDED.may_call(both, "192.0.2.9")  # its address alone is not enough
    assert not GUARDED.lists_source("203.0.113.1")
    assert GUARDED.digest_trunks("203.0.113.1") == [EDGE]
    assert GUARDED.digest_trunks("192.0.2.9") == [EDGE, BOTH]
    assert list(PROJECTS.digest_trunks("203.0.113.1")) == []


REGISTER = Register("sip:sip.example.net", "u", "p")
REGISTRAR = "203.0.113.50"


@pytest.mark.parametrize(
    ("trunks", "by_address"),
    [
        ([Trunk("t", register=REGISTER)], True),
        ([Trunk("t", register=REGISTER, digest=DigestAccount("t", "x"))], False),
        ([Trunk("t", register=REGISTER), Trunk("u", digest=DigestAccount("u", "x"))], True),
        (
            [
                Trunk("t", register=REGISTER),
                Trunk("u", (ip_network("203.0.113.0/24"),), digest=DigestAccount("u", "x")),
            ],
            False,
        ),
        (
            [
                Trunk("t", register=REGISTER),
                Trunk("u", (ip_network("203.0.113.0/24"),), digest=DigestAccount("u", "x")),
                Trunk("v", (ip_network("203.0.113.50/32"),)),
            ],
            True,  # said in so many words: one or the other
        ),
    ],
)
def test_a_registrars_address_is_enough_unless_a_password_is_wanted_of_it(trunks, by_address):
    project = Project("proj_r", trunks=tuple(trunks))
    projects = ConfiguredProjects([project, ONE])
    assert not projects.may_call(project, "203.0.113.51")
    projects.admit_registrars({("proj_r", "t"): frozenset({REGISTRAR})})
    assert projects.lists_source(REGISTRAR)
    assert projects.trunk_at(project, f"::ffff:{REGISTRAR}") is not None
    assert projects.may_call(project, REGISTRAR) is by_address
    asks = [trunk for trunk in trunks if trunk.digest is not None]
    assert list(projects.digest_trunks(REGISTRAR)) == asks
    for trunk in asks:
        assert projects.may_call(project, REGISTRAR, trunk)
    assert not projects.may_call(ONE, REGISTRAR)


def test_a_trunk_that_registers_and_has_a_password_does_not_have_strangers_asked_for_it():
    project = Project("proj_r", trunks=(Trunk("t", register=REGISTER, digest=DigestAccount("t", "x")),))
    assert list(ConfiguredProjects([project]).digest_trunks("203.0.113.99")) == []


def test_calls_that_ring_are_counted_by_source_until_they_are_answered():
    ringing = {"a", "b", "c"}
    calls = Unanswered(ringing.__contains__)
    for call in "abc":
        calls.add(call, "192.0.2.1" if call != "c" else "192.0.2.2")
    assert (calls.of_source("192.0.2.1", 2), calls.of_source("192.0.2.2", 2), calls.of_node(3)) == (2, 1, 3)
    ringing.discard("a")
    assert (calls.of_source("192.0.2.1", 2), calls.of_node(3)) == (1, 2)
    calls.discard("a", "192.0.2.1")  # it ends, long after it was forgotten
    calls.discard("b", "192.0.2.1")
    assert (calls.of_source("192.0.2.1", 1), calls.of_node(1)) == (0, 1)


class FakeClock:
    now = 1_000.0

    def monotonic(self):
        return self.now

    wall = monotonic


def test_a_flood_from_claimed_addresses_does_not_fill_the_log(caplog):
    clock = FakeClock()
    gate = TrunkGate(PROJECTS, clock, secret=b"x", new_token=str)
    for number in range(10_000):
        gate.refuse(f"198.18.{number // 256}.{number % 256}", "not_listed")
    assert len(caplog.records) == 100
    clock.now += 2.0
    for number in range(3):
        gate.refuse(f"198.19.0.{number}", "not_listed")
    assert [record.unlogged for record in caplog.records[-2:]] == [9_900, 0]
    assert len(caplog.records) == 102


@pytest.mark.parametrize(
    "address", ["2001:db8::1", "2001:db8::aaaa:bbbb:cccc:dddd", "2001:0db8:0:0:1::", "2001:db8::ffff:1%eth0"]
)
def test_a_hosts_addresses_of_one_64_share_a_bucket(address):
    clock = FakeClock()
    projects = ConfiguredProjects([Project("p", trunks=(Trunk("t", digest=DigestAccount("t", "x")),))])
    gate = TrunkGate(projects, clock, secret=b"x", new_token=str)

    def heard(host):
        return gate.admits(Flow("udp", ("::", 5060), (host, 5060), None))

    assert sum(heard("2001:db8::2") for _ in range(100)) == 40
    assert not heard(address)
    assert heard("2001:db8:0:1::1")


def test_a_bucket_fills_again_and_all_strangers_share_one():
    buckets = TokenBuckets(rate=1.0, burst=2.0, rate_of_all=10.0, burst_of_all=3.0)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert [buckets.take("b", 0.0) for _ in range(2)] == [True, False]
    assert buckets.take("a", 1.0)
    assert not buckets.take("a", 1.0)
