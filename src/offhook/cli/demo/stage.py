"""Where the demo plays: nodes and their configurations, the app's port, and the files it needs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from offhook import ids

from .site import HOST, Site, StageError, free_ports, free_sip_ports, media_range

__all__ = ["UPSTREAMS", "Stage", "StageError", "find_app", "set_up"]

TARGET = "tel:+15550100"
PROJECT = "proj_demo"
UPSTREAMS = ("voice", "spare")
"Nodes that may be the voice."
_NODES = ("server", *UPSTREAMS)


@dataclass(frozen=True, slots=True)
class Stage:
    folder: Path
    app_file: Path
    transport: str
    node: Site
    "The one that is called."
    upstreams: tuple[Site, ...]
    "Nodes that are its voice. None: its embedded one."
    sip_port: int
    tls_port: int
    app_port: int
    webhook_secret: str

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
    def messages(self) -> Path:
        return self.folder / "messages"

    def sip_uri(self, transport: str | None = None) -> str:
        transport = transport or self.transport
        port = self.tls_port if transport == "tls" else self.sip_port
        return f"sip:{PROJECT}@{HOST}:{port};transport={transport}"

    def app_environment(self) -> dict[str, str]:
        """Return what the example app is told: three variables of the `openai` package's, and three of its own."""
        return os.environ | {
            "OPENAI_BASE_URL": f"{self.node.url}/v1",
            "OPENAI_API_KEY": self.node.api_key,
            "OPENAI_WEBHOOK_SECRET": self.webhook_secret,
            "PORT": str(self.app_port),
            "TRANSFER_TO": TARGET,
            "MESSAGES": str(self.messages),
            "PYTHONUNBUFFERED": "1",
        }


def set_up(folder: Path, transport: str, app_file: Path, upstreams: Sequence[str] = ()) -> Stage:
    """
    Make the folders and write the configurations. What an earlier demo left is removed, models excepted.

    `upstreams` are the names of the nodes that are the voice, in the order in which they are tried.
    """
    for name in ("logs", "messages", *_NODES):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / f"{name}.toml").unlink(missing_ok=True)
    (folder / "call.wav").unlink(missing_ok=True)
    (app_port,) = free_ports(1)
    sip_port, tls_port = free_sip_ports()
    node, *others = Site.choose(("server", *upstreams), folder)
    stage = Stage(
        folder=folder,
        app_file=app_file,
        transport=transport,
        node=node,
        upstreams=tuple(others),
        sip_port=sip_port,
        tls_port=tls_port,
        app_port=app_port,
        webhook_secret=ids.webhook_secret(),
    )
    stage.logs.mkdir(parents=True)
    voice = _upstreams(stage) if stage.upstreams else _embedded(stage)
    stage.node.configure(_telephony(stage), voice, _project(stage.node), _app(stage))
    for site in stage.upstreams:
        site.configure("[sip]\nlisten = []\n", _embedded(stage), _project(site))
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


# The tables of the configurations. A JSON string is a TOML string.


def _telephony(stage: Stage) -> str:
    sip, tls = stage.sip_port, stage.tls_port
    return f"""[sip]
listen = ["udp:{HOST}:{sip}", "tcp:{HOST}:{sip}", "tls:{HOST}:{tls}"]
[media]
ports = "{media_range()}"
"""


def _embedded(stage: Stage) -> str:
    return f"""[engine]
kind = "local"
model_dir = {json.dumps(str(stage.models))}
"""


def _upstreams(stage: Stage) -> str:
    """Name the nodes that are the voice, and put their keys where the configuration says."""
    tables = ""
    for site in stage.upstreams:
        site.data_dir.mkdir(parents=True)
        key = site.data_dir / "key"
        key.touch(mode=0o600)
        key.write_text(site.api_key)
        tables += f"""[upstreams.{site.name}]
url = "{site.https_url}/v1"
kind = "offhook"
api_key_file = {json.dumps(str(key))}
ca_file = {json.dumps(str(site.ca))}
"""
    names = json.dumps([site.name for site in stage.upstreams])
    return f"""{tables}[models]
"*" = {names}
"""


def _project(site: Site) -> str:
    return f"""[[projects]]
id = "{PROJECT}"
api_keys = [{json.dumps(site.api_key)}]
"""


def _app(stage: Stage) -> str:
    """Say, of the project above, who may call it and where its app is."""
    return f"""[[projects.trunks]]
name = "loopback"
sources = ["127.0.0.0/8"]
[[projects.webhooks]]
url = "http://{HOST}:{stage.app_port}/"
secret = {json.dumps(stage.webhook_secret)}
events = ["realtime.call.incoming", "realtime.call.recording.saved"]
"""
