"""`offhook init` writes what loads, and says what to paste."""

import pytest
from typer.testing import CliRunner

from offhook.cli.main import app
from offhook.config import load


def run(*options):
    return CliRunner().invoke(app, ["init", *options])


@pytest.mark.parametrize(
    ("kind", "more", "uri"),
    [
        ("twilio", (), "sip:proj_reception@sip.example.net;transport=tls"),
        ("telnyx", ("--host", "2001:db8::1"), "sip:proj_reception@[2001:db8::1];transport=udp"),
        ("signalwire", ("--source", "192.0.2.7"), "sip:proj_reception@sip.example.net;transport=udp"),
        (
            "kamailio",
            ("--project", "proj_x", "--transport", "tcp"),
            "sip:proj_x@sip.example.net;transport=tcp",
        ),
    ],
)
def test_a_section_loads_and_the_uri_is_said(tmp_path, kind, more, uri):
    shown = run(kind, *more)
    assert shown.exit_code == 0, shown.output
    assert uri in shown.stderr
    path = tmp_path / "offhook.toml"
    path.write_text("[sip]\nlisten = ['udp:0.0.0.0:5060']\n" + shown.stdout)
    (project,) = load(path).projects
    (trunk,) = project.to_project().trunks
    assert bool(trunk.sources) != (trunk.digest is not None)
    assert project.webhooks[0].secret.startswith("whsec_")


def test_known_addresses_carry_the_date_they_were_noted():
    shown = run("twilio")
    assert shown.stdout.count("/30") == 8
    assert "Noted 2026-11-21" in shown.stdout
    assert "check them" in shown.stderr


def test_a_trunk_without_known_addresses_wants_them():
    shown = run("signalwire")
    assert shown.exit_code == 2
    assert "--source" in shown.stderr


@pytest.mark.parametrize(("option", "value"), [("--source", "192.0.2.1/24"), ("--transport", "ws")])
def test_what_cannot_be_is_refused(option, value):
    shown = run("twilio", option, value)
    assert shown.exit_code == 2
    assert option in shown.stderr


def test_it_is_appended_only_where_the_whole_still_loads(tmp_path):
    path = tmp_path / "offhook.toml"
    path.write_text("[server]\nnode = 'phone1'\n")
    assert run("twilio", "--write", str(path)).exit_code == 0
    config = load(path)
    assert config.server.node == "phone1"
    assert [project.id for project in config.projects] == ["proj_reception"]
    before = path.read_text()
    again = run("telnyx", "--write", str(path))
    assert again.exit_code == 2
    assert "proj_reception repeats" in again.stderr
    assert path.read_text() == before
    assert [one.name for one in tmp_path.iterdir()] == ["offhook.toml"]
    assert run("telnyx", "--project", "proj_two", "--write", str(path)).exit_code == 0
    assert len(load(path).projects) == 2


def test_a_new_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "new.toml"
    assert run("kamailio", "--write", str(path)).exit_code == 0
    assert path.stat().st_mode & 0o077 == 0
