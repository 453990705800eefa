import stat

import pytest

from offhook.config import ConfigError, generated_project, load


def write(tmp_path, text):
    path = tmp_path / "offhook.toml"
    path.write_text(text)
    return path


def test_without_a_file_everything_is_on_loopback():
    config = load(None)
    assert config.server.http == "127.0.0.1:8080"
    assert config.sip.listen == ("udp:127.0.0.1:5060", "tcp:127.0.0.1:5060", "tls:127.0.0.1:5061")
    assert config.media.port_range == (20000, 20998)


def test_the_environment_goes_over_the_file(tmp_path, monkeypatch):
    path = write(tmp_path, '[server]\nhttp = "127.0.0.1:1"\nnode = "a1"\n[sip]\npublic_host = "file"')
    monkeypatch.setenv("OFFHOOK_SERVER__HTTP", "127.0.0.1:2")
    monkeypatch.setenv("OFFHOOK_SIP__LISTEN", '["udp:127.0.0.1:7"]')
    config = load(path)
    assert (config.server.http, config.server.node) == ("127.0.0.1:2", "a1")
    assert (config.sip.listen, config.sip.public_host) == (("udp:127.0.0.1:7",), "file")


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("[sip]\nlisten = ['sctp:1.2.3.4:5']", "sip.listen", "udp:, tcp: or tls:"),
        ("[sip]\nlisten = ['udp:1.2.3.4:70000']", "sip.listen", "HOST:PORT"),
        ("[sip]\nlisten = ['tcp::5060']", "sip.listen", "HOST:PORT"),
        ("[sip]\nlisten = ['tcp:1.2.3.4:²']", "sip.listen", "HOST:PORT"),
        ("[server]\nhttp = '8080'", "server.http", "host:port"),
        ("[server]\nhttps = 'localhost'", "server.https", "host:port"),
        ("[server]\nhttp = '127.0.0.1:70000'", "server.http", "host:port"),
        ("[media]\nports = '20001-20002'", "media", "an even port first"),
        ("[media]\nbind = 'eth0'\npublic_ip = '192.0.2.1'", "media", "eth0"),
        ("[sip]\nlsten = []", "sip.lsten", "no such key"),
        ("[media]\nbind = '0.0.0.0'", "media", "public_ip is required"),
        ("[media]\nports = '20'", "media", "first-last"),
        ("[tls]\ncert = 'x'", "tls", "both cert and key"),
        ("[engine.brain]\nkind = 'chat_completions'", "engine.brain", "needs base_url and model"),
        ("[[projects]]\nid = 'p q'", "projects.0.id", "match"),
        ("[[projects]]\nid='a'\nrefer_targets=['+1']", "projects.0.refer_targets", "no pattern for targets"),
        ("[calls]\nrefer_outcome_s=0", "calls.refer_outcome_s", "greater than 0"),
        ("[[projects.trunks]]\nsources=['::1']", "projects: write [[projects]]", "[[projects.trunks]]"),
        ("[projects]\nid = 'p'", "projects: write [[projects]]", "its id above"),
        (
            "[[projects]]\nid='a'\n[[projects.webhooks]]\nurl='ftp://x'\nsecret='whsec_YQ=='",
            "webhooks.0.url",
            "match",
        ),
        (
            "[[projects]]\nid='a'\n[[projects.webhooks]]\nurl='http://u:p@x/'\nsecret='whsec_YQ=='",
            "webhooks.0.url",
            "would not be sent",
        ),
        ("[[projects]]\nid='a'\n[projects.fallback]\naccept={type='x'}", "fallback.accept", "type"),
        ("[[projects]]\nid='a'\n[[projects]]\nid='a'", "", "two [[projects]] have the id a"),
        (
            "[[projects]]\nid='a'\napi_keys=['k']\n[[projects]]\nid='b'\napi_keys=['k']",
            "",
            "b repeats a key that a has",
        ),
        (
            "[[projects]]\nid='a'\nnumbers=['+1555']\n[[projects]]\nid='b'\nnumbers=['1555']",
            "",
            "b repeats an id or number that a has",
        ),
        (
            "[[projects]]\nid='1555'\n[[projects]]\nid='b'\nnumbers=['+1555']",
            "",
            "b repeats an id or number that 1555 has",
        ),
        (
            "[[projects]]\nid='a'\nhosts=['Sip.Example']\n[[projects]]\nid='b'\nhosts=['sip.example']",
            "",
            "b repeats a host that a has",
        ),
        ("[upstreams.a]\nurl='wss://u:k@x/'", "upstreams.a.url", "api_key_env"),
        ("[upstreams.a]\nurl='ftp://x'", "upstreams.a.url", "match"),
        ("[upstreams.a]\nurl='wss://x'\napi_key_env='A'\napi_key_file='b'", "upstreams.a", "not both"),
        ("[upstreams.local]\nurl='wss://x'", "", "an engine has that name"),
        ("[upstreams.a]\nurl='wss://x'\n[models]\nm='b'", "", "'b' is none of local, scripted, a"),
        ("[upstreams.a]\nurl='wss://x'\n[models]\nm=['a','local']", "", "'local' is none of a"),
        ("[models]\nm=[]", "", "the list is empty"),
        ("[server]\npassthrough='b'", "server.passthrough: 'b'", "add [upstreams.b]"),
        (
            "[upstreams.a]\nurl='wss://x'\n[[projects]]\nid='p'\npassthrough='b'",
            "projects.p.passthrough: 'b' is none of a",
            'or say "" for off',
        ),
        ("[sip]\npublic_host='sip.example.net:5061'", "sip.public_host", "leave it out"),
        ("[sip]\npublic_host='sip:sip.example.net;x'", "sip.public_host", "not a host name"),
        ("[sip]\nsession_expires_s=89", "sip.session_expires_s", "set 90 or more, or 0"),
        ("[sip]\nsession_expires_s=-1", "sip.session_expires_s", "greater than or equal to 0"),
        ("[sip\n", "offhook.toml", ""),
        ("[sip]\nlisten = 'udp:127.0.0.1:5060'", "sip.listen", "write a list, in brackets"),
        (
            "[[projects]]\nid='a'\n[[projects.trunks]]\nsources=['192.0.2.5/24']",
            "trunks.0.sources",
            "write 192.0.2.0/24 for all of it, or 192.0.2.5 for that address alone",
        ),
        (
            "[[projects]]\nid='a'\n[[projects.trunks]]\nsources=['sip.example.net']",
            "trunks.0.sources",
            "names are not looked up",
        ),
        ("[[projects]]\nid='a'\nnumbers=['+1 555-0100']", "projects.0.numbers", "such as '+15550100'"),
        ("[[projects]]\nid='a'\nnumbers=['+']", "projects.0.numbers", "is in no Request-URI"),
    ],
)
def test_a_fault_names_the_key_and_the_remedy(tmp_path, text, key, remedy):
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert key in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize("interval", [0, 90, 1800])
def test_a_session_timers_interval_that_the_rfc_allows(tmp_path, interval):
    assert load(write(tmp_path, f"[sip]\nsession_expires_s = {interval}")).sip.session_expires_s == interval


