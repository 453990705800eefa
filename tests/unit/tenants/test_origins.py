"""What an address is to a project, also when that changes."""

from ipaddress import ip_network

from offhook.tenants import ConfiguredProjects, DigestAccount, Project, Register, Trunk

ADDRESS = "192.0.2.7"
OPEN = Trunk("open", (ip_network("192.0.2.0/24"),))
PASSWORD = Trunk("password", (ip_network("192.0.2.0/24"),), digest=DigestAccount("u", "p"))
REGISTERED = Trunk("registered", register=Register("sip:sip.example.net", "u", "p"))


def test_a_project_that_was_replaced_is_asked_anew_and_the_old_one_stays_as_it_was():
    before, after = Project("proj_a", trunks=(OPEN,)), Project("proj_a", trunks=(PASSWORD,))
    projects = ConfiguredProjects([before])
    assert (projects.trunk_at(before, ADDRESS), projects.may_call(before, ADDRESS)) == (OPEN, True)
    projects.replace([after])
    for _ in range(2):
        assert (projects.trunk_at(after, ADDRESS), projects.may_call(after, ADDRESS)) == (PASSWORD, False)
        assert (projects.trunk_at(before, ADDRESS), projects.may_call(before, ADDRESS)) == (OPEN, True)


def test_a_registrars_address_is_a_source_from_when_it_is_known_until_it_is_another():
    project = Project("proj_a", trunks=(REGISTERED,))
    projects = ConfiguredProjects([project])
    assert (projects.trunk_at(project, ADDRESS), projects.may_call(project, ADDRESS)) == (None, False)
    projects.admit_registrars({("proj_a", "registered"): frozenset([ADDRESS])})
    assert (projects.trunk_at(project, ADDRESS), projects.may_call(project, ADDRESS)) == (REGISTERED, True)
    assert projects.lists_source(ADDRESS)
    projects.admit_registrars({("proj_a", "registered"): frozenset(["192.0.2.8"])})
    assert (projects.trunk_at(project, ADDRESS), projects.may_call(project, ADDRESS)) == (None, False)
    assert not projects.lists_source(ADDRESS)


def test_who_has_a_password_may_call_from_anywhere():
    project = Project("proj_a", trunks=(PASSWORD,))
    projects = ConfiguredProjects([project])
    for _ in range(2):
        assert not projects.may_call(project, ADDRESS)
        assert projects.may_call(project, ADDRESS, PASSWORD)
        assert not projects.may_call(project, ADDRESS, OPEN)
