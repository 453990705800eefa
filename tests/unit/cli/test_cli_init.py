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


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--source", "192.0.2.1/24"),
        ("--source", "sip.example.net"),
        ("--transport", "ws"),
        ("--host", ""),
        ("--host", "sip:me@example.net"),
        ("--host", "example.net:5060"),
        ("--public-ip", "example.net"),
        ("--project", "two words"),
        ("--webhook", "app.example.net"),
        ("--webhook", "https://user:secret@app.example.net/"),
    ],
)
def test_what_cannot_be_is_refused(option, value):
    shown = run("twilio", option, value)
    assert shown.exit_code == 2
    assert option in shown.stderr
    assert not shown.stdout


def test_a_transport_in_capitals_is_one():
    assert "transport=tcp" in run("twilio", "--transport", "TCP").stderr


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
    assert "has the project proj_reception already" in again.stderr
    assert "--project" in again.stderr
    assert path.read_text() == before
    assert [one.name for one in tmp_path.iterdir()] == ["offhook.toml"]
    assert run("telnyx", "--project", "proj_two", "--write", str(path)).exit_code == 0
    assert len(load(path).projects) == 2


def test_a_new_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "new.toml"
    assert run("kamailio", "--write", str(path)).exit_code == 0
    assert path.stat().st_mode & 0o077 == 0


def test_the_file_that_it_writes_can_be_called_from_outside(tmp_path):
    path = tmp_path / "new.toml"
    shown = run("twilio", "--public-ip", "198.51.100.7", "--write", str(path))
    assert shown.exit_code == 0, shown.output
    config = load(path)
    assert (config.sip.listen, config.sip.public_host) == (("tls:0.0.0.0:5061",), "sip.example.net")
    assert (config.media.bind, config.media.public_ip) == ("0.0.0.0", "198.51.100.7")
    assert "needs, once" not in shown.stderr
    assert f"offhook serve --config {path}" in shown.stderr


def test_an_address_as_host_is_where_sound_goes_too(tmp_path):
    path = tmp_path / "new.toml"
    assert run("telnyx", "--host", "2001:db8::1", "--write", str(path)).exit_code == 0
    config = load(path)
    assert config.sip.listen == ("udp:[::]:5060",)
    assert (config.media.bind, config.media.sdp_host) == ("::", "2001:db8::1")


def test_what_a_file_lacks_to_be_called_is_printed_for_pasting(tmp_path):
    path = tmp_path / "offhook.toml"
    path.write_text("[sip]\nlisten = ['udp:127.0.0.1:5060']\n")
    shown = run("twilio", "--write", str(path))
    assert 'listen = ["tls:0.0.0.0:5061"]' in shown.stderr
    assert 'bind = "0.0.0.0"' in shown.stderr
    path.write_text("[sip]\nlisten = ['tls:0.0.0.0:5061']\nallow_no_trunks = true\n")
    shown = run("twilio", "--write", str(path))
    assert "[sip]" not in shown.stderr
    assert "[media]" in shown.stderr


def test_a_second_trunk_of_a_project_is_printed_for_pasting(tmp_path):
    path = tmp_path / "offhook.toml"
    assert run("twilio", "--write", str(path)).exit_code == 0
    again = run("telnyx", "--write", str(path))
    assert again.exit_code == 2
    with path.open("a") as file:
        file.write(again.stderr.partition("[[projects]]:\n\n")[2])
    (project,) = load(path).projects
    assert [trunk.name for trunk in project.trunks] == ["twilio", "telnyx"]


def test_a_link_stays_one_and_what_is_no_file_is_left_alone(tmp_path):
    path, link = tmp_path / "offhook.toml", tmp_path / "link.toml"
    path.write_text("")
    link.symlink_to(path)
    assert run("twilio", "--write", str(link)).exit_code == 0
    assert link.is_symlink()
    assert len(load(path).projects) == 1
    for place, fault in ((tmp_path, "is no file"), (tmp_path / "none" / "a.toml", "there is no directory")):
        shown = run("twilio", "--write", str(place))
        assert shown.exit_code == 2
        assert fault in shown.stderr


@pytest.mark.parametrize("old", [b"[sip\n", b"# caf\xe9\n", b"[projects]\nid = 'a'\n"])
def test_a_file_that_does_not_load_is_left_as_it_was(tmp_path, old):
    path = tmp_path / "offhook.toml"
    path.write_bytes(old)
    shown = run("twilio", "--write", str(path))
    assert shown.exit_code == 2
    assert f"{path} is left as it was" in shown.stderr
    assert path.read_bytes() == old
    assert [one.name for one in tmp_path.iterdir()] == ["offhook.toml"]


def test_a_password_is_explained_where_one_is_written():
    assert "uac_auth()" in run("kamailio").stderr
    assert "uac_auth()" not in run("kamailio", "--source", "192.0.2.7").stderr


def test_no_word_of_the_help_is_taken_for_markup():
    """Square brackets in a help text are colours to the terminal, and gone."""
    shown = " ".join(run("--help").stdout.replace("│", " ").split())
    assert "with the tables sip and media if it has none" in shown