def test_what_is_no_readable_file_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml: no such file"):
        load(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match=f"{tmp_path}: no file"):
        load(tmp_path)
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="no UTF-8 text at byte 5"):
        load(path)


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("OFFHOOK_SIP__LISTEN", "udp:127.0.0.1:5060", "lists and tables are written as JSON"),
        ("OFFHOOK_SIPP__LISTEN", "[]", "no such key"),
        ("OFFHOOK_SIP__LISTN", "[]", "no such key"),
    ],
)
def test_a_variable_that_cannot_be_is_named(monkeypatch, variable, value, remedy):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        load(None)
    assert variable in str(caught.value) or "sip.listn" in str(caught.value)
    assert remedy in str(caught.value)


def test_variables_of_the_commands_are_no_keys(monkeypatch):
    monkeypatch.setenv("OFFHOOK_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("OFFHOOK_CALL_PASSWORD", "secret")
    load(None)


@pytest.mark.parametrize(
    "text",
    [
        "[server]\nhttp = ''\nhttps = '[::1]:0'",
        "[sip]\nallow_no_trunks = true\nlisten = ['udp:[::]:0', 'tls:0.0.0.0:65535']",
        "[media]\nports = '1024-1025'",
        "[media]\nports = '20001-20003'",
    ],
)
def test_the_edges_of_what_can_be_bound(tmp_path, text):
    load(write(tmp_path, text))


@pytest.mark.parametrize("written", ["2001:db8::1", "[2001:db8::1]"])
def test_a_public_host_may_be_an_ipv6_address_in_brackets_or_not(tmp_path, written):
    assert load(write(tmp_path, f"[sip]\npublic_host = '{written}'")).sip.public_host == "2001:db8::1"


def upstream(tmp_path, keys):
    config = load(write(tmp_path, f"[upstreams.a]\nurl = 'https://api.openai.com/v1'\n{keys}"))
    return config.upstreams["a"].to_upstream("a")


def test_an_upstreams_key_comes_from_the_environment_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", "sk-env")
    (tmp_path / "key").write_text("sk-file\n")
    by_env = upstream(tmp_path, "api_key_env = 'UPSTREAM_KEY'")
    assert (by_env.key, by_env.kind) == ("sk-env", "openai")
    assert upstream(tmp_path, f"api_key_file = '{tmp_path / 'key'}'").key == "sk-file"
    assert upstream(tmp_path, "kind = 'azure'").key == ""
    assert "sk-env" not in repr(by_env)


@pytest.mark.parametrize(
    "keys",
    [
        "api_key_env = 'NOT_SET'",
        "api_key_file = '/nowhere/key'",
        "ca_file = '/nowhere/ca.pem'",
        "ca_file = '/dev/null'",
    ],
)
def test_an_upstream_without_the_key_or_ca_that_it_names_cannot_be_used(tmp_path, keys):
    with pytest.raises(ConfigError, match=r"upstreams\.a"):
        upstream(tmp_path, keys)


def test_a_model_is_served_by_an_engine_an_upstream_or_a_list(tmp_path):
    text = "[upstreams.a]\nurl='wss://x'\n[models]\nm=['a']\nn='a'\n'*'='scripted'"
    assert load(write(tmp_path, text)).models == {"m": ("a",), "n": "a", "*": "scripted"}


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.toml")


def test_the_generated_project_is_made_once_and_kept_private(tmp_path):
    project, path, made = generated_project(tmp_path / "data")
    again, _, made_again = generated_project(tmp_path / "data")
    assert (made, made_again) == (True, False)
    assert again == project
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert project.to_project().webhooks[0].secrets[0].startswith("whsec_")


def test_a_projects_records_follow_the_file(tmp_path):
    config = load(
        write(
            tmp_path,
            """
            [[projects]]
            id = "proj_a"
            api_keys = ["sk-1"]
            numbers = ["+1"]
            max_calls = 3
            fallback = { accept = { type = "realtime", instructions = "Hi" } }
            [[projects.trunks]]
            sources = ["192.0.2.0/24", "2001:db8::/32"]
            [[projects.webhooks]]
            url = "https://app.example.net/hook"
            secret = "whsec_YWJj"
            old_secrets = ["whsec_ZGVm"]
            """,
        )
    )
    project = config.projects[0].to_project()
    assert project.fallback.accept == {"type": "realtime", "instructions": "Hi"}
    assert project.webhooks[0].secrets == ("whsec_YWJj", "whsec_ZGVm")
    assert [str(source) for source in project.trunks[0].sources] == ["192.0.2.0/24", "2001:db8::/32"]


def test_a_project_may_have_another_upstream_for_hosted_calls_than_the_node_or_none(tmp_path):
    text = "[server]\npassthrough='a'\n[upstreams.a]\nurl='wss://x'\n[upstreams.b]\nurl='wss://y'\n"
    text += (
        "[[projects]]\nid='p'\n[[projects]]\nid='q'\npassthrough='b'\n[[projects]]\nid='r'\npassthrough=''"
    )
    config = load(write(tmp_path, text))
    assert config.server.passthrough == "a"
    assert [table.to_project().passthrough for table in config.projects] == [None, "b", ""]
    assert load(write(tmp_path, "")).server.passthrough == ""


PROJECT = "[[projects]]\nid = 'p'\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[sip]\nlisten = ['udp:0.0.0.0:5060']", "sip.listen = 'udp:0.0.0.0:5060' is open to the network"),
        (f"[sip]\nlisten = ['tcp:[::]:5060']\n{PROJECT}", "[[projects.trunks]] sources"),
        (f"{PROJECT}[[projects.trunks]]\nname = 't'", "say who may call"),
        (f"{PROJECT}[[projects.trunks]]\ndigest_user = 'u'", "exactly one of digest_password"),
        (
            f"{PROJECT}[[projects.trunks]]\nsources = ['192.0.2.1']\ndigest_password = 'x'",
            "they need digest_user",
        ),
        (
            f"{PROJECT}[[projects.trunks]]\ndigest_user = 'u'\ndigest_password = 'x'\ndigest_password_env = 'X'",
            "exactly one",
        ),
        (
            PROJECT + "[[projects.trunks]]\ndigest_user = 'u'\ndigest_password = 'x'\n" * 2,
            "'u' is also a trunk's of p",
        ),
        (f"{PROJECT}[[projects.trunks]]\ndigest_user = 'a:b'\ndigest_password = 'x'", "no colons"),
        (
            PROJECT
            + "[[projects.trunks]]\nregister = { registrar = 'sip:a', user = '', password_env = 'P' }",
            "at least 1 character",
        ),
        (f"{PROJECT}hosts = ['']", "at least 1 character"),  # a tel: URI's host is empty, too
    ],
)
def test_who_may_call_must_be_said(tmp_path, text, fault):
    path = tmp_path / "offhook.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert fault in str(raised.value)


