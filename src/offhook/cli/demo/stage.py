"""Where the demo plays: folders, free ports, a configuration, and the files it needs."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from offhook import ids

__all__ = ["Stage", "StageError", "find_app", "set_up"]

TARGET = "tel:+15550100"
PROJECT = "proj_demo"
_HOST = "127.0.0.1"
_MEDIA_PORTS = 40


class StageError(Exception):
    """The demo cannot be set up; the message says why and what would do."""


@dataclass(frozen=True, slots=True)
class Stage:
    folder: Path
    app_file: Path
    transport: str
    http_port: int
    sip_port: int
    tls_port: int
    app_port: int
    api_key: str
    webhook_secret: str

    @property
    def config(self) -> Path:
        return self.folder / "offhook.toml"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def recording(self) -> Path:
        return self.folder / "call.wav"

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self.http_port}"

    @property
    def ca(self) -> Path:
        return self.folder / "server" / "tls" / "ca.pem"

    def sip_uri(self, transport: str | None = None) -> str:
        transport = transport or self.transport
        port = self.tls_port if transport == "tls" else self.sip_port
        return f"sip:{PROJECT}@{_HOST}:{port};transport={transport}"

    def app_environment(self) -> dict[str, str]:
        """Return what the example app is told: three variables of the `openai` package's, and two of its own."""
        return os.environ | {
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": self.api_key,
            "OPENAI_WEBHOOK_SECRET": self.webhook_secret,
            "PORT": str(self.app_port),
            "TRANSFER_TO": TARGET,
            "PYTHONUNBUFFERED": "1",
        }


def set_up(folder: Path, transport: str, app_file: Path) -> Stage:
    """Make the folders and write the configuration. What an earlier demo left is removed, models excepted."""
    for name in ("logs", "server"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "call.wav").unlink(missing_ok=True)
    http, https, app = _free_ports(socket.SOCK_STREAM, 3)
    sip, tls = _free_sip_ports()
    stage = Stage(folder, app_file, transport, http, sip, tls, app, ids.api_key(), ids.webhook_secret())
    stage.logs.mkdir(parents=True)
    stage.config.write_text(_toml(stage, https))
    return stage


def find_app(given: Path | None) -> Path:
    """Return the example app. Raises `StageError` when this is no checkout and none was named."""
    if given is not None:
        if not given.is_file():
            raise StageError(f"--app: {given}: no such file")
        return given
    package = Path(__file__).resolve().parents[2]
    for candidate in (
        package.parents[1] / "examples/screening/app.py",
        package / "examples/screening/app.py",
    ):
        if candidate.is_file():
            return candidate
    raise StageError("the example app is not here: run the demo from a checkout, or name it with --app")


def _toml(stage: Stage, https: int) -> str:
    first = _media_range()
    text = json.dumps  # a JSON string is a TOML string
    return f"""# Written by `offhook demo`; offhook serve --config {stage.config} starts the same node.
[server]
http = "{_HOST}:{stage.http_port}"
https = "{_HOST}:{https}"
data_dir = {text(str(stage.folder / "server"))}
shutdown_grace_s = 1
[sip]
listen = ["udp:{_HOST}:{stage.sip_port}", "tcp:{_HOST}:{stage.sip_port}", "tls:{_HOST}:{stage.tls_port}"]
[media]
ports = "{first}-{first + _MEDIA_PORTS - 1}"
[engine]
kind = "local"
model_dir = {text(str(stage.models))}
[[projects]]
id = "{PROJECT}"
api_keys = [{text(stage.api_key)}]
[[projects.trunks]]
name = "loopback"
sources = ["127.0.0.0/8"]
[[projects.webhooks]]
url = "http://{_HOST}:{stage.app_port}/"
secret = {text(stage.webhook_secret)}
"""


def _free_ports(kind: socket.SocketKind, count: int) -> list[int]:
    sockets = [socket.socket(socket.AF_INET, kind) for _ in range(count)]
    try:
        for one in sockets:
            one.bind((_HOST, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _free_sip_ports() -> tuple[int, int]:
    """Return a port that is free on UDP and TCP, and one for TLS."""
    for _ in range(50):
        port, tls = _free_ports(socket.SOCK_STREAM, 2)
        if _is_free(port):
            return port, tls
    raise StageError(f"no port on {_HOST} is free on both UDP and TCP")


def _media_range() -> int:
    for _ in range(100):
        first = random.randrange(20_000, 32_000, 2)  # noqa: S311 - no secret
        if all(_is_free(port) for port in range(first, first + _MEDIA_PORTS)):
            return first
    raise StageError(f"no {_MEDIA_PORTS} free UDP ports in a row on {_HOST} between 20000 and 32000")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True
