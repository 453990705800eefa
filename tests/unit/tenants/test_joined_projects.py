"""Projects of the configuration and projects made by API are found alike; what both have is the configuration's."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from offhook.tenants import ApiKey, DigestAccount, JoinedProjects, Project, StoredProject, Trunk, key_id

SECRET = "sk-offhook-" + "a" * 43


def stored(project_id="proj_made", created_at=5.0, **fields):
    return StoredProject(Project(project_id, **fields), "Made", created_at, {})


def joined(*configured):
    return JoinedProjects(configured or [Project("proj_file", api_keys=("sk-file",), numbers=("+1555",))])


def test_both_are_found_by_id_number_host_and_source():
    projects = joined()
    trunk = Trunk("t", (ip_network("192.0.2.0/24"),))
    projects.put(stored(numbers=("+1777",), hosts=("made.example",), trunks=(trunk,)))
    assert projects.by_id("proj_made").id == "proj_made"
    assert projects.by_request_uri("1777", "x").id == "proj_made"
    assert projects.by_request_uri("nobody", "MADE.example").id == "proj_made"
    assert projects.lists_source("192.0.2.9")
    assert projects.by_request_uri("+1555", "x").id == "proj_file"
    assert [project.id for project in projects.all()] == ["proj_file", "proj_made"]
    assert not projects.is_alone(projects.by_id("proj_file"))
    projects.remove("proj_made")
    assert projects.by_id("proj_made") is None
    assert not projects.lists_source("192.0.2.9")


def test_a_made_key_opens_its_project_until_it_is_revoked():
    projects = joined()
    projects.put(stored())
    key = ApiKey.of(SECRET, "proj_made", "ci", 9.0)
    projects.put_key(key)
    assert projects.by_api_key(SECRET).id == "proj_made"
    assert projects.by_api_key(SECRET + "x") is None
    projects.put_key(replace(key, revoked_at=10.0))
    assert projects.by_api_key(SECRET) is None


def test_a_made_key_may_be_of_a_configured_project_and_opens_nothing_once_that_is_gone():
    projects = joined()
    projects.put_key(ApiKey.of(SECRET, "proj_file", "", 9.0))
    assert projects.by_api_key(SECRET).id == "proj_file"
    assert [key.created_at for key in projects.keys_of("proj_file")] == [None, 9.0]
    projects.replace([])
    assert projects.by_api_key(SECRET) is None
    assert projects.by_api_key("sk-file") is None


def test_a_key_is_not_in_what_is_shown_of_it():
    key = ApiKey.of(SECRET, "proj_file", "ci", 9.0)
    assert (key.id, key.hint) == (key_id(SECRET), "sk-offhook-...aaaa")
    assert SECRET not in repr(key)
    assert key.hash not in repr(key)
    assert ApiKey.of("sk-test", "proj_file", "", None).hint == "sk-..."


def test_reading_the_configuration_again_keeps_what_was_made_by_api():
    projects = joined()
    projects.put(stored())
    projects.put_key(ApiKey.of(SECRET, "proj_made", "", 9.0))
    projects.replace([Project("proj_other")])
    assert [project.id for project in projects.all()] == ["proj_other", "proj_made"]
    assert projects.by_api_key(SECRET).id == "proj_made"


def test_what_both_have_is_the_configurations():
    projects = joined()
    projects.put(stored("proj_file", hosts=("made.example",)))
    projects.put(stored("proj_made", numbers=("1555",)))
    assert projects.by_id("proj_file").api_keys == ("sk-file",)
    assert projects.by_request_uri("x", "made.example") is None
    assert projects.by_request_uri("+1555", "x").id == "proj_file"
    assert projects.stored("proj_file") is None
    assert projects.is_configured("proj_file")
    projects.put(stored("proj_apart", numbers=("1999",)))
    assert {one.project.id for one in projects.overshadowed()} == {"proj_file", "proj_made"}
    projects.replace([])
    assert projects.stored("proj_file") is not None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"numbers": ("1555",)}, "id or number '1555' is that of proj_file"),
        ({"numbers": ("proj_file",)}, "id or number 'proj_file'"),
        ({"hosts": ("HERE.example",)}, "host 'here.example'"),
        ({"trunks": (Trunk("t", digest=DigestAccount("ann", "x")),)}, "digest_user 'ann'"),
        ({"trunks": (Trunk("t", digest=DigestAccount("ann", "x", realm="other")),)}, ""),
        ({"numbers": ("1556",), "hosts": ("there.example",)}, ""),
    ],
)
def test_what_another_project_has_is_said(fields, said):
    account = Trunk("t", digest=DigestAccount("ann", "y"))
    projects = joined(Project("proj_file", numbers=("+1555",), hosts=("here.example",), trunks=(account,)))
    clash = projects.clash(Project("proj_new", **fields))
    assert clash.startswith(said)
    assert bool(clash) == bool(said)
    assert projects.clash(projects.by_id("proj_file")) == ""