@pytest.mark.parametrize("url", ["http://a:99999/", "https://:443/", "http://a:0/", "http://user@a/"])
def test_a_webhook_url_that_cannot_be_called_is_refused(tmp_path, url):
    text = f"{PROJECT}[[projects.webhooks]]\nurl = '{url}'\nsecret = 'whsec_{'A' * 32}'"
    with pytest.raises(ConfigError, match=r"projects\.0\.webhooks\.0\.url"):
        load(write(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "[sip]\nlisten = ['udp:0.0.0.0:5060']\nallow_no_trunks = true",
        f"[sip]\nlisten = ['udp:0.0.0.0:5060']\n{PROJECT}[[projects.trunks]]\nsources = ['192.0.2.1']",
        f"[sip]\nlisten = ['udp:127.0.0.1:5060', 'tcp:[::1]:5060', 'tls:localhost:5061']\n{PROJECT}",
    ],
)
def test_listening_where_somebody_may_call(tmp_path, text):
    path = tmp_path / "offhook.toml"
    path.write_text(text)
    load(path)


def test_a_trunks_password_comes_from_the_environment_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_PASSWORD", "from env")
    (tmp_path / "password").write_text("from file\n")
    for source, expected in (
        ("digest_password = 'here'", "here"),
        ("digest_password_env = 'EDGE_PASSWORD'", "from env"),
        (f"digest_password_file = '{tmp_path / 'password'}'", "from file"),
    ):
        path = tmp_path / "offhook.toml"
        path.write_text(f"{PROJECT}[[projects.trunks]]\ndigest_user = 'u'\n{source}")
        (project,) = load(path).projects
        assert project.to_project().trunks[0].digest.password == expected
        assert expected not in repr(project.to_project())
    path.write_text(f"{PROJECT}[[projects.trunks]]\ndigest_user = 'u'\ndigest_password_env = 'NOT_THERE'")
    with pytest.raises(ConfigError, match="NOT_THERE holds no password"):
        load(path).projects[0].to_project()
