"""One call over each transport, through a node that lives for as long; and the models, tried out."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offhook.audio import tones
from offhook.config import ENGINES, Config
from offhook.sip.transport import parse_listen
from offhook.sip.uri import SipUri

from ..phone.phone import CallPlan, Phone, PhoneError
from ..phone.sound import Utterance
from .facts import ModelFacts, RehearsalFacts

if TYPE_CHECKING:
    from offhook.app import Node
    from offhook.realtime.engine import EngineFactory

__all__ = ["rehearse", "try_models"]

SENTENCE = "Hello, this is a test of the telephone line."
_PROJECT = "proj_doctor"
_CALL_S = 30.0


async def rehearse(config: Config) -> list[RehearsalFacts]:
    """Call once over each transport of `sip.listen`. Nothing of the configured node, its data and its apps is used."""
    from offhook.app import Node, StartError

    transports = list(dict.fromkeys(parse_listen(item).transport for item in config.sip.listen))
    with tempfile.TemporaryDirectory(prefix="offhook-doctor-") as folder:
        try:
            node = Node(_throw_away(config, transports, Path(folder)))
            await node.start()
        except (StartError, ValueError) as error:
            return [RehearsalFacts(" and ".join(transports), error=str(error))]
        try:
            ports = dict(_sip_ports(node.ready_line))
            found = await asyncio.gather(*(_call(transport, ports[transport]) for transport in transports))
            heard = _heard(node)
            return [replace(one, packets_in=heard) for one in found]
        finally:
            node.hurry()
            await node.stop()


def _throw_away(config: Config, transports: list[str], folder: Path) -> Config:
    """Return the configuration of a node on loopback and free ports: the certificate and SRTP are as configured."""
    srtp = next((project.srtp for project in config.projects), "optional")
    project = {
        "id": _PROJECT,
        "api_keys": [],
        "srtp": "optional" if srtp == "required" else srtp,
        "fallback": {"accept": {"type": "realtime", "instructions": "Say hello."}},
        "trunks": [{"name": "doctor", "sources": ["127.0.0.0/8"]}],
    }
    return Config.model_validate(
        {
            "server": {
                "http": "",
                "https": "",
                "data_dir": folder,
                "database": "none",
                "shutdown_grace_s": 0,
                "node": "doctor",
            },
            "tls": config.tls.model_dump(),
            "sip": {"listen": [f"{transport}:127.0.0.1:0" for transport in transports]},
            "media": {"bind": "127.0.0.1", "ports": _free_ports()},
            "engine": {"kind": "scripted"},
            "projects": [project],
        }
    )


def _free_ports() -> str:
    """Return a range below the system's own that most likely nobody uses."""
    first = 10_000 + 2 * (time.monotonic_ns() // 1000 % 4_000)
    return f"{first}-{first + 38}"


def _sip_ports(ready_line: str) -> list[tuple[str, int]]:
    found = []
    for word in ready_line.splitlines()[-1].split():
        transport, _, rest = word.partition(":")
        if transport in ("udp", "tcp", "tls"):
            found.append((transport, int(rest.rpartition(":")[2])))
    return found


async def _call(transport: str, port: int) -> RehearsalFacts:
    # The certificate is judged elsewhere, by its names; here it is shown by 127.0.0.1.
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    said = Utterance("a tone", tones.tone((440.0,), 600))
    began, answered_at = time.monotonic(), list[float]()

    def report(event: str, **details: Any) -> None:
        if event == "media":
            answered_at.append(time.monotonic())

    plan = CallPlan(
        uri=SipUri.parse(f"sip:{_PROJECT}@127.0.0.1:{port};transport={transport}"),
        turns=(said,),
        caller="doctor",
        tls=trusting,
        hangup_after_s=0.2,
        gap_s=0.3,
        patience_s=2.0,
        max_s=_CALL_S,
    )
    try:
        outcome = await Phone(plan, report).call()
    except PhoneError as error:
        return RehearsalFacts(transport, error=str(error))
    return RehearsalFacts(
        transport=transport,
        answered=outcome.answered,
        orderly=outcome.orderly,
        cause=outcome.cause,
        heard_s=outcome.heard_s,
        replied=bool(outcome.response_ms),
        setup_ms=(answered_at[0] - began) * 1000 if answered_at else 0.0,
    )


def _heard(node: Node) -> int:
    """Return how many RTP packets have come to a node whose calls are over."""
    counted = next(one for one in node.metrics.counted() if one.name == "offhook_rtp_packets")
    return int(counted.values.get(("in",), 0))


async def try_models(config: Config) -> list[ModelFacts]:
    """Load every engine that the configuration can lead to, and let the embedded voice hear itself."""
    with tempfile.TemporaryDirectory(prefix="offhook-doctor-") as folder:
        return await _try_models(config, Path(folder))


def _prepared(config: Config, folder: Path) -> Path:
    """Return where models are prepared already, or a place of our own: nothing may be left in the node's."""
    data_dir = config.server.data_dir
    return data_dir if (data_dir / "models").is_dir() else folder


async def _try_models(config: Config, folder: Path) -> list[ModelFacts]:
    from offhook.node_engines import create_engine

    kinds = {served for served in config.models.values() if isinstance(served, str)} & set(ENGINES)
    if "*" not in config.models:
        kinds.add(config.engine.kind)
    found = [
        ModelFacts("upstream", skipped=f"{name} is asked when a call comes") for name in config.upstreams
    ]
    found += _try_sentences(config)
    for kind in sorted(kinds):
        try:
            factory = create_engine(kind, config.engine, _prepared(config, folder))
            if kind != "local":
                found.append(ModelFacts(kind, skipped="has no models"))
                continue
            began = time.monotonic()
            await factory.start()
        except Exception as error:  # whatever a library raises while it loads is what this is for
            found.append(ModelFacts(kind, error=str(error) or repr(error)))
            continue
        try:
            found.append(await _hear_itself(factory, time.monotonic() - began))
        finally:
            await factory.close()
    return found


def _try_sentences(config: Config) -> list[ModelFacts]:
    """A sentence that cannot be read stops the start, so it is looked at whatever serves the calls."""
    from offhook.app import StartError
    from offhook.node_engines import load_sentence
    from offhook.realtime.engines.upstream.hold import load_failure_sentence, load_hold_sentence

    found = []
    for key, path, load in (
        ("hold_sentence", config.engine.hold_sentence, load_hold_sentence),
        ("failure_sentence", config.engine.failure_sentence, load_failure_sentence),
    ):
        try:
            load_sentence(key, path, load)
        except StartError as error:
            found.append(ModelFacts("sentence", error=str(error)))
    return found


async def _hear_itself(factory: EngineFactory, load_s: float) -> ModelFacts:
    from offhook.realtime.engines.local.engine import LocalFactory

    assert isinstance(factory, LocalFactory)
    assert factory.speakers is not None
    assert factory.transcribers is not None
    speak = {"type": "speak", "text": SENTENCE, "speed": 1.0, "format": "audio/pcmu"}
    hear = {"type": "transcribe", "format": "audio/pcmu", "language": "en", "prompt": ""}
    sound, spoken_ms, heard_ms, text = b"", 0.0, 0.0, ""
    try:
        async with asyncio.timeout(60):
            async for message in factory.speakers.messages(speak):
                sound += message.body
                spoken_ms = message.header.get("ms", 0.0)
            async for message in factory.transcribers.messages(hear, sound):
                heard_ms, text = message.header.get("ms", 0.0), message.header.get("text", "")
    except Exception as error:
        return ModelFacts("local", error=f"it loaded, but failed at work: {error}")
    return ModelFacts(
        "local",
        load_s=load_s,
        speak_ms=spoken_ms,
        hear_ms=heard_ms,
        seconds=len(sound) / 8000,
        said=SENTENCE,
        heard=text,
    )
