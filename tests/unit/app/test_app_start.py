"""A node that cannot start says in one line what is wrong, and leaves no traceback to read."""

import asyncio
import json
import threading

import pytest

from offhook import app
from offhook.app import Node, StartError
from offhook.config import Config, generated_project, load


def node(data_dir):
    return Node(Config(server={"data_dir": data_dir}))


async def test_a_data_dir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"^server\.data_dir = '.*/file/below': .*Not a directory"):
        await node(tmp_path / "file" / "below").start()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "Invalid JSON"),
        ('{"id": "a b", "api_keys": ["sk-secret"]}', "id: String should match"),
        ('{"id": "a", "api_keys": "sk-secret"}', "api_keys: "),
    ],
)
async def test_a_damaged_project_file(tmp_path, text, fault):
    _, path, _ = generated_project(tmp_path)
    path.write_text(text)
    with pytest.raises(StartError) as caught:
        await node(tmp_path).start()
    assert fault in str(caught.value)
    assert f"Remove {path}" in str(caught.value)
    assert "sk-secret" not in str(caught.value)


async def test_a_damaged_key_of_the_development_ca(tmp_path):
    (tmp_path / "tls").mkdir()
    for name in ("ca.pem", "ca.key"):
        (tmp_path / "tls" / name).write_text("not PEM")
    with pytest.raises(StartError, match=r"^server\.data_dir = "):
        await node(tmp_path).start()


async def test_an_upstream_for_hosted_calls_without_its_key(tmp_path):
    config = Config(
        server={"data_dir": tmp_path, "passthrough": "a"},
        upstreams={"a": {"url": "https://x/v1", "api_key_env": "TEST_NO_SUCH_KEY"}},
    )
    with pytest.raises(
        StartError, match=r"upstreams\.a: the environment variable TEST_NO_SUCH_KEY holds no key"
    ):
        await Node(config).start()


async def test_the_secrets_are_shown_once_and_later_where_they_are(tmp_path):
    config = Config(
        server={"data_dir": tmp_path, "http": "", "https": ""},
        sip={"listen": ["udp:127.0.0.1:0"]},
        engine={"kind": "scripted"},
    )
    lines = []
    for _ in range(2):
        node = Node(config)
        await node.start()
        lines.append(node.ready_line)
        await node.stop()
    key = json.loads((tmp_path / "project.json").read_text())["api_keys"][0]
    assert key in lines[0]
    assert key not in lines[1]
    assert f"its key and webhook secret are in {tmp_path / 'project.json'}" in lines[1]


async def test_two_processes_cannot_be_one_node(tmp_path):
    """The second would hang up the first one's calls, and send its webhooks a second time."""

    def made(name="u0", database="sqlite"):
        return Node(
            Config(
                server={"data_dir": tmp_path, "http": "", "https": "", "node": name, "database": database},
                sip={"listen": ["udp:127.0.0.1:0"]},
                engine={"kind": "scripted"},
            )
        )

    first = made()
    await first.start()
    with pytest.raises(
        StartError, match=r"^server\.node = 'u0': another process is this node.*of its own\.$"
    ):
        await made().start()
    for other in (made("u1"), made(database="none")):
        await other.start()
        await other.stop()
    await first.stop()
    again = made()
    await again.start()
    await again.stop()


@pytest.mark.parametrize(
    ("listen", "media", "warned"),
    [
        ("udp:0.0.0.0:0", {}, True),
        ("udp:0.0.0.0:0", {"bind": "0.0.0.0", "public_ip": "198.51.100.7"}, False),
        ("udp:127.0.0.1:0", {}, False),
    ],
)
async def test_calls_from_elsewhere_whose_sound_would_go_to_loopback_are_warned_of(
    tmp_path, listen, media, warned
):
    config = Config(
        server={"data_dir": tmp_path, "http": "", "https": ""},
        sip={"listen": [listen], "allow_no_trunks": True},
        media=media,
        engine={"kind": "scripted"},
    )
    node = Node(config)
    await node.start()
    try:
        assert ("warning: sip.listen = 'udp:0.0.0.0:0'" in node.ready_line) is warned
        assert ("Set media.bind and media.public_ip" in str(node.details())) is warned
    finally:
        await node.stop()


async def test_a_certificate_file_that_is_missing_is_named(tmp_path):
    (tmp_path / "cert.pem").write_text("")
    config = Config(
        server={"data_dir": tmp_path},
        tls={"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "none.key")},
    )
    with pytest.raises(StartError, match=r"tls\.key .* there is no file .*none\.key$"):
        await Node(config).start()


@pytest.fixture
async def loopback(tmp_path):
    """A node with a project of its own, without HTTP; it has been started, and stops in the end."""
    path = tmp_path / "offhook.toml"
    path.write_text(
        f"""
        [server]
        data_dir = "{tmp_path}"
        http = ""
        https = ""
        [sip]
        listen = ["udp:127.0.0.1:0"]
        [engine]
        kind = "scripted"
        [[projects]]
        id = "proj_first"
        """
    )
    node = Node(load(path), path)
    await node.start()
    yield node, path
    await node.stop()


async def test_the_last_of_two_reloads_is_what_counts(loopback, monkeypatch):
    node, path = loopback
    first, go_on = threading.Event(), threading.Event()

    def slowly(path):
        config = load(path)
        if not first.is_set():
            first.set()
            go_on.wait(10)
        return config

    monkeypatch.setattr(app, "load", slowly)
    reloads = [asyncio.create_task(node.reload())]
    await asyncio.to_thread(first.wait, 10)
    path.write_text(path.read_text().replace("proj_first", "proj_second"))
    reloads.append(asyncio.create_task(node.reload()))
    await asyncio.sleep(0.05)
    go_on.set()
    await asyncio.gather(*reloads)
    assert node._projects.known.by_id("proj_second") is not None
    assert node._projects.known.by_id("proj_first") is None


async def test_a_node_that_stops_while_it_reads_its_configuration_takes_nothing_up(loopback, monkeypatch):
    node, path = loopback
    reading, go_on = threading.Event(), threading.Event()

    def slowly(path):
        reading.set()
        go_on.wait(10)
        return load(path)

    monkeypatch.setattr(app, "load", slowly)
    path.write_text(path.read_text().replace("proj_first", "proj_second"))
    reload = asyncio.create_task(node.reload())
    await asyncio.to_thread(reading.wait, 10)
    await node.stop()
    go_on.set()
    await reload
    assert node._projects.known.by_id("proj_second") is None
