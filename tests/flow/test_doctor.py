"""`offhook doctor` as its user runs it: against a healthy configuration, a broken one, and beside a running node."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from offhook.store import Database
from offhook.store.endpoints import StoredEndpoints
from offhook.store.projects import StoredTenants
from offhook.tenants import WebhookEndpoint
from offhook.webhooks.signature import sign
from testbed import DeveloperApp, Node

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
KEY = "sk-doctor/4Rt+Mn8v==Uh"


async def doctor(*options: str, cwd: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "offhook", "doctor", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
    )
    async with asyncio.timeout(120):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def findings(*options: str, cwd: Path) -> list[dict[str, Any]]:
    code, out = await doctor("--json", *options, cwd=cwd)
    body = json.loads(out)
    assert code == (1 if body["faults"] else 0)
    found: list[dict[str, Any]] = body["findings"]
    return found


def of(found: list[dict[str, Any]], check: str) -> list[dict[str, Any]]:
    return [one for one in found if one["check"] == check]


def write(folder: Path, text: str) -> Path:
    path = folder / "offhook.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def healthy(folder: Path) -> str:
    return f"""
        [server]
        http = "127.0.0.1:{free_port()}"
        https = ""
        data_dir = "{folder / "data"}"
        [sip]
        listen = ["udp:127.0.0.1:{free_port()}", "tcp:127.0.0.1:{free_port()}", "tls:127.0.0.1:{free_port()}"]
        [calls]
        max_concurrent = 10
        [engine]
        kind = "scripted"
        [[projects]]
        id = "proj_x"
        api_keys = ["{KEY}"]
        [[projects.trunks]]
        name = "loopback"
        sources = ["127.0.0.0/8"]
    """


async def test_a_healthy_configuration_and_a_call_over_each_transport(tmp_path: Path) -> None:
    config = write(tmp_path, healthy(tmp_path))
    code, out = await doctor("--config", str(config), cwd=tmp_path)
    assert code == 0, out
    for transport in ("udp", "tcp", "tls"):
        assert f"a call over {transport}: answered in" in out
    assert "FAULT" not in out
    assert not (tmp_path / "data").exists(), "it leaves nothing behind"


async def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    config = write(tmp_path, '[sip]\nlisn = []\n[media]\nports = "x"\n')
    code, out = await doctor("--config", str(config), cwd=tmp_path)
    assert code == 1
    assert "sip.lisn: no such key" in out
    assert "first-last" in out
    code, out = await doctor("--config", "nowhere.toml", cwd=tmp_path)
    assert code == 1
    assert "no such file" in out


async def test_much_that_is_wrong_at_once(tmp_path: Path) -> None:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    data = tmp_path / "data"
    data.mkdir()
    (data / "offhook.db").write_text("no database, but some text that is long enough to be looked at")
    (tmp_path / "cert.pem").write_text("no certificate")
    config = write(
        tmp_path,
        f"""
        [server]
        http = "127.0.0.1:{taken.getsockname()[1]}"
        https = ""
        data_dir = "{data}"
        [tls]
        cert = "{tmp_path / "cert.pem"}"
        key = "{tmp_path / "key.pem"}"
        [sip]
        listen = ["udp:0.0.0.0:{free_port()}", "tcp:203.0.113.7:5060"]
        public_host = "sip.nowhere.invalid"
        [media]
        bind = "0.0.0.0"
        public_ip = "10.9.9.9"
        [engine]
        kind = "scripted"
        [[projects]]
        id = "proj_x"
        api_keys = ["{KEY}"]
        [[projects.trunks]]
        name = "carrier"
        sources = ["198.51.100.0/24"]
        [[projects.webhooks]]
        url = "http://127.0.0.1:1/hook"
        secret = "{SECRET}"
        """,
    )
    found = await findings("--config", str(config), "--no-call", cwd=tmp_path)
    taken.close()
    faults = {(one["check"], one["text"]) for one in found if one["level"] == "fault"}
    for check, text in (
        ("ports", "is taken by"),
        ("ports", "does not have that address"),
        ("addresses", "10.9.9.9, not a public address"),
        ("dns", "sip.nowhere.invalid has no address"),
        ("certificate", "cannot be used"),
        ("database", "not a database"),
        ("webhooks", "Connection refused"),
    ):
        assert any(one == check and text in said for one, said in faults), (check, text, faults)
    assert all(one["remedy"] for one in found if one["level"] != "ok")


async def test_no_secret_is_shown(tmp_path: Path) -> None:
    lines = f'[[projects.webhooks]]\nurl = "http://127.0.0.1:1/"\nsecret = "{SECRET}"\n'
    config = write(tmp_path, healthy(tmp_path) + lines)
    shown = ""
    for options in (("--json",), (), ("--send",)):
        _, out = await doctor("--config", str(config), "--no-call", *options, cwd=tmp_path)
        shown += out
    for secret in (KEY, SECRET, SECRET.removeprefix("whsec_")):
        assert secret not in shown


async def test_what_was_made_by_api_is_looked_at_like_the_configuration(tmp_path: Path) -> None:
    """A trunk from outside, and an endpoint where nobody listens and none made by API may point."""
    (tmp_path / "data").mkdir()
    database = await Database.open("sqlite", tmp_path / "data")
    trunk = {"name": "carrier", "sources": ["198.51.100.0/24"]}
    assert await StoredTenants(database).save_project("proj_made", "", 1.0, {"trunks": [trunk]})
    endpoint = WebhookEndpoint("wh_1", "https://127.0.0.1:1/", (SECRET,), configured=False)
    assert await StoredEndpoints(database).save("proj_made", endpoint)
    await database.close()
    config = write(tmp_path, healthy(tmp_path))
    found = await findings("--config", str(config), "--no-call", cwd=tmp_path)
    assert "1 project, 1 webhook endpoint" in of(found, "projects")[0]["text"]
    assert "carrier (proj_made)" in of(found, "addresses")[0]["text"]
    (tried,) = of(found, "webhooks")
    assert "proj_made, https://127.0.0.1:1/" in tried["text"]
    assert "webhooks.allow_loopback" in tried["remedy"]


@pytest.fixture
def config_of(node: Node, tmp_path: Path) -> Path:
    """A configuration with the addresses that a running node has."""
    seat = next(seat for seat in node.seats if not seat.taken)
    udp = node.sip["udp"]
    text = f"""
        [server]
        http = "{node.base_url.removeprefix("http://").removesuffix("/v1")}"
        https = ""
        data_dir = "{node.data_dir}"
        [sip]
        listen = ["udp:{udp[0]}:{udp[1]}"]
        [media]
        ports = "{node.media_ports[0]}-{node.media_ports[1]}"
        [engine]
        kind = "scripted"
        [[projects]]
        id = "{seat.project}"
        [[projects.trunks]]
        name = "loopback"
        sources = ["127.0.0.0/8"]
        [[projects.webhooks]]
        url = "{seat.url}"
        secret = "{seat.secret}"
    """
    return write(tmp_path, text)


async def test_beside_a_running_node_its_ports_are_well(
    config_of: Path, app: DeveloperApp, tmp_path: Path
) -> None:
    found = await findings("--config", str(config_of), "--no-call", cwd=tmp_path)
    ports = of(found, "ports")
    assert {one["level"] for one in ports} == {"ok"}, ports
    assert sum("held by the node that runs" in one["text"] for one in ports) == 2
    assert [one["level"] for one in of(found, "node")][:1] == ["ok"]
    assert [one["level"] for one in of(found, "database")] == ["ok", "ok"]
    assert "--send" in of(found, "webhooks")[0]["remedy"]
    assert not app.webhooks, "nothing was sent"


async def test_a_test_event_is_sent_when_asked_for_and_is_signed(
    config_of: Path, app: DeveloperApp, tmp_path: Path
) -> None:
    found = await findings("--config", str(config_of), "--no-call", "--send", cwd=tmp_path)
    webhook = await app.next("webhook.test")
    body = json.loads(webhook.body)
    assert body["data"] == {"test": True, "sent_by": "offhook doctor"}
    headers = {name.lower(): value for name, value in dict(webhook.headers).items()}
    signature = sign(
        (app.seat.secret,),
        webhook_id=headers["webhook-id"],
        timestamp=int(headers["webhook-timestamp"]),
        body=webhook.body,
    )
    assert headers["webhook-signature"] == signature
    assert "to a test event" in of(found, "webhooks")[0]["text"]


@pytest.mark.models
async def test_a_language_model_that_does_not_answer(tmp_path: Path) -> None:
    brain = 'kind = "chat_completions"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\napi_key = "brain-key-0123"'
    text = healthy(tmp_path).replace('kind = "scripted"', f'kind = "local"\n[engine.brain]\n{brain}')
    found = await findings("--config", str(write(tmp_path, text)), "--no-call", cwd=tmp_path)
    asked = [one for one in of(found, "models") if "language model" in one["text"]]
    assert [one["level"] for one in asked] == ["fault"]
    assert "http://127.0.0.1:1/v1/models" in asked[0]["text"]
    assert "engine.brain.base_url" in asked[0]["remedy"]
    assert "brain-key-0123" not in json.dumps(found)
