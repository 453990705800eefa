"""Decisions 2 and 11 of the design: who gets in, and what the others are told."""

from ipaddress import ip_network

import pytest

from offhook.calls.admission import Admission, Capacity, Refusal, RefusedSources
from offhook.tenants import ConfiguredProjects, Project, Trunk


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
    "change", [{"calls": 10}, {"free_ports": 0}, {"draining": True}, {"engine_ready": False}]
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
