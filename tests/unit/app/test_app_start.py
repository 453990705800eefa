"""A node that cannot start says in one line what is wrong, and leaves no traceback to read."""

import asyncio
import json
import socket
import threading
import time

import pytest

from offhook import app
from offhook.app import Node, StartError
from offhook.config import Config, generated_project, load
from offhook.realtime.directory import EngineDirectory
from offhook.store import Database
from offhook.store.database import upsert
from offhook.store.schema import dialogs


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


async def test_after_a_crash_nobody_waits_for_the_engine_to_be_hung_up_on(tmp_path, monkeypatch):
    """The embedded voice may take many seconds; who was on the line hears nothing all that time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(20)
        host, port = phone.getsockname()
        store = await Database.open("sqlite", tmp_path)
        snapshot = _snapshot(host, port)
        await store.write(
            lambda c: upsert(c, dialogs, {"call_id": "rtc_1", "node": "u0", "snapshot": snapshot})
        )
        await store.close()
        warm = asyncio.Event()

        async def slowly(engines):
            await warm.wait()

        monkeypatch.setattr(EngineDirectory, "start", slowly)
        config = Config(
            server={"data_dir": tmp_path, "http": "", "https": ""},
            sip={"listen": ["udp:127.0.0.1:0"]},
            engine={"kind": "scripted"},
        )
        node = Node(config)
        starting = asyncio.create_task(node.start())
        bye, address = await asyncio.to_thread(phone.recvfrom, 4096)
        assert bye.startswith(b"BYE sip:alice@127.0.0.1")
        assert not starting.done()
        phone.sendto(_answer(bye), address)

        async def asked() -> bytes:
            lines = f"""OPTIONS sip:{host} SIP/2.0
Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{time.monotonic_ns()}
From: <sip:a@b>;tag=o
To: <sip:{host}>
Call-ID: o{time.monotonic_ns()}
CSeq: 1 OPTIONS
Content-Length: 0

"""
            phone.sendto(lines.replace("\n", "\r\n").encode(), address)
            return (await asyncio.to_thread(phone.recv, 4096))[:11]

        assert await asked() == b"SIP/2.0 503"
        warm.set()
        await starting
        assert await asked() == b"SIP/2.0 200"
        await node.stop()


def _snapshot(host: str, port: int) -> dict[str, object]:
    headers = {
        "From": "<sip:alice@example.com>;tag=a",
        "To": "<sip:proj@example.net>",
        "Call-ID": "c1",
        "CSeq": "1 INVITE",
        "Contact": f"<sip:alice@{host}:{port}>",
    }
    return {
        "version": 1,
        "early": False,
        "transport": "udp",
        "local": [host, 5060],
        "remote": [host, port],
        "moved_to": None,
        "tls_hostname": "",
        "uri": "sip:proj@example.net",
        "headers": [*headers.items()],
        "local_tag": "t",
        "remote_target": f"sip:alice@{host}:{port}",
        "local_seq": 1,
        "remote_seq": 1,
    }


def _answer(request: bytes) -> bytes:
    lines = request.split(b"\r\n")
    kept = [line for line in lines if line.startswith((b"Via", b"From", b"To", b"Call-ID", b"CSeq"))]
    return b"\r\n".join([b"SIP/2.0 200 OK", *kept, b"Content-Length: 0", b"", b""])


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
